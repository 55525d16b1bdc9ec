"""Repetition: what counts as one, and how far a sequence goes back."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from nanochat.repetition import (
    PASSAGE,
    SHORT_REPETITION,
    WINDOWS,
    RepeatedPassages,
    RepetitionTracker,
    Returns,
    mask_repetition,
)


def test_repetition_continues_if_no_other_token_is_left():
    trackers = [tracker_after([5] * 30), None]
    logits = torch.zeros(2, 6)
    assert mask_repetition(logits, trackers).tolist() == [[0, 0, 0, 0, 0, -math.inf], [0] * 6]
    logits[0, :5] = -math.inf
    assert mask_repetition(logits, trackers).equal(logits)


@given(st.integers(1, 30), st.integers(20, 80), st.integers(2, 5), st.lists(st.integers(0, 1), max_size=30))
def test_repeating_tokens_follow_their_definition(length, count, times, begun):
    block = (begun or [0]) * length
    tokens = begun + (block[:length] * count)[:count]
    expected = {token for token in (0, 1) if in_loop([*tokens, token], times)}
    assert set(tracker_after(tokens, times).repeating_tokens()) == expected


def tracker_after(tokens: list[int], times: int = 4) -> RepetitionTracker:
    tracker = RepetitionTracker(times)
    for token in tokens:
        tracker.append(token)
    return tracker


def in_loop(tokens: list[int], times: int) -> bool:
    """Return whether the last tokens repeat at some distance for longer than allowed: the definition, slowly."""
    for distance in range(1, len(tokens)):
        most = max(times * distance, SHORT_REPETITION)
        last = tokens[-most - 1 :]
        if len(last) > most and last[distance:] == last[:-distance]:
            return True
    return False


# -----------------------------------------------------------------------------
# Going back


def repeated_share(tokens: list[int], window: int) -> float:
    """Return how many of the last passages came before among them: the definition, slowly."""
    passages = [tuple(tokens[end - PASSAGE : end]) for end in range(PASSAGE, len(tokens) + 1)][-window:]
    return (len(passages) - len(set(passages))) / window


@given(st.integers(1, 20), st.integers(1, 3), st.lists(st.integers(0, 3), max_size=60))
def test_repeated_passages_follow_their_definition(window, kinds, tokens):
    repeated = RepeatedPassages(window)
    for end, token in enumerate(tokens, start=1):
        repeated.append(token % kinds)
        assert repeated.share() == repeated_share([token % kinds for token in tokens[:end]], window)


def test_a_sequence_that_keeps_repeating_itself_goes_back_farther_each_time():
    returns, distances, length, most = Returns(0.5, 2000), [], 0, 2000
    for token in [*range(300), *[7] * 2000]:
        returns.append(token)
        length += 1
        if distance := returns.distance(length):
            distances.append(distance)
            most -= min(distance, length)
            length = max(0, length - distance)
    assert distances[:4] == [64, 128, 256, 512]
    assert -distances[-1] < most <= 0


def test_a_sequence_that_has_got_on_goes_back_as_far_as_it_repeats_itself():
    returns = Returns(0.5, 1000)
    for length in (100, 300, 500):
        for token in [7] * 64:
            returns.append(token)
        assert returns.distance(length) == WINDOWS[0]
        returns.begin_again()
        assert returns.distance(length) == 0

"""Memorization: the longest copied spans are those that an exhaustive search finds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_eval.memorization import known_steps, longest_copied_spans, novel_step_shares


def slow_twin(samples, training) -> list[int]:
    """Try every span of every sample, longest first."""
    text = " " + " ".join(map(str, training)) + " "
    runs = []
    for sample in samples:
        words = list(map(str, sample))
        runs.append(
            next(
                length
                for length in range(len(words), -1, -1)
                if not length
                or any(
                    f" {' '.join(words[start : start + length])} " in text for start in range(len(words) - length + 1)
                )
            )
        )
    return runs


def arrays(sequences):
    return [np.array(sequence, np.int16) for sequence in sequences]


few = st.integers(1, 3)  # so few tokens that long spans occur by chance
samples = st.lists(st.lists(few, max_size=40), max_size=5)


@given(samples, st.lists(st.integers(0, 3), max_size=200))
def test_spans_equal_those_of_the_slow_twin(samples, training):
    spans = longest_copied_spans(arrays(samples), np.array(training, np.int16))
    assert spans.dtype == np.int64 and spans.tolist() == slow_twin(samples, training)


@given(st.lists(st.lists(few, min_size=1, max_size=30), min_size=1, max_size=5), st.data())
def test_a_copied_span_is_found(documents, data):
    training = np.array([token for document in documents for token in (*document, 0)], np.int16)
    document = data.draw(st.sampled_from(documents))
    begin = data.draw(st.integers(0, len(document) - 1))
    copy = document[begin : begin + data.draw(st.integers(1, 30))]
    sample = [9, *copy, 9]
    assert longest_copied_spans(arrays([sample]), training).tolist() == [len(copy)]


def test_a_span_stays_within_one_document():
    training = np.array([5, 6, 7, 0, 8, 9, 0], np.int16)
    assert longest_copied_spans(arrays([[6, 7, 8, 9], [5, 6, 7], [1], []]), training).tolist() == [2, 3, 0, 0]


def test_highest_tokens_and_long_repetitions_keep_their_order():
    training = np.array([32767] * 700 + [0] + [32766] * 10, np.int16)
    samples = arrays([[32767] * 600, [32767] * 300 + [32766] * 20, [32766] * 9])
    assert longest_copied_spans(samples, training).tolist() == [600, 300, 9]


def test_empty_samples_and_training_share_nothing():
    assert longest_copied_spans([], np.array([1, 2])).tolist() == []
    assert longest_copied_spans(arrays([[1, 2]]), np.array([], np.int16)).tolist() == [0]
    assert longest_copied_spans(arrays([[]]), np.array([1, 2])).tolist() == [0]


@pytest.mark.parametrize("sample, message", [([1, 0, 1], "contains the padding token"), ([-1], "must not be negative")])
def test_invalid_tokens_are_refused(sample, message):
    with pytest.raises(ValueError, match=message):
        longest_copied_spans(arrays([sample]), np.array([1, 2, 0]))


def test_a_step_with_reordered_keys_is_not_novel():
    known = known_steps([{"jobs": {"a": {"steps": [{"name": "Build", "run": "make"}, {"run": "make test"}]}}}])
    sample = {"jobs": {"b": {"steps": [{"run": "make", "name": "Build"}]}, "c": {"steps": [{"run": "make"}]}}}
    assert novel_step_shares([sample, {"jobs": {}}, None], known) == [0.5]

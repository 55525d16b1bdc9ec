"""Repetition: small models repeat themselves, exactly or with small changes, and then do not find the end."""

import math
from collections import Counter, deque

import numpy as np
import torch

LONGEST_BLOCK = 256  # tokens of a block whose exact repetition is noticed
SHORT_REPETITION = 24  # tokens: a repetition up to this length in all does not count
PASSAGE = 4  # tokens
WINDOWS = 64, 128, 256  # how many passages are compared


class RepetitionTracker:
    """Find the tokens by which a sequence would repeat itself too often.

    That is: its last tokens are one block, of up to LONGEST_BLOCK tokens, more than `max_repeats` times in a row, and
    more than SHORT_REPETITION tokens in all.

    >>> tracker = RepetitionTracker(4)
    >>> for token in [7] + [1, 2, 3, 4, 5, 6] * 4:
    ...     tracker.append(token)
    >>> tracker.repeating_tokens()
    [1]
    """

    def __init__(self, max_repeats: int):
        lengths = np.arange(1, LONGEST_BLOCK + 1)  # of blocks; the arrays have an entry for each
        self._limit = np.maximum(max_repeats * lengths, SHORT_REPETITION) - lengths
        self._same = np.zeros(LONGEST_BLOCK, np.int64)  # how many of the last tokens equal the one a block earlier
        self._last = np.full(LONGEST_BLOCK, -1)  # the last tokens, the latest first

    def append(self, token: int):
        self._same = (self._same + 1) * (self._last == token)
        self._last[1:] = self._last[:-1]
        self._last[0] = token

    def repeating_tokens(self) -> list[int]:
        return self._last[self._same >= self._limit].tolist()


def mask_repetition(logits, trackers: list[RepetitionTracker | None]):
    """Set the logits (B, V) of tokens by which a row would repeat itself too often to -inf.

    A row that has no other tokens stays as it is.
    """
    repeating = [(row, token) for row, each in enumerate(trackers) if each for token in each.repeating_tokens()]
    if not repeating:
        return logits
    excluded = torch.zeros_like(logits, dtype=torch.bool)
    excluded[tuple(zip(*repeating))] = True
    masked = logits.masked_fill(excluded, -math.inf)
    return torch.where(masked.isneginf().all(dim=-1, keepdim=True), logits, masked)


class RepeatedPassages:
    """Count the repetitions at the end of a sequence: among its last passages of PASSAGE tokens, at most `window`, how
    many came before?

    >>> repeated = RepeatedPassages(64)
    >>> for token in [1, 2, 3, 4, 5, 6, 7, 8] * 9:
    ...     repeated.append(token)
    >>> repeated.share()    # of 64 passages 8 are new
    0.875
    """

    def __init__(self, window: int):
        self.window = window
        self._tokens, self._passages, self._counts = deque(maxlen=PASSAGE), deque(), Counter()

    def append(self, token: int):
        self._tokens.append(token)
        if len(self._tokens) < PASSAGE:
            return
        passage = tuple(self._tokens)
        self._passages.append(passage)
        self._counts[passage] += 1
        if len(self._passages) > self.window:
            oldest = self._passages.popleft()
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]

    def share(self) -> float:
        return (len(self._passages) - len(self._counts)) / self.window


class Returns:
    """Decide when a sequence goes back because it repeats itself, and how far.

    It repeats itself if more than a share of its last 64, 128 or 256 passages (WINDOWS) came before among them. With
    a share of 0.55, 5% of real workflows do so, and 98% of the samples that do not end. The sequence goes back to
    where these passages begin. If it soon repeats itself again, it goes back twice as far. When it has taken back
    `most` tokens in all, it goes on.
    """

    def __init__(self, share: float, most: int):
        self._share, self._left = share, most
        self._farthest, self._distance = -math.inf, 0  # from where it went back, and how far the last time
        self.begin_again()

    def begin_again(self):
        """Forget the tokens, but not the returns."""
        self._repeated = [RepeatedPassages(window) for window in WINDOWS]

    def append(self, token: int):
        for each in self._repeated:
            each.append(token)

    def distance(self, length: int) -> int:
        """Return how many of its `length` tokens the sequence should take back, usually 0."""
        distance = next((each.window for each in self._repeated if each.share() > self._share), 0)
        if not distance or self._left <= 0:
            return 0
        if length <= self._farthest + distance:
            distance = max(distance, 2 * self._distance)
        self._farthest, self._distance = max(length, self._farthest), distance
        self._left -= min(distance, length)
        return distance

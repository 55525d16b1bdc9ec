"""Define training windows: [position, tok_0 .. tok_{C-1}] with position = start // stride."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class WindowPlan:
    """How token sequences become windows.

    Windows start at 0, window_step, 2 * window_step ... until one reaches the end of the sequence. So a sequence of
    at most context_size tokens has one window, and the last token is always in a window.
    """

    context_size: int  # tokens in a window, C
    stride: int  # tokens per step of the position
    window_step: int  # tokens between two starts, a multiple of the stride, at most context_size
    vocab_size: int  # positions are token ids too, so they must stay below it
    pad_token: int

    def count(self, length):
        """Return the number of windows of a sequence of this many tokens, or of each of several (N,)."""
        beyond_first = np.maximum(0, length - self.context_size)
        return 1 + -(-beyond_first // self.window_step)

    def starts(self, length: int, max_windows: int | None = None) -> np.ndarray:
        """Return the starts of the windows of a sequence, int64 (n,).

        If there are more than max_windows, return that many of them, evenly spread, with the first and the last.
        """
        count = self.count(length)
        kept = min(count, max_windows or count)
        return np.linspace(0, count - 1, kept).round().astype(np.int64) * self.window_step

    def fits(self, length):
        """Return whether the last position is in the vocabulary, for one length or several (N,)."""
        return (self.count(length) - 1) * self.window_step // self.stride < self.vocab_size

    def remedy(self, length: int) -> str:
        """Return the error message for a sequence that does not fit, with the flags that help."""
        plan = self
        while not plan.fits(length):
            plan = replace(plan, stride=2 * plan.stride, window_step=2 * plan.window_step)
        context = f" and --context-size {plan.window_step}" if plan.window_step > self.context_size else ""
        fault = f"{length:,} tokens need positions beyond the vocabulary of {self.vocab_size:,}"
        return f"{fault}: use --stride {plan.stride}{context}"


def windows(tokens: np.ndarray, plan: WindowPlan, max_windows: int | None = None) -> np.ndarray:
    """Return the windows of a token sequence in order, int16 (n, C + 1), the last one padded."""
    starts = plan.starts(len(tokens), max_windows)
    rows = np.empty((len(starts), plan.context_size + 1), np.int16)
    rows[:, 0] = starts // plan.stride
    rows[:, 1:] = _slices(tokens, starts, plan.context_size, plan.pad_token)
    return rows


def schema_position_windows(positions: np.ndarray, plan: WindowPlan, max_windows: int | None = None) -> np.ndarray:
    """Return the schema position after each input of each window, int16 (n, C).

    `positions` (T + 1,) are those before the first of the T tokens and after each of them.
    """
    return _slices(positions, plan.starts(len(positions) - 1, max_windows), plan.context_size, 0)


def _slices(sequence: np.ndarray, starts: np.ndarray, length: int, padding: int) -> np.ndarray:
    """Return the slices of a sequence (T,) that begin at starts (n,), int16 (n, length), padded at the end."""
    padded = np.full(starts[-1] + length, padding, np.int16)
    padded[: len(sequence)] = sequence[: len(padded)]
    return np.lib.stride_tricks.sliding_window_view(padded, length)[starts]

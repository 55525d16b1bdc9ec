"""What a training window is: [position, tok_0 .. tok_{C-1}], position = start // stride."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class WindowPlan:
    """How token sequences become windows.

    Starts are 0, window_step, 2 * window_step ... until a window reaches the end of the sequence, so a
    sequence of at most context_size tokens gives one window and the last token is always in one.
    """

    context_size: int  # tokens in a window, C
    stride: int  # tokens for one step of the position
    window_step: int  # tokens from window to window, a multiple of the stride, at most context_size
    vocab_size: int  # positions share the ids of the vocabulary, so they must stay below it
    pad_token: int

    def count(self, length):
        """Windows of a sequence of this many tokens, or of each of several (N,)."""
        beyond_first = np.maximum(0, length - self.context_size)
        return 1 + -(-beyond_first // self.window_step)

    def starts(self, length: int, max_windows: int | None = None) -> np.ndarray:
        """Where the windows of a sequence start, int64 (n,). Of more than max_windows so many are kept, evenly
        spread, with the first and the last."""
        count = self.count(length)
        kept = min(count, max_windows or count)
        return np.linspace(0, count - 1, kept).round().astype(np.int64) * self.window_step

    def fits(self, length):
        """Whether the last window's position is in the vocabulary; for one sequence or several, as `count`."""
        return (self.count(length) - 1) * self.window_step // self.stride < self.vocab_size

    def remedy(self, length: int) -> str:
        """What to tell the owner of a sequence that does not fit."""
        plan = self
        while not plan.fits(length):
            plan = replace(plan, stride=2 * plan.stride, window_step=2 * plan.window_step)
        context = f" with --context-size {plan.window_step}" if plan.window_step > self.context_size else ""
        return (
            f"{length:,} tokens need positions beyond the vocabulary of {self.vocab_size:,}; "
            f"--stride {plan.stride}{context} would do"
        )


def windows(tokens: np.ndarray, plan: WindowPlan, max_windows: int | None = None) -> np.ndarray:
    """The windows of one token sequence, in order: int16 (n, C + 1), the last one padded."""
    starts = plan.starts(len(tokens), max_windows)
    rows = np.empty((len(starts), plan.context_size + 1), np.int16)
    rows[:, 0] = starts // plan.stride
    rows[:, 1:] = cut_out(tokens, starts, plan.context_size, plan.pad_token)
    return rows


def state_windows(states: np.ndarray, plan: WindowPlan, max_windows: int | None = None) -> np.ndarray:
    """Beside the windows of T tokens, of their states (T + 1,), the first of which is that before the first token:
    int16 (n, C), the state that each input of a window leads to, the position's too."""
    return cut_out(states, plan.starts(len(states) - 1, max_windows), plan.context_size, 0)


def cut_out(sequence: np.ndarray, starts: np.ndarray, length: int, padding: int) -> np.ndarray:
    """The parts of a sequence (T,) that begin at starts (n,): int16 (n, length), padded at the end."""
    padded = np.full(starts[-1] + length, padding, np.int16)
    padded[: len(sequence)] = sequence[: len(padded)]
    return np.lib.stride_tricks.sliding_window_view(padded, length)[starts]

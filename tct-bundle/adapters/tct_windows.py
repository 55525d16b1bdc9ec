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
    stride: int        # tokens for one step of the position
    window_step: int   # tokens from window to window, a multiple of the stride, at most context_size
    vocab_size: int    # positions share the ids of the vocabulary, so they must stay below it
    pad_token: int

    def count(self, length: int) -> int:
        """Windows of a sequence of this many tokens."""
        beyond_first = max(0, length - self.context_size)
        return 1 + -(-beyond_first // self.window_step)

    def targets(self, length: int) -> int:
        """Tokens to predict in all these windows together; a token counts in each window that holds it."""
        before_last = self.count(length) - 1
        return before_last * self.context_size + length - before_last * self.window_step

    def fits(self, length: int) -> bool:
        """Whether the last window's position is in the vocabulary."""
        return (self.count(length) - 1) * self.window_step // self.stride < self.vocab_size

    def remedy(self, length: int) -> str:
        """What to tell the owner of a sequence that does not fit."""
        plan = self
        while not plan.fits(length):
            plan = replace(plan, stride=2 * plan.stride, window_step=2 * plan.window_step)
        context = f" with --context-size {plan.window_step}" if plan.window_step > self.context_size else ""
        return (f"{length:,} tokens need positions beyond the vocabulary of {self.vocab_size:,}; "
                f"--stride {plan.stride}{context} would do")


def windows(tokens: np.ndarray, plan: WindowPlan) -> np.ndarray:
    """All windows of one token sequence, in order: int16 (n, C + 1), the last one padded."""
    count = plan.count(len(tokens))
    padded = np.full((count - 1) * plan.window_step + plan.context_size, plan.pad_token, np.int16)
    padded[:len(tokens)] = tokens
    rows = np.empty((count, plan.context_size + 1), np.int16)
    rows[:, 0] = np.arange(count) * plan.window_step // plan.stride
    rows[:, 1:] = np.lib.stride_tricks.sliding_window_view(padded, plan.context_size)[::plan.window_step]
    return rows

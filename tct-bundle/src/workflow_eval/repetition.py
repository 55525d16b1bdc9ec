"""Find loops: passages that a workflow repeats three times or more in a row, as no one writes them."""

import numpy as np

LONGEST_BLOCK = 256  # tokens of a passage whose repetition is noticed
COPIES = 3  # in a row
SHORT = 24  # tokens: a repetition up to this length in all is no loop


def has_loop(tokens: np.ndarray) -> bool:
    """Return whether a block of tokens (T,) comes at least COPIES times in a row, with more than SHORT tokens in all.

    Of 1,535 real held-out workflows, 4 have a loop.
    """
    for length in range(1, min(LONGEST_BLOCK, len(tokens) // COPIES) + 1):
        least = max((COPIES - 1) * length, SHORT + 1 - length)  # tokens in a row that equal those a block earlier
        if longest_run(tokens[length:] == tokens[:-length]) >= least:
            return True
    return False


def longest_run(flags: np.ndarray) -> int:
    """Return the length of the longest run of True in flags (N,)."""
    breaks = np.flatnonzero(np.concatenate([[True], ~flags, [True]]))
    return int(np.diff(breaks).max()) - 1

"""Bit masks of tokens, as constraint libraries write them: the lowest bit of the first byte is token 0, 1 = allowed."""

import numpy as np


def unpack_bitmask(bitmask: np.ndarray, vocab_size: int | None = None) -> np.ndarray:
    """Return which tokens are allowed, bool (..., V), for a mask (..., words) of integers. V defaults to all its bits.

    >>> unpack_bitmask(np.array([0b110], np.int32), 4).tolist()
    [False, True, True, False]
    """
    return np.unpackbits(bitmask.view(np.uint8), axis=-1, count=vocab_size, bitorder="little").view(bool)


def allowed_tokens(bitmask: np.ndarray) -> np.ndarray:
    """Return the ids of the tokens that one mask (words,) allows, in ascending order."""
    return np.flatnonzero(unpack_bitmask(bitmask))

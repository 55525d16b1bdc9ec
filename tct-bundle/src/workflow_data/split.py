"""Assign workflows to train, validation and test by a hash."""

import hashlib

import numpy as np

SPLITS = ("train", "val", "test")


def hash_fraction(group: bytes, seed: int) -> float:
    """Return the hash of a group as a number in [0, 1). It depends only on the group and the seed."""
    digest = hashlib.sha256(f"{seed}:".encode() + group).digest()
    return int.from_bytes(digest[:6]) / 2**48  # 48 bits are exact in a float and never round up to 1


def assign_splits(fractions: np.ndarray, train_split: float, test_split: float = 0.0) -> np.ndarray:
    """Return the split of each workflow, an index into SPLITS, int8 (N,), from the hashes of their groups (N,).

    The lowest train_split of [0, 1) is train, the highest test_split is test, the rest is validation. A small set may
    leave a split empty that has a share: such a split gets the group with the nearest hash.
    """
    borders = [0.0, train_split, 1 - test_split, 1.0]
    splits = np.searchsorted(borders[1:3], fractions, side="right").astype(np.int8)
    for split, (low, high) in enumerate(zip(borders, borders[1:])):
        if high - low < 1e-9 or (splits == split).any():
            continue
        groups = [np.unique(fractions[splits == other]) for other in range(len(SPLITS))]
        # Only train may take the last group of another split.
        movable = np.concatenate([group for group in groups if len(group) > 1 or SPLITS[split] == "train"] or [[]])
        if movable.size:
            nearest = movable[np.maximum(low - movable, movable - high).argmin()]
            splits[fractions == nearest] = split
    return splits

"""Divide workflows into train, validation and test by a hash."""

import hashlib

import numpy as np

SIDES = ("train", "val", "test")


# -----------------------------------------------------------------------------
# the split


def place_of(group: bytes, seed: int) -> float:
    """The place of a group in [0, 1), by its own hash alone: other groups, order and machine change nothing."""
    digest = hashlib.sha256(f"{seed}:".encode() + group).digest()
    return int.from_bytes(digest[:6]) / 2**48  # 48 bits: exact as a float, and never rounded up to 1


def choose_sides(places: np.ndarray, train_split: float, test_split: float = 0.0) -> np.ndarray:
    """The side of each workflow, an index into SIDES, int8 (N,), from the places of their groups (N,).

    The lowest train_split of [0, 1) trains, the highest test_split tests, what is between validates. One
    exception, for small sets: a side that is left empty though it has a share gets the group nearest to it.
    """
    borders = [0.0, train_split, 1 - test_split, 1.0]
    sides = np.searchsorted(borders[1:3], places, side="right").astype(np.int8)
    for side, (low, high) in enumerate(zip(borders, borders[1:])):
        if high - low < 1e-9 or (sides == side).any():
            continue
        groups = [np.unique(places[sides == other]) for other in range(len(SIDES))]
        # A group may leave a side that has another one; to train it may leave any.
        movable = np.concatenate([group for group in groups if len(group) > 1 or SIDES[side] == "train"] or [[]])
        if movable.size:
            nearest = movable[np.maximum(low - movable, movable - high).argmin()]
            sides[places == nearest] = side
    return sides

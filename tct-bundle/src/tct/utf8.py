"""Automata over characters -> automata over the bytes of their UTF-8."""

from bisect import bisect_right
from functools import lru_cache

import numpy as np

from tct.automata import DEAD, MAX_CODE_POINT, SURROGATES, Alphabet, Table

# What a later byte leads to: a class of characters, or another node. The first part has, for each of the 64 later
# bytes, an index into the second, or -1 if the byte is not allowed.
Node = tuple[tuple[int, ...], tuple["int | Node", ...]]

# (the bits of a first byte, how many first bytes follow, how many later bytes, the first code point that needs them)
_LEADS = ((0xC0, 32, 1, 0x80), (0xE0, 16, 2, 0x800), (0xF0, 8, 3, 0x10000))


def bytes_of(alphabet: Alphabet, table: Table) -> np.ndarray:
    """Return the table over bytes, int (B, 256), of a table over characters. Its first states are the same."""
    moves = np.array([[*row, DEAD] for row in table], np.int32)  # (S, classes + 1)
    rows = np.full((len(table), 256), DEAD, np.int32)  # (S, 256)
    rows[:, :128] = moves[:, list(map(alphabet.class_of, range(128)))]
    more: dict[bytes, int] = {}  # the row of a state within a character -> its number
    reached: dict[Node, np.ndarray] = {}  # node -> (S,): the state that its bytes lead to

    def states_of(node: int | Node) -> np.ndarray:
        """Return (S,): the state after the bytes that lead to a node, for each state before the character."""
        if not isinstance(node, tuple):
            return moves[:, node]
        if node not in reached:
            indices, below = node
            targets = np.stack([*map(states_of, below), moves[:, -1]], axis=1)[:, indices]  # (S, 64)
            alive = (targets != DEAD).any(axis=1)
            numbers = (more.setdefault(row.tobytes(), len(table) + len(more)) for row in targets[alive])
            reached[node] = np.full(len(table), DEAD, np.int32)
            reached[node][alive] = list(numbers)
        return reached[node]

    for byte, node in leads(alphabet).items():
        rows[:, byte] = states_of(node)
    within = np.full((len(more), 256), DEAD, np.int32)  # (B - S, 256)
    within[:, 0x80:0xC0] = np.frombuffer(b"".join(more), moves.dtype).reshape(-1, 64)
    return np.concatenate([rows, within])


@lru_cache(maxsize=1000)
def leads(alphabet: Alphabet) -> dict[int, Node]:
    """Return for each first byte of a longer character the node that it leads to."""
    found = {}
    for bits, n_leads, n_later, least in _LEADS:
        for lead in range(n_leads):
            node = _node(alphabet, lead << 6 * n_later, n_later, least)
            if node is not None:
                found[bits | lead] = node
    return found


def _node(alphabet: Alphabet, first: int, n_later: int, least: int) -> int | Node | None:
    """Return what the characters from `first` on lead to if `n_later` bytes are left, or None if there are none."""
    last = first + 64**n_later - 1
    if last < least or first > MAX_CODE_POINT or first in SURROGATES and last in SURROGATES:
        return None
    if n_later == 0:
        return alphabet.class_of(first)
    index = bisect_right(alphabet.starts, first)
    if (
        index == bisect_right(alphabet.starts, last)
        and least <= first
        and last <= MAX_CODE_POINT
        and (last < SURROGATES.start or first >= SURROGATES.stop)
    ):
        return (0,) * 64, (_node(alphabet, first, n_later - 1, least),)
    size = 64 ** (n_later - 1)
    nodes = [_node(alphabet, first + i * size, n_later - 1, least) for i in range(64)]
    below = tuple(dict.fromkeys(node for node in nodes if node is not None))
    return tuple(below.index(node) if node is not None else -1 for node in nodes), below

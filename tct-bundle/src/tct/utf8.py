"""Automata over characters -> automata over the bytes of their UTF-8."""

from bisect import bisect_right
from collections.abc import Hashable
from functools import lru_cache

import numpy as np

from tct.automata import DEAD, MAX_CODE_POINT, SURROGATES, Alphabet, Table

# What a later byte leads to: a class of characters, or another node. The first part has, for each of the 64 later
# bytes, an index into the second, or -1 if the byte is not allowed.
Node = tuple[tuple[int, ...], tuple["int | Node", ...]]

_LATER = range(0x80, 0xC0)  # the bytes of a character after the first
# (the bits of a first byte, how many first bytes follow, how many later bytes, the first code point that needs them)
_LEADS = ((0xC0, 32, 1, 0x80), (0xE0, 16, 2, 0x800), (0xF0, 8, 3, 0x10000))


def bytes_of(alphabet: Alphabet, table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Return the automaton over bytes of one over characters: the class of each byte, int (256,), and the table over
    classes, int (S, classes), with DEAD. Its first states are those of the automaton over characters.
    """
    nodes, class_of_byte, examples = byte_classes(alphabet)
    later = [index for index, byte in enumerate(examples) if byte in _LATER]
    moves = np.array([[*row, DEAD] for row in table], np.int32)  # (states over characters, classes of characters + 1)
    more: dict[bytes, int] = {}  # the row of a state within a character -> its number
    reached: dict[Node, np.ndarray] = {}  # node -> the state that it leads to, for each state before the character

    def states_of(node: int | Node) -> np.ndarray:
        if not isinstance(node, tuple):
            return moves[:, node]
        if node not in reached:
            indices, below = node
            columns = [indices[examples[index] - _LATER.start] for index in later]
            targets = np.stack([*map(states_of, below), moves[:, -1]], axis=1)[:, columns]
            alive = (targets != DEAD).any(axis=1)
            numbers = (more.setdefault(row.tobytes(), len(table) + len(more)) for row in targets[alive])
            reached[node] = np.full(len(table), DEAD, np.int32)
            reached[node][alive] = list(numbers)
        return reached[node]

    first = [alphabet.class_of(byte) if byte < 128 else nodes.get(byte, -1) for byte in examples]
    rows = np.stack(list(map(states_of, first)), axis=1)
    within = np.full((len(more), len(examples)), DEAD, np.int32)
    within[:, later] = np.frombuffer(b"".join(more), np.int32).reshape(-1, len(later))
    return class_of_byte, np.concatenate([rows, within])


@lru_cache(maxsize=1000)
def byte_classes(alphabet: Alphabet) -> tuple[dict[int, Node], np.ndarray, list[int]]:
    """Return the nodes of first bytes (see `leads`), the class of each byte, (256,), and an example of each class."""
    nodes = leads(alphabet)
    inner = list(dict.fromkeys(nodes.values()))
    for node in inner:
        inner += [below for below in node[1] if isinstance(below, tuple) and below not in inner]

    def signature(byte: int) -> Hashable:
        if byte in _LATER:
            return "later", *(indices[byte - _LATER.start] for indices, _ in inner)
        return alphabet.class_of(byte) if byte < 128 else nodes.get(byte)

    numbers: dict[Hashable, int] = {}
    classes = [numbers.setdefault(signature(byte), len(numbers)) for byte in range(256)]
    return nodes, np.array(classes), [classes.index(number) for number in range(len(numbers))]


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

"""Deterministic automata over characters: product, smallest automaton, finite languages.

Code points that no state tells apart are one class. So most automata have few classes, and a counter has one.
"""

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise

MAX_CODE_POINT = 0x10FFFF
SURROGATES = range(0xD800, 0xE000)  # no character has these code points
MAX_STATES = 20_000
DEAD = -1  # in place of a state: no string that fits starts so

Table = list[list[int]]  # state, class of the next character -> state. State 0 is the start.


class TooManyStates(ValueError):
    """An automaton needs more than MAX_STATES states."""


@dataclass(frozen=True)
class Alphabet:
    """The classes of code points: those from starts[i] to the next start are of the class classes[i]."""

    starts: tuple[int, ...]
    classes: tuple[int, ...]

    @classmethod
    def of(cls, cuts: Iterable[int], signature: Callable[[int], Hashable]) -> tuple["Alphabet", list]:
        """Return the alphabet in which code points with equal signatures are one class, and the signature of each
        class. Signatures change at `cuts` only. Classes are numbered in the order of code points: first ASCII."""
        starts = tuple(sorted({0, *(SURROGATES.stop if cut in SURROGATES else cut for cut in cuts)}))
        numbers: dict[Hashable, int] = {}
        classes = tuple(numbers.setdefault(signature(start), len(numbers)) for start in starts)
        return cls(starts, classes), list(numbers)

    @cached_property
    def _of_ascii(self) -> bytes:
        return bytes(self.class_of(byte) if byte < 128 else 0 for byte in range(256))

    def class_of(self, code_point: int) -> int:
        return self.classes[bisect_right(self.starts, code_point) - 1]

    def spell(self, text: str) -> Iterable[int]:
        """Return the classes of the characters of a text."""
        if text.isascii():
            return text.encode().translate(self._of_ascii)
        return [self.class_of(ord(char)) for char in text]

    def characters(self, at_most: int) -> list[str | None]:
        """Return for each class its characters, or None in their place if there are more than `at_most`."""
        found: list[list[range]] = [[] for _ in range(max(self.classes) + 1)]
        for (first, end), number in zip(pairwise((*self.starts, MAX_CODE_POINT + 1)), self.classes):
            found[number].append(range(first, min(end, SURROGATES.start)))
            found[number].append(range(max(first, SURROGATES.stop), end))
        return ["".join(map(chr, chain(*ranges))) if sum(map(len, ranges)) <= at_most else None for ranges in found]


@dataclass(frozen=True, eq=False)
class DFA:
    """A deterministic automaton. Its table has no DEAD state."""

    alphabet: Alphabet
    table: Table
    accepts: list[bool]

    def step(self, state: int, char: str) -> int:
        """Return the state after one more character."""
        return self.table[state][self.alphabet.class_of(ord(char))]

    def matches(self, text: str) -> bool:
        state, table = 0, self.table
        for number in self.alphabet.spell(text):
            state = table[state][number]
        return self.accepts[state]

    @cached_property
    def live(self) -> list[bool]:
        """For each state: does a string that is accepted continue from it?"""
        return co_reachable(self.table, self.accepts)


def co_reachable(table: Table, final: list[bool]) -> list[bool]:
    """Return for each state whether a `final` state can be reached from it."""
    leading: list[list[int]] = [[] for _ in table]
    for state, row in enumerate(table):
        for target in set(row):
            leading[target].append(state)
    reached, todo = list(final), [state for state, is_final in enumerate(final) if is_final]
    for state in todo:
        for source in leading[state]:
            if not reached[source]:
                reached[source] = True
                todo.append(source)
    return reached


def complete(alphabet: Alphabet, table: Table, accepts: list[bool]) -> DFA:
    """Return an automaton with one more state in place of DEAD."""
    n_classes = max(alphabet.classes) + 1
    rows = [[len(table) if target == DEAD else target for target in row] for row in table]
    return DFA(alphabet, [*rows, [len(table)] * n_classes], [*accepts, False])


def product(automata: list[DFA]) -> tuple[Alphabet, Table, list[tuple[bool, ...]]]:
    """Return the reachable part of the product: its alphabet and table, and for each state which automata accept."""
    cuts = set().union(*(dfa.alphabet.starts for dfa in automata))
    alphabet, classes = Alphabet.of(cuts, lambda start: tuple(dfa.alphabet.class_of(start) for dfa in automata))
    tables = [[[row[c] for c in columns] for row in dfa.table] for dfa, columns in zip(automata, zip(*classes))]
    start = (0,) * len(automata)
    numbers, order, rows = {start: 0}, [start], []
    for states in order:
        row = []
        for target in zip(*(table[at] for table, at in zip(tables, states))):
            number = numbers.setdefault(target, len(order))
            if number == len(order):
                order.append(target)
            row.append(number)
        rows.append(row)
        check_size(order)
    accepted = [tuple(dfa.accepts[at] for dfa, at in zip(automata, states)) for states in order]
    return alphabet, rows, accepted


def check_size(states: list) -> None:
    if len(states) > MAX_STATES:
        raise TooManyStates(f"needs more than {MAX_STATES} states")


def smallest(table: Table, labels: list[Hashable]) -> tuple[Table, list[Hashable]]:
    """Return the smallest automaton in which the same strings lead to the same labels, and the labels of its states.

    None is no label. What leads to no label is DEAD. The start stays state 0, even if it is dead.
    """
    live = co_reachable(table, [label is not None for label in labels])
    block = _blocks(table, [(alive, label) for alive, label in zip(live, labels)])
    first: dict[int, int] = {}  # block -> one of its states
    for state, number in enumerate(block):
        if live[state] or state == 0:
            first.setdefault(number, state)
    rank = dict(zip(first, range(len(first))))
    moves = [rank[block[state]] if live[state] else DEAD for state in range(len(table))]
    return [[moves[target] for target in table[state]] for state in first.values()], [labels[s] for s in first.values()]


def _blocks(table: Table, labels: list[Hashable]) -> list[int]:
    """Return the block of each state: equal if the same strings with the same labels continue. Hopcroft's algorithm."""
    columns = list(dict.fromkeys(zip(*table)))
    leading: list[dict[int, list[int]]] = []  # for each column: state -> the states that lead to it
    for column in columns:
        sources: dict[int, list[int]] = {}
        for state, target in enumerate(column):
            sources.setdefault(target, []).append(state)
        leading.append(sources)
    members: dict[Hashable, set[int]] = {}
    for state, label in enumerate(labels):
        members.setdefault(label, set()).add(state)
    blocks = list(members.values())
    block_of = [0] * len(table)
    for number, block in enumerate(blocks):
        for state in block:
            block_of[state] = number
    todo = set(range(len(blocks)))
    while todo:
        splitter = list(blocks[todo.pop()])
        for sources in leading:
            hit: dict[int, list[int]] = {}
            for state in splitter:
                for source in sources.get(state, ()):
                    hit.setdefault(block_of[source], []).append(source)
            for number, states in hit.items():
                block = blocks[number]
                if len(states) == len(block):
                    continue
                block.difference_update(states)
                part = set(states)
                if number not in todo and len(block) < len(part):
                    blocks[number], part = part, block  # the smaller part gets the new number
                for state in part:
                    block_of[state] = len(blocks)
                todo.add(len(blocks))
                blocks.append(part)
    return block_of


def finite_language(dfa: DFA, limit: int) -> list[str] | None:
    """Return all strings that `dfa` accepts, sorted, or None if there are more than `limit`."""
    characters, found = dfa.alphabet.characters(limit), []
    level = [(0, "")] if dfa.live[0] else []
    for _ in dfa.table:  # a longer string passes through a state twice
        found += [text for state, text in level if dfa.accepts[state]]
        moves = [(target, text, number) for state, text in level for number, target in enumerate(dfa.table[state])]
        moves = [move for move in moves if dfa.live[move[0]]]
        if len(moves) > limit or any(characters[number] is None for _, _, number in moves):
            return None  # each of them leads to another string
        level = [(target, text + char) for target, text, number in moves for char in characters[number]]
    return sorted(found) if not level and len(found) <= limit else None

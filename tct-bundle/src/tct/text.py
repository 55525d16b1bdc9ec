"""Automata for strings: all formulas about a string, evaluated together over its UTF-8 bytes."""

from collections.abc import Iterator
from functools import cache, cached_property

import numpy as np

from tct.assertions import AtLeast, AtMost, Pattern, Text
from tct.formula import Formula, truth
from tct.regex import DFA, PatternError, co_reachable, compile_pattern, escape, predecessors

Outcome = tuple[bool, ...]  # the truth values of some formulas for one value
MAX_STATES = 20_000
DEAD = -1  # in place of a state: no string that fits starts so


def automaton_of(assertion: Pattern | Text | AtLeast | AtMost) -> DFA:
    """Return the automaton of the strings for which an assertion holds."""
    if isinstance(assertion, Pattern):
        return compile_pattern(assertion.regex)
    if isinstance(assertion, AtMost):
        return _counter(assertion.count + 1, at_most=True)
    if isinstance(assertion, AtLeast):
        return _counter(assertion.count, at_most=False)
    return compile_pattern("^(?:" + "|".join(map(escape, sorted(assertion.values))) + ")$")


@cache
def _utf8() -> DFA:
    """Return the smallest automaton of all texts. Its last state is that of bytes that are not UTF-8."""
    dfa = compile_pattern("")
    live = co_reachable(dfa.table, dfa.accepts)
    table, first = _quotient(dfa.table, live, _partition(dfa.table, live, dfa.accepts.tolist()))
    table = np.vstack([table, np.full(256, DEAD)])
    return DFA(np.where(table == DEAD, len(first), table), np.append(dfa.accepts[first], False))


def _counter(most: int, at_most: bool) -> DFA:
    """Return an automaton that counts characters up to `most`. It accepts fewer if `at_most`, otherwise the others."""
    counts = np.arange(most + 1)
    table = np.tile(np.minimum(counts + 1, most)[:, None], 256)
    table[:, 0x80:0xC0] = counts[:, None]  # the later bytes of a character
    return DFA(table, counts < most if at_most else counts == most)


class TextAutomaton:
    """The product of the automata of all assertions in some formulas.

    `outcomes` has, for each state, the outcome of a string that ends there.
    """

    def __init__(self, formulas: tuple[Formula, ...]):
        atoms = sorted(frozenset().union(*(formula.atoms for formula in formulas)), key=repr)
        self.only_counts = bool(atoms) and all(isinstance(atom, (AtLeast, AtMost)) for atom in atoms)
        self.table, accepts = _product([_utf8(), *map(automaton_of, atoms)])
        self.outcomes: list[Outcome | None] = []  # None: within a character, or not UTF-8
        for is_text, *held in accepts:
            holds = dict(zip(atoms, held)).__getitem__
            self.outcomes.append(tuple(truth(formula, holds) for formula in formulas) if is_text else None)

    @cached_property
    def reachable(self) -> frozenset[Outcome]:
        return frozenset(outcome for outcome in self.outcomes if outcome is not None)


class TextMachine:
    """The strings of a TextAutomaton whose outcome is in `accepted`, without dead ends.

    next[state][byte] is a state or DEAD. ends[state] is the outcome if the string may end there, else None.
    """

    def __init__(self, automaton: TextAutomaton, accepted: frozenset[Outcome]):
        labels = [outcome if outcome in accepted else None for outcome in automaton.outcomes]
        live = co_reachable(automaton.table, np.array([label is not None for label in labels]))
        # Few states of a counter are alike, and to find them takes a round for each number.
        alike = np.arange(len(labels)) if automaton.only_counts else _partition(automaton.table, live, labels)
        table, first = _quotient(automaton.table, live, alike)
        self.next: list[list[int]] = table.tolist()
        self.ends: list[Outcome | None] = [labels[i] for i in first]
        self.accepts_all = automaton.reachable == {self.ends[0]}
        # The same as arrays, with a last row for DEAD.
        self.table = np.r_[table, np.full((1, 256), DEAD)]  # (S + 1, 256)
        self.may_end = np.array([*(end is not None for end in self.ends), False])  # (S + 1,)

    @cached_property
    def is_infinite(self) -> list[bool]:
        """For each state: do infinitely many strings continue from it? They do if a cycle can be reached. So strip
        states whose successors are all stripped, until none is left to strip."""
        dead = len(self.next)
        table = np.where(self.table == DEAD, dead, self.table)
        leading, infinite = predecessors(table), [True] * (dead + 1)
        left = [0] * (dead + 1)
        for sources in leading:
            for source in sources:
                left[source] += 1  # the successors that are not stripped
        todo = [dead]
        for state in todo:
            infinite[state] = False
            for source in leading[state]:
                left[source] -= 1
                if not left[source] and infinite[source] and source != dead:
                    todo.append(source)
        return infinite[:-1]

    @cached_property
    def always_infinite(self) -> bool:
        """Do infinitely many strings continue from every state?"""
        return all(self.is_infinite)

    def outcome_of(self, text: str) -> Outcome | None:
        """Return the outcome of a whole text, or None if the text does not fit."""
        if self.accepts_all:
            return self.ends[0]
        state = self.run(text)
        return None if state == DEAD else self.ends[state]

    def run(self, text: str | bytes, state: int = 0) -> int:
        """Return the state after a text, or DEAD."""
        for byte in text.encode() if isinstance(text, str) else text:
            state = self.next[state][byte]
            if state == DEAD:
                return DEAD
        return state

    def language(self, state: int = 0) -> Iterator[bytes]:
        """Yield all strings that continue from a state that is not infinite. There may be very many."""
        todo = [(state, b"")]
        while todo:
            at, path = todo.pop()
            if self.ends[at] is not None:
                yield path
            todo += [(n, path + bytes([byte])) for byte, n in enumerate(self.next[at]) if n != DEAD]


def _product(automata: list[DFA]) -> tuple[np.ndarray, list[tuple[bool, ...]]]:
    """Return the reachable part of the product: its table (S, 256), and for each state which automata accept. The first
    automaton is that of UTF-8. Once bytes are not UTF-8, the others do not matter."""
    sizes = [len(dfa.table) for dfa in automata]
    columns, class_of_byte = np.unique(np.concatenate([dfa.table for dfa in automata]), axis=1, return_inverse=True)
    tables = np.split(columns, np.cumsum(sizes)[:-1])  # (S_i, C) each: bytes that all treat alike count once
    start = (0,) * len(automata)
    numbers, order, rows, done = {start: 0}, [start], [], 0
    while done < len(order):  # one step further from the start
        states = np.array(order[done:])  # (F, automata)
        done = len(order)
        moves = np.stack([table[at] for table, at in zip(tables, states.T)], axis=-1)  # (F, C, automata)
        moves[moves[..., 0] == sizes[0] - 1, 1:] = 0
        targets, inverse = np.unique(moves.reshape(-1, len(automata)), axis=0, return_inverse=True)
        for target in map(tuple, targets.tolist()):
            if target not in numbers:
                numbers[target] = len(numbers)
                order.append(target)
        ids = np.array([numbers[target] for target in map(tuple, targets.tolist())])
        rows.append(ids[inverse.reshape(len(states), -1)])
        if len(order) > MAX_STATES:
            raise PatternError(f"the patterns of one string need more than {MAX_STATES} states together")
    accepted = np.stack([dfa.accepts[at] for dfa, at in zip(automata, np.array(order).T)], axis=1)  # (S, automata)
    return np.concatenate(rows)[:, class_of_byte.reshape(-1)], list(map(tuple, accepted.tolist()))


def _partition(table: np.ndarray, live: np.ndarray, labels: list) -> np.ndarray:
    """Return the class of each state, int (S,): equal if the same strings with the same labels continue from two
    states. This is Moore's algorithm."""
    known: dict = {}
    block = np.array([known.setdefault(label, len(known)) for label in labels])
    columns = np.unique(table, axis=1)  # (S, C): bytes that every state treats alike count once
    while True:
        refined = block
        for column in columns.T:
            moves = np.where(live[column], block[column], DEAD)
            _, refined = np.unique(refined * (len(table) + 1) + moves, return_inverse=True)
        if refined.max() == len(set(block.tolist())) - 1:
            return refined
        block = refined


def _quotient(table: np.ndarray, live: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the table (with DEAD) whose states are the classes (S,) of live states, and for each of its states one of
    the states that it stands for. The start stays state 0."""
    _, first = np.unique(block, return_index=True)
    order = np.argsort(first)
    order = order[live[first[order]] | (order == block[0])]
    rank = np.full(len(first), DEAD)
    rank[order] = np.arange(len(order))
    first = first[order]
    return np.where(live[table[first]], rank[block][table[first]], DEAD), first

"""Automata for strings: all formulas about a string, evaluated together over its UTF-8 bytes."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from tct.assertions import Pattern, Text
from tct.formula import Formula, truth
from tct.regex import DFA, PatternError, co_reachable, compile_pattern, escape

Outcome = tuple[bool, ...]  # the truth values of some formulas for one value
MAX_STATES = 20_000
DEAD = -1  # in place of a state: no string that fits starts so


def automaton_of(assertion: Pattern | Text) -> DFA:
    """Return the automaton of the strings for which an assertion holds."""
    if isinstance(assertion, Pattern):
        return compile_pattern(assertion.regex)
    return compile_pattern("^(?:" + "|".join(map(escape, sorted(assertion.values))) + ")$")


class TextAutomaton:
    """The product of the automata of all assertions in some formulas.

    `outcomes` has, for each state, the outcome of a string that ends there.
    """

    def __init__(self, formulas: tuple[Formula, ...]):
        atoms = sorted(frozenset().union(*(formula.atoms for formula in formulas)), key=repr)
        self.table, accepts = _product([compile_pattern(""), *map(automaton_of, atoms)])  # "": any UTF-8
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
        table, first = _minimise(automaton.table, live, labels)
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
        infinite = np.arange(len(self.table)) < len(self.next)  # (S + 1,)
        while True:
            still = infinite[self.table].any(axis=1)
            if (still == infinite).all():
                return infinite[:-1].tolist()
            infinite = still

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
    """Return the reachable part of the product: its table (S, 256), and for each state which automata accept."""
    start = (0,) * len(automata)
    numbers, order, rows = {start: 0}, [start], []
    for states in order:
        moves = np.stack([dfa.table[s] for dfa, s in zip(automata, states)], axis=1)  # (256, automata)
        targets, inverse = np.unique(moves, axis=0, return_inverse=True)
        for target in map(tuple, targets.tolist()):
            if target not in numbers:
                numbers[target] = len(numbers)
                order.append(target)
        ids = np.array([numbers[t] for t in map(tuple, targets.tolist())])
        rows.append(ids[inverse.reshape(-1)])
        if len(order) > MAX_STATES:
            raise PatternError(f"the patterns of one string need more than {MAX_STATES} states together")
    accepts = [tuple(bool(dfa.accepts[s]) for dfa, s in zip(automata, states)) for states in order]
    return np.array(rows), accepts


def _minimise(table: np.ndarray, live: np.ndarray, labels: list) -> tuple[np.ndarray, np.ndarray]:
    """Minimise by Moore's algorithm. Return the smallest table (with DEAD) that keeps the labels, and for each of its
    states one of the states that it stands for."""
    known: dict = {}
    block = np.array([known.setdefault(label, len(known)) for label in labels])
    columns = np.unique(table, axis=1)  # (S, C): bytes that every state treats alike count once
    while True:
        refined = block
        for column in columns.T:
            moves = np.where(live[column], block[column], DEAD)
            _, first, refined = np.unique(refined * (len(table) + 1) + moves, return_index=True, return_inverse=True)
        if len(first) == len(set(block.tolist())):
            break
        block = refined
    order = np.argsort(first)  # by their first states, so that the start stays state 0
    order = order[live[first[order]] | (order == refined[0])]
    rank = np.full(len(first), DEAD)
    rank[order] = np.arange(len(order))
    first = first[order]
    return np.where(live[table[first]], rank[refined][table[first]], DEAD), first

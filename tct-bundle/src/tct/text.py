"""Automata for strings: the goals that a string must meet, run side by side over its UTF-8 bytes."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from tct.assertions import Pattern, Text
from tct.formula import Formula, truth
from tct.regex import DFA, PatternError, compile_pattern, escape

Vector = tuple[bool, ...]
MAX_STATES = 20_000
DEAD = -1


def automaton_of(assertion: Pattern | Text) -> DFA:
    """The automaton of the strings for which an assertion holds."""
    if isinstance(assertion, Pattern):
        return compile_pattern(assertion.regex)
    return compile_pattern("^(?:" + "|".join(map(escape, sorted(assertion.values))) + ")$")


class TextAutomaton:
    """The product of the automata of all goals: each state knows which goals a string ending there meets."""

    def __init__(self, goals: tuple[Formula, ...]):
        atoms = sorted(frozenset().union(*(goal.atoms for goal in goals)), key=repr)
        self.table, accepts = _product([compile_pattern(""), *map(automaton_of, atoms)])  # "": any UTF-8
        self.vectors: list[Vector | None] = [  # None: within a character, or not UTF-8
            _vector(goals, dict(zip(atoms, held))) if is_text else None for is_text, *held in accepts
        ]

    @cached_property
    def reachable(self) -> frozenset[Vector]:
        return frozenset(vector for vector in self.vectors if vector is not None)


class TextMachine:
    """The strings of a TextAutomaton whose vector is in `accept`, with every dead end cut away.

    next[state][byte] is a state or DEAD; ends[state] the vector where the string may end, else None;
    endless[state] tells whether infinitely many strings go on from there.
    """

    def __init__(self, automaton: TextAutomaton, accept: frozenset[Vector]):
        ends = np.array([vector in accept for vector in automaton.vectors])  # (S,)
        live = _backwards(automaton.table, ends)
        table, first = _minimise(automaton.table, live, [v if v in accept else None for v in automaton.vectors])
        self.next: list[list[int]] = table.tolist()
        self.ends: list[Vector | None] = [automaton.vectors[i] if ends[i] else None for i in first]
        self.takes_any = automaton.reachable == {self.ends[0]}
        # The same in arrays, with a last row for the state DEAD.
        self.table = np.r_[table, np.full((1, 256), DEAD)]  # (S + 1, 256)
        self.may_end = np.array([*(end is not None for end in self.ends), False])  # (S + 1,)

    @cached_property
    def endless(self) -> list[bool]:
        """A state is endless if a cycle can be reached: strip states whose successors are all stripped."""
        endless = np.arange(len(self.table)) < len(self.next)  # (S + 1,)
        while True:
            still = endless[self.table].any(axis=1)
            if (still == endless).all():
                return endless[:-1].tolist()
            endless = still

    @cached_property
    def is_endless(self) -> bool:
        """Is every state endless? Then a text goes on without end wherever it stands."""
        return all(self.endless)

    def end_of(self, text: str) -> Vector | None:
        """The vector of a whole text, or None where it does not fit."""
        if self.takes_any:
            return self.ends[0]
        state = self.run(text)
        return None if state == DEAD else self.ends[state]

    def run(self, text: str | bytes, state: int = 0) -> int:
        """The state after a text, or DEAD."""
        for byte in text.encode() if isinstance(text, str) else text:
            state = self.next[state][byte]
            if state == DEAD:
                return DEAD
        return state

    def language(self, state: int = 0) -> Iterator[bytes]:
        """All that may follow in a state that is not endless, one by one: there may be very many."""
        todo = [(state, b"")]
        while todo:
            at, path = todo.pop()
            if self.ends[at] is not None:
                yield path
            todo += [(n, path + bytes([byte])) for byte, n in enumerate(self.next[at]) if n != DEAD]


def _vector(goals: tuple[Formula, ...], held: dict) -> Vector:
    return tuple(truth(goal, held.__getitem__) for goal in goals)


def _product(automata: list[DFA]) -> tuple[np.ndarray, list[tuple[bool, ...]]]:
    """The reachable part of the product: its table (S, 256), and for each state who accepts."""
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


def _backwards(table: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The states (S,) from which a state of `goal` (S,) can be reached."""
    while ((grown := goal | goal[table].any(axis=1)) != goal).any():
        goal = grown
    return goal


def _minimise(table: np.ndarray, live: np.ndarray, labels: list) -> tuple[np.ndarray, np.ndarray]:
    """Moore's algorithm: the smallest table (with DEAD) that keeps labels, and a state of each of its classes."""
    known: dict = {}
    block = np.array([known.setdefault(label, len(known)) for label in labels])
    columns = np.unique(table, axis=1)  # (S, C): bytes that no state tells apart count once
    while True:
        refined = block
        for column in columns.T:
            moves = np.where(live[column], block[column], DEAD)
            _, first, refined = np.unique(refined * (len(table) + 1) + moves, return_index=True, return_inverse=True)
        if len(first) == len(set(block.tolist())):
            break
        block = refined
    order = np.argsort(first)  # number the classes by their first state: the start stays state 0
    order = order[live[first[order]] | (order == refined[0])]
    rank = np.full(len(first), DEAD)
    rank[order] = np.arange(len(order))
    first = first[order]
    return np.where(live[table[first]], rank[refined][table[first]], DEAD), first

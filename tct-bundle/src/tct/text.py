"""Automata for strings: all formulas about a string, evaluated together, over its characters or its bytes."""

import sys
from collections.abc import Callable, Hashable, Iterator
from functools import cached_property
from math import prod

import numpy as np

from tct import automata
from tct.assertions import AtLeast, AtMost, Pattern, Text
from tct.automata import DEAD, DFA, Alphabet, TooManyStates, complete, finite_language, product, smallest
from tct.formula import CONSTANT, FALSE, TRUE, Formula, atom, constant, substitute, truth
from tct.regex import PatternError, compile_pattern
from tct.utf8 import bytes_of

MAX_COUNTED = 2002  # states with a maxLength. If there would be more, it is counted apart.

Outcome = tuple[bool, ...]  # the truth values of some formulas for one value
_UNFIT = "unfit"
NEVER = sys.maxsize


def automaton_of(assertion: Pattern | Text | AtLeast | AtMost) -> DFA:
    """Return the automaton of the strings for which an assertion holds."""
    if isinstance(assertion, Pattern):
        return compile_pattern(assertion.regex)
    if isinstance(assertion, AtMost):
        return _counter(assertion.count + 1, at_most=True)
    if isinstance(assertion, AtLeast):
        return _counter(assertion.count, at_most=False)
    return _words(sorted(filter(_is_text, assertion.values)))


def _counter(most: int, at_most: bool) -> DFA:
    """Return an automaton that counts characters up to `most`. It accepts fewer if `at_most`, otherwise the others."""
    counts = range(most + 1)
    table = [[min(count + 1, most)] for count in counts]
    return DFA(Alphabet((0,), (0,)), table, [(count < most) == at_most for count in counts])


def _words(words: list[str]) -> DFA:
    """Return an automaton of some words: a tree of their starts."""
    code_points = {ord(char) for word in words for char in word}
    cuts = (cut for code_point in code_points for cut in (code_point, code_point + 1))
    alphabet, classes = Alphabet.of(cuts, lambda start: start if start in code_points else None)
    class_of = {code_point: number for number, code_point in enumerate(classes)}
    table, accepts = [[DEAD] * len(classes)], [False]
    for word in words:
        state = 0
        for char in word:
            row, number = table[state], class_of[ord(char)]
            if row[number] == DEAD:
                row[number] = len(table)
                table.append([DEAD] * len(classes))
                accepts.append(False)
            state = row[number]
        accepts[state] = True
    return complete(alphabet, table, accepts)


def _is_text(text: str) -> bool:
    """Has a string UTF-8? It has none if half a surrogate pair is in it."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


class TextAutomaton:
    """The product of the automata of all assertions in some formulas. It is built when it is needed.

    A long maxLength is counted apart if possible, because it would need a state for each character: `limit` is that
    maxLength, and `beyond` the outcome of all longer strings.
    """

    def __init__(self, formulas: tuple[Formula, ...]):
        self._formulas = formulas
        self._atoms = sorted(frozenset().union(*(formula.atoms for formula in formulas)), key=repr)
        self.limit, self.beyond = None, None
        self._count_apart()
        # None unless the formulas are about some strings only. Then all other strings have the outcome `other`.
        self.words: dict[str, Outcome] | None = None
        if all(isinstance(assertion, Text) for assertion in self._atoms):
            declared = set().union(*(assertion.values for assertion in self._atoms))
            words = [
                word for word in sorted(filter(_is_text, declared)) if self.limit is None or len(word) <= self.limit
            ]
            self.words = {word: self._outcome({a: word in a.values for a in self._atoms}) for word in words}
            self.other = self._outcome(dict.fromkeys(self._atoms, False))

    def _count_apart(self) -> None:
        """Let `limit` take the place of a maxLength if there would be many states, and if all longer strings have the
        same outcome."""
        limits = sorted(assertion.count for assertion in self._atoms if isinstance(assertion, AtMost))
        if not limits or prod(map(_size, self._atoms)) <= MAX_COUNTED:
            return
        for limit in limits:
            self.beyond = self._beyond(limit)
            if self.beyond is not None:
                met = [a for a in self._atoms if isinstance(a, AtMost) and a.count >= limit]
                self._formulas = _given(self._formulas, dict.fromkeys(met, TRUE))
                self.limit, self._atoms = limit, [assertion for assertion in self._atoms if assertion not in met]
                return

    def _beyond(self, limit: int) -> Outcome | None:
        """Return the outcome of all strings with more characters, or None if they have several."""
        failed = [a for a in self._atoms if isinstance(a, AtMost) and a.count <= limit]
        formulas = _given(self._formulas, dict.fromkeys(failed, FALSE))
        if all(formula.kind == CONSTANT for formula in formulas):
            return tuple(formula is TRUE for formula in formulas)
        others = [assertion for assertion in self._atoms if assertion not in failed]
        if prod(map(_size, others)) > automata.MAX_STATES:
            return None
        _, table, accepts = _product(others)
        held = {accepts[state] for state in _states_beyond(table, limit)}
        found = {self._outcome(dict.fromkeys(failed, False) | dict(zip(others, holds))) for holds in held}
        return found.pop() if len(found) == 1 else None

    def _outcome(self, holds: dict[Hashable, bool]) -> Outcome:
        return tuple(truth(formula, holds.__getitem__) for formula in self._formulas)

    @cached_property
    def states(self) -> tuple[Alphabet, list[list[int]], list[Outcome]]:
        """The alphabet, the table, and for each state the outcome of a string that ends there."""
        alphabet, table, accepts = _product(self._atoms)
        outcomes = {held: self._outcome(dict(zip(self._atoms, held))) for held in set(accepts)}
        return alphabet, table, [outcomes[held] for held in accepts]

    @cached_property
    def reachable(self) -> frozenset[Outcome]:
        """The outcomes that strings can have."""
        if self.words is not None:
            found = frozenset([*self.words.values(), self.other])
        else:
            _, table, outcomes = self.states
            found = frozenset(
                outcomes if self.limit is None else [outcomes[s] for s in _states_within(table, self.limit)]
            )
        return found if self.limit is None else found | {self.beyond}


def _given(formulas: tuple[Formula, ...], known: dict[AtMost, Formula]) -> tuple[Formula, ...]:
    return tuple(substitute(formula, lambda assertion: known.get(assertion, atom(assertion))) for formula in formulas)


def _size(assertion: Pattern | Text | AtLeast | AtMost) -> int:
    """Return the number of states of its automaton."""
    return assertion.count + 2 if isinstance(assertion, AtMost) else len(automaton_of(assertion).table)


def _product(assertions: list) -> tuple[Alphabet, list[list[int]], list[tuple[bool, ...]]]:
    """Return the product of the automata of some assertions: alphabet, table, and which of them hold in each state."""
    try:
        alphabet, table, accepts = product([*map(automaton_of, assertions)] or [compile_pattern("")])
    except TooManyStates:
        reason = f"the patterns of one string need more than {automata.MAX_STATES} states together"
        raise PatternError(reason) from None
    truths = {held: tuple(index in held for index in range(len(assertions))) for held in set(accepts)}
    return alphabet, table, [truths[held] for held in accepts]


def _states_within(table: list[list[int]], n_characters: int) -> set[int]:
    """Return the states that are reached by at most `n_characters` characters."""
    reached, last = {0}, {0}
    for _ in range(n_characters):
        last = {target for state in last for target in table[state]} - reached
        if not last:
            break
        reached |= last
    return reached


def _states_beyond(table: list[list[int]], n_characters: int) -> set[int]:
    """Return the states that more characters than that lead to."""
    reached = {0}
    for _ in range(n_characters + 1):
        before, reached = reached, {target for state in reached for target in table[state]}
        if reached == before:
            break
    todo = list(reached)
    for state in todo:
        new = set(table[state]) - reached
        reached |= new
        todo += new
    return reached


class _Rows(dict):
    """The rows of a table, each made when it is needed."""

    def __init__(self, row: Callable[[int], list[int]]):
        self._row = row

    def __missing__(self, state: int) -> list[int]:
        self[state] = self._row(state)
        return self[state]


class TextMachine:
    """The strings of a TextAutomaton whose outcome is in `accepted`, without dead ends.

    next[state][byte] is a state or DEAD. ends[state] is the outcome if the string may end there, else None.
    """

    def __init__(self, automaton: TextAutomaton, accepted: frozenset[Outcome]):
        self._automaton, self._accepted = automaton, accepted
        self.limit = automaton.limit  # how many characters a string may have before it is `beyond`, or None

    @property
    def outcomes(self) -> frozenset[Outcome]:
        """The outcomes of the strings that fit."""
        return self._automaton.reachable & self._accepted

    # -- over characters

    @cached_property
    def _smallest(self) -> tuple[Alphabet, list[list[int]], list[Outcome | None]]:
        """The alphabet, the table (with DEAD), and the outcome of a string that ends in a state, or None."""
        alphabet, table, outcomes = self._automaton.states
        unfit = _UNFIT if self.beyond else None  # an unfit start may still become a long string that fits
        labels = [outcome if outcome in self._accepted else unfit for outcome in outcomes]
        table, labels = smallest(table, labels)
        return alphabet, table, [None if label is _UNFIT else label for label in labels]

    @cached_property
    def only(self) -> Outcome | None:
        """The outcome of all strings, if every string fits and all have the same."""
        outcome, *others = self._automaton.reachable
        return outcome if not others and outcome in self._accepted else None

    @cached_property
    def beyond(self) -> "TextMachine | None":
        """The machine of what may follow after `limit` characters: anything, or nothing (None)."""
        outcome = self._automaton.beyond
        if outcome is None or outcome not in self._accepted:
            return None
        return TextMachine(TextAutomaton(tuple(map(constant, outcome))), frozenset([outcome]))

    def strings(self, limit: int) -> list[str] | None:
        """Return all strings that fit, sorted, or None if there are more than `limit`."""
        words = self._automaton.words
        if self.limit is not None and self.beyond:
            return None
        if words is None:
            alphabet, table, ends = self._smallest
            found = finite_language(complete(alphabet, table, [end is not None for end in ends]), limit)
            return found and [text for text in found if len(text) <= (self.limit or sys.maxsize)]
        fitting = [word for word, outcome in words.items() if outcome in self._accepted]
        return fitting if len(fitting) <= limit and self._automaton.other not in self._accepted else None

    def outcome_of(self, text: str) -> Outcome | None:
        """Return the outcome of a whole text, or None if the text does not fit."""
        if self.only is not None:
            return self.only
        if self.limit is not None and len(text) > self.limit:
            return self._automaton.beyond if self.beyond else None
        if self._automaton.words is not None:
            outcome = self._automaton.words.get(text, self._automaton.other)
            return outcome if outcome in self._accepted else None
        alphabet, table, ends = self._smallest
        state = 0
        for number in alphabet.spell(text):
            state = table[state][number]
            if state == DEAD:
                return None
        return ends[state]

    # -- over bytes

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """The class of each byte (256,), and the next states by class (S + 1, classes). The last row is for DEAD."""
        alphabet, table, _ = self._smallest
        class_of_byte, rows = bytes_of(alphabet, table)
        return class_of_byte, np.pad(rows, ((0, 1), (0, 0)), constant_values=DEAD)

    def step(self, states: np.ndarray, bytes_: np.ndarray) -> np.ndarray:
        """Return the states (N,) after bytes (N,). DEAD stays DEAD."""
        class_of_byte, rows = self._table
        return rows[states, class_of_byte[bytes_]]

    @cached_property
    def next(self) -> dict[int, list[int]]:
        class_of_byte, rows = self._table
        return _Rows(lambda state: rows[state, class_of_byte].tolist())

    @cached_property
    def ends(self) -> list[Outcome | None]:
        ends = self._smallest[2]
        return ends + [None] * (len(self._table[1]) - 1 - len(ends))

    @cached_property
    def may_end(self) -> np.ndarray:
        """Whether a string may end in a state, and False for DEAD: bool (S + 1,)."""
        return np.array([*(end is not None for end in self.ends), False])

    @cached_property
    def n_needed(self) -> list[int]:
        """For each state: how many characters the shortest string has that continues from it and fits, or NEVER."""
        leading: list[list[tuple[int, bool]]] = [[] for _ in self.ends]
        for state in range(len(self.ends)):
            for target, is_first in {(to, not 0x80 <= byte < 0xC0) for byte, to in enumerate(self.next[state])}:
                if target != DEAD:
                    leading[target].append((state, is_first))
        needed = [0 if end is not None else NEVER for end in self.ends]
        todo = [state for state, end in enumerate(self.ends) if end is not None]
        for state in todo:
            for source, is_first in leading[state]:
                if needed[state] + is_first < needed[source]:
                    needed[source] = needed[state] + is_first
                    todo.append(source)
        return needed

    @cached_property
    def most_needed(self) -> int:
        """The greatest of `n_needed`."""
        return max(n for n in self.n_needed if n != NEVER) if self.beyond is None else 0

    @cached_property
    def is_infinite(self) -> list[bool]:
        """For each state: do infinitely many strings continue from it? They do if a cycle can be reached. So strip
        states whose successors are all stripped, until none is left to strip."""
        rows = self._table[1][:-1].tolist()
        leading: list[list[int]] = [[] for _ in rows]
        left = []  # the successors that are not stripped
        for state, row in enumerate(rows):
            successors = set(row) - {DEAD}
            left.append(len(successors))
            for successor in successors:
                leading[successor].append(state)
        todo = [state for state, n_left in enumerate(left) if not n_left]
        for state in todo:
            for source in leading[state]:
                left[source] -= 1
                if not left[source]:
                    todo.append(source)
        return [n_left > 0 for n_left in left]

    @cached_property
    def always_infinite(self) -> bool:
        """Do infinitely many strings continue from every state?"""
        return all(self.is_infinite)

    def run(self, text: bytes, state: int = 0) -> int:
        """Return the state after some bytes, or DEAD."""
        for byte in text:
            state = self.next[state][byte]
            if state == DEAD:
                return DEAD
        return state

    def language(self, state: int = 0) -> Iterator[bytes]:
        """Yield all strings that continue from a state that is not infinite. There may be very many, so first of all
        some are found that soon end."""
        todo = [(state, b"")]
        while todo:
            at, path = todo.pop()
            if self.ends[at] is not None:
                yield path
            steps = ((then, path + bytes([byte])) for byte, then in enumerate(self.next[at]) if then != DEAD)
            todo += sorted(steps, key=lambda step: -self.n_needed[step[0]])

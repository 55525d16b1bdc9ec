"""Which formulas can a value satisfy together? This analysis keeps dead ends out of the type machine.

A value in a document has residuals: formulas of which its parent accepts some combinations of truth values, called
outcomes. Reading a member or an item decides assertions in the residuals of its container. For any residuals and any
half-read container, `Reachability` computes the outcomes that some completion has, and the least depth to which that
completion must nest. The type machine offers only what keeps an accepted outcome reachable.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from itertools import pairwise
from typing import NamedTuple

from tct.assertions import (
    TYPES,
    Above,
    AtLeast,
    AtMost,
    Below,
    ContainsAtLeast,
    ContainsAtMost,
    Items,
    Members,
    Number,
    OfKind,
    Pattern,
    Present,
    Ref,
    TypeIs,
    Unique,
)
from tct.errors import UnsupportedSchemaError
from tct.formula import CONSTANT, FALSE, TRUE, Formula, atom, constant, substitute, truth
from tct.memoised import memoised
from tct.numbers import KINDS, ending_between, kind, parse, spellings
from tct.regex import PatternError, compile_pattern
from tct.text import Outcome, TextAutomaton

MAX_STATES = 20_000  # of one half-read object or array
HOLD_AT_END = (Items, Members, AtMost, ContainsAtMost, Unique)  # these hold once nothing more is added to a container

Residuals = tuple[Formula, ...]
Holds = Callable[[Formula], bool]  # does the value of the member or item satisfy a formula?
OutcomeDepths = dict[Outcome, int]  # an outcome that some value has -> the least depth of containers of such a value


class Transition:
    """One more member or item of a container. `child` are the residuals of its value.

    `meaning` (assertion, which formulas hold) returns what is left of an assertion about the container.
    """

    def __init__(self, residuals: Residuals, meaning: Callable, child_formulas: Iterable[Formula]):
        self.residuals, self._meaning = residuals, meaning
        self.child: Residuals = tuple(dict.fromkeys(f for f in child_formulas if f.kind != CONSTANT))

    @memoised
    def residuals_after(self, outcome: Outcome) -> Residuals:
        """Return the residuals of the container after a value with this outcome."""
        holds = dict(zip(self.child, outcome)) | {TRUE: True, FALSE: False}
        meaning = partial(self._meaning, holds=holds.__getitem__)
        return tuple(substitute(residual, meaning) for residual in self.residuals)


class Reachability:
    """The analysis of one schema. `formula_at(pointer)` resolves its references.

    Residuals are *of a type* once `specialise` has been applied: only assertions about that type are left in them.
    """

    def __init__(self, formula_at: Callable[[str], Formula]):
        self._formula_at = formula_at
        self._values: dict[Residuals, OutcomeDepths] = {}
        self._searches: dict[tuple, OutcomeDepths] = {}
        self._known_transitions: dict[Residuals, tuple] = {}
        self._solving = False
        self.deepest = 0  # the depth that any value may need at least

    # -- values

    @memoised
    def specialise(self, residuals: Residuals, type: str) -> Residuals:
        """Return the residuals of a value that is known to have this JSON type."""
        return tuple(self._specialise(residual, type, ()) for residual in residuals)

    def _specialise(self, formula: Formula, type: str, within: tuple[str, ...]) -> Formula:
        def meaning(assertion) -> Formula:
            if isinstance(assertion, TypeIs):
                return constant(assertion.type == type)
            if isinstance(assertion, Ref):
                if assertion.pointer in within:
                    raise UnsupportedSchemaError("$ref", assertion.pointer, "refers to itself and to nothing else")
                target = self._formula_at(assertion.pointer)
                return self._specialise(target, type, (*within, assertion.pointer))
            return atom(assertion) if assertion.about == type else TRUE

        return substitute(formula, meaning)

    def value(self, residuals: Residuals) -> OutcomeDepths:
        """Return the outcomes that values can have: a least fixed point, because schemas are recursive."""
        if residuals not in self._values:
            self._values[residuals] = {}
            if not self._solving:
                self._solve()
        return self._values[residuals]

    def _solve(self) -> None:
        self._solving, changed = True, True
        while changed:
            self._searches.clear()
            self._known_transitions.clear()
            before = {residuals: dict(depths) for residuals, depths in self._values.items()}
            for residuals in list(before):
                self._values[residuals] = self._least(self.outcomes_of_type(residuals, type) for type in TYPES)
            changed = self._values != before
        self._solving = False
        self.deepest = max((d for depths in self._values.values() for d in depths.values()), default=0)

    @staticmethod
    def _least(alternatives: Iterator[OutcomeDepths]) -> OutcomeDepths:
        least: OutcomeDepths = {}
        for depths in alternatives:
            for outcome, depth in depths.items():
                least[outcome] = min(depth, least.get(outcome, depth))
        return least

    def outcomes_of_type(self, residuals: Residuals, type: str) -> OutcomeDepths:
        """Return the outcomes that values of one type can have. `residuals` are of no type yet."""
        residuals = self.specialise(residuals, type)
        if type == "object":
            return self.object(residuals, frozenset())
        if type == "array":
            return self.array(residuals, is_empty=True)
        if type == "string":
            return dict.fromkeys(self.text(residuals).reachable, 0)
        if type == "number":
            ranges = number_ranges(number_points(residuals))
            numbers = (*point_spellings(residuals).values(), *(each.example for each in ranges))
            return {number_outcome(residuals, number): 0 for number in numbers}
        if type == "boolean":
            return {boolean_outcome(residuals, value): 0 for value in (False, True)}
        return {tuple(residual is TRUE for residual in residuals): 0}

    @memoised
    def text(self, residuals: Residuals) -> TextAutomaton:
        """Return the automaton of strings. `residuals` are of strings."""
        try:
            return TextAutomaton(residuals)
        except PatternError as error:
            regexes = sorted({a.regex for a in assertions(residuals) if isinstance(a, Pattern)})
            raise UnsupportedSchemaError("pattern", "#", f"{error}: {', '.join(regexes)}") from None

    # -- objects and arrays: residuals are of objects, or of arrays

    @memoised
    def names(self, residuals: Residuals) -> tuple[str, ...]:
        """Return the keys that the residuals name. All other keys are open keys."""
        return tuple(sorted(names_of(assertions(residuals))))

    @memoised
    def patterns(self, residuals: Residuals) -> tuple[str, ...]:
        """Return the patterns that classify open keys."""
        regexes = (r for a in assertions(residuals) if isinstance(a, Members) for r, _ in a.patterns)
        return tuple(sorted(set(regexes)))

    @memoised
    def member(self, residuals: Residuals, key: str | None, matching: frozenset[str]) -> Transition:
        """Return the transition of a member. With None its key is an open one, which `matching` patterns match."""
        found = [a for a in assertions(residuals) if isinstance(a, Members)]
        values = {a: a.of_open_key(matching) if key is None else a.of_name(key, matching) for a in found}

        def meaning(assertion, holds: Holds) -> Formula:
            if isinstance(assertion, Members):
                return atom(assertion) if holds(values[assertion]) else FALSE
            if isinstance(assertion, (AtLeast, AtMost)):
                return assertion.after_one()
            return TRUE if assertion.key == key else atom(assertion)

        return Transition(residuals, meaning, values.values())

    def named_member(self, residuals: Residuals, key: str) -> Transition:
        """Return the transition of a member with a named key."""
        matching = (regex for regex in self.patterns(residuals) if compile_pattern(regex).matches(key))
        return self.member(residuals, key, frozenset(matching))

    @memoised
    def item(self, residuals: Residuals) -> Transition:
        """Return the transition of the next item of an array."""
        found = assertions(residuals)
        heads = {a: a.head for a in found if isinstance(a, Items)}
        counted = {a: a.formula for a in found if isinstance(a, (ContainsAtLeast, ContainsAtMost))}

        def meaning(assertion, holds: Holds) -> Formula:
            if assertion in heads:
                return atom(assertion.tail) if holds(heads[assertion]) else FALSE
            if assertion in counted:
                return assertion.after(holds(counted[assertion]))
            return atom(assertion) if isinstance(assertion, Unique) else assertion.after_one()

        return Transition(residuals, meaning, (*heads.values(), *counted.values()))

    @memoised
    def end(self, residuals: Residuals) -> Outcome:
        """Return the outcome of a container that ends here. What it still lacks will not come."""
        return tuple(truth(residual, lambda a: isinstance(a, HOLD_AT_END)) for residual in residuals)

    def open_key_matches(self, residuals: Residuals) -> Iterator[frozenset[str]]:
        """Yield each set of patterns such that some open key matches these and no other pattern."""
        regexes = self.patterns(residuals)
        automaton = self.text(tuple(atom(Pattern(regex)) for regex in regexes))
        for outcome in sorted(automaton.reachable):
            yield frozenset(regex for regex, matches in zip(regexes, outcome) if matches)

    def relevant_keys(self, residuals: Residuals) -> frozenset[str]:
        """Return the named keys whose member may change the residuals. Only these need to be remembered."""
        return self._key_transitions(residuals)[0]

    def _key_transitions(self, residuals: Residuals) -> tuple[frozenset[str], list[tuple[str | None, int, Residuals]]]:
        """Return the relevant keys, and all ways in which a member changes the residuals: (key, or None if it is
        open; depth of the value; residuals after it)."""
        if residuals not in self._known_transitions:
            changes = []
            if any(residual.kind != CONSTANT for residual in residuals):
                transitions = [(name, self.named_member(residuals, name)) for name in self.names(residuals)]
                transitions += [(None, self.member(residuals, None, m)) for m in self.open_key_matches(residuals)]
                for key, transition in transitions:
                    for outcome, depth in self.value(transition.child).items():
                        if (then := transition.residuals_after(outcome)) != residuals:
                            changes.append((key, depth, then))
            names = frozenset(key for key, _, _ in changes if key is not None)
            self._known_transitions[residuals] = names, changes
        return self._known_transitions[residuals]

    def object(self, residuals: Residuals, used: frozenset[str]) -> OutcomeDepths:
        """Return the outcomes that a half-read object can still have. `used` are the keys that it already has."""

        def moves(state) -> Iterator[tuple[int, tuple]]:
            residuals, used = state
            for key, depth, then in self._key_transitions(residuals)[1]:
                if key is None:
                    yield depth, (then, used & self.relevant_keys(then))
                elif key not in used:
                    yield depth, (then, (used | {key}) & self.relevant_keys(then))

        return self._search((residuals, used & self.relevant_keys(residuals)), moves)

    def array(self, residuals: Residuals, is_empty: bool = False) -> OutcomeDepths:
        """Return the outcomes that a half-read array can still have. One that is not empty may repeat an item."""

        def moves(state) -> Iterator[tuple[int, tuple]]:
            residuals, is_empty = state
            transition = self.item(residuals)
            for outcome, depth in self.value(transition.child).items():
                then = transition.residuals_after(outcome)
                yield depth, (then, False)
                if not is_empty and (repeated := self.repeated(then)) != then:
                    yield depth, (repeated, False)

        return self._search((residuals, is_empty), moves)

    @memoised
    def repeated(self, residuals: Residuals) -> Residuals:
        """Return the residuals of an array of which two items are equal."""
        return tuple(substitute(r, lambda a: FALSE if a == Unique() else atom(a)) for r in residuals)

    def _search(self, start: tuple, moves: Callable[[tuple], Iterator[tuple[int, tuple]]]) -> OutcomeDepths:
        """Find all ends of a container. States are (residuals, ...). A move costs the depth of the value it reads."""
        if start not in self._searches:
            depths, todo = {start: 1}, [start]
            for state in todo:
                for depth, then in moves(state):
                    depth = max(depths[state], depth + 1)
                    if depth < depths.get(then, depth + 1):
                        depths[then] = depth
                        todo.append(then)
                if len(depths) > MAX_STATES:
                    names = ", ".join(self.names(start[0])[:5])
                    reason = f"more than {MAX_STATES} combinations of what has been read, in one with {names}"
                    raise UnsupportedSchemaError("properties", "#", reason)
            self._searches[start] = self._least({self.end(state[0]): depth} for state, depth in depths.items())
        return self._searches[start]


def assertions(residuals: Residuals) -> list:
    """Return all assertions in some residuals, in the same order in every process."""
    return sorted(frozenset().union(*(residual.atoms for residual in residuals)), key=lambda a: atom(a).number)


def names_of(assertions: Iterable) -> set[str]:
    """Return the keys that some assertions name."""
    found = set()
    for assertion in assertions:
        if isinstance(assertion, Present):
            found.add(assertion.key)
        elif isinstance(assertion, Members):
            found.update(name for name, _ in assertion.named)
    return found


def named_numbers(residuals: Residuals) -> list[int | float]:
    """Return the numbers that residuals of numbers name. Limits are not among them."""
    return [assertion.value for assertion in assertions(residuals) if isinstance(assertion, Number)]


def number_points(residuals: Residuals) -> tuple[int | float, ...]:
    """Return the named numbers and the limits, in order. Between two of them, the kind of a number decides."""
    limits = (assertion.limit for assertion in assertions(residuals) if isinstance(assertion, (Above, Below)))
    return tuple(sorted({*named_numbers(residuals), *limits}))


def point_spellings(residuals: Residuals) -> dict[str, int | float]:
    """Return each spelling of the points, with its number: 3 and 3.0 may have different outcomes."""
    spelled = (spelling for number in number_points(residuals) for spelling in spellings(number))
    return {spelling: parse(spelling) for spelling in spelled}


class NumberRange(NamedTuple):
    """The numbers of a kind between two limits, which are exclusive; None is no limit."""

    kind: int
    low: int | float | None
    high: int | float | None
    example: int | float


@lru_cache(maxsize=10_000)
def number_ranges(points: tuple[int | float, ...]) -> list[NumberRange]:
    """Return the ranges of numbers between points. All numbers of a range have the same outcome."""
    ranges = ((kind, *limits) for limits in pairwise((None, *points, None)) for kind in KINDS)
    found = ((range, ending_between("", *range)) for range in ranges)
    return [NumberRange(*range, parse(spelling)) for range, spelling in found if spelling is not None]


def number_outcome(residuals: Residuals, number: float) -> Outcome:
    def holds(assertion) -> bool:
        if isinstance(assertion, OfKind):
            return kind(number) in assertion.kinds
        if isinstance(assertion, Number):
            return number == assertion.value  # 3 == 3.0
        if number == assertion.limit:
            return assertion.or_equal
        return (number > assertion.limit) == isinstance(assertion, Above)

    return tuple(truth(residual, holds) for residual in residuals)


def boolean_outcome(residuals: Residuals, value: bool) -> Outcome:
    return tuple(truth(residual, lambda assertion: assertion.value == value) for residual in residuals)

"""Which formulas can a value satisfy together? This analysis keeps dead ends out of the type machine.

A value in a document has residuals: formulas of which its parent accepts some combinations of truth values, called
outcomes. Reading a member or an item decides assertions in the residuals of its container. For any residuals and any
half-read container, `Reachability` computes the outcomes that some completion has, and the least depth to which that
completion must nest. The type machine offers only what keeps an accepted outcome reachable.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import islice, pairwise, product
from math import floor
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
    Keys,
    Members,
    MultipleOf,
    Number,
    OfKind,
    Pattern,
    Present,
    Ref,
    Text,
    TypeIs,
    Unique,
)
from tct.errors import UnsupportedSchemaError
from tct.formula import ATOM, CONSTANT, FALSE, TRUE, Formula, atom, constant, replace, substitute, truth
from tct.memoised import memoised
from tct.multiples import Multiples, ending_of_multiple, is_multiple
from tct.numbers import FRACTION, KINDS, ending_between, kind, parse, spellings
from tct.regex import PatternError, compile_pattern
from tct.text import Outcome, TextAutomaton
from tct.time_limit import check_time

MAX_STATES = 20_000  # of one half-read object or array
MAX_DIVISORS = 6  # of one number: each doubles its ranges
OF_MEMBERS = (Members, Keys)  # assertions about each member of an object
HOLD_AT_END = (
    *OF_MEMBERS,
    Items,
    AtMost,
    ContainsAtMost,
    Unique,
)  # these hold once nothing more is added to a container

CONTAINERS = ("array", "object")

Residuals = tuple[Formula, ...]
Place = tuple[Residuals, str]  # the residuals of arrays or objects, and which of them
Holds = Callable[[Formula], bool]  # does the value of the member or item satisfy a formula?
OutcomeDepths = dict[Outcome, int]  # an outcome that some value has -> the least depth of containers of such a value


class Transition:
    """One more member or item of a container. `child` are the residuals of its value.

    `meaning` (assertion, which formulas hold) returns what is left of an assertion about the container.
    """

    def __init__(self, residuals: Residuals, meaning: Callable, child_formulas: Iterable[Formula]):
        self.residuals, self._meaning = residuals, meaning
        formulas = tuple(child_formulas)
        self.may_hold = FALSE not in formulas
        self.child: Residuals = tuple(dict.fromkeys(f for f in formulas if f.kind != CONSTANT))

    @memoised
    def residuals_after(self, outcome: Outcome) -> Residuals:
        """Return the residuals of the container after a value with this outcome."""
        holds = (dict(zip(self.child, outcome)) | {TRUE: True, FALSE: False}).__getitem__
        after = {assertion: self._meaning(assertion, holds) for assertion in assertions(self.residuals)}
        changes = {assertion: formula for assertion, formula in after.items() if formula is not atom(assertion)}
        return replace(self.residuals, changes)


class Reachability:
    """The analysis of one schema. `formula_at(pointer)` resolves its references.

    Residuals are *of a type* once `specialise` has been applied: only assertions about that type are left in them.
    """

    def __init__(self, formula_at: Callable[[str], Formula]):
        self._formula_at = formula_at
        self._values: dict[Residuals, OutcomeDepths] = {}
        self._containers: dict[Place, OutcomeDepths] = {}
        self._readers: defaultdict[Place, set[Place]] = defaultdict(set)  # container -> those that depend on it
        self._todo: dict[Place, None] = {}  # a stack of the containers to compute, each once; otherwise all are final
        self._searches: dict[tuple, OutcomeDepths] = {}
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
        """Return the outcomes that values can have, which are of no type yet."""
        if residuals in self._values:
            return self._values[residuals]
        depths = self._least(self.outcomes_of_type(residuals, type) for type in TYPES)
        if not self._todo:
            self._values[residuals] = depths
        return depths

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
        return self._container(residuals, type) if type in CONTAINERS else self._scalar(residuals, type)

    @memoised
    def _scalar(self, residuals: Residuals, type: str) -> OutcomeDepths:
        if type == "string":
            return dict.fromkeys(self.text(residuals).reachable, 0)
        if type == "number":
            ranges = number_ranges(number_points(residuals), divisors(residuals))
            numbers = (*point_spellings(residuals).values(), *(each.example for each in ranges))
            return {number_outcome(residuals, number): 0 for number in numbers}
        if type == "boolean":
            return {boolean_outcome(residuals, value): 0 for value in (False, True)}
        return {tuple(residual is TRUE for residual in residuals): 0}

    def _container(self, residuals: Residuals, type: str) -> OutcomeDepths:
        """Return the outcomes of arrays or objects: a least fixed point, because schemas are recursive."""
        if all(residual.kind == CONSTANT for residual in residuals):
            return {self.end(residuals): 1}
        here, reader = (residuals, type), next(reversed(self._todo), None)
        if reader is not None:
            self._readers[here].add(reader)
        if here not in self._containers:
            self._containers[here] = {}
            self._todo[here] = None
            if reader is not None:  # `reader` waits for the outcomes. Meanwhile, see what else it reads.
                return {(True,) * len(residuals): 1}
            self._solve()
        return self._containers[here]

    def _solve(self) -> None:
        """Compute the containers to do, and again all that depend on one that has changed."""
        again: dict[Place, None] = {}  # a queue
        n_final = len(self._containers) - len(self._todo)
        try:
            while self._todo or again:
                if not self._todo:
                    self._todo[next(iter(again))] = None
                here = next(reversed(self._todo))
                depths = self._search(here)
                if next(reversed(self._todo)) != here:
                    continue  # it has read new containers, and waits for them
                del self._todo[here]
                again.pop(here, None)
                if depths != self._containers[here]:
                    self._containers[here] = depths
                    again.update(dict.fromkeys(self._readers[here] - self._todo.keys()))
        except BaseException:
            self._todo.clear()
            while len(self._containers) > n_final:
                self._containers.popitem()
            raise
        new = islice(self._containers.values(), n_final, None)
        self.deepest = max([self.deepest, *(depth for depths in new for depth in depths.values())])

    @memoised
    def text(self, residuals: Residuals) -> TextAutomaton:
        """Return the automaton of strings. `residuals` are of strings."""
        automaton = TextAutomaton(residuals)
        try:
            automaton.reachable  # noqa: B018 - built now, because here it can be refused
        except PatternError as error:
            regexes = sorted({a.regex for a in assertions(residuals) if isinstance(a, Pattern)})
            raise UnsupportedSchemaError("pattern", "#", f"{error}: {', '.join(regexes)}") from None
        return automaton

    # -- objects and arrays: residuals are of objects, or of arrays

    @memoised
    def names(self, residuals: Residuals) -> tuple[str, ...]:
        """Return the keys that the residuals name. All other keys are open keys."""
        return tuple(sorted(names_of(assertions(residuals))))

    @memoised
    def patterns(self, residuals: Residuals) -> tuple[str, ...]:
        """Return the patterns that classify open keys."""
        regexes = (r for a in assertions(residuals) if isinstance(a, OF_MEMBERS) for r, _ in a.patterns)
        return tuple(sorted(set(regexes)))

    @memoised
    def member(self, residuals: Residuals, key: str | None, matching: frozenset[str]) -> Transition:
        """Return the transition of a member. With None its key is an open one, which `matching` patterns match."""
        found = [a for a in assertions(residuals) if isinstance(a, OF_MEMBERS)]
        values = {a: a.of_open_key(matching) if key is None else a.of_name(key, matching) for a in found}

        def meaning(assertion, holds: Holds) -> Formula:
            if isinstance(assertion, OF_MEMBERS):
                return atom(assertion) if holds(values[assertion]) else FALSE
            if isinstance(assertion, (AtLeast, AtMost)):
                return assertion.after_one()
            return TRUE if assertion.key == key else atom(assertion)

        return Transition(residuals, meaning, values.values())

    @memoised
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
            return assertion.after_one()

        return Transition(residuals, meaning, (*heads.values(), *counted.values()))

    @memoised
    def end(self, residuals: Residuals) -> Outcome:
        """Return the outcome of a container that ends here. What it still lacks will not come."""
        return tuple(truth(residual, lambda a: isinstance(a, HOLD_AT_END)) for residual in residuals)

    def open_key_matches(self, residuals: Residuals) -> list[frozenset[str]]:
        """Return each set of patterns such that some open key matches these and no other pattern."""
        regexes = self.patterns(residuals)
        return self._matches(regexes, frozenset(self.names(residuals))) if regexes else [frozenset()]

    @memoised
    def _matches(self, regexes: tuple[str, ...], names: frozenset[str]) -> list[frozenset[str]]:
        formulas = (atom(Pattern(regex)) for regex in regexes)
        outcomes = self.text((*formulas, atom(Text(names)) if names else FALSE)).reachable
        found = (zip(regexes, matches) for *matches, is_named in sorted(outcomes) if not is_named)
        return [frozenset(regex for regex, is_match in pairs if is_match) for pairs in found]

    @memoised
    def relevant_keys(self, residuals: Residuals) -> frozenset[str]:
        """Return the named keys whose member may change the residuals. Only these need to be remembered."""
        found = assertions(residuals)
        if any(isinstance(a, (AtLeast, AtMost)) for a in found):
            return frozenset(self.names(residuals))
        required = {a.key for a in found if isinstance(a, Present)}
        return frozenset(k for k in self.names(residuals) if k in required or self._may_fail(residuals, k))

    def _may_fail(self, residuals: Residuals, key: str) -> bool:
        """May a member falsify an assertion about the members? Look at one formula at a time, which is faster."""
        transition = self.named_member(residuals, key)
        return not transition.may_hold or any((False,) in self.value((formula,)) for formula in transition.child)

    def object(self, residuals: Residuals, used: frozenset[str]) -> OutcomeDepths:
        """Return the outcomes that a half-read object can still have. `used` are the keys that it already has."""
        if not used:
            return self._container(residuals, "object")
        if (residuals, used) not in self._searches:
            self._searches[residuals, used] = self._search_object(residuals, used)
        return self._searches[residuals, used]

    def array(self, residuals: Residuals) -> OutcomeDepths:
        """Return the outcomes that a half-read array can still have."""
        return self._container(residuals, "array")

    def _search(self, place: Place) -> OutcomeDepths:
        residuals, type = place
        if type == "object":
            return self._search_object(residuals, frozenset())
        return self._close(residuals, {residuals: 1}, self._item_moves)

    def _item_moves(self, residuals: Residuals) -> Iterator[tuple[int, Residuals]]:
        """Yield the ways to read one more item: another one than before, or an earlier one again."""
        for state in dict.fromkeys((residuals, self.repeated(residuals))):
            yield from self._reads(self.item(state))

    @memoised
    def repeated(self, residuals: Residuals) -> Residuals:
        """Return the residuals of an array whose next item equals an earlier one."""
        return replace(residuals, {Unique(is_empty=False): FALSE})

    def _search_object(self, residuals: Residuals, used: frozenset[str]) -> OutcomeDepths:
        """What a member decides does not depend on its place. So take the named keys one after the other, each present
        or absent, and the open keys at the end."""

        def open_moves(state: Residuals) -> Iterator[tuple[int, Residuals]]:
            for matching in self.open_key_matches(state):
                yield from self._reads(self.member(state, None, matching))

        depths = {residuals: 1}
        for key in self._key_order(residuals):
            if key not in used:
                depths = self._decide(key, depths)
                self._check_size(residuals, depths)
        return self._close(residuals, depths, open_moves)

    @memoised
    def _key_order(self, residuals: Residuals) -> list[str]:
        """Return the named keys in an order that leaves few combinations open. Keys without containers come first: they
        often tell alternatives apart, and less is then to be decided about the containers. Otherwise, keys of one part
        of a formula stay together."""
        names = dict.fromkeys([*required_keys(residuals), *self.names(residuals)])
        return sorted(names, key=lambda key: self._holds_containers(residuals, key))

    def _holds_containers(self, residuals: Residuals, key: str) -> bool:
        """Do the residuals say anything about an object or array with this key?"""
        child = self.named_member(residuals, key).child
        return any(r.kind != CONSTANT for type in CONTAINERS for r in self.specialise(child, type))

    def _decide(self, key: str, depths: dict[Residuals, int]) -> dict[Residuals, int]:
        """Return the states of an object, with their depths, once it is known whether it has a key."""
        after: dict[Residuals, int] = {}
        for state, depth in depths.items():
            if key not in self.names(state):
                moves = [(0, state)]
            else:
                moves = [(0, self.without(state, key)), *self._reads(self.named_member(state, key))]
            for cost, then in moves:
                after[then] = min(max(depth, cost), after.get(then, MAX_STATES))
        return after

    @memoised
    def without(self, residuals: Residuals, key: str) -> Residuals:
        """Return the residuals of an object that will not have a key."""
        return replace(residuals, {Present(key): FALSE})

    def _reads(self, transition: Transition) -> Iterator[tuple[int, Residuals]]:
        """Yield the ways to read one more member or item: (depth of the container, residuals after it)."""
        for outcome, depth in self.value(transition.child).items():
            yield depth + 1, transition.residuals_after(outcome)

    def _close(self, start: Residuals, depths: dict[Residuals, int], moves: Callable) -> OutcomeDepths:
        """Find all ends of a container that began in `start` and is in one of some states. `moves` leads to others."""
        todo = list(depths)
        for state in todo:
            for cost, then in moves(state):
                depth = max(depths[state], cost)
                if depth < depths.get(then, depth + 1):
                    depths[then] = depth
                    todo.append(then)
            self._check_size(start, depths)
        return self._least({self.end(state): depth} for state, depth in depths.items())

    def _check_size(self, start: Residuals, depths: dict[Residuals, int]) -> None:
        check_time()
        if len(depths) > MAX_STATES:
            names = ", ".join(self.names(start)[:5])
            reason = f"more than {MAX_STATES} combinations of what has been read, in one with {names}"
            raise UnsupportedSchemaError("properties", "#", reason)


@lru_cache(maxsize=10_000)
def assertions(residuals: Residuals) -> tuple:
    """Return all assertions in some residuals, in the same order in every process."""
    found = sorted(frozenset().union(*(residual.atoms for residual in residuals)), key=lambda a: atom(a).number)
    return tuple(found)


def required_keys(formulas: Iterable[Formula]) -> dict[str, None]:
    """Return the keys of `Present`, in the order in which formulas mention them."""
    found: dict[str, None] = {}
    seen, todo = set(), [*formulas]
    while todo:
        formula = todo.pop()
        if formula in seen or formula.kind == CONSTANT:
            continue
        seen.add(formula)
        if formula.kind != ATOM:
            todo += formula.parts
        elif isinstance(formula.parts[0], Present):
            found[formula.parts[0].key] = None
    return found


def names_of(assertions: Iterable) -> set[str]:
    """Return the keys that some assertions name."""
    found = set()
    for assertion in assertions:
        if isinstance(assertion, Present):
            found.add(assertion.key)
        elif isinstance(assertion, OF_MEMBERS):
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


def divisors(residuals: Residuals) -> tuple[Fraction, ...]:
    """Return the divisors that residuals of numbers name, in order."""
    found = sorted(assertion.divisor for assertion in assertions(residuals) if isinstance(assertion, MultipleOf))
    if len(found) > MAX_DIVISORS:
        raise UnsupportedSchemaError("multipleOf", "#", f"more than {MAX_DIVISORS} divisors of one number")
    return tuple(found)


class NumberRange(NamedTuple):
    """The numbers of a kind between two limits, which are exclusive; None is no limit. They are multiples of some
    divisors and not of others."""

    kind: int
    low: int | float | None
    high: int | float | None
    multiples: Multiples
    example: int | float

    def ending(self, text: str) -> str | None:
        """Return an ending that makes `text` the spelling of a number of the range, or None if there is none."""
        return _ending(text, *self[:-1])


def _ending(text: str, kind: int, low: float | None, high: float | None, multiples: Multiples) -> str | None:
    if not multiples:
        return ending_between(text, kind, low, high)
    return ending_of_multiple(text, kind, low, high, multiples)


@lru_cache(maxsize=10_000)
def number_ranges(points: tuple[int | float, ...], divisors: tuple[Fraction, ...]) -> list[NumberRange]:
    """Return the ranges of numbers between points. All numbers of a range have the same outcome."""
    multiples = [tuple(zip(divisors, holds)) for holds in product((False, True), repeat=len(divisors))]
    limits = pairwise((None, *points, None))
    kinds = ((pair, kind) for pair in limits for kind in (KINDS if _has_integer(*pair) else (FRACTION,)))
    ranges = ((kind, *pair, which) for (pair, kind), which in product(kinds, multiples))
    found = ((range, _ending("", *range)) for range in ranges if not check_time())
    return [NumberRange(*range, parse(spelling)) for range, spelling in found if spelling is not None]


def _has_integer(low: float | None, high: float | None) -> bool:
    """Is there an integer between two limits? This is much faster than a search for its spelling."""
    return low is None or high is None or floor(low) + 1 < high


def number_outcome(residuals: Residuals, number: float) -> Outcome:
    def holds(assertion) -> bool:
        if isinstance(assertion, OfKind):
            return kind(number) in assertion.kinds
        if isinstance(assertion, Number):
            return number == assertion.value  # 3 == 3.0
        if isinstance(assertion, MultipleOf):
            return is_multiple(number, assertion.divisor)
        if number == assertion.limit:
            return assertion.or_equal
        return (number > assertion.limit) == isinstance(assertion, Above)

    return tuple(truth(residual, holds) for residual in residuals)


def boolean_outcome(residuals: Residuals, value: bool) -> Outcome:
    return tuple(truth(residual, lambda assertion: assertion.value == value) for residual in residuals)

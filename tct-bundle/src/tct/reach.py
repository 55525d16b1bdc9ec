"""Which goals can a value meet together? The analysis that keeps the type machine free of dead ends.

A place in a document has goals: formulas of which some combinations (`accept`) suit the place. Reading a
member or an item settles assertions within the goals of its container. `Reachability` knows, for any goals
and for any half-read container, which vectors of truths some completion has, and how deeply that
completion must nest at the least; the type machine offers only what keeps an accepted vector in reach.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import count

from tct.assertions import (
    TYPES,
    Items,
    MaxItems,
    MaxProperties,
    Members,
    MinItems,
    MinProperties,
    Number,
    OfKind,
    Pattern,
    Present,
    Ref,
    TypeIs,
)
from tct.errors import UnsupportedSchemaError
from tct.formula import CONSTANT, FALSE, TRUE, Formula, atom, constant, substitute, truth
from tct.numbers import kind, parse, spellings
from tct.regex import PatternError, compile_pattern
from tct.text import TextAutomaton, Vector

MAX_STATES = 20_000  # of one half-read object or array
AT_THE_END = (Items, MaxItems, Members, MaxProperties)  # what holds of a container once nothing more comes

Goals = tuple[Formula, ...]
Settle = Callable[[Formula, Callable[[Formula], bool]], Formula]  # (goal, what holds of the value) -> what remains
Reach = dict[Vector, int]  # a vector that some value has -> the least depth of containers of such a value


class Step:
    """One member or item of a container: the goals of its value, and what it leaves of the container's."""

    def __init__(self, goals: Goals, settle: Settle, of: list[Formula]):
        self.goals, self._settle = goals, settle
        self.child: Goals = tuple(dict.fromkeys(formula for formula in of if formula.kind != CONSTANT))
        self._after: dict[Vector, Goals] = {}

    def after(self, vector: Vector) -> Goals:
        """The container's goals once the value is known to have `vector` on `child`."""
        if vector not in self._after:
            holds = dict(zip(self.child, vector)) | {TRUE: True, FALSE: False}
            self._after[vector] = tuple(self._settle(goal, holds.__getitem__) for goal in self.goals)
        return self._after[vector]


class Reachability:
    """`formula_at(pointer)` resolves the references of one schema. All methods are memoised."""

    def __init__(self, formula_at: Callable[[str], Formula]):
        self._formula_at = formula_at
        self._values: dict[Goals, Reach] = {}
        self._searches: dict[tuple, Reach] = {}
        self._known_changes: dict[Goals, tuple] = {}
        self._solving = False
        self.deepest = 0  # the depth that any value may need at least
        self.typed = cache(self.typed)
        self.member = cache(self.member)
        self.item = cache(self.item)
        self.text = cache(self.text)
        self.patterns = cache(self.patterns)
        self.names = cache(self.names)
        self.end = cache(self.end)

    # -- values

    def typed(self, goals: Goals, type: str) -> Goals:
        """The goals for a value known to have this JSON type: only assertions about it remain."""
        return tuple(self._specialise(goal, type, ()) for goal in goals)

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

    def value(self, goals: Goals) -> Reach:
        """The vectors that values can have on `goals`: a least fixed point, since schemas are recursive."""
        if goals not in self._values:
            self._values[goals] = {}
            if not self._solving:
                self._solve()
        return self._values[goals]

    def _solve(self) -> None:
        self._solving, changed = True, True
        while changed:
            self._searches.clear()
            self._known_changes.clear()
            before = {goals: dict(reach) for goals, reach in self._values.items()}
            for goals in list(before):
                self._values[goals] = self._least(self.of_type(goals, type) for type in TYPES)
            changed = self._values != before
        self._solving = False
        self.deepest = max((d for reach in self._values.values() for d in reach.values()), default=0)

    @staticmethod
    def _least(reaches: Iterator[Reach]) -> Reach:
        least: Reach = {}
        for reach in reaches:
            for vector, depth in reach.items():
                least[vector] = min(depth, least.get(vector, depth))
        return least

    def of_type(self, goals: Goals, type: str) -> Reach:
        """The vectors that values of one type can have on (untyped) goals."""
        typed = self.typed(goals, type)
        if type == "object":
            return self.object(typed, frozenset())
        if type == "array":
            return self.array(typed)
        if type == "string":
            return dict.fromkeys(self.text(typed).reachable, 0)
        if type == "number":  # those that the goals name, and one of each kind for all others
            numbers = (*spelled_numbers(typed).values(), *unnamed_numbers(typed))
            return {number_vector(typed, number): 0 for number in numbers}
        if type == "boolean":
            return {truth_vector(typed, value): 0 for value in (False, True)}
        return {tuple(goal is TRUE for goal in typed): 0}

    def text(self, goals: Goals) -> TextAutomaton:
        """The automaton of strings; goals are typed here."""
        try:
            return TextAutomaton(goals)
        except PatternError as error:
            regexes = sorted({a.regex for a in assertions(goals) if isinstance(a, Pattern)})
            raise UnsupportedSchemaError("pattern", "#", f"{error}: {', '.join(regexes)}") from None

    # -- objects and arrays: goals are typed here

    def names(self, goals: Goals) -> tuple[str, ...]:
        """The keys that the goals know by name; all others are open keys."""
        return tuple(sorted(names_of(assertions(goals))))

    def patterns(self, goals: Goals) -> tuple[str, ...]:
        """The patterns that open keys are sorted by."""
        regexes = (r for a in assertions(goals) if isinstance(a, Members) for r, _ in a.patterns)
        return tuple(sorted(set(regexes)))

    def member(self, goals: Goals, key: str | None, matching: frozenset[str]) -> Step:
        """Reading a member: a named key, or with None an open key that `matching` patterns match."""
        values = {
            a: a.of_open_key(matching) if key is None else a.of_name(key, matching)
            for a in assertions(goals)
            if isinstance(a, Members)
        }

        def settle(goal: Formula, holds: Callable[[Formula], bool]) -> Formula:
            def meaning(assertion) -> Formula:
                if isinstance(assertion, Members):
                    return atom(assertion) if holds(values[assertion]) else FALSE
                if isinstance(assertion, MinProperties):
                    return atom(MinProperties(assertion.count - 1)) if assertion.count > 1 else TRUE
                if isinstance(assertion, MaxProperties):
                    return atom(MaxProperties(assertion.count - 1)) if assertion.count > 0 else FALSE
                return TRUE if assertion.key == key else atom(assertion)

            return substitute(goal, meaning)

        return Step(goals, settle, list(values.values()))

    def named_member(self, goals: Goals, key: str) -> Step:
        return self.member(goals, key, frozenset(r for r in self.patterns(goals) if compile_pattern(r).matches(key)))

    def item(self, goals: Goals) -> Step:
        """Reading the next item of an array."""
        items = {a: a.head for a in assertions(goals) if isinstance(a, Items)}

        def settle(goal: Formula, holds: Callable[[Formula], bool]) -> Formula:
            def meaning(assertion) -> Formula:
                if isinstance(assertion, MinItems):
                    return atom(MinItems(assertion.count - 1)) if assertion.count > 1 else TRUE
                if isinstance(assertion, MaxItems):
                    return atom(MaxItems(assertion.count - 1)) if assertion.count > 0 else FALSE
                return atom(assertion.tail) if holds(items[assertion]) else FALSE

            return substitute(goal, meaning)

        return Step(goals, settle, list(items.values()))

    @staticmethod
    def end(goals: Goals) -> Vector:
        """The vector of a container that ends here: nothing that is still missing will come."""
        return tuple(truth(goal, lambda assertion: isinstance(assertion, AT_THE_END)) for goal in goals)

    def open_key_vectors(self, goals: Goals) -> Iterator[frozenset[str]]:
        """Each set of patterns that some open key matches, all others not."""
        regexes = self.patterns(goals)
        for vector in sorted(self.key_automaton(goals).reachable):
            yield frozenset(regex for regex, matches in zip(regexes, vector) if matches)

    def key_automaton(self, goals: Goals) -> TextAutomaton:
        return self.text(tuple(atom(Pattern(regex)) for regex in self.patterns(goals)))

    def effective(self, goals: Goals) -> frozenset[str]:
        """The named keys whose member may change the goals; the others need not be remembered."""
        return self._changes(goals)[0]

    def _changes(self, goals: Goals) -> tuple[frozenset[str], list[tuple[str | None, int, Goals]]]:
        """The named keys whose member may change the goals; and all such changes: the key, None for an open one,
        the depth of the value, the goals then."""
        if goals not in self._known_changes:
            changes = []
            if any(goal.kind != CONSTANT for goal in goals):
                steps = [(name, self.named_member(goals, name)) for name in self.names(goals)]
                steps += [(None, self.member(goals, None, m)) for m in self.open_key_vectors(goals)]
                for key, step in steps:
                    for vector, depth in self.value(step.child).items():
                        if (then := step.after(vector)) != goals:
                            changes.append((key, depth, then))
            names = frozenset(key for key, _, _ in changes if key is not None)
            self._known_changes[goals] = names, changes
        return self._known_changes[goals]

    def object(self, goals: Goals, used: frozenset[str]) -> Reach:
        """The vectors that a half-read object can still come to; `used` are the keys it already has."""

        def moves(state) -> Iterator[tuple[int, tuple]]:
            goals, used = state
            for key, depth, then in self._changes(goals)[1]:
                if key is None:
                    yield depth, (then, used & self.effective(then))
                elif key not in used:
                    yield depth, (then, (used | {key}) & self.effective(then))

        return self._search((goals, used & self.effective(goals)), moves)

    def array(self, goals: Goals) -> Reach:
        """The vectors that a half-read array can still come to."""

        def moves(state) -> Iterator[tuple[int, tuple]]:
            step = self.item(state[0])
            for vector, depth in self.value(step.child).items():
                yield depth, (step.after(vector),)

        return self._search((goals,), moves)

    def _search(self, start: tuple, moves: Callable[[tuple], Iterator[tuple[int, tuple]]]) -> Reach:
        """All ends of a container: states are (goals, ...), a move costs the depth of the value it reads."""
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


def assertions(goals: Goals) -> list:
    """All assertions within the goals, in an order that does not depend on the process."""
    return sorted(frozenset().union(*(goal.atoms for goal in goals)), key=lambda a: atom(a).number)


def names_of(assertions: Iterable) -> set[str]:
    """The keys that some assertions name."""
    found = set()
    for assertion in assertions:
        if isinstance(assertion, Present):
            found.add(assertion.key)
        elif isinstance(assertion, Members):
            found.update(name for name, _ in assertion.named)
    return found


def numbers_of(goals: Goals) -> list[int | float]:
    """The numbers that typed goals name."""
    return [assertion.value for assertion in assertions(goals) if isinstance(assertion, Number)]


def spelled_numbers(goals: Goals) -> dict[str, int | float]:
    """The same numbers by each of their spellings: 3 and 3.0 may meet different goals."""
    spelled = (spelling for number in numbers_of(goals) for spelling in spellings(number))
    return {spelling: parse(spelling) for spelling in spelled}


def unnamed_numbers(goals: Goals) -> list[int | float]:
    """A number of each kind that typed goals do not name: it meets what all such numbers meet."""
    named = set(numbers_of(goals))
    return [next(n for n in count(start) if n not in named) for start in (0, 0.0, 0.5)]


def number_vector(goals: Goals, number: float) -> Vector:
    """What a number meets."""

    def holds(assertion) -> bool:
        if isinstance(assertion, OfKind):
            return kind(number) in assertion.kinds
        return assertion.value == number  # 3 == 3.0

    return tuple(truth(goal, holds) for goal in goals)


def truth_vector(goals: Goals, value: bool) -> Vector:
    """What a boolean meets."""
    return tuple(truth(goal, lambda assertion: assertion.value == value) for goal in goals)

"""The type machine: a compiled schema as a graph of nodes.

A `ValueNode` stands for every value of which the same is left to be decided. It leads to an `ObjectNode` or an
`ArrayNode`, and these lead to the `ValueNode` of the next member or item. Nodes are interned, so what is computed once
for a node holds for every document. A node offers only what can still end in a valid document (see reachability.py).

`depth_left` is the number of levels of containers that may still be opened. Documents nest at most MAX_DEPTH deep, so
that any JSON parser can read them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Optional

from tct.assertions import (
    TYPES,
    ContainsAtLeast,
    ContainsAtMost,
    Items,
    Members,
    Number,
    Pattern,
    Present,
    Text,
    Unique,
)
from tct.errors import UnsupportedSchemaError
from tct.formula import FALSE as NEVER
from tct.formula import Formula, atom
from tct.json_text import comparable
from tct.memoised import memoised
from tct.multiples import is_countable
from tct.numbers import WHOLE, exact, is_whole
from tct.reachability import (
    NumberRange,
    OutcomeDepths,
    Reachability,
    Residuals,
    assertions,
    boolean_outcome,
    divisors,
    named_numbers,
    names_of,
    number_outcome,
    number_points,
    number_ranges,
    point_spellings,
)
from tct.references import Schema
from tct.regex import compile_pattern
from tct.schema import SchemaCompiler
from tct.symbols import ARRAY, FALSE, NULL, NUMBER, OBJECT, TRUE, SymbolTable, literal
from tct.text import Outcome, TextMachine

MAX_DEPTH = 100
MAX_KNOWN = 1_000  # keys that an object node remembers
Outcomes = frozenset[Outcome]


class TypeMachine:
    """A compiled schema. `root` is the node of the whole document."""

    def __init__(self, schema: Schema, resources: Mapping[str, Schema] | None = None):
        compiler = SchemaCompiler(schema, resources or {})
        self.ignored_keywords = list(compiler.ignored)
        self.reach = Reachability(compiler.formulas.__getitem__)
        declared = _all_assertions(compiler.formulas.values())
        strings = set().union(*(a.values for a in declared if isinstance(a, Text)))
        numbers = (a.value for a in declared if isinstance(a, Number))
        self.symbols = SymbolTable(names_of(declared), map(literal, (*strings, *numbers)))
        residuals = (compiler.formulas["#"],)
        if self.reach.value(residuals).get((True,), MAX_DEPTH + 1) > MAX_DEPTH:
            raise UnsupportedSchemaError("false", "#", f"no document of at most {MAX_DEPTH} levels is valid")
        self.root = self.value_node(residuals, frozenset([(True,)]), False)

    @memoised
    def value_node(self, residuals: Residuals, accepted: Outcomes, is_item: bool) -> "ValueNode":
        return ValueNode(self, residuals, accepted, is_item)

    @memoised
    def array_node(self, residuals: Residuals, accepted: Outcomes) -> "ArrayNode":
        return ArrayNode(self, residuals, accepted)

    def object_node(self, residuals: Residuals, accepted: Outcomes, used: frozenset[str] = frozenset()) -> "ObjectNode":
        """Return the node of a half-read object. `used` are the keys that it has; irrelevant ones are dropped."""
        return self._object_node(residuals, accepted, used & self.reach.relevant_keys(residuals))

    @memoised
    def _object_node(self, residuals: Residuals, accepted: Outcomes, used: frozenset[str]) -> "ObjectNode":
        return ObjectNode(self, residuals, accepted, used)

    @memoised
    def text_machine(self, residuals: Residuals, accepted: Outcomes) -> TextMachine:
        return TextMachine(self.reach.text(residuals), accepted)

    def capped(self, depth_left: int) -> int:
        """Return the least depth that allows the same as `depth_left`, so that caches have few keys."""
        return min(depth_left, self.reach.deepest + 1)


@dataclass(frozen=True, eq=False)
class Member:
    """A member or an item that may come next: the node of its value, and the node of the container after it."""

    node: "ValueNode"
    after: dict[Outcome, "ObjectNode | ArrayNode"]  # by the outcome of the value
    symbol: int | None = None  # of its key, if the schema names the key
    repeated: dict[Outcome, "ArrayNode"] = field(default_factory=dict)  # as `after`, if the item equals an earlier one


@dataclass(frozen=True, slots=True)
class Opening:
    """What the first symbol of a value determines: the whole value, or the type of the value that follows it."""

    outcome: Outcome | None = None
    value: Any = None
    follows: str | None = None  # "object", "array", "number", or None if the symbol is the whole value


class ValueNode:
    """A value that is about to be read: its residuals, and the outcomes that its parent accepts."""

    def __init__(self, machine: TypeMachine, residuals: Residuals, accepted: Outcomes, is_item: bool):
        self.machine, self.residuals, self.accepted, self.is_item = machine, residuals, accepted, is_item

    @memoised
    def types_within(self, depth_left: int) -> tuple[str, ...]:
        """Return the JSON types that the value may have."""
        outcomes = {type: self.machine.reach.outcomes_of_type(self.residuals, type) for type in TYPES}
        return tuple(type for type, depths in outcomes.items() if _may_end(depths, self.accepted, depth_left))

    @cached_property
    def types(self) -> tuple[str, ...]:
        """The JSON types that the value may have if it may nest deeply enough."""
        return self.types_within(MAX_DEPTH)

    @cached_property
    def least_depth(self) -> int:
        """The least depth of a value that fits."""
        depths = self.machine.reach.value(self.residuals).items()
        return min(depth for outcome, depth in depths if outcome in self.accepted)

    @cached_property
    def implied_type(self) -> str | None:
        """The type that needs no opening symbol because no other type fits: "object", "array", "number" or None.

        An array that is an item always has an opening symbol, because the array around it might end instead.
        """
        if self.types == ("object",) or self.types == ("array",) and not self.is_item:
            return self.types[0]
        return "number" if self.types == ("number",) and self.has_free_numbers else None

    @cached_property
    def openings(self) -> dict[int, Opening]:
        """What each first symbol of the value determines. Bytes of free text are not among the symbols.

        The type that follows must also be one of `types_within`.
        """
        table = {symbol: Opening(outcome, value) for value, (symbol, outcome) in self.choices.items()}
        if "null" in self.types:
            table[NULL] = Opening(self.null)
        for value, outcome in self.booleans.items():
            table[TRUE if value else FALSE] = Opening(outcome, value)
        if self.has_free_numbers:
            table[NUMBER] = Opening(follows="number")
        for type, symbol in (("object", OBJECT), ("array", ARRAY)):
            if type in self.types:
                table[symbol] = Opening(follows=type)
        return table

    @cached_property
    def object(self) -> "ObjectNode":
        return self.machine.object_node(self._specialised("object"), self.accepted)

    @cached_property
    def array(self) -> "ArrayNode":
        return self.machine.array_node(self._specialised("array"), self.accepted)

    @cached_property
    def null(self) -> Outcome:
        return next(iter(self.machine.reach.outcomes_of_type(self.residuals, "null")))

    @cached_property
    def booleans(self) -> dict[bool, Outcome]:
        """Those of false and true that fit."""
        outcomes = {value: boolean_outcome(self._specialised("boolean"), value) for value in (False, True)}
        return {value: outcome for value, outcome in outcomes.items() if outcome in self.accepted}

    @cached_property
    def choices(self) -> dict[str | int | float, tuple[int, Outcome]]:
        """The strings and numbers that are one symbol here: value -> (symbol, outcome).

        Strings are if no free text fits, and numbers are if no other number fits. Otherwise they are spelled out.
        """
        symbols, found = self.machine.symbols.value, {}
        if "string" in self.types and self._strings is not None:
            found |= {string: self.text.outcome_of(string) for string in self._strings}
        if "number" in self.types and not self.has_free_numbers:
            residuals = self._specialised("number")
            found |= {number: number_outcome(residuals, number) for number in named_numbers(residuals)}
        return {value: (symbols[literal(value)], o) for value, o in found.items() if o in self.accepted}

    @cached_property
    def has_free_text(self) -> bool:
        return "string" in self.types and self._strings is None

    @cached_property
    def any_text(self) -> Outcome | None:
        """The outcome of all strings, if every string fits and all have the same."""
        return self.text.only if self.has_free_text else None

    @cached_property
    def has_free_numbers(self) -> bool:
        """Do numbers fit that have no symbol? These are numbers that the schema does not name. Spellings of a named
        number count, too, if their outcome is another: in draft-04 3 is an integer and 3.0 is not."""
        if "number" not in self.types or self.number_ranges:
            return "number" in self.types
        residuals = self._specialised("number")
        named, fitting = named_numbers(residuals), filter(self._number_fits, point_spellings(residuals).values())
        return any(exact(n) not in named or self.number(n) != self.number(exact(n)) for n in fitting)

    @cached_property
    def number_ranges(self) -> list[NumberRange]:
        """The ranges of numbers that fit, besides single numbers."""
        residuals = self._specialised("number")
        ranges = number_ranges(number_points(residuals), divisors(residuals))
        return [each for each in ranges if self._number_fits(each.example)]

    def number(self, value: float) -> Outcome | None:
        """Return the outcome of a number, or None if the number does not fit."""
        residuals = self._specialised("number")
        if self._has_divisors and not is_countable(value) and exact(value) not in number_points(residuals):
            return None
        outcome = number_outcome(residuals, value)
        return outcome if outcome in self.accepted else None

    @cached_property
    def _has_divisors(self) -> bool:
        return bool(divisors(self._specialised("number")))

    def number_may_continue(self, text: str) -> bool:
        """Does the spelling of a number that fits start with `text`?"""
        side = "low" if text.startswith("-") else "high"
        grows = any(each.kind == WHOLE and getattr(each, side) is None for each in self.number_ranges)
        return grows and not self._has_divisors and is_whole(text) or self.number_ending(text) is not None

    @partial(memoised, maxsize=10_000)
    def number_ending(self, text: str) -> str | None:
        """Return a short ending that makes `text` the spelling of a number that fits, or None if there is none."""
        for each in sorted(self.number_ranges, key=lambda each: each.kind, reverse="." in text):  # likely ones first
            ending = each.ending(text)
            if ending is not None:
                return ending
        points = point_spellings(self._specialised("number")).items()
        fitting = (spelling for spelling, number in points if self._number_fits(number))
        return next((spelling[len(text) :] for spelling in fitting if spelling.startswith(text)), None)

    def _number_fits(self, number: float) -> bool:
        return self.number(number) is not None

    @cached_property
    def text(self) -> TextMachine:
        return self.machine.text_machine(self._specialised("string"), self.accepted)

    @cached_property
    def _strings(self) -> list[str] | None:
        """All strings that fit, if they are few and the schema declares each; else None."""
        declared = self.machine.symbols.value
        strings = self.text.strings(len(declared))
        return strings if strings is not None and all(literal(s) in declared for s in strings) else None

    def _specialised(self, type: str) -> Residuals:
        return self.machine.reach.specialise(self.residuals, type)


class ObjectNode:
    """A half-read object: its residuals, and which of the keys that bear on them it already has."""

    def __init__(self, machine: TypeMachine, residuals: Residuals, accepted: Outcomes, used: frozenset[str]):
        self.machine, self.residuals, self.accepted, self.used = machine, residuals, accepted, used
        self.names = frozenset(machine.reach.names(residuals))
        end = machine.reach.end(residuals)
        self.end: Outcome | None = end if end in accepted else None  # None: the object may not end here
        self.known: dict[tuple[str, int], Member] = {}  # results of `member`, for a quick look-up

    def member(self, key: str, depth_left: int) -> Member | None:
        """Return the member with a key that the object does not have yet, or None if no valid object has it."""
        name = key if key in self.names else None
        patterns = self._patterns if name is None else ()
        matching = frozenset(regex for regex in patterns if compile_pattern(regex).matches(key))
        member = self._member(name, matching, self.machine.capped(depth_left))
        if member is not None and len(self.known) < MAX_KNOWN:
            self.known[key, depth_left] = member
        return member

    def open_keys(self, depth_left: int) -> TextMachine | None:
        """Return the allowed keys outside `names`, as texts, or None if there are none."""
        return self._open_keys(self.machine.capped(depth_left))

    def open_keys_by_pattern(self, depth_left: int) -> Iterator[TextMachine]:
        """Yield the allowed keys outside `names`, for each set of patterns those that these and no others match."""
        for matching in self.machine.reach.open_key_matches(self.residuals):
            if keys := self._open_keys(self.machine.capped(depth_left), matching):
                yield keys

    @memoised
    def _open_keys(self, depth_left: int, only: frozenset[str] | None = None) -> TextMachine | None:
        reach = self.machine.reach
        candidates = reach.open_key_matches(self.residuals) if only is None else [only]
        fitting = [matching for matching in candidates if self._member(None, matching, depth_left)]
        if not fitting:
            return None
        accepted = frozenset((*(regex in matching for regex in self._patterns), False) for matching in fitting)
        patterns = (atom(Pattern(regex)) for regex in self._patterns)
        named = atom(Text(self.names)) if self.names else NEVER
        return TextMachine(reach.text((*patterns, named)), accepted)

    @memoised
    def _member(self, key: str | None, matching: frozenset[str], depth_left: int) -> Member | None:
        reach = self.machine.reach
        if key is None:
            transition, used, symbol = reach.member(self.residuals, None, matching), self.used, None
        else:
            transition, used = reach.named_member(self.residuals, key), self.used | {key}
            symbol = self.machine.symbols.key[key]
        after = {}
        for outcome, depth in reach.value(transition.child).items():
            residuals = transition.residuals_after(outcome)
            if depth < depth_left and self._can_end(residuals, used, depth_left):
                after[outcome] = self.machine.object_node(residuals, self.accepted, used)
        if not after:
            return None
        return Member(self.machine.value_node(transition.child, frozenset(after), False), after, symbol)

    def _can_end(self, residuals: Residuals, used: frozenset[str], depth_left: int) -> bool:
        reach = self.machine.reach
        ends_at_once = reach.end(residuals) in self.accepted  # then there is no need to search
        return ends_at_once or _may_end(reach.object(residuals, used), self.accepted, depth_left)

    @cached_property
    def _patterns(self) -> tuple[str, ...]:
        return self.machine.reach.patterns(self.residuals)

    def missing(self) -> list[str]:
        """Return the keys that the residuals still require or forbid, for an error message."""
        return sorted(a.key for a in assertions(self.residuals) if isinstance(a, Present))


class ArrayNode:
    """A half-read array: its residuals."""

    def __init__(self, machine: TypeMachine, residuals: Residuals, accepted: Outcomes):
        self.machine, self.residuals, self.accepted = machine, residuals, accepted
        end = machine.reach.end(residuals)
        self.end: Outcome | None = end if end in accepted else None  # None: the array may not end here
        self.compares_items = any(isinstance(a, Unique) for a in assertions(residuals))  # does a repetition matter?

    @memoised
    def item(self, depth_left: int) -> Member | None:
        """Return the next item, or None if no valid array has one more."""
        return self._item(self.machine.capped(depth_left))

    def after_item(self, member: Member, outcome: Outcome, item: Any, earlier: set) -> Optional["ArrayNode"]:
        """Return the node after an item, or None if it equals an earlier item and should not, or the other way round.

        `earlier` are the items before it, as `comparable` returns them. The item is added.
        """
        if not self.compares_items:
            return member.after[outcome]
        item, n_different = comparable(item), len(earlier)
        earlier.add(item)
        return (member.after if len(earlier) > n_different else member.repeated).get(outcome)

    @memoised
    def _item(self, depth_left: int) -> Member | None:
        reach = self.machine.reach
        transition = reach.item(self.residuals)
        after, repeated = {}, {}
        may_repeat = reach.repeated(self.residuals) != self.residuals
        for outcome, depth in reach.value(transition.child).items():
            then = transition.residuals_after(outcome)
            ways = [(after, then), (repeated, reach.repeated(then))] if may_repeat else [(after, then)]
            for found, residuals in ways:
                if depth < depth_left and _may_end(reach.array(residuals), self.accepted, depth_left):
                    found[outcome] = self.machine.array_node(residuals, self.accepted)
        outcomes = frozenset(after | repeated)
        if not outcomes:
            return None
        return Member(self.machine.value_node(transition.child, outcomes, True), after, repeated=repeated)


def _may_end(depths: OutcomeDepths, accepted: Outcomes, depth_left: int) -> bool:
    """Is there an accepted outcome that needs no more than this depth?"""
    return any(outcome in accepted and depth <= depth_left for outcome, depth in depths.items())


def _all_assertions(formulas: Iterable[Formula]) -> list:
    """Return every assertion in some formulas and in the sub-schemas within them."""
    found, todo = {}, [a for formula in formulas for a in formula.atoms]
    for assertion in todo:
        if assertion in found:
            continue
        found[assertion] = None
        inner: list[Formula] = []
        if isinstance(assertion, Members):
            inner = [f for _, f in (*assertion.named, *assertion.patterns)] + [assertion.rest]
        elif isinstance(assertion, Items):
            inner = [*assertion.prefix, assertion.rest]
        elif isinstance(assertion, (ContainsAtLeast, ContainsAtMost)):
            inner = [assertion.formula]
        todo += [a for formula in inner for a in formula.atoms]
    return list(found)

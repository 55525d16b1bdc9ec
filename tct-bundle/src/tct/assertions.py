"""What a schema can assert about a value. Each assertion is about values of one JSON type only.

Assertions are the atoms of formulas. As in JSON Schema, an assertion holds for every value of another type.
Sub-schemas are formulas. `Ref` stands for a formula that is looked up when it is needed, because schemas may be
recursive.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from tct.automata import finite_language
from tct.formula import FALSE, TRUE, Formula, all_of, atom, constant, truth
from tct.regex import compile_pattern

MAX_PATTERN_NAMES = 64  # keys: a pattern that matches no more of them is replaced by named keys
TYPES = ("null", "boolean", "number", "string", "array", "object")


@dataclass(frozen=True)
class TypeIs:
    """The value has this JSON type. This is the one assertion about values of every type."""

    type: str


@dataclass(frozen=True)
class Ref:
    """The schema at this JSON pointer holds."""

    pointer: str


@dataclass(frozen=True)
class Truth:
    """The boolean equals `value`."""

    value: bool
    about = "boolean"


@dataclass(frozen=True)
class Number:
    """The number equals `value`, which is exact (numbers.py)."""

    value: int | float
    about = "number"


@dataclass(frozen=True)
class Above:
    """The number is greater than `limit`, which is exact, or equal to it if `or_equal`."""

    limit: int | float
    or_equal: bool
    about = "number"


@dataclass(frozen=True)
class Below:
    """The number is less than `limit`, which is exact, or equal to it if `or_equal`."""

    limit: int | float
    or_equal: bool
    about = "number"


@dataclass(frozen=True)
class OfKind:
    """The number is of one of these kinds (numbers.py)."""

    kinds: tuple[int, ...]
    about = "number"


@dataclass(frozen=True)
class MultipleOf:
    """The number is a multiple of `divisor` (multiples.py)."""

    divisor: Fraction
    about = "number"


@dataclass(frozen=True)
class Text:
    """The string is one of `values`."""

    values: frozenset[str]
    about = "string"


@dataclass(frozen=True)
class Pattern:
    """The ECMA-262 regular expression finds a match in the string."""

    regex: str
    about = "string"


@dataclass(frozen=True)
class AtLeast:
    """The container has at least `count` (more) items or members, or the string so many characters."""

    about: str  # "array", "object" or "string"
    count: int

    def after_one(self) -> Formula:
        """Return what is left to be asserted once one item or member has been read."""
        return atom(AtLeast(self.about, self.count - 1)) if self.count > 1 else TRUE


@dataclass(frozen=True)
class AtMost:
    """The container has at most `count` (more) items or members, or the string so many characters."""

    about: str  # "array", "object" or "string"
    count: int

    def after_one(self) -> Formula:
        """Return what is left to be asserted once one item or member has been read."""
        return atom(AtMost(self.about, self.count - 1)) if self.count > 0 else FALSE


@dataclass(frozen=True)
class Items:
    """The first items of the array satisfy `prefix`, one formula each; all further items satisfy `rest`."""

    prefix: tuple[Formula, ...]
    rest: Formula
    about = "array"

    @property
    def head(self) -> Formula:
        """The formula for the next item."""
        return self.prefix[0] if self.prefix else self.rest

    @property
    def tail(self) -> "Items":
        """The assertion about the items after the next."""
        return Items(self.prefix[1:], self.rest)


@dataclass(frozen=True)
class ContainsAtLeast:
    """At least `count` (more) items of the array satisfy the formula."""

    formula: Formula
    count: int
    about = "array"

    def after(self, holds: bool) -> Formula:
        """Return what is left to be asserted after an item that satisfies the formula or not."""
        return atom(ContainsAtLeast(self.formula, self.count - holds)) if self.count > holds else TRUE


@dataclass(frozen=True)
class ContainsAtMost:
    """At most `count` (more) items of the array satisfy the formula."""

    formula: Formula
    count: int
    about = "array"

    def after(self, holds: bool) -> Formula:
        """Return what is left to be asserted after an item that satisfies the formula or not."""
        return atom(ContainsAtMost(self.formula, self.count - holds)) if self.count >= holds else FALSE


@dataclass(frozen=True)
class Unique:
    """No two items of the array are equal. `is_empty` is whether there is none (yet)."""

    is_empty: bool = True
    about = "array"

    def after_one(self) -> Formula:
        """Return what is left to be asserted once one item has been read that equals no earlier one."""
        return atom(Unique(is_empty=False))


@dataclass(frozen=True)
class Members:
    """The values of the object's members satisfy the formulas for their keys.

    The formula of a key in `named` is the only one for that key. The value of any other key must satisfy the formulas
    of all `patterns` that match the key, or `rest` if none does.
    """

    named: tuple[tuple[str, Formula], ...]
    patterns: tuple[tuple[str, Formula], ...]
    rest: Formula
    about = "object"

    @cached_property
    def _by_name(self) -> dict[str, Formula]:
        return dict(self.named)

    @cached_property
    def _hash(self) -> int:
        return hash((self.named, self.patterns, self.rest))

    def __hash__(self) -> int:
        return self._hash

    def of_name(self, key: str, matching: frozenset[str]) -> Formula:
        """Return the formula for the value of `key`; `matching` are the patterns that match the key."""
        return self._by_name[key] if key in self._by_name else self.of_open_key(matching)

    def of_open_key(self, matching: frozenset[str]) -> Formula:
        """Return the formula for the value of a key outside `named`."""
        matched = [formula for regex, formula in self.patterns if regex in matching]
        return all_of(matched) if matched else self.rest


@dataclass(frozen=True)
class Keys:
    """The keys of the object satisfy a formula about strings, of Text and Pattern only."""

    formula: Formula
    about = "object"

    @property
    def named(self) -> list[tuple[str, Formula]]:
        """The keys that the formula names, each with the formula for its value."""
        names = set().union(*(assertion.values for assertion in self.formula.atoms if isinstance(assertion, Text)))
        return [(name, TRUE) for name in names]

    @property
    def patterns(self) -> list[tuple[str, Formula]]:
        """The patterns in the formula, each with the formula for a value whose key matches."""
        return [(assertion.regex, TRUE) for assertion in self.formula.atoms if isinstance(assertion, Pattern)]

    rest = TRUE

    def of_name(self, key: str | None, matching: frozenset[str]) -> Formula:
        """Return TRUE if `key` fits, else FALSE; `matching` are the patterns that match the key."""
        return constant(
            truth(self.formula, lambda a: a.regex in matching if isinstance(a, Pattern) else key in a.values)
        )

    def of_open_key(self, matching: frozenset[str]) -> Formula:
        """Return TRUE if a key outside `named` fits, else FALSE."""
        return self.of_name(None, matching)


@dataclass(frozen=True)
class Present:
    """The object has a member with this key."""

    key: str
    about = "object"


def items_of(prefix: Iterable[Formula], rest: Formula) -> Formula:
    """Return the formula of an array whose first items satisfy `prefix`, and all others `rest`."""
    prefix = tuple(prefix)
    return TRUE if rest is TRUE and all(f is TRUE for f in prefix) else atom(Items(prefix, rest))


def members_of(named: dict[str, Formula], patterns: list[tuple[str, Formula]], rest: Formula) -> Formula:
    """Return the formula of an object each of whose members satisfies the formula of its name and those of the patterns
    that match its name, or `rest` if there are none."""
    formulas = {name: [formula] for name, formula in named.items()}
    written_out = {regex: finite_language(compile_pattern(regex), MAX_PATTERN_NAMES) for regex, _ in patterns}
    for names in written_out.values():
        for name in names or ():
            formulas.setdefault(name, [])
    for name, found in formulas.items():
        found += [formula for regex, formula in patterns if compile_pattern(regex).matches(name)]
    complete = tuple((name, all_of(found)) for name, found in formulas.items())
    open_patterns = tuple((regex, formula) for regex, formula in patterns if written_out[regex] is None)
    if rest is TRUE and all(f is TRUE for _, f in (*complete, *open_patterns)):
        return TRUE
    return atom(Members(complete, open_patterns, rest))

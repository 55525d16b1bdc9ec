"""What a schema can assert about one value, each about values of one JSON type only.

These are the atoms of the formulas. An assertion says nothing about values of another type (it holds for
them), as in JSON Schema. Sub-schemas are formulas; `Ref` stands for one that is resolved when it is needed,
so that schemas may be recursive.
"""

from dataclasses import dataclass

from tct.formula import Formula, all_of

TYPES = ("null", "boolean", "number", "string", "array", "object")


@dataclass(frozen=True)
class TypeIs:
    """The value has this JSON type (about every type)."""

    type: str


@dataclass(frozen=True)
class Ref:
    """Whatever the schema at this JSON pointer asserts."""

    pointer: str


@dataclass(frozen=True)
class Truth:
    """A boolean that equals `value`."""

    value: bool
    about = "boolean"


@dataclass(frozen=True)
class Number:
    """A number that equals `value`, which is exact (numbers.py)."""

    value: int | float
    about = "number"


@dataclass(frozen=True)
class OfKind:
    """A number of one of these kinds (numbers.py)."""

    kinds: tuple[int, ...]
    about = "number"


@dataclass(frozen=True)
class Text:
    """A string that is one of `values`."""

    values: frozenset[str]
    about = "string"


@dataclass(frozen=True)
class Pattern:
    """A string in which the ECMA-262 regular expression finds a match."""

    regex: str
    about = "string"


@dataclass(frozen=True)
class Items:
    """An array whose items satisfy `prefix`, one each, and `rest` beyond it."""

    prefix: tuple[Formula, ...]
    rest: Formula
    about = "array"

    @property
    def head(self) -> Formula:
        """What the next item must satisfy."""
        return self.prefix[0] if self.prefix else self.rest

    @property
    def tail(self) -> "Items":
        """What the items after the next must satisfy."""
        return Items(self.prefix[1:], self.rest)


@dataclass(frozen=True)
class MinItems:
    """An array of at least `count` (more) items."""

    count: int
    about = "array"


@dataclass(frozen=True)
class MaxItems:
    """An array of at most `count` (more) items."""

    count: int
    about = "array"


@dataclass(frozen=True)
class Members:
    """An object whose members' values satisfy the formula for their key.

    A key in `named` answers to that formula alone; any other to all the `patterns` that match it; and one that
    no pattern matches to `rest`.
    """

    named: tuple[tuple[str, Formula], ...]
    patterns: tuple[tuple[str, Formula], ...]
    rest: Formula
    about = "object"

    def of_name(self, key: str, matching: frozenset[str]) -> Formula:
        """What the value of `key` must satisfy; `matching` are the patterns that match the key."""
        for name, formula in self.named:
            if name == key:
                return formula
        return self.of_open_key(matching)

    def of_open_key(self, matching: frozenset[str]) -> Formula:
        """The same for a key outside `named`."""
        matched = [formula for regex, formula in self.patterns if regex in matching]
        return all_of(matched) if matched else self.rest


@dataclass(frozen=True)
class Present:
    """An object with a member of this key."""

    key: str
    about = "object"


@dataclass(frozen=True)
class MinProperties:
    """An object of at least `count` (more) members."""

    count: int
    about = "object"


@dataclass(frozen=True)
class MaxProperties:
    """An object of at most `count` (more) members."""

    count: int
    about = "object"

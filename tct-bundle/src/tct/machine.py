"""The type machine: which types, keys, items and texts may come at each place of a document.

A `Place` is where a value may stand. From a place one goes to an `ObjectState` or `ArrayState`, and from these
by a key or an item to the next place. All of them are interned, so that what is computed once for a place
holds for every document, and each offers only what can still end in a valid document (see reach.py).

`room` counts the levels of containers that may still be opened: documents nest at most MAX_DEPTH deep, so
that any JSON parser reads them.
"""

from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import islice

from tct.assertions import TYPES, Items, Members, Number, Pattern, Present, Text
from tct.errors import UnsupportedSchemaError
from tct.formula import FALSE, Formula, atom
from tct.numbers import WHOLE, endings, exact, is_whole, kind, parse
from tct.reach import (
    Goals,
    Reachability,
    assertions,
    names_of,
    number_vector,
    numbers_of,
    spelled_numbers,
    truth_vector,
    unnamed_numbers,
)
from tct.regex import compile_pattern
from tct.schema import Schema, SchemaCompiler
from tct.symbols import SymbolTable, literal
from tct.text import TextMachine, Vector

MAX_DEPTH = 100
Accept = frozenset[Vector]


class TypeMachine:
    """A compiled schema. `root` is the place of the whole document."""

    def __init__(self, schema: Schema):
        compiler = SchemaCompiler(schema)
        self.reach = Reachability(compiler.formulas.__getitem__)
        declared = _all_assertions(compiler.formulas.values())
        self.symbols = SymbolTable(names_of(declared), map(literal, _values(declared)))
        self.place = cache(lambda goals, accept: Place(self, goals, accept))
        self._object_state = cache(lambda *key: ObjectState(self, *key))
        self.array_state = cache(lambda goals, accept: ArrayState(self, goals, accept))
        self.text_machine = cache(lambda goals, accept: TextMachine(self.reach.text(goals), accept))
        goals = (compiler.formulas["#"],)
        if self.reach.value(goals).get((True,), MAX_DEPTH + 1) > MAX_DEPTH:
            raise UnsupportedSchemaError("false", "#", f"no document of at most {MAX_DEPTH} levels is valid")
        self.root = self.place(goals, frozenset([(True,)]))

    def object_state(self, goals: Goals, accept: Accept, used: frozenset[str] = frozenset()) -> "ObjectState":
        """A half-read object with these goals, and the keys `used` of those that it knows by name."""
        return self._object_state(goals, accept, used & self.reach.effective(goals))

    def capped(self, room: int) -> int:
        """Room as far as it makes a difference, so that few values of it occur in memo keys."""
        return min(room, self.reach.deepest + 1)


@dataclass(frozen=True, eq=False)
class Member:
    """A member or an item that may come next: the place of its value, and the container's state after each of
    the vectors that this may have."""

    place: "Place"
    after: dict[Vector, "ObjectState | ArrayState"]
    symbol: int | None = None  # of its key, if the schema names it


class Place:
    """Where a value may stand: its goals, and the vectors on them that suit its parent."""

    def __init__(self, machine: TypeMachine, goals: Goals, accept: Accept):
        self.machine, self.goals, self.accept = machine, goals, accept
        self.types_within = cache(self.types_within)
        self.number_ending = lru_cache(maxsize=10_000)(self.number_ending)

    def types_within(self, room: int) -> tuple[str, ...]:
        """The JSON types that a value may have here."""
        reach = self.machine.reach
        return tuple(
            type
            for type in TYPES
            if any(v in self.accept and depth <= room for v, depth in reach.of_type(self.goals, type).items())
        )

    @cached_property
    def least_depth(self) -> int:
        """The depth of the flattest value that fits."""
        return min(depth for vector, depth in self.machine.reach.value(self.goals).items() if vector in self.accept)

    @cached_property
    def types(self) -> tuple[str, ...]:
        """The JSON types that a value may have here where there is room."""
        return self.types_within(MAX_DEPTH)

    @cached_property
    def is_object(self) -> bool:
        """Only an object fits: it needs no opening symbol."""
        return self.types == ("object",)

    @cached_property
    def is_array(self) -> bool:
        """Only an array fits: it needs no opening symbol, unless it is itself an item."""
        return self.types == ("array",)

    @cached_property
    def is_number(self) -> bool:
        """Only a number fits, and any spelling may come: it needs no opening symbol."""
        return self.types == ("number",) and self.has_free_numbers

    @cached_property
    def object(self) -> "ObjectState":
        return self.machine.object_state(self._typed("object"), self.accept)

    @cached_property
    def array(self) -> "ArrayState":
        return self.machine.array_state(self._typed("array"), self.accept)

    @cached_property
    def null(self) -> Vector:
        return next(iter(self.machine.reach.of_type(self.goals, "null")))

    @cached_property
    def booleans(self) -> dict[bool, Vector]:
        """Those of false and true that fit."""
        vectors = {value: truth_vector(self._typed("boolean"), value) for value in (False, True)}
        return {value: vector for value, vector in vectors.items() if vector in self.accept}

    @cached_property
    def choices(self) -> dict[str | int | float, tuple[int, Vector]]:
        """Strings and numbers that have a symbol of their own here: value -> (symbol, vector).

        That is so where they are all that fits; where free text or any number fits too, they are spelled.
        """
        symbols, found = self.machine.symbols.value, {}
        if "string" in self.types and self._strings is not None:
            found |= {string: self.text.end_of(string) for string in self._strings}
        if "number" in self.types and not self.has_free_numbers:
            goals = self._typed("number")
            found |= {number: number_vector(goals, number) for number in numbers_of(goals)}
        return {value: (symbols[literal(value)], v) for value, v in found.items() if v in self.accept}

    @cached_property
    def choice_vectors(self) -> dict[int, Vector]:
        """The same by symbol."""
        return dict(self.choices.values())

    @cached_property
    def has_free_text(self) -> bool:
        return "string" in self.types and self._strings is None

    @cached_property
    def any_text(self) -> Vector | None:
        """The vector that every string has, if every string fits."""
        return self.text.ends[0] if self.has_free_text and self.text.takes_any else None

    @cached_property
    def has_free_numbers(self) -> bool:
        """Do numbers fit that have no symbol? Those that the schema does not name, or some that it names, if they
        meet other goals than their symbol does: 3.0, which draft-04 does not take for an integer, but not 3."""
        if "number" not in self.types or self.free_numbers:
            return "number" in self.types
        found = spelled_numbers(self._typed("number")).values()
        return any(self.number(n) not in (None, self.number(exact(n))) for n in found)

    @cached_property
    def free_numbers(self) -> list[int]:
        """The kinds of numbers that fit without being named by the schema."""
        numbers = unnamed_numbers(self._typed("number"))
        return [kind(number) for number in numbers if self.number(number) is not None]

    def number(self, value: float) -> Vector | None:
        """The vector of a number that fits, else None."""
        vector = number_vector(self._typed("number"), value)
        return vector if vector in self.accept else None

    def number_may_continue(self, text: str) -> bool:
        """Is there a spelling of a number that fits and starts with `text`?"""
        return WHOLE in self.free_numbers and is_whole(text) or self.number_ending(text) is not None

    def number_ending(self, text: str) -> str | None:
        """A near ending that makes `text` the spelling of a number that fits; None where none does."""
        likely_first = sorted(self.free_numbers, reverse="." in text)
        for of_kind in likely_first:  # only named numbers do not fit: few endings are tried
            for ending in endings(text, of_kind):
                if self.number(parse(text + ending)) is not None:
                    return ending
        named = spelled_numbers(self._typed("number")).items()
        fitting = (spelling for spelling, number in named if self.number(number) is not None)
        return next((spelling[len(text) :] for spelling in fitting if spelling.startswith(text)), None)

    @cached_property
    def text(self) -> TextMachine:
        return self.machine.text_machine(self._typed("string"), self.accept)

    @cached_property
    def _strings(self) -> list[str] | None:
        """All strings that fit, if they are few and each declared by the schema; else None."""
        if self.text.endless[0]:
            return None
        declared = self.machine.symbols.value
        strings = sorted(text.decode() for text in islice(self.text.language(), len(declared) + 1))
        return strings if all(literal(s) in declared for s in strings) else None

    def _typed(self, type: str) -> Goals:
        return self.machine.reach.typed(self.goals, type)


class ObjectState:
    """A half-read object: what remains of its goals, and which of the keys that bear on them it has."""

    def __init__(self, machine: TypeMachine, goals: Goals, accept: Accept, used: frozenset[str]):
        self.machine, self.goals, self.accept, self.used = machine, goals, accept, used
        self.names = frozenset(machine.reach.names(goals))
        end = machine.reach.end(goals)
        self.end: Vector | None = end if end in accept else None  # the vector if the object may end here
        self._member, self._open_keys = cache(self._member), cache(self._open_keys)
        self.known: dict[tuple[str, int], Member] = {}  # what `member` has given for keys in `names`

    def member(self, key: str, room: int) -> Member | None:
        """A member with a key that the object does not have yet; None where no valid object has it."""
        if key in self.names:
            member = self._member(key, frozenset(), self.machine.capped(room))
            if member is not None:
                self.known[key, room] = member
            return member
        matching = frozenset(regex for regex in self._patterns if compile_pattern(regex).matches(key))
        return self._member(None, matching, self.machine.capped(room))

    def open_keys(self, room: int) -> TextMachine | None:
        """The keys beyond `names`, as texts; None where there are none."""
        return self._open_keys(self.machine.capped(room))

    def _open_keys(self, room: int) -> TextMachine | None:
        reach = self.machine.reach
        fitting = [m for m in reach.open_key_vectors(self.goals) if self._member(None, m, room)]
        if not fitting:
            return None
        accept = frozenset((*(regex in matching for regex in self._patterns), False) for matching in fitting)
        patterns = (atom(Pattern(regex)) for regex in self._patterns)
        named = atom(Text(self.names)) if self.names else FALSE
        return TextMachine(reach.text((*patterns, named)), accept)

    def _member(self, key: str | None, matching: frozenset[str], room: int) -> Member | None:
        reach = self.machine.reach
        step = reach.member(self.goals, None, matching) if key is None else reach.named_member(self.goals, key)
        used = self.used if key is None else self.used | {key}
        after = {}
        for vector, depth in reach.value(step.child).items():
            goals = step.after(vector)
            if depth < room and self._comes_to_an_end(goals, used, room):
                after[vector] = self.machine.object_state(goals, self.accept, used)
        if not after:
            return None
        place = self.machine.place(step.child, frozenset(after))
        return Member(place, after, None if key is None else self.machine.symbols.key[key])

    def _comes_to_an_end(self, goals: Goals, used: frozenset[str], room: int) -> bool:
        reach = self.machine.reach
        if reach.end(goals) in self.accept:  # at once: there is no need to search
            return True
        return any(v in self.accept and depth <= room for v, depth in reach.object(goals, used).items())

    @cached_property
    def _patterns(self) -> tuple[str, ...]:
        return self.machine.reach.patterns(self.goals)

    def missing(self) -> list[str]:
        """Keys whose presence the goals still ask about: for the message where an object ends too early."""
        return sorted(a.key for a in assertions(self.goals) if isinstance(a, Present))


class ArrayState:
    """A half-read array: what remains of its goals."""

    def __init__(self, machine: TypeMachine, goals: Goals, accept: Accept):
        self.machine, self.goals, self.accept = machine, goals, accept
        end = machine.reach.end(goals)
        self.end: Vector | None = end if end in accept else None  # the vector if the array may end here
        self._item = cache(self._item)

    def item(self, room: int) -> Member | None:
        """The next item; None where no valid array has one more."""
        return self._item(self.machine.capped(room))

    def _item(self, room: int) -> Member | None:
        reach = self.machine.reach
        step = reach.item(self.goals)
        after = {}
        for vector, depth in reach.value(step.child).items():
            goals = step.after(vector)
            if depth < room and any(v in self.accept and d <= room for v, d in reach.array(goals).items()):
                after[vector] = self.machine.array_state(goals, self.accept)
        return Member(self.machine.place(step.child, frozenset(after)), after) if after else None


def _all_assertions(formulas) -> list:
    """Every assertion in some formulas and in the sub-schemas within them."""
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
        todo += [a for formula in inner for a in formula.atoms]
    return list(found)


def _values(declared: list) -> list[str | int | float]:
    strings = set().union(*(a.values for a in declared if isinstance(a, Text)))
    return [*sorted(strings), *(a.value for a in declared if isinstance(a, Number))]

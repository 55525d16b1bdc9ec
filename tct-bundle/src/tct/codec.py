"""Documents <-> base symbols: two walks through the type machine, mirror images of each other.

What the schema fixes costs nothing: a value that can only be an object has no opening symbol, one of few
strings is a single symbol. A string needs no opening symbol either, since nothing else starts with a byte.
Written documents are lists of symbols in which free text still stands as str, followed by its end.
"""

import json
from codecs import getincrementaldecoder
from typing import Any

from tct.errors import SchemaValidationError
from tct.machine import MAX_DEPTH, ArrayState, Member, ObjectState, Place, TypeMachine
from tct.numbers import FRACTION, exact, parse, spell
from tct.symbols import (
    ARRAY,
    END_ARRAY,
    END_NUMBER,
    END_OBJECT,
    END_STRING,
    FALSE,
    NULL,
    NUMBER,
    OBJECT,
    TRUE,
    text_bytes,
    text_symbols,
)  # fmt: skip
from tct.text import Vector

_UTF8 = getincrementaldecoder("utf-8")

Path = tuple | None  # (parent path, key or index)
Written = list[int | str]

CUT = object()  # where a document is cut off, its last value or item, or both key and value of its last member


class DuplicateKeys(dict):
    """What a JSON reader puts in place of an object that has the key `repeated` more than once."""

    repeated: str


# ---------------------------------------------------------------------------------------------------------
# writing


class Encoder:
    """Writes one document, up to the CUT if it has one; `edge` is then what may come there, and its path."""

    def __init__(self, machine: TypeMachine):
        self.out: Written = []
        self.machine = machine
        self.edge: tuple[Place | ObjectState | ArrayState, Path] = machine.root, None

    def encode(self, document: Any) -> Written:
        """The symbols of a document; SchemaValidationError with its JSON path where it is not valid."""
        self.value(self.machine.root, document, MAX_DEPTH, None)
        return self.out

    def value(self, place: Place, value: Any, room: int, path: Path, in_array: bool = False) -> Vector | None:
        """Writes a value; gives its vector, or None where it is cut."""
        if isinstance(value, str):
            return self.string(place, value, path)
        if isinstance(value, dict):
            self._check_type(place, "object", room, path)
            if not place.is_object:
                self.out.append(OBJECT)
            return self.object(place.object, value, room, path)
        if isinstance(value, (list, tuple)):
            self._check_type(place, "array", room, path)
            if in_array or not place.is_array:
                self.out.append(ARRAY)
            return self.array(place, value, room, path)
        return self.scalar(place, value, path)

    def object(self, state: ObjectState, value: dict, room: int, path: Path) -> Vector | None:
        if isinstance(value, DuplicateKeys):
            raise _error((path, value.repeated), "this key occurs twice")
        out = self.out
        for key, child in value.items():
            here = path, key
            member = state.known.get((key, room)) or (state.member(key, room) if isinstance(key, str) else None)
            if member is None:
                if key is CUT:
                    self.edge = state, path
                    return None
                raise _error(here, _no_member(state, value, key, room))
            if member.symbol is not None:
                out.append(member.symbol)
            else:
                self._text(key, here)
            vector = member.place.any_text
            if vector is not None and child.__class__ is str and child.isascii():  # most are so: no further ado
                out += child, END_STRING
            else:
                vector = self.value(member.place, child, room - 1, here)
            if vector is None:
                return None
            state = member.after[vector]
        if state.end is None:
            raise _error(path, _too_early(state))
        self.out.append(END_OBJECT)
        return state.end

    def array(self, place: Place, value: list, room: int, path: Path) -> Vector | None:
        state = place.array
        for index, child in enumerate(value):
            member = state.item(room)
            if member is None:
                if child is CUT:
                    self.edge = state, path
                    return None
                raise _error((path, index), "no valid document has an item here")
            vector = self.value(member.place, child, room - 1, (path, index), True)
            if vector is None:
                return None
            state = member.after[vector]
        if state.end is None:
            raise _error(path, "this array may not end here: an item is missing, or one does not fit")
        self.out.append(END_ARRAY)
        return state.end

    def string(self, place: Place, value: str, path: Path) -> Vector:
        if place.has_free_text:
            self._text(value, path)
            vector = place.text.end_of(value)
            if vector is None:
                raise _error(path, f"the string {_short(value)} does not fit here")
            return vector
        if value in place.choices:
            symbol, vector = place.choices[value]
            self.out.append(symbol)
            return vector
        raise _error(path, _unfit(place, value))

    def scalar(self, place: Place, value: Any, path: Path) -> Vector | None:
        out = self.out
        if isinstance(value, bool):
            if value in place.booleans:
                out.append(TRUE if value else FALSE)
                return place.booleans[value]
        elif value is None:
            if "null" in place.types:
                out.append(NULL)
                return place.null
        elif isinstance(value, (int, float)) and place.has_free_numbers:
            vector = place.number(value)
            if vector is not None:
                if not place.is_number:
                    out.append(NUMBER)
                out += [_spelled(value, path), END_NUMBER]
                return vector
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and exact(value) in place.choices and place.number(value) is not None:
            symbol, vector = place.choices[exact(value)]
            out.append(symbol)
            return vector
        if value is CUT:
            self.edge = place, path
            return None
        raise _error(path, _unfit(place, value))

    def _text(self, text: str, path: Path) -> None:
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise _error(path, "a lone surrogate is not a character") from None
        self.out += text, END_STRING

    @staticmethod
    def _check_type(place: Place, type: str, room: int, path: Path) -> None:
        if type not in (place.types if room > place.machine.reach.deepest else place.types_within(room)):
            if room < 1 or type in place.types:
                raise _error(path, f"nested more than {MAX_DEPTH} levels deep")
            raise _error(path, f"expected {_expected(place)}, found {_article(type)}")


def symbols_of(written: Written) -> list[int]:
    """Written text spelled out: base symbols only."""
    symbols: list[int] = []
    for piece in written:
        if isinstance(piece, str):
            symbols += text_symbols(piece)
        else:
            symbols.append(piece)
    return symbols


def _spelled(value: float, path: Path) -> str:
    try:
        return spell(value)
    except ValueError as error:
        raise _error(path, str(error)) from None


# ---------------------------------------------------------------------------------------------------------
# reading


class Truncated(Exception):
    """The symbols end within the document; `partial` is what they say so far, NOTHING if that is no value."""

    def __init__(self, partial: Any):
        self.partial = partial


NOTHING = object()


class Decoder:
    """Reads one document from base symbols; `at` counts the symbols read."""

    def __init__(self, machine: TypeMachine, symbols: list[int]):
        self.machine, self.symbols, self.at = machine, symbols, 0

    def decode(self) -> Any:
        """The document; Truncated where the symbols end too early, ValueError where they are not valid."""
        return self.value(self.machine.root, MAX_DEPTH)[0]

    def value(self, place: Place, room: int, in_array: bool = False) -> tuple[Any, Vector]:
        if place.is_object:
            return self.object(place.object, room)
        if place.is_array and not in_array:
            return self.array(place, room)
        if place.is_number:
            return self.number(place)
        symbol = self.peek()
        if symbol <= END_STRING and place.has_free_text:
            return self.string(place)
        self.at += 1
        if symbol == OBJECT and "object" in place.types_within(room):
            return self.object(place.object, room)
        if symbol == ARRAY and "array" in place.types_within(room):
            return self.array(place, room)
        if symbol == NUMBER and place.has_free_numbers:
            return self.number(place)
        if symbol in (TRUE, FALSE) and (symbol == TRUE) in place.booleans:
            return symbol == TRUE, place.booleans[symbol == TRUE]
        if symbol == NULL and "null" in place.types:
            return None, place.null
        if symbol in place.choice_vectors:
            value = next(value for value, (choice, _) in place.choices.items() if choice == symbol)
            return value, place.choice_vectors[symbol]
        raise self.error(symbol)

    def object(self, state: ObjectState, room: int) -> tuple[dict, Vector]:
        result: dict[str, Any] = {}
        used: set[str] = set()
        key = None
        try:
            while (symbol := self.peek()) != END_OBJECT:
                key, member = self.member(state, symbol, used, room)
                used.add(key)
                result[key], vector = self.value(member.place, room - 1)
                state = member.after[vector]
        except Truncated as cut:
            if key in used and key not in result and cut.partial is not NOTHING:
                result[key] = cut.partial
            raise Truncated(result) from None
        self.at += 1
        if state.end is None:
            raise self.error(symbol)
        return result, state.end

    def member(self, state: ObjectState, symbol: int, used: set[str], room: int) -> tuple[str, Member]:
        key = self.machine.symbols.name_of(symbol)
        if key is not None:
            self.at += 1
            known = key in state.names
        else:
            key = self.text()
            known = key not in state.names
        member = state.member(key, room) if known and key not in used else None
        if member is None:
            raise self.error(symbol)
        return key, member

    def array(self, place: Place, room: int) -> tuple[list, Vector]:
        result: list[Any] = []
        state = place.array
        try:
            while self.peek() != END_ARRAY:
                member = state.item(room)
                if member is None:
                    raise self.error(self.peek())
                value, vector = self.value(member.place, room - 1, in_array=True)
                result.append(value)
                state = member.after[vector]
        except Truncated as cut:
            raise Truncated(result if cut.partial is NOTHING else [*result, cut.partial]) from None
        self.at += 1
        if state.end is None:
            raise self.error(END_ARRAY)
        return result, state.end

    def string(self, place: Place) -> tuple[str, Vector]:
        text = self.text()
        vector = place.text.end_of(text)
        if vector is None:
            raise self.error(END_STRING)
        return text, vector

    def number(self, place: Place) -> tuple[int | float, Vector]:
        try:
            number = parse(self.text(END_NUMBER))
        except Truncated as cut:
            number = parse(cut.partial)
            raise Truncated(NOTHING if number is None else number) from None
        vector = None if number is None else place.number(number)
        if vector is None:
            raise self.error(END_NUMBER)
        return number, vector

    def text(self, end: int = END_STRING) -> str:
        """Free text up to its end symbol."""
        start = self.at
        try:
            self.at, is_whole = self.symbols.index(end, start), True
        except ValueError:
            self.at, is_whole = len(self.symbols), False
        try:
            # not final: the bytes of a last character may be cut
            text = _UTF8().decode(text_bytes(self.symbols[start : self.at]), final=is_whole)
        except ValueError:
            raise ValueError(f"the text that starts at symbol {start} is not UTF-8 up to its end") from None
        if not is_whole:
            raise Truncated(text)
        self.at += 1
        return text

    def peek(self) -> int:
        if self.at >= len(self.symbols):
            raise Truncated(NOTHING)
        return self.symbols[self.at]

    def error(self, symbol: int) -> ValueError:
        name = self.machine.symbols.describe([symbol])
        return ValueError(f"no valid document: {name} before symbol {self.at} does not fit")


# ---------------------------------------------------------------------------------------------------------
# messages


def json_path(path: Path) -> str:
    """A path as people write it.

    >>> json_path((((None, "jobs"), "build"), 0))
    '$.jobs.build[0]'
    """
    parts = []
    for step in _steps(path):
        plain = isinstance(step, str) and step.replace("_", "").replace("-", "").isalnum()
        parts.append(f".{step}" if plain else f"[{step!r}]")
    return "$" + "".join(parts)


def _steps(path: Path) -> tuple[str | int, ...]:
    steps = []
    while path is not None:
        path, step = path
        steps.append(step)
    return tuple(reversed(steps))


def _error(path: Path, reason: str) -> SchemaValidationError:
    return SchemaValidationError(json_path(path), reason, _steps(path))


def _no_member(state: ObjectState, value: dict, key: Any, room: int) -> str:
    if not isinstance(key, str):
        return f"a key must be a string, not {key!r}"
    allowed = sorted(name for name in state.names - value.keys() if state.member(name, room))
    open_keys = state.open_keys(room)
    is_known = key in state.names or open_keys is not None
    patterns = _patterns_of(state, open_keys.ends) if open_keys else []
    return f"{'this key does not fit here' if is_known else 'unknown key'}{_list_of(patterns + allowed)}"


def _patterns_of(state: ObjectState, ends: list[Vector | None]) -> list[str]:
    """What open keys have to match, of which these are the vectors (see `ObjectState.open_keys`)."""
    regexes = state.machine.reach.patterns(state.goals)
    matched = {tuple(regex for regex, matches in zip(regexes, vector) if matches) for vector in ends if vector}
    return sorted(f"keys that match {' and '.join(ways)}" for ways in matched if ways)


def _list_of(names: list[str]) -> str:
    return f"; allowed are {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}" if names else ""


def _too_early(state: ObjectState) -> str:
    missing = state.missing()
    return f"a required key is missing: {' or '.join(missing)}" if missing else "this object has too few members"


def _unfit(place: Place, value: Any) -> str:
    if place.choices and isinstance(value, str):
        return f"{_short(value)} is not one of {_short(sorted(place.choices, key=str))}"
    return f"expected {_expected(place)}, found {_short(value)}"


def _expected(place: Place) -> str:
    number = "integer" if place.free_numbers and FRACTION not in place.free_numbers else "number"
    types = (number if type == "number" else type for type in place.types)
    return " or ".join(_article(type) if type != "null" else type for type in types)


def _article(type: str) -> str:
    return f"an {type}" if type[0] in "aio" else f"a {type}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."

"""Documents <-> base symbols: two walks through the type machine that mirror each other.

What the schema fixes costs nothing: a value that can only be an object has no opening symbol, and one of a few
strings is a single symbol. A string never needs an opening symbol, because nothing else starts with a byte.
The encoder writes segments: symbols, and free text as str followed by its end symbol.
"""

import json
from codecs import getincrementaldecoder
from collections.abc import Iterable
from itertools import islice
from typing import Any

from tct.errors import SchemaValidationError
from tct.json_text import DuplicateKeys
from tct.machine import MAX_DEPTH, ArrayNode, ObjectNode, TypeMachine, ValueNode
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
    symbol_of,
    text_symbols,
    to_chars,
)  # fmt: skip
from tct.text import Outcome

_UTF8 = getincrementaldecoder("utf-8")
_END_STRING, _END_NUMBER, _END_OBJECT, _END_ARRAY = to_chars([END_STRING, END_NUMBER, END_OBJECT, END_ARRAY])

Path = tuple | None  # (parent path, key or index)
Segments = list[int | str]
CutNode = ValueNode | ObjectNode | ArrayNode

CUT = object()  # stands for the last value or item of a document that is cut there, or for a last key and its value


# -- encoding


class Encoder:
    """Encode one document, up to the CUT if it has one. Then `cut_node` is the node there, and `cut_path` its path."""

    def __init__(self, machine: TypeMachine):
        self.out: Segments = []
        self.machine = machine
        self.cut_node: CutNode = machine.root
        self.cut_path: Path = None

    def encode(self, document: Any) -> Segments:
        """Return the segments of a document. Raises SchemaValidationError if it is not valid."""
        self.value(self.machine.root, document, MAX_DEPTH, None)
        return self.out

    def value(self, node: ValueNode, value: Any, depth_left: int, path: Path) -> Outcome | None:
        """Encode a value. Return its outcome, or None if it is cut."""
        if isinstance(value, str):
            return self.string(node, value, path)
        if isinstance(value, dict):
            self._check_type(node, "object", depth_left, path)
            if node.implied_type != "object":
                self.out.append(OBJECT)
            return self.object(node.object, value, depth_left, path)
        if isinstance(value, (list, tuple)):
            self._check_type(node, "array", depth_left, path)
            if node.implied_type != "array":
                self.out.append(ARRAY)
            return self.array(node.array, value, depth_left, path)
        if value is CUT:
            return self._cut(node, path)
        return self.scalar(node, value, path)

    def object(self, node: ObjectNode, value: dict, depth_left: int, path: Path) -> Outcome | None:
        if isinstance(value, DuplicateKeys):
            raise _error((path, value.repeated), "this key occurs twice")
        out = self.out
        for key, child in value.items():
            member = node.known.get((key, depth_left))
            if member is None:
                if key is CUT:
                    return self._cut(node, path)
                member = node.member(key, depth_left) if isinstance(key, str) else None
                if member is None:
                    raise _error((path, key), _no_member(node, value, key, depth_left))
            if member.symbol is not None:
                out.append(member.symbol)
            else:
                self._text(key, (path, key))
            outcome = member.node.any_text
            if outcome is not None and child.__class__ is str and child.isascii():  # a short cut for most values
                out += child, END_STRING
            else:
                outcome = self.value(member.node, child, depth_left - 1, (path, key))
            if outcome is None:
                return None
            node = member.after[outcome]
        if node.end is None:
            missing = " or ".join(node.missing())
            reason = f"a required key is missing: {missing}" if missing else "this object has too few members"
            raise _error(path, reason)
        out.append(END_OBJECT)
        return node.end

    def array(self, node: ArrayNode, value: list, depth_left: int, path: Path) -> Outcome | None:
        earlier = set()
        for index, child in enumerate(value):
            member = node.item(depth_left)
            if member is None:
                if child is CUT:
                    return self._cut(node, path)
                raise _error((path, index), "no valid document has an item here")
            outcome = self.value(member.node, child, depth_left - 1, (path, index))
            if outcome is None:
                return None
            node = node.after_item(member, outcome, child, earlier)
            if node is None:
                raise _error((path, index), f"items must differ, and {_short(child)} occurs twice")
        if node.end is None:
            raise _error(path, "this array may not end here: an item is missing, or one does not fit")
        self.out.append(END_ARRAY)
        return node.end

    def string(self, node: ValueNode, value: str, path: Path) -> Outcome:
        if node.has_free_text:
            self._text(value, path)
            outcome = node.text.outcome_of(value)
            if outcome is None:
                raise _error(path, f"the string {_short(value)} does not fit here")
            return outcome
        if value not in node.choices:
            raise _error(path, _unfit(node, value))
        symbol, outcome = node.choices[value]
        self.out.append(symbol)
        return outcome

    def scalar(self, node: ValueNode, value: Any, path: Path) -> Outcome:
        if value is None:
            if "null" in node.types:
                self.out.append(NULL)
                return node.null
        elif isinstance(value, bool):
            if value in node.booleans:
                self.out.append(TRUE if value else FALSE)
                return node.booleans[value]
        elif isinstance(value, (int, float)) and (outcome := node.number(value)) is not None:
            if node.has_free_numbers:
                if node.implied_type is None:
                    self.out.append(NUMBER)
                self.out += [_spelled(value, path), END_NUMBER]
                return outcome
            if exact(value) in node.choices:
                self.out.append(node.choices[exact(value)][0])
                return outcome
        raise _error(path, _unfit(node, value))

    def _text(self, text: str, path: Path) -> None:
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise _error(path, "a lone surrogate is not a character") from None
        self.out += text, END_STRING

    def _cut(self, node: CutNode, path: Path) -> None:
        self.cut_node, self.cut_path = node, path

    @staticmethod
    def _check_type(node: ValueNode, type: str, depth_left: int, path: Path) -> None:
        if type not in (node.types if depth_left > node.machine.reach.deepest else node.types_within(depth_left)):
            if depth_left < 1 or type in node.types:
                raise _error(path, f"nested more than {MAX_DEPTH} levels deep")
            raise _error(path, f"expected {_expected(node)}, found {_article(type)}")


def flatten(segments: Segments) -> list[int]:
    """Return the symbols of segments, with free text spelled out."""
    symbols: list[int] = []
    for segment in segments:
        symbols += text_symbols(segment) if isinstance(segment, str) else (segment,)
    return symbols


def _spelled(value: float, path: Path) -> str:
    try:
        return spell(value)
    except ValueError as error:
        raise _error(path, str(error)) from None


# -- decoding


class Truncated(Exception):
    """The symbols end within the document. `partial` is the value so far, or NO_VALUE."""

    def __init__(self, partial: Any):
        self.partial = partial


NO_VALUE = object()


class Decoder:
    """Decode one document from base symbols, given as characters (see `to_chars`). `at` is the number of those read."""

    def __init__(self, machine: TypeMachine, chars: str):
        self.machine, self.chars, self.at = machine, chars, 0

    def decode(self) -> Any:
        """Return the document. Raises Truncated if the symbols end too early, and ValueError if they are invalid."""
        return self.value(self.machine.root, MAX_DEPTH)[0]

    def value(self, node: ValueNode, depth_left: int) -> tuple[Any, Outcome]:
        type = node.implied_type
        if type is None:
            char = self.peek()
            if char <= _END_STRING and node.has_free_text:
                text = self.text()
                outcome = node.text.outcome_of(text)
                if outcome is None:
                    raise self.error(_END_STRING)
                return text, outcome
            self.at += 1
            opening = node.openings.get(symbol_of(char))
            if opening is None:
                raise self.error(char)
            if opening.follows is None:
                return opening.value, opening.outcome
            type = opening.follows
            if type not in node.types_within(depth_left):
                raise self.error(char)
        if type == "object":
            return self.object(node.object, depth_left)
        return self.array(node.array, depth_left) if type == "array" else self.number(node)

    def object(self, node: ObjectNode, depth_left: int) -> tuple[dict, Outcome]:
        result: dict[str, Any] = {}
        key, name_of = None, self.machine.symbols.name_of_char
        try:
            while (char := self.peek()) != _END_OBJECT:
                key = None
                name = name_of(char)
                is_named = name is not None
                if is_named:
                    self.at += 1
                else:
                    name = self.text()
                member = node.known.get((name, depth_left)) or node.member(name, depth_left)
                if member is None or is_named == (member.symbol is None) or name in result:
                    raise self.error(char)
                key, outcome = name, member.node.any_text
                if outcome is not None and self.peek() <= _END_STRING:  # a short cut for most values
                    result[key] = self.text()
                else:
                    result[key], outcome = self.value(member.node, depth_left - 1)
                node = member.after[outcome]
        except Truncated as cut:
            if key is not None and key not in result and cut.partial is not NO_VALUE:
                result[key] = cut.partial
            raise Truncated(result) from None
        self.at += 1
        if node.end is None:
            raise self.error(char)
        return result, node.end

    def array(self, node: ArrayNode, depth_left: int) -> tuple[list, Outcome]:
        result: list[Any] = []
        earlier = set()
        try:
            while (char := self.peek()) != _END_ARRAY:
                member = node.item(depth_left)
                if member is None:
                    raise self.error(char)
                value, outcome = self.value(member.node, depth_left - 1)
                result.append(value)
                node = node.after_item(member, outcome, value, earlier)
                if node is None:
                    raise self.error(char)
        except Truncated as cut:
            raise Truncated(result if cut.partial is NO_VALUE else [*result, cut.partial]) from None
        self.at += 1
        if node.end is None:
            raise self.error(_END_ARRAY)
        return result, node.end

    def number(self, node: ValueNode) -> tuple[int | float, Outcome]:
        try:
            number = parse(self.text(_END_NUMBER))
        except Truncated as cut:
            number = parse(cut.partial)
            raise Truncated(NO_VALUE if number is None else number) from None
        outcome = None if number is None else node.number(number)
        if outcome is None:
            raise self.error(_END_NUMBER)
        return number, outcome

    def text(self, end: str = _END_STRING) -> str:
        """Read free text up to its end symbol."""
        start, stop = self.at, self.chars.find(end, self.at)
        if stop < 0:
            raise Truncated(self._utf8(start, None))
        text = self.chars[start:stop]
        self.at = stop + 1
        return text if text.isascii() else self._utf8(start, stop)

    def _utf8(self, start: int, stop: int | None) -> str:
        """Return the text of bytes. If it is not whole, a last character that is cut is dropped."""
        try:
            return _UTF8().decode(self.chars[start:stop].encode("latin-1"), final=stop is not None)
        except ValueError:
            raise ValueError(f"the text that starts at symbol {start} is not UTF-8 up to its end") from None

    def peek(self) -> str:
        try:
            return self.chars[self.at]
        except IndexError:
            raise Truncated(NO_VALUE) from None

    def error(self, char: str) -> ValueError:
        name = self.machine.symbols.describe([symbol_of(char)])
        return ValueError(f"not a valid document: {name} before symbol {self.at} does not fit")


# -- messages


def json_path(path: Path) -> str:
    """Return a path in the usual notation.

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


def _no_member(node: ObjectNode, value: dict, key: Any, depth_left: int) -> str:
    if not isinstance(key, str):
        return f"a key must be a string, not {key!r}"
    allowed = list(islice(filter(lambda name: node.member(name, depth_left), sorted(node.names - value.keys())), 13))
    open_keys = node.open_keys(depth_left)
    is_known = key in node.names or open_keys is not None
    names = (_patterns_of(node, open_keys.outcomes) if open_keys else []) + allowed
    listed = f"; allowed are {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}" if names else ""
    return f"{'this key does not fit here' if is_known else 'unknown key'}{listed}"


def _patterns_of(node: ObjectNode, outcomes: Iterable[Outcome]) -> list[str]:
    """Describe the patterns that open keys with these outcomes match (see `ObjectNode.open_keys`)."""
    regexes = node.machine.reach.patterns(node.residuals)
    matched = {tuple(regex for regex, matches in zip(regexes, outcome) if matches) for outcome in outcomes}
    return sorted(f"keys that match {' and '.join(patterns)}" for patterns in matched if patterns)


def _unfit(node: ValueNode, value: Any) -> str:
    if node.choices and isinstance(value, str):
        return f"{_short(value)} is not one of {_short(sorted(node.choices, key=str))}"
    return f"expected {_expected(node)}, found {_short(value)}"


def _expected(node: ValueNode) -> str:
    kinds = {each.kind for each in node.number_ranges}
    number = "integer" if kinds and FRACTION not in kinds else "number"
    types = (number if type == "number" else type for type in node.types)
    return " or ".join(_article(type) if type != "null" else type for type in types)


def _article(type: str) -> str:
    return f"an {type}" if type[0] in "aio" else f"a {type}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."

"""What a document that is cut anywhere says: a value with CUT at the cut, and hints at what comes there.

A text has several such readings if its end is ambiguous. All notations find them in the same way: put a marker at the
cut, close what is open, let the ordinary reader read it, and see where the marker is.
"""

from collections.abc import Iterator
from copy import copy
from typing import Any, NamedTuple

from tct.bpe import Symbols
from tct.codec import CUT, CutNode
from tct.machine import MAX_DEPTH, ObjectNode, ValueNode
from tct.numbers import MAX_DIGITS, may_continue
from tct.symbols import END_OBJECT, END_STRING, FALSE, FIRST_BYTE, NULL, NUMBER, TRUE, literal, text_symbols

Continuation = tuple[Symbols, list[Symbols]]  # symbols that come next, and sequences of which one comes after them


class PartialDocument(NamedTuple):
    """A value with CUT where it ends, and hints at what comes there. One of them holds; if empty, anything may come."""

    value: Any
    hints: tuple["CutHint", ...] = ()


# -- hints


class String(NamedTuple):
    """A string starts with `text`, followed in UTF-8 by one of `next_bytes`."""

    text: str
    next_bytes: tuple[bytes, ...] = (b"",)

    def continuations(self, node: ValueNode) -> Iterator[Continuation]:
        if node.has_free_text:
            yield _free_text(*self)
        strings = ((v, symbol) for v, (symbol, _) in node.choices.items() if isinstance(v, str))
        yield (), [(symbol,) for value, symbol in strings if _starts_with(value, *self)]

    def __str__(self) -> str:
        return f"a string that starts with {literal(self.text)}"


class Key(NamedTuple):
    """A key starts with `text`, followed in UTF-8 by one of `next_bytes`."""

    text: str
    next_bytes: tuple[bytes, ...] = (b"",)

    def continuations(self, node: ObjectNode) -> Iterator[Continuation]:
        yield _free_text(*self)
        symbols = node.machine.symbols.key
        yield (), [(symbols[name],) for name in node.names if _starts_with(name, *self)]

    def __str__(self) -> str:
        return f"a key that starts with {literal(self.text)}"


class Number(NamedTuple):
    """A number starts with `text`. If no spelling (numbers.py) starts so, it may be any number."""

    text: str

    def continuations(self, node: ValueNode) -> Iterator[Continuation]:
        if node.has_free_numbers:
            any_number = "-0123456789" if len(self.text) <= MAX_DIGITS else ""
            texts = [self.text] if may_continue(self.text) else any_number
            yield () if node.implied_type else (NUMBER,), [tuple(text_symbols(text)) for text in texts]
        numbers = ((v, symbol) for v, (symbol, _) in node.choices.items() if not isinstance(v, str))
        yield (), [(symbol,) for value, symbol in numbers if literal(value).startswith(self.text)]

    def __str__(self) -> str:
        return f"a number that starts with {self.text}"


class Constant(NamedTuple):
    """The value is true, false or null."""

    value: bool | None

    def continuations(self, node: CutNode) -> Iterator[Continuation]:
        yield (), [({True: TRUE, False: FALSE, None: NULL}[self.value],)]

    def __str__(self) -> str:
        return literal(self.value)


class NotFinished(NamedTuple):
    """The object or array does not end here. `end` is the symbol of its end."""

    end: int

    def continuations(self, node: CutNode) -> Iterator[Continuation]:
        yield (), [symbol for symbol in all_symbols(node) if symbol != (self.end,)]

    def __str__(self) -> str:
        return "one more member" if self.end == END_OBJECT else "one more item"


CutHint = String | Key | Number | Constant | NotFinished


def all_symbols(node: CutNode) -> list[Symbols]:
    """Return every symbol except PAD, each as a sequence."""
    return [(symbol,) for symbol in range(FIRST_BYTE, node.machine.symbols.size)]


def _free_text(text: str, next_bytes: tuple[bytes, ...]) -> Continuation:
    """Spell out the start of a text. If it is empty, all that is known is that a byte or the end of the text comes."""
    start, ends = tuple(text_symbols(text)), [tuple(text_symbols(more)) for more in next_bytes]
    return start, ends if start or any(ends) else [(symbol,) for symbol in range(FIRST_BYTE, END_STRING + 1)]


def _starts_with(whole: str, text: str, next_bytes: tuple[bytes, ...]) -> bool:
    return whole.startswith(text) and whole.encode()[len(text.encode()) :].startswith(next_bytes)


# -- values with a cut


def reopen_tail(value: Any, levels: int = MAX_DEPTH) -> PartialDocument:
    """Cut a whole value at its end, so that the outermost `levels` of the containers that end with it may continue."""
    root = tail = copy(value)
    if levels == 0 or not isinstance(root, (dict, list)):
        return PartialDocument(value)
    while tail and levels > 1 and isinstance(inner := tail[last_key(tail)], (dict, list)):
        tail[last_key(tail)] = copy(inner)
        tail, levels = tail[last_key(tail)], levels - 1
    if isinstance(tail, dict):
        tail[CUT] = CUT
    else:
        tail.append(CUT)
    return PartialDocument(root)


class MarkerHit(NamedTuple):
    """A value with CUT in place of what ended with the marker, the text before the marker, and what that text is:
    "key", "item", or the "value" of a member or document."""

    value: Any
    text: str
    role: str


def locate_marker(value: Any, marker: str) -> MarkerHit | None:
    """Find the marker at the end of a value, and put CUT in its place. Return None if the value does not end so."""
    root = {"": value}
    holder, at = root, ""
    while isinstance(node := holder[at], (dict, list)) and node:
        holder, at = node, last_key(node)
        if isinstance(at, str) and at.endswith(marker):
            del holder[at]
            holder[CUT] = CUT
            return MarkerHit(root[""], at.removesuffix(marker), "key")
    if not isinstance(node, str) or not node.endswith(marker):
        return None
    holder[at] = CUT
    return MarkerHit(root[""], node.removesuffix(marker), "item" if isinstance(holder, list) else "value")


def last_key(container: dict | list) -> Any:
    """Return the key of the last member, or the index of the last item."""
    return next(reversed(container)) if isinstance(container, dict) else -1


def unused_marker(text: str) -> str:
    """Return a character that a text does not contain, not even as an escape."""
    escapes, candidates = text.lower(), map(chr, range(0xE000, 0xF900))
    return next(char for char in candidates if char not in text and f"{ord(char):x}" not in escapes)

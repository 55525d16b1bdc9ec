"""Base symbols: the alphabet in which documents are encoded, before any merge.

Symbol 0 is PAD. A byte b of free text is symbol 1 + b. Then come the structure symbols, one symbol for each property
name that the schema declares, and one for each enum or const value.
"""

import json
from collections.abc import Iterable

PAD = 0
FIRST_BYTE = 1  # the symbol of byte 0
STRUCTURE_SYMBOLS = (
    "END_STRING", "NUMBER", "END_NUMBER", "TRUE", "FALSE", "NULL", "OBJECT", "END_OBJECT", "ARRAY", "END_ARRAY",
)  # fmt: skip
END_STRING, NUMBER, END_NUMBER, TRUE, FALSE, NULL, OBJECT, END_OBJECT, ARRAY, END_ARRAY = range(257, 267)
FIRST_NAME = 267
_FIRST_CHAR = 0xE000  # of the private use area


class SymbolTable:
    """The symbols of a schema: `key[name]` and `value[literal]`. A literal is the JSON text of a value."""

    def __init__(self, names: Iterable[str], literals: Iterable[str]):
        self.names, self.literals = sorted(set(names)), sorted(set(literals))
        self.key = {name: FIRST_NAME + i for i, name in enumerate(self.names)}
        first_value = FIRST_NAME + len(self.names)
        self.value = {literal: first_value + i for i, literal in enumerate(self.literals)}
        self.size = first_value + len(self.literals)
        # symbol, as a number or as a character -> the property name that it stands for, or None
        self.name_of = dict(enumerate(self.names, FIRST_NAME)).get
        self.name_of_char = {to_chars([symbol]): name for name, symbol in self.key.items()}.get

    def describe(self, symbols: Iterable[int]) -> str:
        """Return readable text: free text as it is, all other symbols in angle brackets.

        >>> SymbolTable(["on"], ['"push"']).describe([267, 268, 1 + 104, 1 + 105, END_STRING])
        '<on:><"push">hi<END_STRING>'
        """
        parts: list[str] = []
        text = bytearray()
        for symbol in symbols:
            if FIRST_BYTE <= symbol < END_STRING:
                text.append(symbol - FIRST_BYTE)
                continue
            parts += [_readable(text), f"<{self._describe(symbol)}>"]
            text.clear()
        return "".join([*parts, _readable(text)])

    def _describe(self, symbol: int) -> str:
        if symbol == PAD:
            return "PAD"
        if symbol < FIRST_NAME:
            return STRUCTURE_SYMBOLS[symbol - END_STRING]
        name = self.name_of(symbol)
        return f"{name}:" if name is not None else self.literals[symbol - FIRST_NAME - len(self.names)]


def text_symbols(text: str | bytes) -> list[int]:
    """Return the symbols of a text, one for each byte of its UTF-8."""
    return [FIRST_BYTE + byte for byte in (text.encode() if isinstance(text, str) else text)]


def text_bytes(symbols: Iterable[int]) -> bytes:
    """Return the bytes of a text: the inverse of `text_symbols`."""
    return bytes(symbol - FIRST_BYTE for symbol in symbols)


def to_chars(symbols: Iterable[int]) -> str:
    """Return symbols as a string, which is quick to search, slice and merge. The symbol of a byte becomes the character
    of that number, so ASCII text stays as it is. All other symbols become characters of the private use area.

    >>> to_chars([*text_symbols("hi"), END_STRING])
    'hi\ue101'
    """
    return "".join(chr(s - FIRST_BYTE if FIRST_BYTE <= s < END_STRING else _FIRST_CHAR + s) for s in symbols)


def text_chars(text: str) -> str:
    """Return the same as `to_chars` for the symbols of a text.

    >>> text_chars("hi é") == to_chars(text_symbols("hi é"))
    True
    """
    return text if text.isascii() else text.encode().decode("latin-1")


def symbol_of(char: str) -> int:
    """Return the symbol of a character that `to_chars` returns."""
    return ord(char) + FIRST_BYTE if ord(char) < 256 else ord(char) - _FIRST_CHAR


def literal(value) -> str:
    """Return the JSON text of an enum or const value.

    >>> literal("push"), literal(3)
    ('"push"', '3')
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _readable(text: bytes | bytearray) -> str:
    return "".join(map(_escaped, bytes(text).decode("utf-8", "backslashreplace")))


def _escaped(char: str) -> str:
    """Escape a character that is not printable or looks like a bracket around a symbol."""
    if char in "<>":
        return "\\" + char
    return char if char.isprintable() and char != "\\" else char.encode("unicode_escape").decode()

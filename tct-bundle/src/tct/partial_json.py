"""JSON text cut anywhere: what it says, found by the JSON reader with a mark at the cut (see prefix.py)."""

import re
import string
from collections.abc import Callable
from typing import Any

from tct.codec import CUT
from tct.prefix import (
    Beginning,
    Constant,
    Found,
    Hint,
    Key,
    NotEnd,
    Number,
    String,
    find_mark,
    left_open,
    new_mark,
)
from tct.symbols import END_ARRAY, END_OBJECT, literal

MAX_SPAN = 1024  # of the characters that a cut escape may stand for, so many are told apart

_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+(?P<end>"?)|[][{}]', re.DOTALL)
_HEX = "[0-9a-fA-F]"
_HIGH, _LOW = rf"\\u[dD][89abAB]{_HEX}{{2}}", rf"\\u[dD][c-fC-F]{_HEX}{{2}}"  # the halves of a surrogate pair
_CHARACTERS = re.compile(rf"(?:[^\\]|\\[^u]|(?!{_HIGH})\\u{_HEX}{{4}}|{_HIGH}{_LOW})*+", re.DOTALL)
_CUT_ESCAPE = re.compile(rf"\\(?:u{_HEX}{{0,3}})?|{_HIGH}(?:\\(?:u(?:[dD](?:[c-fC-F]{_HEX}?)?)?)?)?")
_WORD_CHARACTERS = string.ascii_letters + string.digits + "+-."
_NUMBER = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]*)?)?")  # how one starts

Read = Callable[[str], Any]


def json_beginnings(text: str, read: Read) -> list[Beginning]:
    """What a JSON text may say that is cut anywhere; ValueError where it is not JSON. `read` parses JSON."""
    closing, string_at = _open_at_end(text)
    if string_at is not None:
        return [_cut_string(text, string_at, closing, read)]
    before = text.rstrip(_WORD_CHARACTERS)
    hints = word_hints(text[len(before) :])
    if not hints:
        return [_between(text, closing, read)]
    cut = Beginning(_marked(before, ['"M"'], closing, read).document, hints)
    try:
        return [_between(text, closing, read), cut]
    except ValueError:  # the word is not whole
        return [cut]


def _open_at_end(text: str) -> tuple[str, int | None]:
    """The brackets that close what a JSON text leaves open, and where a string starts that it leaves open."""
    closing, string_at = [], None
    for token in _STRING_OR_BRACKET.finditer(text):
        if token[0] in ("[", "{"):
            closing.append("]" if token[0] == "[" else "}")
        elif token[0] in ("]", "}"):
            del closing[-1:]
        elif not token["end"]:
            string_at = token.start()
    return "".join(reversed(closing)), string_at


def _between(text: str, closing: str, read: Read) -> Beginning:
    """A text cut where no string, number or literal is open. A whole document is left open, as a value is."""
    if not text.strip():
        return Beginning(CUT)
    if not closing:
        return left_open(read(text))
    found = _marked(text, ['"M"', '"M":null', ':"M"', ',"M"', ',"M":null'], closing, read)
    if not text.rstrip().endswith(","):
        return Beginning(found.document)
    return Beginning(found.document, (NotEnd(END_OBJECT if found.role == "key" else END_ARRAY),))


def _cut_string(text: str, start: int, closing: str, read: Read) -> Beginning:
    """A text cut within the string, a key or a value, that starts at `start`."""
    escape = text[_CHARACTERS.match(text, start + 1).end() :]
    if not _CUT_ESCAPE.fullmatch(escape):
        escape = ""  # there is a fault in it, which the reader will tell
    found = _marked(text.removesuffix(escape), ['M"', 'M":null'], closing, read)
    kind = Key if found.role == "key" else String
    if not escape:
        return Beginning(found.document, (kind(found.text),))
    return Beginning(found.document, (kind(found.text, _characters(escape)),))


def _marked(text: str, endings: list[str], closing: str, read: Read) -> Found:
    """The document with CUT, made whole by the first ending that does, in which M stands for the mark."""
    mark, errors = new_mark(text), []
    for ending in endings:
        try:
            document = read(text + ending.replace("M", mark) + closing)
        except ValueError as error:
            errors.append(error)
        else:
            return find_mark(document, mark) or Found(document, "", "value")  # not found: a key is repeated
    raise errors[0]


def word_hints(word: str) -> tuple[Hint, ...]:
    """What a value outside of quotes may be that starts with `word`; nothing for an empty one."""
    if not word:
        return ()
    constants = [Constant(value) for value in (True, False, None) if literal(value).startswith(word)]
    return (*constants, *[Number(word.lower())] * bool(_NUMBER.fullmatch(word)))


def _characters(escape: str) -> tuple[bytes, ...]:
    r"""The characters, in UTF-8, whose JSON escapes start with `escape`; any bytes if more than MAX_SPAN do.

    >>> [character.decode() for character in _characters(r"\u00e")][:3]
    ['à', 'á', 'â']
    >>> _characters(r"\ud83d\ude8")[0].decode(), _characters(r"\u")[:2]
    ('🚀', (b'\x00', b'\x01'))
    """
    digits = escape[2:6] + escape[8:]
    if len(digits) < 4:
        first, last = (int(digits.ljust(4, digit), 16) for digit in "0f")
    else:  # the first half of a pair is there
        pairs = (digits + low[len(digits) - 4 :] for low in ("dc00", "dfff"))
        first, last = (ord(bytes.fromhex(pair).decode("utf-16-be")) for pair in pairs)
    if last - first >= MAX_SPAN or first < 0xE000 and last >= 0xD800:
        return tuple(bytes([byte]) for byte in range(256))
    return tuple(chr(code).encode() for code in range(first, last + 1))

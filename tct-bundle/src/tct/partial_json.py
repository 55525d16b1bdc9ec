"""Read JSON text that is cut anywhere, with a marker at the cut (see partial_document.py)."""

import re
import string

from tct.codec import CUT
from tct.json_text import read_json
from tct.partial_document import (
    Constant,
    CutHint,
    Key,
    MarkerHit,
    NotFinished,
    Number,
    PartialDocument,
    String,
    locate_marker,
    reopen_tail,
    unused_marker,
)
from tct.symbols import END_ARRAY, END_OBJECT, literal

MAX_SPAN = 1024  # characters that a cut escape may stand for; if there are more, they are not listed

_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+(?P<end>"?)|[][{}]', re.DOTALL)
_HEX = "[0-9a-fA-F]"
_HIGH, _LOW = rf"\\u[dD][89abAB]{_HEX}{{2}}", rf"\\u[dD][c-fC-F]{_HEX}{{2}}"  # the halves of a surrogate pair
_CHARACTERS = re.compile(rf"(?:[^\\]|\\[^u]|(?!{_HIGH})\\u{_HEX}{{4}}|{_HIGH}{_LOW})*+", re.DOTALL)
_CUT_ESCAPE = re.compile(rf"\\(?:u{_HEX}{{0,3}})?|{_HIGH}(?:\\(?:u(?:[dD](?:[c-fC-F]{_HEX}?)?)?)?)?")
_WORD_CHARACTERS = string.ascii_letters + string.digits + "+-."
_NUMBER = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]*)?)?")  # the start of a number


def read_partial_json(text: str) -> list[PartialDocument]:
    """Return the readings of a JSON text that is cut anywhere. Raises ValueError if it is not JSON."""
    closing, string_at = _open_at_end(text)
    if string_at is not None:
        return [_cut_string(text, string_at, closing)]
    before = text.rstrip(_WORD_CHARACTERS)
    hints = word_hints(text[len(before) :])
    if not hints:
        return [_between(text, closing)]
    cut = PartialDocument(_marked(before, ['"M"'], closing).value, hints)
    try:
        return [_between(text, closing), cut]
    except ValueError:  # the word is not whole
        return [cut]


def _open_at_end(text: str) -> tuple[str, int | None]:
    """Return the brackets that close what a JSON text leaves open, and the start of a string that it leaves open."""
    closing, string_at = [], None
    for token in _STRING_OR_BRACKET.finditer(text):
        if token[0] in ("[", "{"):
            closing.append("]" if token[0] == "[" else "}")
        elif token[0] in ("]", "}"):
            del closing[-1:]
        elif not token["end"]:
            string_at = token.start()
    return "".join(reversed(closing)), string_at


def _between(text: str, closing: str) -> PartialDocument:
    """Read a text that is cut where no string, number or literal is open. A whole document may continue at its end."""
    if not text.strip():
        return PartialDocument(CUT)
    if not closing:
        return reopen_tail(read_json(text))
    hit = _marked(text, ['"M"', '"M":null', ':"M"', ',"M"', ',"M":null'], closing)
    if not text.rstrip().endswith(","):
        return PartialDocument(hit.value)
    return PartialDocument(hit.value, (NotFinished(END_OBJECT if hit.role == "key" else END_ARRAY),))


def _cut_string(text: str, start: int, closing: str) -> PartialDocument:
    """Read a text that is cut within a string, a key or a value, that starts at `start`."""
    escape = text[_CHARACTERS.match(text, start + 1).end() :]
    if not _CUT_ESCAPE.fullmatch(escape):
        escape = ""  # it is malformed: the reader will report that
    hit = _marked(text.removesuffix(escape), ['M"', 'M":null'], closing)
    kind = Key if hit.role == "key" else String
    if not escape:
        return PartialDocument(hit.value, (kind(hit.text),))
    return PartialDocument(hit.value, (kind(hit.text, _characters(escape)),))


def _marked(text: str, endings: list[str], closing: str) -> MarkerHit:
    """Read a text with the first ending that makes it a whole document. In an ending M stands for the marker."""
    marker, errors = unused_marker(text), []
    for ending in endings:
        try:
            value = read_json(text + ending.replace("M", marker) + closing)
        except ValueError as error:
            errors.append(error)
        else:
            return locate_marker(value, marker) or MarkerHit(value, "", "value")  # not found: a key is repeated
    raise errors[0]


def word_hints(word: str) -> tuple[CutHint, ...]:
    """Return hints at a value without quotes that starts with `word`. There are none for an empty word."""
    if not word:
        return ()
    constants = [Constant(value) for value in (True, False, None) if literal(value).startswith(word)]
    return (*constants, *[Number(word.lower())] * bool(_NUMBER.fullmatch(word)))


def _characters(escape: str) -> tuple[bytes, ...]:
    r"""Return the characters, in UTF-8, whose JSON escapes start with `escape`; all bytes if more than MAX_SPAN do.

    >>> [character.decode() for character in _characters(r"\u00e")][:3]
    ['à', 'á', 'â']
    >>> _characters(r"\ud83d\ude8")[0].decode(), _characters(r"\u")[:2]
    ('🚀', (b'\x00', b'\x01'))
    """
    digits = escape[2:6] + escape[8:]
    if len(digits) < 4:
        first, last = (int(digits.ljust(4, digit), 16) for digit in "0f")
    else:  # the first half of a pair is complete
        pairs = (digits + low[len(digits) - 4 :] for low in ("dc00", "dfff"))
        first, last = (ord(bytes.fromhex(pair).decode("utf-16-be")) for pair in pairs)
    if last - first >= MAX_SPAN or first < 0xE000 and last >= 0xD800:
        return tuple(bytes([byte]) for byte in range(256))
    return tuple(chr(code).encode() for code in range(first, last + 1))

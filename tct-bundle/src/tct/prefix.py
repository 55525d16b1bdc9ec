"""Documents cut off anywhere, as tokens from which every completion keeps what was given.

What a cut text says is a `Beginning`: a document with CUT where the text ends, and hints at what comes there.
A text has several where its end can be read in several ways. They are found alike in any notation: put a mark
at the cut, close what is open, let the ordinary reader read it, and see where the mark has gone.
"""

import re
from collections.abc import Iterable, Iterator
from copy import copy
from itertools import accumulate
from os.path import commonprefix
from typing import TYPE_CHECKING, Any, NamedTuple

from tct.bpe import Merges, Symbols, split_words
from tct.codec import CUT, Encoder, Written, json_path, symbols_of
from tct.errors import SchemaValidationError
from tct.machine import MAX_DEPTH, ArrayState, ObjectState, Place
from tct.numbers import MAX_DIGITS, may_continue
from tct.symbols import (
    BYTE,
    END_ARRAY,
    END_NUMBER,
    END_OBJECT,
    END_STRING,
    FALSE,
    NULL,
    NUMBER,
    TRUE,
    literal,
    text_bytes,
    text_symbols,
)  # fmt: skip

if TYPE_CHECKING:
    from tct.matcher import Matcher
    from tct.tokenizer import Tokenizer

TEXT_ENDS = (END_STRING, END_NUMBER)

# What may grow at the end of a text (see bpe.py): an expression, a word, line ends, blanks.
_GROWING = re.compile(r"(?: ?\$\{\{ ?[\w.-]* ?\}{0,2}[\r\n]*| ?\S+[\r\n]*|\s+)\Z")

Spot = Place | ObjectState | ArrayState  # where the cut may be
Spelled = tuple[Symbols, list[Symbols]]  # symbols that come, and sequences of which one comes after them


class Prefix(list):
    """The tokens of a cut document; they spell all that is certain.

    Their last piece may grow, and is then merged in other ways: the first `kept` tokens are those with which
    every completion starts, and the base symbols after them start with one of `alternatives`. Where there is
    but one alternative, the list ends with it, and whatever is allowed may follow.
    """

    def __init__(self, tokens: Iterable[int], kept: int, alternatives: Iterable[Symbols]):
        super().__init__(tokens)
        self.kept, self.alternatives = kept, tuple(alternatives)


def prefix_of(tokenizer: "Tokenizer", beginnings: Iterable["Beginning"]) -> Prefix:
    """What beginnings have in common; SchemaValidationError where no valid document starts in any such way."""
    spelled: list[Spelled] = []
    errors: list[SchemaValidationError] = []
    for beginning in beginnings:
        try:
            spelled += _spell(tokenizer, beginning)
        except SchemaValidationError as error:
            errors.append(error)
    if not spelled:
        raise max(errors, key=lambda error: len(error.path))
    shared = commonprefix([start for start, _ in spelled])
    ways = _shortest(start[len(shared) :] + end for start, ends in spelled for end in ends)
    certain = shared + commonprefix(ways)
    tokens, growing = _settle(certain, tokenizer.merges)
    at = len(certain) - len(growing)
    return Prefix(
        tokens + tokenizer.merges.tokens_of_symbols(growing),
        len(tokens),
        (shared[at:] + way[max(0, at - len(shared)) :] for way in ways),
    )


def _spell(tokenizer: "Tokenizer", beginning: "Beginning") -> "list[Spelled]":
    """The ways in which a document may start that starts so."""
    encoder = Encoder(tokenizer.machine)
    written = encoder.encode(beginning.document)
    spot, path = encoder.edge
    start, hints = tuple(symbols_of(written)), beginning.hints
    if not hints and isinstance(spot, ObjectState) and path and isinstance(path[1], int):
        hints = (NotEnd(END_ARRAY),)  # an item has begun, which may have no symbol of its own
    if not hints:
        return [(start, [()])]
    matcher = tokenizer.matcher()
    assert matcher.accept_tokens(tokenizer.merges.tokens(written))
    try:
        ways = [way for hint in hints if not isinstance(spot, ArrayState) for way in hint.spelled(spot)]
    except UnicodeEncodeError:
        raise SchemaValidationError(json_path(path), "a lone surrogate is not a character") from None
    ways = [(said, ends) for said, ends in ((said, _allowed(matcher, said, ends)) for said, ends in ways) if ends]
    if not ways:
        said = " or ".join(map(str, hints))
        said = said if len(said) <= 100 else said[:97] + "..."
        raise SchemaValidationError(json_path(path), f"{said} does not fit here")
    next_ones = {end for said, ends in ways for end in ends if not said}
    if next_ones.issuperset(_allowed(matcher, (), _symbols(spot))):
        return [(start, [()])]  # nothing else could follow anyway
    return [(start + said, ends) for said, ends in ways]


def _allowed(matcher: "Matcher", said: Symbols, ends: Iterable[Symbols]) -> list[Symbols]:
    """Those ends that are allowed after what was said."""
    matcher = matcher.fork()
    if not matcher.accept_tokens(said):
        return []
    return [end for end in ends if matcher.validate_tokens(end) == len(end)]


def _shortest(ways: Iterable[Symbols]) -> list[Symbols]:
    """Those that start with no other: the others say nothing new."""
    shortest: list[Symbols] = []
    for way in sorted(set(ways)):
        if not shortest or way[: len(shortest[-1])] != shortest[-1]:
            shortest.append(way)
    return shortest


# ---------------------------------------------------------------------------------------------------------
# what is said


class Beginning(NamedTuple):
    """A document, CUT where it ends, and hints at what comes there: one of them holds. Without, anything may."""

    document: Any
    hints: tuple["Hint", ...] = ()


class String(NamedTuple):
    """A string starts with `text`, followed in UTF-8 by one of `nexts`."""

    text: str
    nexts: tuple[bytes, ...] = (b"",)

    def spelled(self, place: Place) -> Iterator[Spelled]:
        if place.has_free_text:
            yield _free_text(*self)
        strings = ((v, symbol) for v, (symbol, _) in place.choices.items() if isinstance(v, str))
        yield (), [(symbol,) for value, symbol in strings if _starts_with(value, *self)]

    def __str__(self) -> str:
        return f"a string that starts with {literal(self.text)}"


class Key(NamedTuple):
    """A key starts with `text`, followed in UTF-8 by one of `nexts`."""

    text: str
    nexts: tuple[bytes, ...] = (b"",)

    def spelled(self, state: ObjectState) -> Iterator[Spelled]:
        yield _free_text(*self)
        symbols = state.machine.symbols.key
        yield (), [(symbols[name],) for name in state.names if _starts_with(name, *self)]

    def __str__(self) -> str:
        return f"a key that starts with {literal(self.text)}"


class Number(NamedTuple):
    """A number starts with `text`, spelled as we do (numbers.py); where we never do so, it is any number."""

    text: str

    def spelled(self, place: Place) -> Iterator[Spelled]:
        if place.has_free_numbers:
            any_number = "-0123456789" if len(self.text) <= MAX_DIGITS else ""
            texts = [self.text] if may_continue(self.text) else any_number
            yield () if place.is_number else (NUMBER,), [tuple(text_symbols(text)) for text in texts]
        numbers = ((v, symbol) for v, (symbol, _) in place.choices.items() if not isinstance(v, str))
        yield (), [(symbol,) for value, symbol in numbers if literal(value).startswith(self.text)]

    def __str__(self) -> str:
        return f"a number that starts with {self.text}"


class Constant(NamedTuple):
    """It is true, false or null."""

    value: bool | None

    def spelled(self, spot: Spot) -> Iterator[Spelled]:
        yield (), [({True: TRUE, False: FALSE, None: NULL}[self.value],)]

    def __str__(self) -> str:
        return literal(self.value)


class NotEnd(NamedTuple):
    """The object or array does not end here; `end` is the symbol for it."""

    end: int

    def spelled(self, spot: Spot) -> Iterator[Spelled]:
        yield (), [symbol for symbol in _symbols(spot) if symbol != (self.end,)]

    def __str__(self) -> str:
        return "one more member" if self.end == END_OBJECT else "one more item"


Hint = String | Key | Number | Constant | NotEnd


def _symbols(spot: Spot) -> list[Symbols]:
    """Every symbol there is, as a sequence."""
    return [(symbol,) for symbol in range(BYTE, spot.machine.symbols.size)]


def _free_text(text: str, nexts: tuple[bytes, ...]) -> Spelled:
    """A text that goes on so, spelled out; of an empty one nothing is certain but that a byte or its end comes."""
    said, ends = tuple(text_symbols(text)), [tuple(text_symbols(more)) for more in nexts]
    return said, ends if said or any(ends) else [(symbol,) for symbol in range(BYTE, END_STRING + 1)]


def _starts_with(whole: str, text: str, nexts: tuple[bytes, ...]) -> bool:
    return whole.startswith(text) and whole.encode()[len(text.encode()) :].startswith(nexts)


# ---------------------------------------------------------------------------------------------------------
# pieces


def _settle(symbols: Symbols, merges: Merges) -> tuple[list[int], Symbols]:
    """The tokens of the first pieces, those that stay as they are whatever follows, and the symbols after them."""
    text_end = max((i for i, symbol in enumerate(symbols, 1) if symbol in TEXT_ENDS), default=0)
    tokens, growing = merges.tokens(_written(symbols[:text_end])), symbols[text_end:]
    text_at = next((i for i, symbol in enumerate(growing) if symbol < END_STRING), None)
    if text_at is None:
        return tokens, growing
    run, growing = growing[:text_at], growing[text_at:]
    words = settled_words(text_bytes(growing).decode(errors="ignore"))  # a last character may be cut
    for piece in (run, *map(text_symbols, words)):
        tokens += merges.tokens_of_symbols(piece)
    return tokens, growing[len("".join(words).encode()) :]


def settled_words(text: str) -> list[str]:
    """Return the first words of a text: those that `split_words` returns for every text that starts with it.

    >>> settled_words("npm run bui"), settled_words("actions/checkout@v4")
    (['npm', ' run'], [])
    """
    if not text:
        return []
    growing, words = _GROWING.search(text).start(), split_words(text)
    return [word for word, end in zip(words, accumulate(map(len, words))) if end <= growing]


def _written(symbols: Symbols) -> Written:
    """The inverse of `symbols_of`."""
    written: Written = []
    text: list[int] = []
    for symbol in symbols:
        if symbol < END_STRING:
            text.append(symbol)
        elif symbol in TEXT_ENDS:
            written += [text_bytes(text).decode(), symbol]
            text = []
        else:
            written.append(symbol)
    return written


# ---------------------------------------------------------------------------------------------------------
# values with a cut


def left_open(value: Any, levels: int = MAX_DEPTH) -> Beginning:
    """A value that is whole, the outermost `levels` of the containers that end with it left open."""
    root = edge = copy(value)
    if levels == 0 or not isinstance(root, (dict, list)):
        return Beginning(value)
    while edge and levels > 1 and isinstance(inner := edge[last_of(edge)], (dict, list)):
        edge[last_of(edge)] = copy(inner)
        edge, levels = edge[last_of(edge)], levels - 1
    if isinstance(edge, dict):
        edge[CUT] = CUT
    else:
        edge.append(CUT)
    return Beginning(root)


class Found(NamedTuple):
    """A document with CUT in place of what ended with the mark, the text before the mark, and what it is:
    "key", "item", or the "value" of a member or document."""

    document: Any
    text: str
    role: str


def find_mark(document: Any, mark: str) -> Found | None:
    """Where a document, which is changed, ends with a mark; None if it does not."""
    root = {"": document}
    holder, at = root, ""
    while isinstance(node := holder[at], (dict, list)) and node:
        holder, at = node, last_of(node)
        if isinstance(at, str) and at.endswith(mark):
            del holder[at]
            holder[CUT] = CUT
            return Found(root[""], at.removesuffix(mark), "key")
    if not isinstance(node, str) or not node.endswith(mark):
        return None
    holder[at] = CUT
    return Found(root[""], node.removesuffix(mark), "item" if isinstance(holder, list) else "value")


def last_of(container: dict | list) -> Any:
    """The key or index of the last member or item."""
    return next(reversed(container)) if isinstance(container, dict) else -1


def new_mark(text: str) -> str:
    """A character that does not occur in a text, escaped neither."""
    return next(
        char for char in map(chr, range(0xE000, 0xF900)) if char not in text and f"{ord(char):x}" not in text.lower()
    )

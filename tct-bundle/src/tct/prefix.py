"""Encode a document that is cut anywhere, so that every completion keeps what was given."""

import re
from collections.abc import Iterable
from itertools import accumulate
from os.path import commonprefix

from tct.bpe import BpeModel, Symbols, split_words
from tct.codec import Encoder, Segments, flatten, json_path
from tct.errors import SchemaValidationError
from tct.machine import ArrayNode, ObjectNode
from tct.matcher import Matcher, Prefix
from tct.partial_document import Continuation, NotFinished, PartialDocument, all_symbols
from tct.symbols import END_ARRAY, END_NUMBER, END_STRING, text_bytes, text_symbols
from tct.vocabulary import Vocabulary

TEXT_ENDS = (END_STRING, END_NUMBER)

# The part of a text's end that may still grow (see bpe.py): an expression, a word, line ends, blanks.
_GROWING = re.compile(r"(?: ?\$\{\{ ?[\w.-]* ?\}{0,2}[\r\n]*| ?\S+[\r\n]*|\s+)\Z")


def prefix_of(vocabulary: Vocabulary, readings: Iterable[PartialDocument]) -> Prefix:
    """Return what some readings of a document have in common.

    Raises SchemaValidationError if no valid document starts with any of them.
    """
    continuations: list[Continuation] = []
    errors: list[SchemaValidationError] = []
    for reading in readings:
        try:
            continuations += _continuations(vocabulary, reading)
        except SchemaValidationError as error:
            errors.append(error)
    if not continuations:
        raise max(errors, key=lambda error: len(error.path))
    shared = commonprefix([start for start, _ in continuations])
    pending = _shortest(start[len(shared) :] + end for start, ends in continuations for end in ends)
    certain = shared + commonprefix(pending)
    tokens, growing = _stable_tokens(certain, vocabulary.bpe)
    at = len(certain) - len(growing)
    return Prefix(
        tokens + vocabulary.bpe.tokens_of_symbols(growing),
        len(tokens),
        (shared[at:] + symbols[max(0, at - len(shared)) :] for symbols in pending),
    )


def _continuations(vocabulary: Vocabulary, reading: PartialDocument) -> list[Continuation]:
    """Return the ways in which the symbols of a document with this reading may start."""
    encoder = Encoder(vocabulary.machine)
    segments = encoder.encode(reading.value)
    node, path, hints = encoder.cut_node, encoder.cut_path, reading.hints
    start = tuple(flatten(segments))
    if not hints and isinstance(node, ObjectNode) and path and isinstance(path[1], int):
        hints = (NotFinished(END_ARRAY),)  # an item has begun, and may have no opening symbol
    if not hints:
        return [(start, [()])]
    matcher = Matcher(vocabulary)
    assert matcher.accept_tokens(vocabulary.bpe.tokens(segments))
    try:
        found = [found for hint in hints if not isinstance(node, ArrayNode) for found in hint.continuations(node)]
    except UnicodeEncodeError:
        raise SchemaValidationError(json_path(path), "a lone surrogate is not a character") from None
    found = [(first, allowed) for first, ends in found if (allowed := _allowed(matcher, first, ends))]
    if not found:
        described = " or ".join(map(str, hints))
        described = described if len(described) <= 100 else described[:97] + "..."
        raise SchemaValidationError(json_path(path), f"{described} does not fit here")
    next_ones = {end for first, ends in found for end in ends if not first}
    if next_ones.issuperset(_allowed(matcher, (), all_symbols(node))):
        return [(start, [()])]  # the hints exclude nothing that is allowed
    return [(start + first, ends) for first, ends in found]


def _allowed(matcher: Matcher, first: Symbols, ends: Iterable[Symbols]) -> list[Symbols]:
    """Return those ends that are allowed after the first symbols."""
    matcher = matcher.fork()
    if not matcher.accept_tokens(first):
        return []
    return [end for end in ends if matcher.validate_tokens(end) == len(end)]


def _shortest(sequences: Iterable[Symbols]) -> list[Symbols]:
    """Return the sequences that do not start with another one, because those that do are redundant."""
    shortest: list[Symbols] = []
    for symbols in sorted(set(sequences)):
        if not shortest or symbols[: len(shortest[-1])] != shortest[-1]:
            shortest.append(symbols)
    return shortest


def _stable_tokens(symbols: Symbols, bpe: BpeModel) -> tuple[list[int], Symbols]:
    """Return the tokens of the first pre-tokens, which stay the same whatever follows, and the symbols after them."""
    text_end = max((i for i, symbol in enumerate(symbols, 1) if symbol in TEXT_ENDS), default=0)
    tokens, growing = bpe.tokens(_unflatten(symbols[:text_end])), symbols[text_end:]
    text_at = next((i for i, symbol in enumerate(growing) if symbol < END_STRING), None)
    if text_at is None:
        return tokens, growing
    run, growing = growing[:text_at], growing[text_at:]
    words = settled_words(text_bytes(growing).decode(errors="ignore"))  # a last character may be cut
    for pre_token in (run, *map(text_symbols, words)):
        tokens += bpe.tokens_of_symbols(pre_token)
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


def _unflatten(symbols: Symbols) -> Segments:
    """Return the segments of symbols: the inverse of `flatten`."""
    segments: Segments = []
    text: list[int] = []
    for symbol in symbols:
        if symbol < END_STRING:
            text.append(symbol)
        elif symbol in TEXT_ENDS:
            segments += [text_bytes(text).decode(), symbol]
            text = []
        else:
            segments.append(symbol)
    return segments

"""Merges over base symbols: how written documents fall into pieces, and how pieces become tokens.

A merge never crosses the border of a piece. A piece is a run of structure, or a word of a text. Words end at blanks
and at line ends. Plain `${{ ... }}` expressions are words, and so is the digest of a pinned action. The end of a
string belongs to its last word.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import chain, takewhile
from math import isqrt
from typing import NamedTuple

from tokenizers import Tokenizer, models, trainers

from tct.codec import Written
from tct.symbols import BYTE, END_NUMBER, END_STRING, text_bytes, text_symbols

MAX_SHORT = 64  # characters of the longest text that is remembered as a whole
MAX_KNOWN = 500_000  # pieces whose tokens are remembered
MIN_OWNERS = 3  # a merge is used by at least three owners, so that the text of a single project is not learned
_FIRST_CHAR = 0xE000  # symbols become characters of the private use area while the tokenizers library works
_SPELLED_BYTES = {byte: _FIRST_CHAR + BYTE + byte for byte in range(256)}
_WORDS = re.compile(
    r"""
    [ ]?\$\{\{[ ]?[\w.-]+[ ]?\}\}[\r\n]*  # an expression that only names something
  | [ ]?\S+?(?=\$\{\{                      # what stands before any expression
            |(?<=@)[0-9a-f]{40}(?!\S))   # or before the commit of an action: digests would fill the vocabulary
  | [ ]?\S+[\r\n]*                        # any other word, with the line's end after it
  | \s*[\r\n] | \s+(?!\S) | \s+           # line ends, indents, blanks
    """,
    re.VERBOSE,
)
_REGISTRY = re.compile(rb"\w\.org\b")  # nearly all package registries are here: no token names one

_LINES = re.compile(r"[^\n]*\n+|[^\n]+")

Symbols = tuple[int, ...]
Merge = tuple[int, int]  # two token ids


def pieces(written: Written) -> Iterator[Symbols]:
    """The pieces of a written document, as base symbols."""
    for run, text, end in runs(written):
        if run:
            yield run
        if text is not None:
            yield from text_pieces(text, end)


def runs(written: Written) -> Iterator[tuple[Symbols, str | None, int]]:
    """Runs of structure, each with the text after it and that text's end symbol; no text after the last."""
    start = 0
    for at in [at for at, item in enumerate(written) if item.__class__ is str]:
        yield tuple(written[start:at]), written[at], written[at + 1]
        start = at + 2
    yield tuple(written[start:]), None, END_STRING


def text_pieces(text: str, end: int) -> list[Symbols]:
    """The pieces of one string or number; the last has its end symbol.

    >>> [len(piece) for piece in text_pieces("npm run build", END_STRING)]
    [3, 4, 7]
    """
    *first, last = split_words(text)
    return [*(tuple(text_symbols(word)) for word in first), (*text_symbols(last), end)]


def split_words(text: str) -> list[str]:
    """Return the words of a text, at least one.

    >>> split_words("npm run build"), split_words("a${{ b }}"), split_words("actions/checkout@v4")
    (['npm', ' run', ' build'], ['a', '${{ b }}'], ['actions/checkout@v4'])
    >>> len(split_words("actions/checkout@" + "0123abcd" * 5))
    2
    """
    return [word for line in split_lines(text) for word in _WORDS.findall(line)] or [""]


def split_lines(text: str) -> list[str]:
    """Return the lines of a text, each with the line ends after it. No word crosses them.

    >>> split_lines("npm ci\\n\\nnpm test")
    ['npm ci\\n\\n', 'npm test']
    """
    return _LINES.findall(text)


class Memo(dict):
    """Remembers the token ids that a function gives, for up to MAX_KNOWN arguments."""

    def __init__(self, function: Callable[..., Iterable[int]]):
        self._function = function

    def __missing__(self, argument: Hashable):
        if len(self) >= MAX_KNOWN:
            self.clear()
        found = self[argument] = tuple(self._function(argument))
        return found


class Merges:
    """Merges in the order of their rank, over an alphabet of `base_size` symbols.

    Token ids: a symbol is its own id; the tokens that merges make follow, in the order of the merges.
    """

    def __init__(self, base_size: int, merges: Iterable[Merge]):
        self.merges = list(merges)
        self.symbols_of: list[Symbols] = [(symbol,) for symbol in range(base_size)]  # token id -> base symbols
        self.parts: list[Merge | None] = [None] * base_size  # token id -> the merge that makes it
        ids = {symbols: i for i, symbols in enumerate(self.symbols_of)}
        for left, right in self.merges:
            whole = self.symbols_of[left] + self.symbols_of[right]
            if whole not in ids:  # two merges may make the same token
                ids[whole] = len(self.symbols_of)
                self.symbols_of.append(whole)
                self.parts.append((left, right))
        self.spelled = list(map(_split_text, self.symbols_of))  # token id -> leading text, symbols after it
        vocabulary = {_spelled(symbols): i for symbols, i in ids.items()}
        names = [_spelled(symbols) for symbols in self.symbols_of]
        self._bpe = models.BPE(vocabulary, [(names[left], names[right]) for left, right in self.merges])
        self._run = Memo(self.tokens_of_symbols)
        self._word = Memo(self._tokens_of_word)
        self._line = Memo(lambda line: self._words(_WORDS.findall(line)))
        self._last_word = Memo(lambda word: self._tokens_of_word(word, END_STRING))
        self._number = Memo(lambda text: self._tokens_of_word(text, END_NUMBER))
        self._short_text = Memo(self._short)

    @property
    def vocab_size(self) -> int:
        return len(self.symbols_of)

    def tokens(self, written: Written) -> list[int]:
        """The token ids of a written document."""
        ids: list[int] = []
        for run, text, end in runs(written):
            if run:
                ids += self._run[run]
            if text is None:
                break
            if end == END_NUMBER:
                ids += self._number[text]
            else:
                ids += self._short_text[text] if len(text) <= MAX_SHORT else self._long(text)
        return ids

    def _short(self, text: str) -> Iterable[int]:
        *words, last = split_words(text)
        return chain(self._words(words), self._last_word[last])

    def _long(self, text: str) -> Iterable[int]:
        *lines, last = split_lines(text)
        *words, last = _WORDS.findall(last)
        known = chain.from_iterable(map(self._line.__getitem__, lines))
        return chain(known, self._words(words), self._last_word[last])

    def _words(self, words: list[str]) -> Iterable[int]:
        return chain.from_iterable(map(self._word.__getitem__, words))

    def _tokens_of_word(self, word: str, *end: int) -> list[int]:
        spelled = word.encode().decode("latin-1").translate(_SPELLED_BYTES) + _spelled(end)
        return [token.id for token in self._bpe.tokenize(spelled)]

    def tokens_of_symbols(self, symbols: Iterable[int]) -> list[int]:
        """Tokens for symbols that start and end anywhere: merged as far as merges reach within them."""
        return [token.id for token in self._bpe.tokenize(_spelled(symbols))]


class Piece(NamedTuple):
    """A piece of the corpus: its weight, and a bit for each owner that has it."""

    symbols: Symbols
    weight: int
    owners: int


def learn_merges(documents: Iterable[tuple[str, Written]], base_size: int, vocab_size: int) -> list[Merge]:
    """Learn merges from (owner, written document) pairs until there are `vocab_size` tokens, or no more pairs.

    A piece weighs the sum over owners of the square root of its count: copies within one owner's files count
    little. Every token that a merge makes is used in pieces of at least MIN_OWNERS owners.
    """
    corpus = _corpus_pieces(documents)
    n_merges, n_before = vocab_size - base_size, -1
    n_trained = n_merges + n_merges // 16  # some more, because a few will be dropped
    while True:
        trained = _train(corpus, base_size, base_size + n_trained)
        merges = _drop_unsupported(trained, corpus, base_size)
        if len(merges) >= n_merges or len(trained) == n_before:
            return merges[:n_merges]
        n_before = len(trained)
        n_trained += 2 * (n_merges - len(merges))


def _corpus_pieces(documents: Iterable[tuple[str, Written]]) -> list[Piece]:
    """Return the pieces that merges can be learned from, in an order that does not depend on the documents'."""
    counts: dict[Symbols, Counter] = defaultdict(Counter)
    bits: dict[str, int] = {}
    for owner, written in documents:
        bits.setdefault(owner, 1 << len(bits))
        for piece in pieces(written):
            if len(piece) > 1:
                counts[piece][owner] += 1
    return [
        Piece(piece, sum(map(isqrt, owners.values())), sum(map(bits.__getitem__, owners)))
        for piece, owners in sorted(counts.items())
    ]


def _train(corpus: list[Piece], base_size: int, vocab_size: int) -> list[Merge]:
    """Train byte-pair encoding on weighted pieces; each merge makes another token."""
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=[_spelled((s,)) for s in range(base_size)],
        show_progress=False,
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.train_from_iterator(
        chain.from_iterable([_spelled(piece.symbols)] * piece.weight for piece in corpus), trainer
    )
    ids = {_spelled((symbol,)): symbol for symbol in range(base_size)}
    merges = []
    for left, right in json.loads(tokenizer.to_str())["model"]["merges"]:
        if left + right not in ids:
            merges.append((ids[left], ids[right]))
            ids[left + right] = len(ids)
    return merges


def _drop_unsupported(merges: list[Merge], corpus: list[Piece], base_size: int) -> list[Merge]:
    """Drop merges whose token is used by fewer than MIN_OWNERS owners or names a registry, and what builds on them.

    Pieces that lose a token are merged in other ways, so support is counted again until nothing is dropped.
    """
    while True:
        model = Merges(base_size, merges)
        owners = [0] * model.vocab_size  # token id -> a bit for each owner
        for piece in corpus:
            for token in model.tokens_of_symbols(piece.symbols):
                owners[token] |= piece.owners
        for token in reversed(range(base_size, model.vocab_size)):  # the parts of a token have lower ids
            for part in merges[token - base_size]:
                owners[part] |= owners[token]
        new_ids = {symbol: symbol for symbol in range(base_size)}
        kept = []
        for token, (left, right) in enumerate(merges, base_size):
            is_allowed = owners[token].bit_count() >= MIN_OWNERS and not _REGISTRY.search(model.spelled[token][0])
            if is_allowed and left in new_ids and right in new_ids:
                kept.append((new_ids[left], new_ids[right]))
                new_ids[token] = len(new_ids)
        if len(kept) == len(merges):
            return merges
        merges = kept


def _split_text(symbols: Symbols) -> tuple[bytes, Symbols]:
    is_text = list(takewhile(lambda symbol: BYTE <= symbol < END_STRING, symbols))
    return text_bytes(is_text), symbols[len(is_text) :]


def _spelled(symbols: Iterable[int]) -> str:
    return "".join(chr(_FIRST_CHAR + symbol) for symbol in symbols)

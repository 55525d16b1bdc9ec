"""Byte-pair encoding over base symbols: pre-tokenization, and merges within pre-tokens.

A pre-token is a run of structure symbols, or a word of a text. No merge crosses its border. Words end at blanks and at
line ends. Plain `${{ ... }}` expressions are words, and so is the digest of a pinned action. The end of a string
belongs to its last word.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import chain, takewhile
from math import isqrt
from typing import NamedTuple

from tokenizers import Tokenizer, models, trainers

from tct.codec import Segments
from tct.symbols import END_NUMBER, END_STRING, FIRST_BYTE, text_bytes, text_chars, text_symbols, to_chars

MAX_SHORT = 64  # characters of the longest text of several lines whose tokens are cached as a whole
MAX_CACHED = 500_000  # entries of a cache of tokens
MIN_OWNERS = 3  # each merge is used by at least three owners, so that no text of a single project is learned
_PLAIN_WORDS = r"""
    [ ]?\S+[\r\n]*                        # a word, with the line end after it
  | \s*[\r\n] | \s+(?!\S) | \s+           # line ends, indents, blanks
"""
_SPECIAL_WORDS = r"""
    [ ]?\$\{\{[ ]?[\w.-]+[ ]?\}\}[\r\n]*  # an expression that is only a name
  | [ ]?\S+?(?=\$\{\{                      # text before any expression
            |(?<=@)[0-9a-f]{40}(?!\S))   # or before the commit of an action, because digests would fill the vocabulary
"""
find_plain_words = re.compile(_PLAIN_WORDS, re.VERBOSE).findall
find_all_words = re.compile(f"{_SPECIAL_WORDS}|{_PLAIN_WORDS}", re.VERBOSE).findall
_END_STRING, _END_NUMBER = to_chars([END_STRING]), to_chars([END_NUMBER])
_REGISTRY = re.compile(rb"\w\.org\b")  # no token names a package registry; nearly all are under this domain

_LINES = re.compile(r"[^\n]*\n+|[^\n]+")

Symbols = tuple[int, ...]
Merge = tuple[int, int]  # two token ids


def pre_tokenize(segments: Segments) -> Iterator[Symbols]:
    """Yield the pre-tokens of an encoded document, as base symbols."""
    for run, text, end in structure_runs(segments):
        if run:
            yield run
        if text is not None:
            yield from pre_tokenize_text(text, end)


def structure_runs(segments: Segments) -> Iterator[tuple[Symbols, str | None, int]]:
    """Yield (run of structure symbols, text after it, end symbol of that text). The last run has None as its text."""
    start = 0
    for at in [at for at, segment in enumerate(segments) if segment.__class__ is str]:
        yield tuple(segments[start:at]), segments[at], segments[at + 1]
        start = at + 2
    yield tuple(segments[start:]), None, END_STRING


def pre_tokenize_text(text: str, end: int) -> list[Symbols]:
    """Return the pre-tokens of a string or number. The last one includes its end symbol.

    >>> [len(pre_token) for pre_token in pre_tokenize_text("npm run build", END_STRING)]
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
    return [word for line in split_lines(text) for word in words_of_line(line)] or [""]


def words_of_line(line: str) -> list[str]:
    is_plain = "${{" not in line and "@" not in line
    return find_plain_words(line) if is_plain else find_all_words(line)  # the same words, but the former is faster


def split_lines(text: str) -> list[str]:
    """Return the lines of a text, each with the line ends after it. No word crosses a line end.

    >>> split_lines("npm ci\\n\\nnpm test")
    ['npm ci\\n\\n', 'npm test']
    """
    return _LINES.findall(text)


class BoundedCache(dict):
    """Cache the token ids that a function returns, for up to MAX_CACHED arguments. Look-ups are faster than calls."""

    def __init__(self, function: Callable[..., Iterable[int]]):
        self._function = function

    def __missing__(self, argument: Hashable):
        if len(self) >= MAX_CACHED:
            self.clear()
        ids = self[argument] = tuple(self._function(argument))
        return ids


class BpeModel:
    """Merges in the order of their rank, over an alphabet of `base_size` symbols.

    The token id of a base symbol is the symbol itself. The tokens made by merges follow, in the order of the merges.
    """

    def __init__(self, base_size: int, merges: Iterable[Merge]):
        self.merges = list(merges)
        self.symbols_of: list[Symbols] = [(symbol,) for symbol in range(base_size)]  # token id -> base symbols
        self.parts: list[Merge | None] = [None] * base_size  # token id -> its merge
        ids = {symbols: i for i, symbols in enumerate(self.symbols_of)}
        for left, right in self.merges:
            whole = self.symbols_of[left] + self.symbols_of[right]
            if whole not in ids:  # two merges may make the same token
                ids[whole] = len(self.symbols_of)
                self.symbols_of.append(whole)
                self.parts.append((left, right))
        self.spelled = list(map(_split_text, self.symbols_of))  # token id -> leading text, symbols after it
        self.chars_of = list(map(to_chars, self.symbols_of))  # token id -> base symbols as characters
        vocabulary = {self.chars_of[i]: i for i in ids.values()}
        merges_of_chars = [(self.chars_of[left], self.chars_of[right]) for left, right in self.merges]
        self._bpe = models.BPE(vocabulary, merges_of_chars, cache_capacity=0)  # our caches are faster
        self._run = BoundedCache(self.tokens_of_symbols)
        self._word = BoundedCache(lambda word: self._merged(text_chars(word)))
        self._last_word = BoundedCache(lambda word: self._merged(text_chars(word) + _END_STRING))
        self._number = BoundedCache(lambda text: self._merged(text + _END_NUMBER))
        self._line = BoundedCache(lambda line: self._words(words_of_line(line)))
        self._last_line = BoundedCache(self._tokens_of_last_line)

    @property
    def vocab_size(self) -> int:
        return len(self.symbols_of)

    def tokens(self, segments: Segments) -> list[int]:
        """Return the token ids of an encoded document."""
        ids: list[int] = []
        for run, text, end in structure_runs(segments):
            if run:
                ids += self._run[run]
            if text is None:
                break
            if end == END_NUMBER:
                ids += self._number[text]
            elif len(text) <= MAX_SHORT or "\n" not in text:
                ids += self._last_line[text]
            else:
                *lines, last = split_lines(text)
                for line in lines:
                    ids += self._line[line]
                ids += self._last_line[last]
        return ids

    def _tokens_of_last_line(self, text: str) -> Iterable[int]:
        *words, last = split_words(text)
        return chain(self._words(words), self._last_word[last])

    def _words(self, words: list[str]) -> Iterable[int]:
        return chain.from_iterable(map(self._word.__getitem__, words))

    def tokens_of_symbols(self, symbols: Iterable[int]) -> list[int]:
        """Return the token ids of symbols that start and end anywhere, merged as far as possible within them."""
        return self._merged(to_chars(symbols))

    def _merged(self, chars: str) -> list[int]:
        return [token.id for token in self._bpe.tokenize(chars)]


class PreToken(NamedTuple):
    """A pre-token of the corpus: its weight, and a bit for each owner that uses it."""

    symbols: Symbols
    weight: int
    owners: int


def learn_merges(documents: Iterable[tuple[str, Segments]], base_size: int, vocab_size: int) -> list[Merge]:
    """Learn merges from (owner, encoded document) pairs until there are `vocab_size` tokens or none is left.

    The weight of a pre-token is the sum over owners of the square root of its count, so copies within the files of one
    owner count little. Every token that a merge makes is used in pre-tokens of at least MIN_OWNERS owners.
    """
    corpus = _corpus_pre_tokens(documents)
    n_merges, n_before = vocab_size - base_size, -1
    n_trained = n_merges + n_merges // 16  # some more, because a few will be dropped
    while True:
        trained = _train(corpus, base_size, base_size + n_trained)
        merges = _drop_unsupported(trained, corpus, base_size)
        if len(merges) >= n_merges or len(trained) == n_before:
            return merges[:n_merges]
        n_before = len(trained)
        n_trained += 2 * (n_merges - len(merges))


def _corpus_pre_tokens(documents: Iterable[tuple[str, Segments]]) -> list[PreToken]:
    """Return the pre-tokens that can be merged, in an order that does not depend on the order of the documents."""
    counts: dict[Symbols, Counter] = defaultdict(Counter)
    bits: dict[str, int] = {}
    for owner, segments in documents:
        bits.setdefault(owner, 1 << len(bits))
        for symbols in pre_tokenize(segments):
            if len(symbols) > 1:
                counts[symbols][owner] += 1
    return [
        PreToken(symbols, sum(map(isqrt, owners.values())), sum(map(bits.__getitem__, owners)))
        for symbols, owners in sorted(counts.items())
    ]


def _train(corpus: list[PreToken], base_size: int, vocab_size: int) -> list[Merge]:
    """Train byte-pair encoding on weighted pre-tokens. Each of the merges makes a new token."""
    ids = {to_chars((symbol,)): symbol for symbol in range(base_size)}
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=list(ids), show_progress=False)
    tokenizer = Tokenizer(models.BPE())
    texts = chain.from_iterable([to_chars(symbols)] * weight for symbols, weight, _ in corpus)
    tokenizer.train_from_iterator(texts, trainer)
    merges = []
    for left, right in json.loads(tokenizer.to_str())["model"]["merges"]:
        if left + right not in ids:
            merges.append((ids[left], ids[right]))
            ids[left + right] = len(ids)
    return merges


def _drop_unsupported(merges: list[Merge], corpus: list[PreToken], base_size: int) -> list[Merge]:
    """Drop merges whose token is used by fewer than MIN_OWNERS owners or names a registry, and merges of such tokens.

    Pre-tokens that lose a token are merged in other ways, so owners are counted again until nothing is dropped.
    """
    while True:
        model = BpeModel(base_size, merges)
        owners = [0] * model.vocab_size  # token id -> a bit for each owner
        for pre_token in corpus:
            for token in model.tokens_of_symbols(pre_token.symbols):
                owners[token] |= pre_token.owners
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
    is_text = list(takewhile(lambda symbol: FIRST_BYTE <= symbol < END_STRING, symbols))
    return text_bytes(is_text), symbols[len(is_text) :]

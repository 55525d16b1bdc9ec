"""Merges over base symbols: how written documents fall into pieces, and how pieces become tokens.

A merge never crosses the border of a piece. Pieces are runs of structure, short strings without blanks (action
references, of which the digest of a commit stands apart, runners, versions), and within the lines of all other
text the words of a split pattern of the GPT-4 kind, to which plain `${{ ... }}` expressions are added. The end of
a string belongs to its last piece.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import chain, takewhile
from math import isqrt

from tokenizers import Tokenizer, models, trainers

from tct.codec import Written
from tct.symbols import BYTE, END_NUMBER, END_STRING, text_bytes, text_symbols

MAX_WHOLE = 64  # characters of the longest string that is one piece
MAX_KNOWN = 500_000  # pieces whose tokens are remembered
MIN_OWNERS = 3  # a merge is supported by at least so many owners, so that no single project's text gets in
_FIRST_CHAR = 0xE000  # symbols become characters of the private use area while the tokenizers library works
_SPELLED_BYTES = {byte: _FIRST_CHAR + BYTE + byte for byte in range(256)}
_WHOLE = re.compile(rf"(?!.*://)\S{{1,{MAX_WHOLE}}}")  # addresses are split like any text
_PINNED = re.compile(r"(.*@)([0-9a-f]{40})")  # an action at a commit: digests would fill the vocabulary
_WORDS = re.compile(
    r"""
    \$\{\{[ ]?[\w.-]+[ ]?\}\}           # an expression that only names something
  | [^\r\n\w]?[^\W\d_]+ | _[^\W\d_]+   # a word, with the blank or the mark before it
  | \d{1,3}
  | [ ]?(?:[^\s\w]|_)+[\r\n]*           # marks, with the line's end after them
  | \s*[\r\n] | \s+(?!\S) | \s+         # line ends, indents, blanks
    """,
    re.VERBOSE,
)

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
    """The words of a text, at least one.

    >>> split_words("npm run build"), split_words("actions/checkout@v4")
    (['npm', ' run', ' build'], ['actions/checkout@v4'])
    >>> len(split_words("actions/checkout@" + "0123abcd" * 5))
    2
    """
    if is_whole(text):
        return [*_PINNED.fullmatch(text).groups()] if _PINNED.fullmatch(text) else [text]
    return [word for line in split_lines(text) for word in _WORDS.findall(line)] or [""]


def is_whole(text: str) -> bool:
    """Is a text a short string that is not split into words?"""
    return _WHOLE.fullmatch(text) is not None


def split_lines(text: str) -> list[str]:
    """The lines of a text, each with the line ends after it; no word goes on past these.

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
        self.symbols_of: list[Symbols] = [
            (symbol,) for symbol in range(base_size)
        ]  # token id -> base symbols
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
                ids += self._short_text[text] if len(text) <= MAX_WHOLE else self._long(text)
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


def learn_merges(documents: Iterable[tuple[str, Written]], base_size: int, vocab_size: int) -> list[Merge]:
    """Learns merges from (owner, written document) pairs until there are `vocab_size` tokens, or no more pairs.

    A piece weighs the sum over owners of the square root of how often the owner has it: the copies within one
    project's files count little. Only pieces of at least MIN_OWNERS owners take part.
    """
    owned: dict[Symbols, Counter] = defaultdict(Counter)
    for owner, written in documents:
        for piece in pieces(written):
            owned[piece][owner] += 1
    weights = {
        _spelled(piece): sum(map(isqrt, owners.values()))
        for piece, owners in owned.items()
        if len(piece) > 1 and len(owners) >= MIN_OWNERS
    }
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=[_spelled((s,)) for s in range(base_size)],
        show_progress=False,
    )
    tokenizer = Tokenizer(models.BPE())
    repeated = ([word] * weight for word, weight in sorted(weights.items()))
    tokenizer.train_from_iterator(chain.from_iterable(repeated), trainer)
    return _learned(tokenizer, base_size)


def _learned(tokenizer: Tokenizer, base_size: int) -> list[Merge]:
    """The merges of a trained tokenizer, in our ids."""
    ids = {_spelled((symbol,)): symbol for symbol in range(base_size)}
    merges = []
    for left, right in json.loads(tokenizer.to_str())["model"]["merges"]:
        merges.append((ids[left], ids[right]))
        ids.setdefault(left + right, len(ids))
    return merges


def _split_text(symbols: Symbols) -> tuple[bytes, Symbols]:
    is_text = list(takewhile(lambda symbol: BYTE <= symbol < END_STRING, symbols))
    return text_bytes(is_text), symbols[len(is_text) :]


def _spelled(symbols: Iterable[int]) -> str:
    return "".join(chr(_FIRST_CHAR + symbol) for symbol in symbols)

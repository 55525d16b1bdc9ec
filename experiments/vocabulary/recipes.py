"""Recipes for a vocabulary: how documents are split into pieces, and how pieces become tokens.

A recipe takes the training documents and returns a function from a document to its tokens. Recipes over written
documents use the base symbols of tct.symbols. Recipes over JSON text use bytes, and symbol 0 for the end of the
document.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from math import isqrt
from typing import NamedTuple

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from tct.bpe import Merge, Merges, Symbols, learn_merges, runs
from tct.symbols import BYTE, text_symbols

VOCAB_SIZE = 8192
MAX_LEARNED = 1000  # symbols of the longest piece that merges are learned from
JSON_SYMBOLS = BYTE + 256


class Document(NamedTuple):
    owner: str
    json: str  # compact
    written: list  # see tct.codec
    is_held_out: bool
    is_scored: bool


Pieces = Callable[[Document], Iterable[Symbols]]
Weighted = dict[Symbols, int]
Encode = Callable[[Document], list[int]]


# ---------------------------------------------------------------------------------------------------------
# pieces

PINNED = re.compile(r"(.*@)([0-9a-f]{40})")
LINES = re.compile(r"[^\n]*\n+|[^\n]+")
WORDS = re.compile(  # nearly GPT-4's split, with expressions
    r"\$\{\{ ?[\w.-]+ ?\}\}|[^\r\n\w]?[^\W\d_]+|_[^\W\d_]+|\d{1,3}| ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
BLANKS = re.compile(  # words end at blanks
    r" ?\$\{\{ ?[\w.-]+ ?\}\}[\r\n]*| ?\S+?(?=\$\{\{|(?<=@)[0-9a-f]{40}(?!\S))| ?\S+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
GPT4 = (  # the pattern of cl100k_base
    r"(?i:'[sdmt]|'ll|'ve|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
GPT4_SPLIT = pre_tokenizers.Split(Regex(GPT4), "isolated")


def split_at_blanks(text: str) -> list[str]:
    return [word for line in LINES.findall(text) for word in BLANKS.findall(line)] or [""]


def split_words(text: str, max_whole: int) -> list[str]:
    """Split words, but keep a text of up to `max_whole` characters without blanks whole, if it is not an address."""
    if len(text) <= max_whole and re.fullmatch(r"(?!.*://)\S+", text):
        return [*PINNED.fullmatch(text).groups()] if PINNED.fullmatch(text) else [text]
    return [word for line in LINES.findall(text) for word in WORDS.findall(line)] or [""]


def structured(document: Document, split: Callable) -> Iterator[Symbols]:
    """Yield the pieces of a written document: runs of structure, and the words of texts."""
    for run, text, end in runs(document.written):
        if run:
            yield run
        if text is not None:
            *first, last = (tuple(text_symbols(part)) for part in split(text))
            yield from (*first, (*last, end))


def json_words(document: Document) -> Iterator[Symbols]:
    """Yield the pieces of a document's JSON text under the GPT-4 split pattern."""
    for piece, _ in GPT4_SPLIT.pre_tokenize_str(document.json):
        yield tuple(text_symbols(piece))


def json_unsplit(document: Document) -> Iterator[Symbols]:
    yield tuple(text_symbols(document.json))


# ---------------------------------------------------------------------------------------------------------
# learning


def by_owner(documents: list[Document], pieces: Pieces, min_owners: int) -> Weighted:
    """Weigh each piece of at least `min_owners` owners by the sum over owners of the square root of its count."""
    owned: dict[Symbols, Counter] = defaultdict(Counter)
    for document in documents:
        for piece in pieces(document):
            owned[piece][document.owner] += 1
    return {piece: sum(map(isqrt, owners.values())) for piece, owners in owned.items() if len(owners) >= min_owners}


def by_count(documents: list[Document], pieces: Pieces) -> Weighted:
    """Weigh each piece by its count."""
    return Counter(piece for document in documents for piece in pieces(document))


def learn(weights: Weighted, base_size: int) -> Merges:
    """Learn byte-pair encoding over weighted pieces. Whole documents are cut, because they would take too long."""
    words = Counter()
    for piece, weight in weights.items():
        if len(piece) > 1:
            for start in range(0, len(piece), MAX_LEARNED):
                words[spell(piece[start : start + MAX_LEARNED])] += weight
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, initial_alphabet=[spell((s,)) for s in range(base_size)], show_progress=False
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.train_from_iterator(
        chain.from_iterable([word] * weight for word, weight in sorted(words.items())), trainer
    )
    ids = {spell((symbol,)): symbol for symbol in range(base_size)}
    merges: list[Merge] = []
    for left, right in json.loads(tokenizer.to_str())["model"]["merges"]:
        merges.append((ids[left], ids[right]))
        ids.setdefault(left + right, len(ids))
    return Merges(base_size, merges)


def spell(symbols: Iterable[int]) -> str:
    """Spell symbols as characters of a private use plane, for the tokenizers library."""
    return "".join(chr(0xF0000 + symbol) for symbol in symbols)


# ---------------------------------------------------------------------------------------------------------
# from documents to tokens


def shipped(training, base_size) -> Encode:
    """Learn and encode with the code that ships."""
    merges = Merges(base_size, learn_merges(((d.owner, d.written) for d in training), base_size, VOCAB_SIZE))
    return lambda document: merges.tokens(document.written)


def bpe(training, base_size, pieces, weigh) -> Encode:
    """Merge greedily, piece by piece, and cache the tokens of pieces."""
    merges = learn(weigh(training, pieces), base_size)
    known: dict[Symbols, list[int]] = {}

    def encode(document: Document) -> list[int]:
        tokens: list[int] = []
        for piece in pieces(document):
            if piece not in known:
                known[piece] = merges.tokens_of_symbols(piece)
            tokens += known[piece]
        return tokens

    return encode


def split_by(split: Callable, min_owners: int) -> Callable:
    return partial(bpe, pieces=partial(structured, split=split), weigh=partial(by_owner, min_owners=min_owners))


RECIPES: dict[str, Callable] = {  # name -> (training documents, base_size) -> encoder
    "ours": shipped,
    "words and short strings": split_by(partial(split_words, max_whole=64), 3),
    "words and short strings, 2 owners": split_by(partial(split_words, max_whole=64), 2),
    "words and strings to 128": split_by(partial(split_words, max_whole=128), 3),
    "blanks, pieces of 3 owners": split_by(split_at_blanks, 3),
    "blanks, pieces of 2 owners": split_by(split_at_blanks, 2),
    "JSON, GPT-4 split": partial(bpe, pieces=json_words, weigh=by_count),
    "JSON, unsplit": partial(bpe, pieces=json_unsplit, weigh=by_count),
}

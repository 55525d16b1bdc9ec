"""Recipes for a vocabulary: how documents fall into pieces, and how pieces become tokens.

A recipe gets the documents and gives their tokens. Base symbols are those of tct.symbols for recipes over
written documents; recipes over JSON text have the bytes and symbol 0, the end of the document.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from math import isqrt
from typing import NamedTuple

from tct.bpe import Merge, Merges, Symbols, runs
from tct.symbols import BYTE, text_symbols
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

VOCAB_SIZE = 8192
MIN_OWNERS = 3
TWO_STAGE = 1500  # tokens that the second stage makes
PRUNED_FROM = 10_000  # tokens before the least used are dropped
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


# ---------------------------------------------------------------------------------------------------------
# pieces

WHOLE = re.compile(r"(?!.*://)\S{1,64}")
WORDS = re.compile(
    r"\$\{\{ ?[\w.-]+ ?\}\}|(?:[^\r\n\w]|_)?[^\W\d_]+|\d{1,3}| ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
LINES = re.compile(r"[^\n]*\n+|[^\n]+")
DIGEST = re.compile(r"([0-9a-f]{40,})")
GPT4 = (  # of cl100k_base
    r"(?i:'[sdmt]|'ll|'ve|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
GPT4_SPLIT = pre_tokenizers.Split(Regex(GPT4), "isolated")


def words(text: str) -> list[str]:
    return WORDS.findall(text) or [""]


def lines(text: str) -> list[str]:
    return LINES.findall(text) or [""]


def whole_or_words(text: str) -> list[str]:
    return [text] if WHOLE.fullmatch(text) else words(text)


def digests_apart(text: str, chunk: int) -> list[str]:
    """Like `whole_or_words`, but hex digests stand apart, in chunks."""
    parts = []
    for index, part in enumerate(DIGEST.split(text)):
        if index % 2:
            parts += [part[i : i + chunk] for i in range(0, len(part), chunk)]
        elif part:
            parts += whole_or_words(part)
    return parts or [""]


def structured(document: Document, split: Callable, structure: str = "runs") -> Iterator[Symbols]:
    """The pieces of a written document. Its structure symbols are pieces in "runs" or "single"; with "idioms"
    a run takes the text after it along where that is one piece, with "joined" it takes the text's first piece.
    """
    for run, text, end in runs(document.written):
        if text is None:
            first, *rest = (), *()
        else:
            parts = [tuple(text_symbols(part)) for part in split(text)]
            parts[-1] += (end,)
            joined = structure == "joined" or structure == "idioms" and len(parts) == 1
            first, *rest = parts if joined else ((), *parts)
        if structure == "single":
            yield from ((symbol,) for symbol in run)
        elif run + first:
            yield run + first
        yield from rest


def unsplit(document: Document) -> Iterator[Symbols]:
    """The whole written document."""
    yield tuple(
        chain.from_iterable(
            text_symbols(item) if isinstance(item, str) else (item,) for item in document.written
        )
    )


def json_words(document: Document) -> Iterator[Symbols]:
    """The pieces of a document's JSON text under the GPT-4 split pattern."""
    for piece, _ in GPT4_SPLIT.pre_tokenize_str(document.json):
        yield tuple(text_symbols(piece))


def json_unsplit(document: Document) -> Iterator[Symbols]:
    yield tuple(text_symbols(document.json))


# ---------------------------------------------------------------------------------------------------------
# learning


def by_owner(documents: list[Document], pieces: Pieces, min_owners: int = MIN_OWNERS) -> Weighted:
    """Pieces of so many owners; each weighs the sum over owners of the root of its count."""
    owned: dict[Symbols, Counter] = defaultdict(Counter)
    for document in documents:
        for piece in pieces(document):
            owned[piece][document.owner] += 1
    return {
        piece: sum(map(isqrt, owners.values()))
        for piece, owners in owned.items()
        if len(owners) >= min_owners
    }


by_any_owner = partial(by_owner, min_owners=1)  # for pieces so long that few owners share one


def by_count(documents: list[Document], pieces: Pieces) -> Weighted:
    """All pieces, with their counts."""
    return Counter(piece for document in documents for piece in pieces(document))


def learn(weights: Weighted, base_size: int, vocab_size: int) -> Merges:
    """Byte-pair encoding over weighted pieces; whole documents are cut, for the sake of time."""
    words = Counter()
    for piece, weight in weights.items():
        if len(piece) > 1:
            for start in range(0, len(piece), MAX_LEARNED):
                words[spell(piece[start : start + MAX_LEARNED])] += weight
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=[spell((s,)) for s in range(base_size)], show_progress=False
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
    """Symbols as characters of a private use plane, for the tokenizers library."""
    return "".join(chr(0xF0000 + symbol) for symbol in symbols)


# ---------------------------------------------------------------------------------------------------------
# from documents to tokens

Encode = Callable[[Document], list[int]]


def bpe(training, base_size, pieces, weigh=by_owner, vocab_size=VOCAB_SIZE) -> tuple[Encode, Encode]:
    """Greedy merges: the tokens to train on, and the tokens to score."""
    merges = learn(weigh(training, pieces), base_size, vocab_size)
    encode = by_piece(pieces, merges.tokens_of_symbols)
    return encode, encode


def bpe_dropout(training, base_size, pieces, rate=0.1) -> tuple[Encode, Encode]:
    """The same, but each merge is left out at random while training."""
    merges = learn(by_owner(training, pieces), base_size, VOCAB_SIZE)
    dropping = Merges(base_size, merges.merges)
    dropping._bpe.dropout = rate

    def encode(document):
        return [token for piece in pieces(document) for token in dropping.tokens_of_symbols(piece)]

    return encode, by_piece(pieces, merges.tokens_of_symbols)


def best_parse(training, base_size, pieces) -> tuple[Encode, Encode]:
    """The vocabulary of greedy merges, each piece in as few tokens as possible."""
    merges = learn(by_owner(training, pieces), base_size, VOCAB_SIZE)
    encode = by_piece(pieces, partial(fewest, dict(zip(map(spell, merges.symbols_of), range(VOCAB_SIZE)))))
    return encode, encode


def pruned(training, base_size, pieces) -> tuple[Encode, Encode]:
    """The most used of PRUNED_FROM tokens, each piece in as few of them as possible."""
    weights = by_owner(training, pieces)
    names = list(map(spell, learn(weights, base_size, PRUNED_FROM).symbols_of))
    for size in (VOCAB_SIZE + PRUNED_FROM) // 2, VOCAB_SIZE:
        ids, uses = {name: i for i, name in enumerate(names)}, Counter()
        for piece, weight in weights.items():
            for token in fewest(ids, piece):
                uses[token] += weight
        kept = sorted(range(base_size, len(names)), key=lambda i: -uses[i])[: size - base_size]
        names = names[:base_size] + [names[i] for i in sorted(kept)]
    encode = by_piece(pieces, partial(fewest, {name: i for i, name in enumerate(names)}))
    return encode, encode


def two_stage(training, base_size, pieces, wider) -> tuple[Encode, Encode]:
    """Merges within pieces first; the last TWO_STAGE tokens within wider ones, that pieces never straddle."""
    first = learn(by_owner(training, pieces), base_size, VOCAB_SIZE - TWO_STAGE)
    inner = by_piece(pieces, first.tokens_of_symbols)

    def tokens_of_wider(document: Document) -> Iterator[Symbols]:
        tokens = iter(inner(document))
        for piece in wider(document):
            taken, length = [], 0
            while length < len(piece):
                taken.append(next(tokens))
                length += len(first.symbols_of[taken[-1]])
            yield tuple(taken)

    second = learn(by_any_owner(training, tokens_of_wider), VOCAB_SIZE - TWO_STAGE, VOCAB_SIZE)
    encode = by_piece(tokens_of_wider, second.tokens_of_symbols)
    return encode, encode


def by_piece(pieces: Pieces, tokens_of: Callable[[Symbols], list[int]]) -> Encode:
    """Encodes documents piece by piece and remembers pieces."""
    known: dict[Symbols, list[int]] = {}

    def encode(document: Document) -> list[int]:
        tokens: list[int] = []
        for piece in pieces(document):
            if piece not in known:
                known[piece] = tokens_of(piece)
            tokens += known[piece]
        return tokens

    return encode


def fewest(ids: dict[str, int], piece: Symbols, longest: int = 66) -> list[int]:
    """The fewest tokens that spell a piece; among equals the one whose last tokens are longest."""
    text = spell(piece)
    best = [(0, 0)]  # by end: number of tokens, start of the last one
    for end in range(1, len(text) + 1):
        best.append(min((best[i][0] + 1, i) for i in range(max(0, end - longest), end) if text[i:end] in ids))
    tokens, end = [], len(text)
    while end:
        start = best[end][1]
        tokens.append(ids[text[start:end]])
        end = start
    return tokens[::-1]


# ---------------------------------------------------------------------------------------------------------
# the recipes

ours = partial(structured, split=whole_or_words)
idioms = partial(structured, split=whole_or_words, structure="idioms")

RECIPES: dict[str, Callable] = {  # name -> (training documents, base_size) -> (training, scoring) encoders
    "ours": partial(bpe, pieces=ours),
    "words only": partial(bpe, pieces=partial(structured, split=words)),
    "single marks": partial(bpe, pieces=partial(structured, split=whole_or_words, structure="single")),
    "idioms": partial(bpe, pieces=idioms),
    "members": partial(bpe, pieces=partial(structured, split=lines, structure="joined"), weigh=by_any_owner),
    "unsplit": partial(bpe, pieces=unsplit, weigh=by_count),
    "lines": partial(bpe, pieces=partial(structured, split=lines), weigh=by_any_owner),
    "two stages": partial(two_stage, pieces=ours, wider=partial(structured, split=lines)),
    "best parse": partial(best_parse, pieces=ours),
    "pruned": partial(pruned, pieces=ours),
    "dropout": partial(bpe_dropout, pieces=ours),
    "4096": partial(bpe, pieces=ours, vocab_size=4096),
    "counts": partial(bpe, pieces=ours, weigh=by_count),
    "digests in 3": partial(bpe, pieces=partial(structured, split=partial(digests_apart, chunk=3))),
    "digests in 1": partial(bpe, pieces=partial(structured, split=partial(digests_apart, chunk=1))),
    "digests whole": partial(bpe, pieces=partial(structured, split=partial(digests_apart, chunk=10_000))),
    "JSON, GPT-4 split": partial(bpe, pieces=json_words, weigh=by_count),
    "JSON, GPT-4 split, by owner": partial(bpe, pieces=json_words),
    "JSON, unsplit": partial(bpe, pieces=json_unsplit, weigh=by_count),
}
VOCAB_SIZES = {"4096": 4096}

"""The tokenizers and mask engines that bench.tokenizer compares, each behind the same few calls.

A mask engine is a class below. `ids(workflow)` returns the tokens of a document, or None if the grammar rejects it.
`start()` returns two functions for a walk along them: one fills the bit mask of the next token, the other accepts that
token. tiktoken, llguidance and xgrammar are optional: each is imported when it is used.
"""

import base64
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tct import Tokenizer
from tct.json_text import compact
from tct_github_workflow import ARTIFACT, workflow_schema
from workflow_data.tokenizers import END


def fresh_tokenizer() -> Tokenizer:
    """Return the workflow tokenizer with empty caches."""
    return Tokenizer.load(ARTIFACT, workflow_schema())


def tiktoken_encoding(name: str, folder: Path | str = ""):
    """Return an encoding of tiktoken, from the unpacked npm package of that name.

    Without a folder it is tiktoken's own, from its cache or a download. Raises OSError if it is not available.
    """
    import tiktoken  # optional

    if not folder:
        return tiktoken.get_encoding(name)
    stored = json.loads((Path(folder) / f"encoders/{name}.json").read_text("utf-8"))
    ranks = {}
    for line in stored["bpe_ranks"].splitlines():  # "! FIRST_RANK BASE64 BASE64 ..."
        _, first, *tokens = line.split()
        ranks |= {base64.b64decode(token): rank for rank, token in enumerate(tokens, int(first))}
    fixed = {name: stored[name] for name in ("pat_str", "special_tokens")}
    return tiktoken.Encoding(name, mergeable_ranks=ranks, **fixed)


# keyword -> a schema, and a text that is invalid because of that keyword only
PROBES = {
    "not": ({"not": {"type": "string"}}, '"a"'),
    "oneOf": ({"oneOf": [{"type": "string"}, {"enum": ["a"]}]}, '"a"'),
    "if": ({"if": {"type": "string"}, "then": {"enum": ["b"]}}, '"a"'),
    "dependencies": (
        {"type": "object", "properties": {"a": {"type": "null"}, "b": {}}, "dependencies": {"a": ["b"]}},
        '{"a":null}',
    ),
}


class Tct:
    name = "tct"
    dropped = ""

    def __init__(self):
        self._tokenizer = fresh_tokenizer()
        self._mask = self._tokenizer.matcher().allocate_token_bitmask()

    def start(self) -> tuple[Callable, Callable]:
        matcher = self._tokenizer.matcher()
        return partial(matcher.fill_next_token_bitmask, self._mask), matcher.accept_token

    def accepts(self, schema: dict, text: str) -> bool:
        try:
            return bool(Tokenizer(schema).encode(text))
        except ValueError:
            return False


class LLGuidance:
    """llguidance in its lenient mode, because in its strict mode it rejects the schema."""

    name = "llguidance"

    def __init__(self, bpe):
        # an optional dependency
        from llguidance import LLMatcher
        from llguidance.numpy import allocate_token_bitmask

        from tct.contrib.llguidance import grammar_of, tokenizer_info  # needs it too

        self._matcher_of, self._grammar_of = partial(LLMatcher, tokenizer_info(bpe, END)), grammar_of
        self._bpe = bpe
        grammar = grammar_of(workflow_schema())
        self.dropped = "; ".join(LLMatcher.validate_grammar_with_warnings(grammar)[1])
        self._judge, self._matcher = self._matcher_of(grammar), self._matcher_of(grammar)
        mask = allocate_token_bitmask(1, bpe.get_vocab_size())
        # the fastest of its ways to fill a mask: it needs no look-up of an array
        self._fill = partial(self._matcher.unsafe_compute_mask_ptr, mask.ctypes.data, mask.nbytes)
        self._mask = mask  # kept alive for the pointer

    def ids(self, workflow: Any) -> list[int] | None:
        ids = self._bpe.encode(compact(workflow)).ids
        self._judge.reset()
        return ids if self._judge.validate_tokens(ids) == len(ids) else None

    def start(self) -> tuple[Callable, Callable]:
        self._matcher.reset()
        return self._fill, self._matcher.consume_token

    def accepts(self, schema: dict, text: str) -> bool:
        ids = self._bpe.encode(text).ids
        return self._matcher_of(self._grammar_of(schema)).validate_tokens(ids) == len(ids)


class XGrammar:
    """xgrammar without `oneOf` next to `properties`. With it, its grammar rejects nearly all workflows."""

    name = "xgrammar"
    dropped = "oneOf next to properties"

    def __init__(self, bpe):
        import xgrammar  # optional

        vocabulary = sorted(bpe.get_vocab(), key=bpe.token_to_id)
        info = xgrammar.TokenizerInfo(vocabulary, vocab_type=xgrammar.VocabType.BYTE_LEVEL, stop_token_ids=[END])
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1)
        self._matcher_of, self._bpe = xgrammar.GrammarMatcher, bpe
        self._mask = xgrammar.allocate_token_bitmask(1, len(vocabulary))
        self._grammar = self._compile(_without_one_of(workflow_schema()))

    def _compile(self, schema: dict):
        # it rejects a line end in a character class unless it is escaped, which means the same
        text = json.dumps(schema).replace(r"\r", r"\\r").replace(r"\n", r"\\n")
        with _silent():  # its warnings, one for each oneOf
            options = {"any_whitespace": False, "separators": (",", ":"), "strict_mode": False}
            return self._compiler.compile_json_schema(text, **options)

    def ids(self, workflow: Any) -> list[int] | None:
        text = compact(workflow)
        return self._bpe.encode(text).ids if self._matcher_of(self._grammar).accept_string(text) else None

    def start(self) -> tuple[Callable, Callable]:
        matcher = self._matcher_of(self._grammar)
        return partial(matcher.fill_next_token_bitmask, self._mask), matcher.accept_token

    def accepts(self, schema: dict, text: str) -> bool:
        matcher = self._matcher_of(self._compile(schema))
        return matcher.accept_string(text) and matcher.is_completed()


def let_pass(engine: Tct | LLGuidance | XGrammar) -> list[str]:
    """Return the keywords that an engine accepts but does not enforce."""
    return [keyword for keyword, (schema, text) in PROBES.items() if engine.accepts(schema, text)]


def key_orders(schema: Any) -> Iterator[list[str]]:
    """Yield the order of the properties in each object that a schema describes."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            yield list(schema["properties"])
        schema = list(schema.values())
    if isinstance(schema, list):
        for child in schema:
            yield from key_orders(child)


def in_order(value: Any, orders: list[list[str]]) -> Any:
    """Return a document with the keys of each object in the order that has most of them, and unknown keys last."""
    if isinstance(value, list):
        return [in_order(item, orders) for item in value]
    if not isinstance(value, dict):
        return value
    order = max(orders, key=lambda order: len(value.keys() & set(order)))
    keys = sorted(value, key=lambda key: order.index(key) if key in order else len(order))
    return {key: in_order(value[key], orders) for key in keys}


def _without_one_of(schema: Any) -> Any:
    """Return the schema without each oneOf that is next to properties."""
    if isinstance(schema, list):
        return [_without_one_of(child) for child in schema]
    if not isinstance(schema, dict):
        return schema
    is_object = isinstance(schema.get("properties"), dict)
    return {key: _without_one_of(child) for key, child in schema.items() if not (is_object and key == "oneOf")}


@contextmanager
def _silent() -> Iterator[None]:
    """Discard what is written to standard error, even by C++."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)

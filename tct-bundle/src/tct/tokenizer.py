"""A compiled schema with its merges: documents to tokens and back, and the artifact that holds it."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np

from script_tools.files import write_atomic
from tct.bpe import Merge, Merges
from tct.codec import NOTHING, Decoder, DuplicateKeys, Encoder, Truncated, symbols_of
from tct.machine import TypeMachine
from tct.masks import Masks
from tct.matcher import Matcher
from tct.partial_json import json_beginnings
from tct.path_class import PathClasses
from tct.prefix import Prefix, left_open, prefix_of
from tct.schema import Schema
from tct.symbols import PAD

FORMAT = 1  # raised when artifacts of this format can no longer be read


class CompiledSchema:
    """A JSON Schema as a type machine; documents are written in its base symbols."""

    def __init__(self, schema: Schema):
        self.schema = schema
        self.machine = TypeMachine(schema)

    def encode(self, value: Any) -> list[int]:
        """The base symbols of a document; SchemaValidationError with JSON path and reason."""
        return symbols_of(Encoder(self.machine).encode(value))

    def decode(self, symbols: Sequence[int]) -> Any:
        """The document that base symbols spell; ValueError where they spell none, or more than one."""
        decoder = Decoder(self.machine, list(symbols))
        value = _whole(decoder)
        if decoder.at < len(symbols):
            raise ValueError(f"{len(symbols) - decoder.at} symbols follow the document")
        return value


def compile_json_schema(schema: Schema) -> CompiledSchema:
    """Compile a schema of the draft that its `$schema` names, or of draft-07.

    Raises UnsupportedSchemaError with what cannot be enforced, and where.
    """
    return CompiledSchema(schema)


class Tokenizer:
    """The whole interface: JSON text to token ids and back. Token 0 is PAD."""

    def __init__(self, schema: Schema, merges: Iterable[Merge] = ()):
        self.schema = schema
        self.machine = TypeMachine(schema)
        self.merges = Merges(self.machine.symbols.size, merges)

    # -- documents

    def encode(self, json_text: str) -> list[int]:
        """The tokens of a JSON document.

        Raises ValueError with the JSON path where the text is not JSON, repeats a key, or is not schema-valid.
        """
        return self.encode_value(read_json(json_text))

    def encode_value(self, value: Any) -> list[int]:
        """The same for a document already parsed: dict, list, str, int, float, bool and None."""
        return self.merges.tokens(Encoder(self.machine).encode(value))

    def encode_with_states(self, json_text: str) -> tuple[list[int], list[int]]:
        """The tokens of a JSON document, and after each of them the matcher's `state_id`; raises as `encode`."""
        tokens = self.encode(json_text)
        return tokens, self.states_of(tokens)[1:]

    def states_of(self, tokens: Sequence[int]) -> list[int]:
        """The matcher's `state_id` before the first of some tokens and after each; ValueError where one of them is
        not allowed."""
        matcher = self.matcher()
        for place, token in enumerate(tokens):
            if not matcher.accept_token(token):
                raise ValueError(f"token {place} is {token}: not allowed there")
        return matcher.state_ids()

    def encode_batch(self, texts: Sequence[str], num_threads: int | None = None) -> list[np.ndarray]:
        """`encode` in bulk: an int32 array for each text."""
        with ThreadPoolExecutor(num_threads) as pool:
            return list(pool.map(lambda text: np.array(self.encode(text), np.int32), texts))

    def encode_prefix(self, partial: str | Any) -> Prefix:
        """A partial document, JSON text cut anywhere or a value, for completion (see `Prefix`).

        Of a text, what it closes is closed, and a string, number or key at its very end may go on. A value, and
        a text that is a whole document, is left open: members and items may follow in every container that ends
        with it. ValueError with the JSON path where no valid document starts so.
        """
        is_text = isinstance(partial, str)
        return prefix_of(self, json_beginnings(partial, read_json) if is_text else [left_open(partial)])

    def decode(self, tokens: Sequence[int]) -> tuple[str, int, int]:
        """(compact JSON text, tokens consumed, tokens given); surplus tokens, such as padding, are not read.

        Raises ValueError where the tokens are not those of a complete document.
        """
        symbols, ends = self._spell_out(tokens)
        decoder = Decoder(self.machine, symbols)
        return compact(_whole(decoder)), self._consumed(decoder, ends), len(tokens)

    def decode_prefix(self, tokens: Sequence[int]) -> tuple[str, int, bool]:
        """(compact JSON text, tokens consumed, is_complete) of a sequence that may end anywhere.

        Open containers are closed, a string that is cut keeps what there is of it, a key without a value is
        left out. No tokens at all say an empty object, or null where the schema wants none.
        """
        symbols, ends = self._spell_out(tokens)
        decoder = Decoder(self.machine, symbols)
        try:
            value = decoder.decode()
        except Truncated as cut:
            return compact(None if cut.partial is NOTHING else cut.partial), len(ends), False
        return compact(value), self._consumed(decoder, ends), True

    def _spell_out(self, tokens: Sequence[int]) -> tuple[list[int], list[int]]:
        """The symbols of tokens up to the first PAD, and for each token how many symbols end with it."""
        tokens = [int(token) for token in tokens]
        tokens = tokens[: tokens.index(PAD)] if PAD in tokens else tokens
        for index, token in enumerate(tokens):
            if not 0 <= token < self.vocab_size():
                raise ValueError(f"token {index} is {token}: not in the vocabulary of {self.vocab_size()}")
        spelled = [self.merges.symbols_of[token] for token in tokens]
        return list(chain.from_iterable(spelled)), list(accumulate(map(len, spelled)))

    @staticmethod
    def _consumed(decoder: Decoder, ends: list[int]) -> int:
        if decoder.at not in ends:
            raise ValueError("the last token of the document says more than its end")
        return ends.index(decoder.at) + 1

    @staticmethod
    def extract_window(tokens: Sequence[int], start: int, end: int, stride: int = 1) -> list[int]:
        """The window of tokens start..end: its position, counted in strides, then the tokens.

        >>> Tokenizer.extract_window([5, 6, 7, 8], 2, 4, stride=2)
        [1, 7, 8]
        """
        if start < 0 or start % stride:
            raise ValueError(f"a window starts at a multiple of the stride {stride}, not at {start}")
        return [start // stride, *tokens[start:end]]

    # -- the vocabulary

    def vocab_size(self) -> int:
        return self.merges.vocab_size

    def pad_token(self) -> int:
        return PAD

    def id_to_token(self, token: int) -> str:
        """What a token says, readably: free text as it is, structure in angle brackets."""
        return self.machine.symbols.describe(self.merges.symbols_of[token])

    def matcher(self) -> Matcher:
        """A new matcher at the start of a document."""
        return Matcher(self)

    def n_states(self) -> int:
        """How many places a matcher's `state_id` tells apart."""
        return self.classes.n_states

    def describe_state(self, state_id: int) -> tuple[str | None, str]:
        """The key that the schema names the place by, or None, and what is being read there: "value", "text",
        "number", "array", "object", "key", or "end" after a document."""
        return self.classes.describe(state_id)

    @cached_property
    def classes(self) -> PathClasses:
        return PathClasses(self.machine)

    @cached_property
    def masks(self) -> Masks:
        return Masks(self.merges.symbols_of)

    # -- the artifact

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that differ wherever two tokenizers may: of the schema, the merges, the format."""
        return _sha256([FORMAT, schema_hash(self.schema), self.merges.merges])[:16]

    def save(self, path: str | Path, embed_schema: bool = True) -> None:
        """Writes the artifact, and beside it the vocabulary for people to read (*.vocab.txt).

        Without the schema embedded, `load` must be given it.
        """
        artifact = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "vocab_size": self.vocab_size(),
            "schema_sha256": schema_hash(self.schema),
            "schema": self.schema if embed_schema else None,
            "merges": " ".join(f"{left}+{right}" for left, right in self.merges.merges),
        }
        path = Path(path)
        write_atomic(path, (json.dumps(artifact, ensure_ascii=False, indent=1) + "\n").encode())
        write_atomic(path.with_suffix(".vocab.txt"), ("\n".join(self._listing()) + "\n").encode())

    def _listing(self) -> Iterable[str]:
        yield f"# {self.vocab_size()} tokens, fingerprint {self.fingerprint}: id, token, and what it is merged from"
        for token, parts in enumerate(self.merges.parts):
            origin = f"    [{self.id_to_token(parts[0])}][{self.id_to_token(parts[1])}]" if parts else ""
            yield f"{token} [{self.id_to_token(token)}]{origin}"

    @classmethod
    def load(cls, path: str | Path, schema: Schema | None = None) -> "Tokenizer":
        """Reads an artifact; ValueError where its format, schema or fingerprint does not fit."""
        try:
            artifact = json.loads(Path(path).read_text("utf-8"))
            version, merges = artifact["format"], artifact["merges"].split()
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{path} is not a tokenizer artifact") from None
        if version != FORMAT:
            raise ValueError(f"{path} has format {version}, this version of tct reads {FORMAT}: build it again")
        schema = artifact["schema"] if schema is None else schema
        if schema is None:
            raise ValueError(f"{path} does not carry its schema: it has to be given")
        if schema_hash(schema) != artifact["schema_sha256"]:
            raise ValueError(f"{path} was built for another version of the schema: build it again, or give that one")
        tokenizer = cls(schema, (tuple(map(int, merge.split("+"))) for merge in merges))
        if tokenizer.fingerprint != artifact["fingerprint"]:
            raise ValueError(f"{path} is damaged: its fingerprint does not fit its contents")
        return tokenizer


def read_json(text: str) -> Any:
    """Parses JSON; NaN and infinities are refused, repeated keys marked for the encoder to refuse."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("$: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"$: not JSON: {error}") from None


def compact(value: Any) -> str:
    """Compact JSON text, keys in their order, characters as themselves."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def schema_hash(schema: Schema) -> str:
    """SHA-256 of a schema, whatever the layout of its file."""
    return _sha256(schema)


def _object(members: list[tuple[str, Any]]) -> dict:
    value = dict(members)
    if len(value) < len(members):
        value = DuplicateKeys(value)
        keys = [key for key, _ in members]
        value.repeated = next(key for key in keys if keys.count(key) > 1)
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"$: {name} is not a JSON number")


def _whole(decoder: Decoder) -> Any:
    try:
        return decoder.decode()
    except Truncated:
        raise ValueError("the document is not complete: tokens are missing at its end") from None


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

"""A compiled schema with its merges: documents to tokens and back, and the artifact that stores it."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from script_tools.files import write_atomic
from tct.bpe import BpeModel, Merge
from tct.codec import NO_VALUE, Decoder, Encoder, Truncated, flatten
from tct.json_text import compact, read_json
from tct.machine import TypeMachine
from tct.matcher import Matcher, Prefix
from tct.partial_document import reopen_tail
from tct.partial_json import read_partial_json
from tct.prefix import prefix_of
from tct.references import Schema
from tct.symbols import PAD, to_chars
from tct.time_limit import time_limit
from tct.vocabulary import Vocabulary

FORMAT = 1  # raised when artifacts of this format can no longer be read


class CompiledSchema:
    """A JSON Schema as a type machine. Documents are encoded in its base symbols."""

    def __init__(self, schema: Schema, resources: Mapping[str, Schema] | None = None, seconds: float | None = None):
        self.schema = schema
        with time_limit(seconds):
            self.machine = TypeMachine(schema, resources)

    @property
    def ignored_keywords(self) -> list[str]:
        """The JSON pointers of keywords that assert nothing although they may be meant to: those that no draft defines,
        which may be typos, and formats that are not enforced."""
        return self.machine.ignored_keywords

    def encode(self, value: Any) -> list[int]:
        """Return the base symbols of a document. Raises SchemaValidationError with JSON path and reason."""
        return flatten(Encoder(self.machine).encode(value))

    def decode(self, symbols: Sequence[int]) -> Any:
        """Return the document of some base symbols. Raises ValueError unless they are exactly one document."""
        decoder = Decoder(self.machine, to_chars(symbols))
        value = _decode_whole(decoder)
        if decoder.at < len(symbols):
            raise ValueError(f"{len(symbols) - decoder.at} symbols follow the document")
        return value


def compile_json_schema(
    schema: Schema, resources: Mapping[str, Schema] | None = None, time_limit: float | None = None
) -> CompiledSchema:
    """Compile a schema of the draft that its `$schema` names, or of draft-07.

    `resources` maps URIs to the other schemas that it refers to. A relative URI is relative to that of the schema.
    Raises UnsupportedSchemaError with the keyword that cannot be enforced and its JSON pointer, and TimeLimitError,
    which is one, if this takes longer than `time_limit` seconds. None is no limit.
    """
    return CompiledSchema(schema, resources, time_limit)


class Tokenizer:
    """The whole interface: JSON text to token ids and back. Token 0 is PAD."""

    def __init__(self, schema: Schema, merges: Iterable[Merge] = (), resources: Mapping[str, Schema] | None = None):
        self.schema, self.resources = schema, dict(resources or {})
        self.machine = TypeMachine(schema, self.resources)
        self.bpe = BpeModel(self.machine.symbols.size, merges)
        self.vocabulary = Vocabulary(self.machine, self.bpe)

    # -- documents

    def encode(self, json_text: str) -> list[int]:
        """Return the tokens of a JSON document.

        Raises ValueError with the JSON path if the text is not JSON, repeats a key, or is not schema-valid.
        """
        return self.encode_value(_read(read_json, json_text))

    def encode_value(self, value: Any) -> list[int]:
        """Return the tokens of a document that has been parsed: dict, list, str, int, float, bool or None."""
        return self.bpe.tokens(Encoder(self.machine).encode(value))

    def states_of(self, tokens: Sequence[int]) -> list[int]:
        """Return the matcher's `state_id` before the first token and after each. Raises ValueError if a token is not
        allowed."""
        matcher = self.matcher()
        for index, token in enumerate(tokens):
            if not matcher.accept_token(token):
                raise ValueError(f"token {index} is {token}: not allowed there")
        return matcher.state_ids()

    def encode_batch(self, texts: Sequence[str], num_threads: int | None = None) -> list[np.ndarray]:
        """Return an int32 array of tokens for each text."""
        with ThreadPoolExecutor(num_threads) as pool:
            return list(pool.map(lambda text: np.array(self.encode(text), np.int32), texts))

    def encode_prefix(self, partial: str | Any) -> Prefix:
        """Encode a partial document, a JSON text cut anywhere or a value, for completion (see `Prefix`).

        A container that the text closes is closed; a string, number or key at its very end may continue. A value, or a
        text that is a whole document, may continue in every container that ends with it. Raises ValueError with the
        JSON path if no valid document starts so.
        """
        readings = _read(read_partial_json, partial) if isinstance(partial, str) else [reopen_tail(partial)]
        return prefix_of(self.vocabulary, readings)

    def decode(self, tokens: Sequence[int]) -> tuple[str, int, int]:
        """Return (compact JSON text, tokens consumed, tokens given). Surplus tokens, such as padding, are not read.

        Raises ValueError if the tokens are not those of a complete document.
        """
        decoder, known = self._decoder(tokens)
        return compact(_decode_whole(decoder)), self._consumed(decoder, known), len(tokens)

    def decode_prefix(self, tokens: Sequence[int]) -> tuple[str, int, bool]:
        """Return (compact JSON text, tokens consumed, is_complete) for a sequence that may end anywhere.

        Open containers are closed, a cut string keeps its text so far, a key without a value is dropped. Without any
        tokens the text is an empty object, or null if the document cannot be an object.
        """
        decoder, known = self._decoder(tokens)
        try:
            value = decoder.decode()
        except Truncated as cut:
            return compact(None if cut.partial is NO_VALUE else cut.partial), len(known), False
        return compact(value), self._consumed(decoder, known), True

    def _decoder(self, tokens: Sequence[int]) -> tuple[Decoder, list[int]]:
        """Return a decoder of the tokens up to the first PAD, and these tokens."""
        tokens = list(map(int, tokens))
        tokens = tokens[: tokens.index(PAD)] if PAD in tokens else tokens
        chars_of, size = self.bpe.chars_of, self.vocab_size()
        if tokens and not 0 <= min(tokens) <= max(tokens) < size:
            index = next(index for index, token in enumerate(tokens) if not 0 <= token < size)
            raise ValueError(f"token {index} is {tokens[index]}: not in the vocabulary of {size}")
        chars = "".join([chars_of[token] for token in tokens])
        return Decoder(self.machine, chars), tokens

    def _consumed(self, decoder: Decoder, tokens: list[int]) -> int:
        """Return the number of tokens that the decoder has read."""
        n_tokens, n_left = len(tokens), len(decoder.chars) - decoder.at
        while n_left > 0:
            n_tokens -= 1
            n_left -= len(self.bpe.chars_of[tokens[n_tokens]])
        if n_left < 0:
            raise ValueError("the last token of the document continues past the end of the document")
        return n_tokens

    @staticmethod
    def extract_window(tokens: Sequence[int], start: int, end: int, stride: int = 1) -> list[int]:
        """Return the window of tokens start..end: its position, counted in strides, then the tokens.

        >>> Tokenizer.extract_window([5, 6, 7, 8], 2, 4, stride=2)
        [1, 7, 8]
        """
        if start < 0 or start % stride:
            raise ValueError(f"a window starts at a multiple of the stride {stride}, not at {start}")
        return [start // stride, *tokens[start:end]]

    # -- the vocabulary

    def vocab_size(self) -> int:
        return self.bpe.vocab_size

    def pad_token(self) -> int:
        return PAD

    def id_to_token(self, token: int) -> str:
        """Return readable text for a token: free text as it is, all other symbols in angle brackets."""
        return self.machine.symbols.describe(self.bpe.symbols_of[token])

    def matcher(self) -> Matcher:
        """Return a new matcher at the start of a document."""
        return Matcher(self.vocabulary)

    def n_states(self) -> int:
        """Return the number of schema positions that a matcher's `state_id` distinguishes."""
        return self.vocabulary.positions.n_positions

    def describe_state(self, state_id: int) -> tuple[str | None, str]:
        """Return (key of the value, or None if the schema does not name the key; what is being read).

        The latter is "value", "text", "number", "array", "object", "key", or "end" after a document.
        """
        return self.vocabulary.positions.describe(state_id)

    # -- the artifact

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits, a hash of the format, the schema and the merges."""
        parts = [FORMAT, schema_hash(self.schema), self.bpe.merges, *([self.resources] if self.resources else [])]
        return _sha256(parts)[:16]

    def save(self, path: str | Path, embed_schema: bool = True) -> None:
        """Write the artifact, and next to it the vocabulary for people to read (*.vocab.txt).

        If the schema is not embedded, `load` needs it as an argument.
        """
        artifact = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "vocab_size": self.vocab_size(),
            "schema_sha256": schema_hash(self.schema),
            "schema": self.schema if embed_schema else None,
            "merges": " ".join(f"{left}+{right}" for left, right in self.bpe.merges),
        }
        if self.resources:
            artifact["resources"] = self.resources
        path = Path(path)
        write_atomic(path, (json.dumps(artifact, ensure_ascii=False, indent=1) + "\n").encode())
        write_atomic(path.with_suffix(".vocab.txt"), ("\n".join(self._listing()) + "\n").encode())

    def _listing(self) -> Iterable[str]:
        yield f"# {self.vocab_size()} tokens, fingerprint {self.fingerprint}: id, token, and what it is merged from"
        for token, parts in enumerate(self.bpe.parts):
            origin = f"    [{self.id_to_token(parts[0])}][{self.id_to_token(parts[1])}]" if parts else ""
            yield f"{token} [{self.id_to_token(token)}]{origin}"

    @classmethod
    def load(cls, path: str | Path, schema: Schema | None = None) -> "Tokenizer":
        """Read an artifact. Raises ValueError if its format, schema or fingerprint does not match."""
        try:
            artifact = json.loads(Path(path).read_text("utf-8"))
            version, merges = artifact["format"], artifact["merges"].split()
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{path} is not a tokenizer artifact") from None
        if version != FORMAT:
            raise ValueError(f"{path} has format {version}, this version of tct reads {FORMAT}: build it again")
        schema = artifact["schema"] if schema is None else schema
        if schema is None:
            raise ValueError(f"{path} does not contain its schema: pass the schema to load()")
        if schema_hash(schema) != artifact["schema_sha256"]:
            raise ValueError(f"{path} was built for another version of the schema: build it again, or pass that one")
        merges = (tuple(map(int, merge.split("+"))) for merge in merges)
        tokenizer = cls(schema, merges, artifact.get("resources"))
        if tokenizer.fingerprint != artifact["fingerprint"]:
            raise ValueError(f"{path} is damaged: its fingerprint does not match its contents")
        return tokenizer


def schema_hash(schema: Schema) -> str:
    """Return the SHA-256 of a schema, whatever the layout of its file."""
    return _sha256(schema)


def _read(reader: Callable[[str], Any], text: str) -> Any:
    """Read JSON text. Put the JSON path of the document before an error."""
    try:
        return reader(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"$: not JSON: {error}") from None
    except ValueError as error:
        raise ValueError(f"$: {error}") from None


def _decode_whole(decoder: Decoder) -> Any:
    try:
        return decoder.decode()
    except Truncated:
        raise ValueError("the document is not complete: tokens are missing at its end") from None


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

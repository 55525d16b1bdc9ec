"""The tokenizer for GitHub Actions workflows: compiled from their JSON schema, merges trained on real ones.

>>> import tct_github_workflow as tct
>>> text = '{"on":"push","jobs":{"test":{"runs-on":"ubuntu-latest","steps":[{"run":"make"}]}}}'
>>> tct.decode(tct.encode(text))[0] == text
True
"""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tct.matcher import Matcher
from tct.prefix import Prefix, prefix_of
from tct.tokenizer import Tokenizer

from .partial_yaml import yaml_beginnings

NAME = "tct_github_workflow"
# Studies of the vocabulary have merges of their own: an artifact that build_tokenizer.py made of the same schema.
ARTIFACT = Path(os.environ.get("TCT_ARTIFACT") or Path(__file__).with_name("github_workflow.json"))


def workflow_schema() -> dict[str, Any]:
    """The workflow schema that the package check-jsonschema carries."""
    from check_jsonschema.builtin_schemas import get_builtin_schema  # slow to import

    return get_builtin_schema("vendor.github-workflows")


@cache
def tokenizer() -> Tokenizer:
    """The one tokenizer behind the functions of this module; it is loaded when first needed."""
    return Tokenizer.load(ARTIFACT, workflow_schema())


def encode(json_text: str) -> list[int]:
    """The tokens of a workflow in JSON; ValueError with JSON path and reason where it is not valid."""
    return tokenizer().encode(json_text)


def decode(tokens: Sequence[int]) -> tuple[str, int, int]:
    """(compact JSON text, tokens consumed, tokens given); ValueError where no complete workflow."""
    return tokenizer().decode(tokens)


def decode_prefix(tokens: Sequence[int]) -> tuple[str, int, bool]:
    """(what truncated tokens say so far as parseable JSON, tokens consumed, is_complete)."""
    return tokenizer().decode_prefix(tokens)


def encode_prefix(partial: str | Any) -> Prefix:
    """The tokens of a partial workflow, for completion: JSON text (where it starts with `{`) or YAML text, cut
    anywhere, or a value, which is left open at its end. ValueError where no workflow starts so."""
    if isinstance(partial, str):
        partial = partial.removeprefix("\ufeff")
        if not partial.lstrip(" \t\r\n").startswith("{"):
            return prefix_of(tokenizer(), yaml_beginnings(partial))
    return tokenizer().encode_prefix(partial)


def encode_with_states(json_text: str) -> tuple[list[int], list[int]]:
    """The tokens of a workflow, and after each of them the matcher's `state_id`; raises as `encode`."""
    return tokenizer().encode_with_states(json_text)


def states_of(tokens: Sequence[int]) -> list[int]:
    """The matcher's `state_id` before the first of some tokens and after each; ValueError where one is not allowed."""
    return tokenizer().states_of(tokens)


def n_states() -> int:
    """How many places a matcher's `state_id` tells apart."""
    return tokenizer().n_states()


def describe_state(state_id: int) -> tuple[str | None, str]:
    """The key that the schema names the place by, or None, and what is being read there: "value", "text", "number",
    "array", "object", "key", or "end" after a workflow."""
    return tokenizer().describe_state(state_id)


def token_symbols(token: int) -> tuple[int, ...]:
    """The base symbols that a token is merged from; `tct.symbols` says what they are."""
    return tokenizer().merges.symbols_of[token]


def name_of_symbol(symbol: int) -> str | None:
    """The property name that a base symbol stands for, if it is one."""
    return tokenizer().machine.symbols.name_of(symbol)


def encode_batch(texts: Sequence[str], num_threads: int | None = None) -> list[np.ndarray]:
    """`encode` in bulk: an int32 array for each text."""
    return tokenizer().encode_batch(texts, num_threads)


def extract_window(tokens: Sequence[int], start: int, end: int, stride: int = 1) -> list[int]:
    """`[start // stride] + tokens[start:end]`: a window as models are trained on."""
    return Tokenizer.extract_window(tokens, start, end, stride)


def vocab_size() -> int:
    """How many token ids there are: 8192."""
    return tokenizer().vocab_size()


def pad_token() -> int:
    """The id that fills up short windows: 0. It is in no document."""
    return tokenizer().pad_token()


def id_to_token(token: int) -> str:
    """What a token says, readably: free text as it is, structure in angle brackets."""
    return tokenizer().id_to_token(token)


def fingerprint() -> str:
    """Sixteen hex digits that prepared data and checkpoints carry, to be used with this tokenizer only."""
    return tokenizer().fingerprint


def matcher() -> Matcher:
    """A new matcher: tells which tokens keep a schema-valid workflow in reach."""
    return tokenizer().matcher()

"""The tokenizer for GitHub Actions workflows: compiled from their JSON schema, with merges learned on real workflows.

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

from tct.matcher import Matcher, Prefix
from tct.tokenizer import Tokenizer

from . import partial_yaml
from .rules.matcher import RulesMatcher
from .rules.places import ROOT, known_root

NAME = "tct_github_workflow"
RULES = ("schema", "github", "known")  # what a workflow has to fulfil, each more than the one before
# Studies of the vocabulary use an artifact of the same schema with other merges (see build_tokenizer.py).
ARTIFACT = Path(os.environ.get("TCT_ARTIFACT") or Path(__file__).with_name("github_workflow.json"))


def workflow_schema() -> dict[str, Any]:
    """Return the workflow schema that the package check-jsonschema contains."""
    from check_jsonschema.builtin_schemas import get_builtin_schema  # slow to import

    return get_builtin_schema("vendor.github-workflows")


@cache
def tokenizer() -> Tokenizer:
    """Return the tokenizer behind the functions of this module. It is loaded at the first call."""
    return Tokenizer.load(ARTIFACT, workflow_schema())


def encode(json_text: str) -> list[int]:
    """Return the tokens of a workflow in JSON. Raises ValueError with JSON path and reason if it is not valid."""
    return tokenizer().encode(json_text)


def decode(tokens: Sequence[int]) -> tuple[str, int, int]:
    """Return (compact JSON text, tokens consumed, tokens given). Raises ValueError if no workflow is complete."""
    return tokenizer().decode(tokens)


def decode_prefix(tokens: Sequence[int]) -> tuple[str, int, bool]:
    """Return (what truncated tokens say so far, as parseable JSON; tokens consumed; is_complete)."""
    return tokenizer().decode_prefix(tokens)


def encode_prefix(partial: str | Any) -> Prefix:
    """Encode a partial workflow for completion: text that is cut anywhere, or a value that may continue at its end.

    Text that starts with `{` is JSON, other text is YAML. Raises ValueError if no workflow starts so.
    """
    return partial_yaml.encode_prefix(tokenizer(), partial)


def states_of(tokens: Sequence[int]) -> list[int]:
    """Return the matcher's `state_id` before the first token and after each. Raises ValueError if a token is not
    allowed."""
    return tokenizer().states_of(tokens)


def n_states() -> int:
    """Return the number of schema positions that a matcher's `state_id` distinguishes."""
    return tokenizer().n_states()


def encode_batch(texts: Sequence[str], num_threads: int | None = None) -> list[np.ndarray]:
    """Return an int32 array of tokens for each workflow in JSON."""
    return tokenizer().encode_batch(texts, num_threads)


def extract_window(tokens: Sequence[int], start: int, end: int, stride: int = 1) -> list[int]:
    """Return `[start // stride] + tokens[start:end]`, a window as models are trained on."""
    return Tokenizer.extract_window(tokens, start, end, stride)


def vocab_size() -> int:
    """Return the number of token ids: 8192."""
    return tokenizer().vocab_size()


def pad_token() -> int:
    """Return the id that pads short windows: 0. No document contains it."""
    return tokenizer().pad_token()


def id_to_token(token: int) -> str:
    """Return readable text for a token: free text as it is, all other symbols in angle brackets."""
    return tokenizer().id_to_token(token)


def fingerprint() -> str:
    """Return sixteen hex digits that identify this tokenizer in prepared data and checkpoints."""
    return tokenizer().fingerprint


def matcher(rules: str = "schema") -> Matcher:
    """Return a new matcher. It computes the tokens that can still lead to a workflow without faults.

    With `rules` "schema" the workflow becomes schema-valid; with "github", GitHub's own parser and actionlint find no
    fault in it either (see the package rules). "known" is "github" with actions and inputs that at least three owners
    use, and runners that GitHub hosts.
    """
    if rules not in RULES:
        raise ValueError(f"rules must be {' or '.join(RULES)}, not {rules!r}")
    if rules == "schema":
        return tokenizer().matcher()
    return RulesMatcher(tokenizer().vocabulary, known_root() if rules == "known" else ROOT)

"""Annotate the tokens of a document: their kind, the schema position before each, and which tokens were allowed."""

from dataclasses import dataclass, field
from functools import cache

import numpy as np

from tct.machine import TypeMachine
from tct.symbols import END_STRING, FIRST_BYTE, FIRST_NAME
from workflow_data.tokenizers import TCTTokenizer

KINDS = ("structure", "keys", "enum values", "action references", "run scripts", "other text")
STRUCTURE, KEYS, ENUM_VALUES, ACTION_REFERENCES, RUN_SCRIPTS, OTHER_TEXT = range(len(KINDS))
KIND_OF_TEXT = {"uses": ACTION_REFERENCES, "run": RUN_SCRIPTS}  # in workflows, by the key whose value the text is


@dataclass
class MaskInterner:
    """Store each distinct mask of allowed tokens once. There are few, because many positions allow the same tokens."""

    ids: dict[bytes, int] = field(default_factory=dict)

    def intern(self, mask: np.ndarray) -> int:
        """Return the number of a mask."""
        return self.ids.setdefault(mask.tobytes(), len(self.ids))

    def table(self) -> np.ndarray:
        """Return all masks in the order of their numbers, uint8 (M, V / 8), lowest bit first, 1 for allowed."""
        return np.frombuffer(b"".join(self.ids), np.uint8).reshape(len(self.ids), -1)


def annotate_tokens(tokens, masks: MaskInterner, tokenizer: TCTTokenizer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (kinds, schema positions, numbers of the masks in `masks`) of the N tokens of a whole document.

    Each is int32 (N,). The schema position is the one before the token. Raise ValueError if the tokens are not a
    document.
    """
    matcher = tokenizer.matcher()
    bitmask = matcher.allocate_token_bitmask()
    kinds, positions, numbers = (np.zeros(len(tokens), np.int32) for _ in range(3))
    for i, token in enumerate(tokens):
        positions[i] = matcher.state_id()
        kinds[i] = kind_at(tokenizer, token, int(positions[i]))
        matcher.fill_next_token_bitmask(bitmask)
        numbers[i] = masks.intern(bitmask)
        if not matcher.accept_token(int(token)):
            raise ValueError(f"token {i} is {token}, which is not allowed there")
    return kinds, positions, numbers


def kind_at(tokenizer: TCTTokenizer, token: int, position: int) -> int:
    """Return the kind of a token at a schema position."""
    kind = int(token_kinds(tokenizer)[token])
    return kind_of_text(tokenizer, position) if kind == OTHER_TEXT else kind


@cache
def token_kinds(tokenizer: TCTTokenizer) -> np.ndarray:
    """Return the kind of every token, int32 (V,); OTHER_TEXT for any text, whose kind depends on its position."""
    library = tokenizer.library
    return np.array([kind_of_symbols(symbols, library.machine) for symbols in library.bpe.symbols_of], np.int32)


def kind_of_symbols(symbols, machine: TypeMachine) -> int:
    """Return the kind of a token; of several kinds the most informative: text, then enum values, then keys."""
    if any(FIRST_BYTE <= symbol < END_STRING for symbol in symbols):
        return OTHER_TEXT
    names = [machine.symbols.name_of(symbol) for symbol in symbols if symbol >= FIRST_NAME]
    if not names:
        return STRUCTURE
    return KEYS if all(names) else ENUM_VALUES


@cache
def kind_of_text(tokenizer: TCTTokenizer, position: int) -> int:
    """Return the kind of text that is read at a schema position."""
    key, reads = tokenizer.library.describe_state(position)
    if reads in ("object", "key"):
        return KEYS
    return KIND_OF_TEXT.get(key, OTHER_TEXT) if tokenizer.is_workflow else OTHER_TEXT

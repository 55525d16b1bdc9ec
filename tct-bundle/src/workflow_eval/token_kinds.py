"""Where each token of a workflow stands: its kind, the state it is read in, and what else was allowed there."""

from dataclasses import dataclass, field
from functools import cache

import numpy as np

import tct_github_workflow as tct
from tct.symbols import END_STRING, FIRST_BYTE, FIRST_NAME

KINDS = ("structure", "keys", "enum values", "action references", "run scripts", "other text")
STRUCTURE, KEYS, ENUM_VALUES, ACTION_REFERENCES, RUN_SCRIPTS, OTHER_TEXT = range(len(KINDS))
KIND_OF_TEXT = {"uses": ACTION_REFERENCES, "run": RUN_SCRIPTS}  # by the key that the text is the value of


@dataclass
class MaskTable:
    """The different masks of allowed tokens that a set of workflows needs: few, for most places look alike."""

    numbers: dict[bytes, int] = field(default_factory=dict)

    def number(self, mask: np.ndarray) -> int:
        return self.numbers.setdefault(mask.tobytes(), len(self.numbers))

    def packed(self) -> np.ndarray:
        """uint8 (M, V / 8), lowest bit first, 1 for allowed."""
        return np.frombuffer(b"".join(self.numbers), np.uint8).reshape(len(self.numbers), -1)


def find_places(tokens, masks: MaskTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(kind, state id, number of the mask in `masks`), each (N,), of the N tokens of a whole workflow: the state is
    that before the token. ValueError where they spell none."""
    table, matcher = token_kinds(), tct.matcher()
    bitmask = matcher.allocate_token_bitmask()
    kinds, states, numbers = (np.zeros(len(tokens), np.int32) for _ in range(3))
    for i, token in enumerate(tokens):
        states[i] = matcher.state_id()
        kinds[i] = table[token]
        if kinds[i] == OTHER_TEXT:
            kinds[i] = kind_of_text(int(states[i]))
        matcher.fill_next_token_bitmask(bitmask)
        numbers[i] = masks.number(bitmask)
        if not matcher.accept_token(int(token)):
            raise ValueError(f"token {i} is {token}: not allowed there")
    return kinds, states, numbers


@cache
def token_kinds() -> np.ndarray:
    """The kind of every token, int32 (V,). Of text it is OTHER_TEXT: what text depends on where it stands."""
    return np.array([kind_of_symbols(tct.token_symbols(token)) for token in range(tct.vocab_size())], np.int32)


def kind_of_symbols(symbols) -> int:
    """Of a token that says several things, the most telling: text, else an enum's value, else a key."""
    if any(FIRST_BYTE <= symbol < END_STRING for symbol in symbols):
        return OTHER_TEXT
    names = [tct.name_of_symbol(symbol) for symbol in symbols if symbol >= FIRST_NAME]
    if not names:
        return STRUCTURE
    return KEYS if all(names) else ENUM_VALUES


@cache
def kind_of_text(state_id: int) -> int:
    """The kind of a token of text that is read in this state."""
    key, reads = tct.describe_state(state_id)
    if reads in ("object", "key"):
        return KEYS
    return KIND_OF_TEXT.get(key, OTHER_TEXT)

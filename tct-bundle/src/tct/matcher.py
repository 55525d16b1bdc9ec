"""Which tokens may come next: the type machine held against the vocabulary.

A token is allowed if and only if the document so far, followed by the token's symbols, can still become a
schema-valid document. Names of methods are those that the field uses; bit masks have a bit per token in
int32 words, lowest bit first, 1 for allowed.
"""

from collections.abc import Iterable

import numpy as np

from tct.bpe import Merges
from tct.closing import closing_symbols
from tct.machine import TypeMachine
from tct.masks import Masks
from tct.state import DONE, State, start


class Matcher:
    """Follows one document token by token. Not shared between threads; `fork` is free."""

    def __init__(self, machine: TypeMachine, merges: Merges, masks: Masks):
        self._machine, self._merges, self._masks = machine, merges, masks
        self._states = [start(machine)]  # after 0, 1, 2 ... tokens

    def accept_token(self, token: int) -> bool:
        """Goes one token further; False, and nothing changes, where the token is not allowed."""
        state = self._after(self._states[-1], token)
        if state is None:
            return False
        self._states.append(state)
        return True

    def accept_tokens(self, tokens: Iterable[int]) -> bool:
        """Goes all tokens further; False, and nothing changes, where one is not allowed."""
        tokens = list(tokens)
        if self.validate_tokens(tokens) < len(tokens):
            return False
        return all(self.accept_token(token) for token in tokens)

    def validate_tokens(self, tokens: Iterable[int]) -> int:
        """How many of the tokens could be accepted, one after the other; nothing changes."""
        state, count = self._states[-1], 0
        for token in tokens:
            state = self._after(state, token)
            if state is None:
                break
            count += 1
        return count

    def _after(self, state: State, token: int) -> State | None:
        if not 0 < token < self._merges.vocab_size:
            return None
        text, symbols = self._merges.spelled[token]
        if text:
            state = state.run(text)
        for symbol in symbols:
            if state is None:
                return None
            state = state.step(symbol)
        return state

    def allocate_token_bitmask(self, batch: int = 1) -> np.ndarray:
        """An empty bit mask (batch, words) int32."""
        return np.zeros((batch, self._masks.words), np.int32)

    def fill_next_token_bitmask(self, bitmask: np.ndarray, index: int = 0) -> bool:
        """Writes row `index` of a mask (batch, words): the tokens allowed next. False once terminated: then the
        row is empty."""
        self._masks.fill(self._states[-1], bitmask[index])
        return not self.is_terminated()

    def is_terminated(self) -> bool:
        """Is the document complete? Nothing may follow then."""
        return self._states[-1] is DONE

    def is_completed(self) -> bool:
        """The same: a document ends when its root closes, and never earlier or later."""
        return self.is_terminated()

    def compute_ff_tokens(self) -> list[int]:
        """The tokens that are forced next, up to the first choice; nothing changes."""
        forced: list[int] = []
        state = self._states[-1]
        mask = self.allocate_token_bitmask()[0]
        while state is not DONE:
            self._masks.fill(state, mask)
            allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
            if len(allowed) != 1:
                break
            forced.append(int(allowed[0]))
            state = self._after(state, forced[-1])
        return forced

    def closing_tokens(self) -> list[int]:
        """Tokens that complete the document from here with little more than the schema asks for."""
        return self._merges.tokens_of_symbols(closing_symbols(self._states[-1]))

    def rollback(self, count: int) -> None:
        """Takes back the last `count` tokens; ValueError where there are not so many."""
        if not 0 <= count < len(self._states):
            raise ValueError(f"cannot take back {count} of {len(self._states) - 1} tokens")
        del self._states[len(self._states) - count :]

    def fork(self) -> "Matcher":
        """An independent matcher at the same place."""
        copy = Matcher(self._machine, self._merges, self._masks)
        copy._states = list(self._states)
        return copy

    def reset(self) -> None:
        """Back to the start of a document."""
        del self._states[1:]

"""Follows a document token by token: what is allowed next, what is forced, how to finish.

A token is allowed if and only if the document so far, followed by the token's symbols, can still become a
schema-valid document. Names of methods are those that the field uses; bit masks have a bit per token in
int32 words, lowest bit first, 1 for allowed.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from script_tools.bitmask import unpack_bitmask
from tct.bpe import Symbols
from tct.closing import closing_symbols
from tct.prefix import Prefix
from tct.state import DONE, State, start

if TYPE_CHECKING:
    from tct.tokenizer import Tokenizer

Ways = tuple[Symbols, ...]  # of which the symbols to come must start with one; empty where they need not


class Matcher:
    """Follows one document. Not shared between threads; `fork` is free."""

    def __init__(self, tokenizer: "Tokenizer"):
        self._tokenizer, self._merges, self._masks = tokenizer, tokenizer.merges, tokenizer.masks
        self._trail: list[tuple[State, Ways]] = [(start(tokenizer.machine), ())]  # after 0, 1, 2 ... tokens

    def accept_token(self, token: int) -> bool:
        """Goes one token further; False, and nothing changes, where the token is not allowed."""
        after = self._after(*self._trail[-1], token)
        if after is None:
            return False
        self._trail.append(after)
        return True

    def accept_tokens(self, tokens: Iterable[int]) -> bool:
        """Goes all tokens further; False, and nothing changes, where one is not allowed."""
        tokens = list(tokens)
        if self.validate_tokens(tokens) < len(tokens):
            return False
        return all(self.accept_token(token) for token in tokens)

    def accept_prefix(self, prefix: Prefix) -> bool:
        """Goes as far as every tokenisation of a cut document goes; the tokens that follow then have to spell the
        rest of it first (token healing). False, and nothing changes, where the document does not go on so."""
        if not self.accept_tokens(prefix[: prefix.kept]):
            return False
        state, _ = self._trail[-1]
        ways = tuple(way for way in prefix.alternatives if _run(state, way))
        if not ways:
            self.rollback(prefix.kept)
            return False
        self._trail[-1] = state, () if () in ways else ways
        return True

    def validate_tokens(self, tokens: Iterable[int]) -> int:
        """How many of the tokens could be accepted, one after the other; nothing changes."""
        after, count = self._trail[-1], 0
        for token in tokens:
            after = self._after(*after, token)
            if after is None:
                break
            count += 1
        return count

    def _after(self, state: State, ways: Ways, token: int) -> tuple[State, Ways] | None:
        if not 0 < token < self._merges.vocab_size:
            return None
        if ways:
            symbols = self._merges.symbols_of[token]
            ways = tuple(w[len(symbols) :] for w in ways if w[: len(symbols)] == symbols[: len(w)])
            if not ways:
                return None
        text, symbols = self._merges.spelled[token]
        then = state.run(text) if text else state
        then = then and _run(then, symbols)
        return then and (then, () if () in ways else ways)

    def allocate_token_bitmask(self, batch: int = 1) -> np.ndarray:
        """An empty bit mask (batch, words) int32."""
        return np.zeros((batch, self._masks.words), np.int32)

    def fill_next_token_bitmask(self, bitmask, index: int = 0) -> bool:
        """Writes row `index` of a mask (batch, words) int32, of numpy or a torch tensor on the CPU: the tokens
        allowed next. False once terminated: then the row is empty."""
        row = bitmask[index] if isinstance(bitmask, np.ndarray) else bitmask[index].numpy()
        self._masks.fill(*self._trail[-1], row)
        return not self.is_terminated()

    def is_terminated(self) -> bool:
        """Is the document complete? Nothing may follow then."""
        return self._trail[-1][0] is DONE

    def is_completed(self) -> bool:
        """The same: a document ends when its root closes, and never earlier or later."""
        return self.is_terminated()

    def compute_ff_tokens(self) -> list[int]:
        """The tokens that are forced next, up to the first choice; nothing changes."""
        forced: list[int] = []
        after, mask = self._trail[-1], self.allocate_token_bitmask()[0]
        while after[0] is not DONE:
            self._masks.fill(*after, mask)
            allowed = np.flatnonzero(unpack_bitmask(mask))
            if len(allowed) != 1:
                break
            forced.append(int(allowed[0]))
            after = self._after(*after, forced[-1])
        return forced

    def closing_tokens(self) -> list[int]:
        """Tokens that complete the document from here with little more than the schema asks for."""
        state, ways = self._trail[-1]
        way = min(ways, key=len, default=())
        return self._merges.tokens_of_symbols([*way, *closing_symbols(_run(state, way))])

    def state_id(self) -> int:
        """Which place of the type machine this is: what is being read, and the class of the path to it. The same
        for every document, and below the tokenizer's n_states()."""
        return self._tokenizer.classes.state_id(self._trail[-1][0])

    def state_ids(self) -> list[int]:
        """The `state_id` after 0, 1, 2 ... tokens: one more than there are tokens."""
        return [self._tokenizer.classes.state_id(state) for state, _ in self._trail]

    def rollback(self, count: int) -> None:
        """Takes back the last `count` tokens; ValueError where there are not so many."""
        if not 0 <= count < len(self._trail):
            raise ValueError(f"cannot take back {count} of {len(self._trail) - 1} tokens")
        del self._trail[len(self._trail) - count :]

    def fork(self) -> "Matcher":
        """An independent matcher at the same place."""
        copy = Matcher(self._tokenizer)
        copy._trail = list(self._trail)
        return copy

    def reset(self) -> None:
        """Back to the start of a document."""
        self._trail = [(start(self._tokenizer.machine), ())]


def _run(state: State, symbols: Symbols) -> State | None:
    """The state after some symbols; None where they are not allowed."""
    for symbol in symbols:
        state = state.step(symbol)
        if state is None:
            return None
    return state

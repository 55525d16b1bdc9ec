"""Follow a document token by token: which tokens are allowed or forced next, and how to finish.

A token is allowed if and only if the document so far, followed by the symbols of the token, can still become a
schema-valid document. The names of the methods are those of other engines. Bit masks have one bit per token in int32
words, lowest bit first, 1 for allowed.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from script_tools.bitmask import allowed_tokens
from tct.bpe import Symbols
from tct.completion import can_end, complete
from tct.state import DONE, State, start
from tct.vocabulary import Vocabulary

Pending = tuple[Symbols, ...]  # the next symbols must start with one of these; empty if any symbols may come


class Prefix(list):
    """The tokens of a document that is cut anywhere. They encode all that is certain.

    The last pre-token may still grow, and is then merged in another way. So only the first `n_stable` tokens are the
    start of every completion. The base symbols after them start with one of `pending`. If there is only one, the list
    ends with it, and anything that is allowed may follow.
    """

    def __init__(self, tokens: Iterable[int], n_stable: int, pending: Iterable[Symbols]):
        super().__init__(tokens)
        self.n_stable, self.pending = n_stable, tuple(pending)


class Step(NamedTuple):
    """The state after a token, and what must come next."""

    state: State
    pending: Pending


class Matcher:
    """Follow one document. Do not share a matcher between threads; `fork` is cheap."""

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary, self._bpe, self._masks = vocabulary, vocabulary.bpe, vocabulary.masks
        self._history = [self._start()]  # after 0, 1, 2 ... tokens

    def _start(self) -> Step:
        return Step(start(self._vocabulary.machine), ())

    def accept_token(self, token: int) -> bool:
        """Accept one more token. If it is not allowed, return False and change nothing."""
        after = self._after(self._history[-1], token)
        if after is None:
            return False
        self._history.append(after)
        return True

    def accept_tokens(self, tokens: Iterable[int]) -> bool:
        """Accept several tokens. If one is not allowed, return False and change nothing."""
        tokens = list(tokens)
        if self.validate_tokens(tokens) < len(tokens):
            return False
        return all(self.accept_token(token) for token in tokens)

    def accept_prefix(self, prefix: Prefix) -> bool:
        """Accept the stable tokens of a prefix. The tokens that follow must first spell its rest (token healing).

        If the document cannot continue so, return False and change nothing.
        """
        if not self.accept_tokens(prefix[: prefix.n_stable]):
            return False
        step = self._history[-1]
        pending = tuple(symbols for symbols in prefix.pending if _run(step.state, symbols))
        if not pending:
            self.rollback(prefix.n_stable)
            return False
        self._history[-1] = step._replace(pending=() if () in pending else pending)
        return True

    def validate_tokens(self, tokens: Iterable[int]) -> int:
        """Return how many of the tokens could be accepted, one after the other. Nothing changes."""
        after, count = self._history[-1], 0
        for token in tokens:
            after = self._after(after, token)
            if after is None:
                break
            count += 1
        return count

    def is_spelling(self) -> bool:
        """Must the next tokens spell the rest of a prefix?"""
        return bool(self._history[-1].pending)

    def refusal(self, token: int) -> str:
        """Return why a token is not allowed next, or an empty text."""
        return "" if self._after(self._history[-1], token) else "the schema does not allow it here"

    def _after(self, step: Step, token: int) -> Step | None:
        state, pending = step.state, step.pending
        if not 0 < token < self._bpe.vocab_size:
            return None
        if pending:
            symbols = self._bpe.symbols_of[token]
            pending = tuple(p[len(symbols) :] for p in pending if p[: len(symbols)] == symbols[: len(p)])
            if not pending:
                return None
        text, symbols = self._bpe.spelled[token]
        then = state.run(text) if text else state
        then = then and _run(then, symbols)
        return Step(then, () if () in pending else pending) if then and can_end(then) else None

    def allocate_token_bitmask(self, batch: int = 1) -> np.ndarray:
        """Return an empty bit mask, int32 (batch, words)."""
        return np.zeros((batch, self._masks.words), np.int32)

    def fill_next_token_bitmask(self, bitmask, index: int = 0) -> bool:
        """Write the tokens that are allowed next to row `index` of a mask, int32 (batch, words).

        The mask is a numpy array or a torch tensor on the CPU. After the end of the document the row is empty, and the
        result is False.
        """
        row = bitmask[index] if isinstance(bitmask, np.ndarray) else bitmask[index].numpy()
        self._masks.fill(*self._history[-1][:2], row)
        return not self.is_terminated()

    def is_terminated(self) -> bool:
        """Is the document complete? Then no token may follow."""
        return self._history[-1].state is DONE

    def is_completed(self) -> bool:
        """The same as `is_terminated`: a document ends when its root closes, never earlier or later."""
        return self.is_terminated()

    def compute_ff_tokens(self) -> list[int]:
        """Return the tokens that are forced next, up to the first choice. Nothing changes."""
        forced: list[int] = []
        after, mask = self._history[-1], self.allocate_token_bitmask()[0]
        while after.state is not DONE:
            self._masks.fill(*after[:2], mask)
            allowed = allowed_tokens(mask)
            if len(allowed) != 1:
                break
            forced.append(int(allowed[0]))
            after = self._after(after, forced[-1])
        return forced

    def closing_tokens(self) -> list[int]:
        """Return tokens that complete the document with little more than the schema requires."""
        step = self._history[-1]
        symbols = min(step.pending, key=len, default=())
        return self._bpe.tokens_of_symbols([*symbols, *complete(_run(step.state, symbols))])

    def state_id(self) -> int:
        """Return the schema position: what is being read, and the path to it in the schema.

        It is the same for every document at that position, and below the tokenizer's n_states().
        """
        return self._vocabulary.positions.position(self._history[-1].state)

    def state_ids(self) -> list[int]:
        """Return `state_id` after 0, 1, 2 ... tokens: one more than there are tokens."""
        return [self._vocabulary.positions.position(step.state) for step in self._history]

    def rollback(self, count: int) -> None:
        """Take back the last `count` tokens. Raises ValueError if there are fewer."""
        if not 0 <= count < len(self._history):
            raise ValueError(f"cannot take back {count} of {len(self._history) - 1} tokens")
        del self._history[len(self._history) - count :]

    def fork(self) -> "Matcher":
        """Return an independent matcher in the same state."""
        copy = type(self)(self._vocabulary)
        copy._history = list(self._history)
        return copy

    def reset(self) -> None:
        """Go back to the start of a document."""
        self._history = [self._start()]


def _run(state: State, symbols: Symbols) -> State | None:
    """Return the state after some symbols, or None if they are not allowed."""
    for symbol in symbols:
        state = state.step(symbol)
        if state is None:
            return None
    return state

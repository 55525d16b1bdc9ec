"""One sample: its tokens, what may come next, and how it ends."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from nanochat.gpt import GPTConfig
from nanochat.kv_cache import NewTokens, window_start
from nanochat.repetition import RepetitionTracker, Returns
from nanochat.sampling import GREEDY_BELOW, SamplingParams

MOST_TAKEN_BACK = 3  # tokens of repetitions, as a multiple of max_tokens


class Constraint(Protocol):
    """Which tokens may come next in one sequence.

    Some things are optional. `closing_tokens() -> list[int]` is a short ending from here, or raises RuntimeError. With
    it, samples that reach max_tokens are complete too. `fill_candidate_bitmask` is like `fill_next_token_bitmask`, but
    may write tokens that `accept_token` refuses, if that is cheaper: they are drawn again. `refused_like(token) ->
    np.ndarray` are the tokens that are refused like a refused one, int64 (n,). A model that takes schema positions as
    input needs `state_id() -> int`, the current one, and `state_ids() -> list[int]`, those after 0, 1,
    2 ... tokens.
    """

    def accept_token(self, token: int) -> bool:
        """Advance by one token. Return False if it is not allowed."""

    def fill_next_token_bitmask(self, bitmask: np.ndarray, index: int = 0) -> bool:
        """Write which tokens may come next to bitmask[index]: int32 words, lowest bit first, 1 = allowed."""

    def is_terminated(self) -> bool:
        """Return whether the sequence is complete and nothing may follow."""


@dataclass(frozen=True)
class Sample:
    """A finished sequence, without its prompt."""

    tokens: list[int]
    finish_reason: str  # "complete": by itself; "closed": by the constraint's shortest ending; "length": cut
    logprob: float  # nats, of the sampled tokens, under the model renormalized over those that were not excluded
    allowed: float | None = (
        None  # mean probability that the model gave to the candidates of the constraint, if measured
    )
    accepted: float | None = None  # share of the first draws that the constraint accepted


@dataclass(frozen=True)
class Step:
    """What was just added to one sample."""

    index: int  # of the sample
    tokens: list[int]  # the new tokens, in order
    sample: Sample | None  # the whole sample, if it has ended
    logprob: float = 0.0  # nats, of all its tokens so far
    n_removed: int = 0  # tokens of earlier steps that were taken back, before the new ones


class SampleInProgress:
    """A sample that is not finished."""

    def __init__(
        self,
        index: int,
        prompt: list[int],
        sampling: SamplingParams,
        config: GPTConfig,
        constraint_factory: Callable[[], Constraint] | None,
    ):
        self.index = index
        self.tokens = list(prompt)
        self.n_draws = self.n_refused = 0  # tokens drawn, and those of them whose first draw was refused
        self.bitmask = b""  # which tokens may come next: a bit for each, lowest first
        self.allowed_probs = []  # of all allowed tokens together at each step, if measured
        self._sampling, self._constraint_factory = sampling, constraint_factory
        self._has_schema_positions = config.n_states > 0
        self._words = np.zeros((1, math.ceil(config.vocab_size / 32)), dtype=np.int32)
        self._random = np.random.default_rng((sampling.seed, index))
        self._begin = len(prompt)
        self._n_emitted = self._n_kept = len(prompt)  # tokens in steps, and how many of them are still right
        self._end = len(prompt) + sampling.max_tokens
        can_change = sampling.temperature >= GREEDY_BELOW
        self._returns = Returns(sampling.max_repetition if can_change else 1.0, MOST_TAKEN_BACK * sampling.max_tokens)
        self._begin_after_prompt()
        self._endings = []  # (number of tokens, ending) of those that fitted, the last one last
        if hasattr(self.constraint, "closing_tokens"):
            ending = self.constraint.closing_tokens()
            if len(ending) > sampling.max_tokens:
                raise ValueError(
                    f"max_tokens {sampling.max_tokens} is too few: the shortest sample has {len(ending)} tokens"
                )
            self._endings.append((len(self.tokens), ending))

    def _begin_after_prompt(self):
        """Forget all tokens after the prompt."""
        del self.tokens[self._begin :]
        self._logprobs = [0.0]  # nats, of 0, 1, 2 ... tokens after the prompt
        self.constraint = self._constraint_factory and self._constraint_factory()
        self._fill = getattr(self.constraint, "fill_candidate_bitmask", None) or getattr(
            self.constraint, "fill_next_token_bitmask", None
        )
        self._schema_positions = self.constraint.state_ids() if self._has_schema_positions else []  # after 0, 1, ...
        self.repeats = RepetitionTracker(self._sampling.max_repeats) if self._sampling.max_repeats else None
        self._returns.begin_again()
        self._window, self._n_read = None, 0  # where the window in the cache starts, and how many tokens are read

    def unread(self, context: int, stride: int) -> NewTokens:
        """Return what the model has not read yet of the current window."""
        start = window_start(len(self.tokens), context, stride)
        position_token, n_read = start // stride, self._n_read
        self._n_read = len(self.tokens)
        if start != self._window:
            self._window = start
            schema_positions = (0, *self._schema_positions[start:]) if self._has_schema_positions else ()
            return NewTokens((position_token, *self.tokens[start:]), 0, schema_positions, starts_window=True)
        previous = self.tokens[n_read - 1] if n_read > start else position_token
        return NewTokens(self.tokens[n_read:], previous, self._schema_positions[n_read:])

    def draw(self) -> float:
        """Return the sample's next random number, uniform in [0, 1). As float32 it never rounds to 1."""
        return float(self._random.random(dtype=np.float32))

    def try_append(self, token: int, logprob: float) -> bool:
        """Append a token. Return False if the constraint refuses it."""
        if self.constraint and not self.constraint.accept_token(token):
            return False
        self.tokens.append(token)
        self._logprobs.append(self._logprobs[-1] + logprob)
        self._returns.append(token)
        if self.repeats:
            self.repeats.append(token)
        if self._has_schema_positions:
            self._schema_positions.append(self.constraint.state_id())
        return True

    def refused_like(self, token: int):
        """Return the tokens (n,) that the constraint refuses because it has refused one."""
        refused_like = getattr(self.constraint, "refused_like", None)
        return torch.from_numpy(refused_like(token)) if refused_like else torch.tensor([token])

    def advance_forced(self) -> Step:
        """Append forced tokens, check for repetition and for the end, and return what is new since the last call."""
        self._append_forced()
        if not self._is_complete() and (distance := self._returns.distance(len(self.tokens) - self._begin)):
            self._go_back(distance)
            self._append_forced()
        reason, sample = self._finish_reason(), None
        if reason:
            allowed = float(np.mean(self.allowed_probs)) if self.allowed_probs else None
            accepted = 1 - self.n_refused / self.n_draws if self.constraint and self.n_draws else None
            sample = Sample(self.tokens[self._begin :], reason, self._logprobs[-1], allowed, accepted)
        n_removed, new_tokens = self._n_emitted - self._n_kept, self.tokens[self._n_kept :]
        self._n_emitted = self._n_kept = len(self.tokens)
        return Step(self.index, new_tokens, sample, self._logprobs[-1], n_removed)

    def _is_complete(self) -> bool:
        return bool(self.constraint and self.constraint.is_terminated())

    def _append_forced(self):
        """Append tokens as long as only one is allowed."""
        while self.constraint and not self._is_complete() and len(self.tokens) < self._end:
            self._fill(self._words)
            self.bitmask = self._words.astype("<i4", copy=False).tobytes()
            bits = int.from_bytes(self.bitmask, "little")
            if bits.bit_count() != 1:
                break
            token = bits.bit_length() - 1  # its probability is 1
            if not self.try_append(token, 0.0):
                raise RuntimeError(f"the constraint refuses token {token}, the only one that it had allowed")

    def _go_back(self, distance: int):
        """Take back the latest tokens after the prompt."""
        self._cut(max(self._begin, len(self.tokens) - distance))
        kept, logprobs = self.tokens[self._begin :], self._logprobs
        self._begin_after_prompt()
        for token in kept:
            self.try_append(token, 0.0)
        self._logprobs = logprobs
        self._endings = [ending for ending in self._endings if ending[0] <= len(self.tokens)]

    def _cut(self, length: int):
        del self.tokens[length:]
        del self._logprobs[length - self._begin + 1 :]
        self._n_kept = min(self._n_kept, length)

    def _should_look_for_ending(self) -> bool:
        """Return whether an ending may soon no longer fit. One token rarely makes it much longer."""
        if not self._endings:
            return False
        length, ending = self._endings[-1]
        return len(self.tokens) >= length + max(1, (self._end - length - len(ending)) // 4)

    def _finish_reason(self) -> str | None:
        """Return why the sample has ended, or None. If it was closed or cut, set its last tokens."""
        left = self._end - len(self.tokens)
        if left >= 0 and self._is_complete():
            return "complete"
        if self._should_look_for_ending():
            try:
                ending = self.constraint.closing_tokens()
            except RuntimeError:
                ending = None
            if ending is not None and len(ending) <= left:
                self._endings.append((len(self.tokens), ending))
                return None
            length, ending = self._endings[-1]
            self._cut(length)
            self.tokens += ending
            return "closed"
        if left > 0:
            return None
        self._cut(self._end)
        return "length"

"""Generation: draw token sequences from a GPT, many at a time, within an optional constraint.

The engine knows tokens, windows and the calls of the constraint, but not what the tokens mean. The model always reads
a window as in training, `[start // stride] + tokens[start:]`. A sequence that outgrows its window continues in a later
one.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import numpy as np
import torch

from nanochat.gpt import GPT, GPTConfig
from nanochat.kv_cache import KVCache, NewTokens, window_start
from nanochat.sampling import RepetitionTracker, SamplingParams, disallowed_mask, mask_repetition, sample_tokens

ROWS_AT_A_TIME = 256  # of logits, to save memory


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
    tokens: list[int]  # the new tokens, in order; later steps never remove them
    sample: Sample | None  # the whole sample, if it has ended
    logprob: float = 0.0  # nats, of all its tokens so far


class Engine:
    """Generates from a model that was trained on windows that start at multiples of `stride` tokens.

    Engines are immutable, so threads may share one.
    """

    def __init__(self, model: GPT, *, stride: int):
        if not 1 <= stride <= model.config.sequence_len:
            raise ValueError(f"stride {stride} is not from 1 to the context size {model.config.sequence_len}")
        self.model = model
        self.stride = stride

    def generate(self, prompt: list[int], num_samples: int, sampling: SamplingParams, **options) -> list[Sample]:
        """Return `num_samples` continuations of `prompt`, in order. The arguments are those of `stream`."""
        steps = self.stream(prompt, num_samples, sampling, **options)
        samples = {step.index: step.sample for step in steps if step.sample is not None}
        return [samples[index] for index in sorted(samples)]

    def stream(
        self,
        prompt: list[int],
        num_samples: int,
        sampling: SamplingParams,
        *,
        constraint_factory: Callable[[], Constraint] | None = None,
        measure_allowed: bool = False,
        batch_size: int = 16,
        first: int = 0,
    ) -> Iterator[Step]:
        """Yield the steps of `num_samples` continuations of `prompt`, generating at most `batch_size` at a time.

        `constraint_factory()` returns a new constraint that stands right after the prompt. Without it, a sample ends
        at max_tokens. `measure_allowed` fills in Sample.allowed.

        Samples are numbered from `first`, so that several processes can share those of one seed. Sample i depends on
        the seed and i alone: to the bit on an x86 CPU, with torch 2.13 and a model from `prepare_for_inference`.
        Elsewhere the batch changes rounding, which decides between tokens of nearly equal probability. ValueError if
        an argument is out of range.
        """
        self._check(prompt, num_samples, sampling, constraint_factory, batch_size, first)
        batch_size = min(batch_size, num_samples)
        config, device = self.model.config, self.model.get_device()
        cache = KVCache(config, batch_size, self.model.transformer.wte.weight.dtype, device)
        waiting = (
            SampleInProgress(index, prompt, sampling, config, constraint_factory and constraint_factory())
            for index in range(first, first + num_samples)
        )
        samples = []  # samples[i] owns row i of the cache
        while True:
            yield from self._admit(samples, waiting, batch_size)
            if not samples:
                return
            logits = self._next_logits(samples, cache)
            self._append_tokens(self._constrain(logits, samples, measure_allowed), samples, sampling)
            yield from self._retire(samples, cache)

    def next_logits(self, prompt: list[int], constraint: Constraint | None = None):
        """Return the logits (V,) of what comes after a prompt. The constraint, if the model needs its schema positions,
        stands right after the prompt."""
        cache = KVCache(self.model.config, 1, self.model.transformer.wte.weight.dtype, self.model.get_device())
        return self._next_logits([SampleInProgress(0, prompt, SamplingParams(), self.model.config, constraint)], cache)[
            0
        ]

    @torch.inference_mode()
    def logprobs(self, tokens: list[int], schema_positions: Sequence[int] = ()):
        """Return the log-probability (N,) of each token after those before it, in nats, as they would be drawn.

        `schema_positions` are those after 0, 1, 2 ... tokens, if the model needs them.
        """
        config, parts = self.model.config, []
        cache = KVCache(config, 1, self.model.transformer.wte.weight.dtype, self.model.get_device())
        starts = [window_start(length, config.sequence_len, self.stride) for length in range(len(tokens))]
        for start, ends in groupby(range(len(tokens)), starts.__getitem__):
            first, *_, last = [*ends] * 2
            window = (start // self.stride, *tokens[start:last])
            positions = (0, *schema_positions[start : last + 1]) if config.n_states else ()
            batch = cache.reserve({0: NewTokens(window, 0, positions, starts_window=True)})
            hidden = self.model.hidden(batch.tokens, batch)[0, first - start :]  # (n, C)
            targets = torch.tensor(tokens[first : last + 1], device=hidden.device)
            for rows in torch.arange(len(targets)).split(ROWS_AT_A_TIME):
                logprobs = self.model.logits(hidden[rows]).log_softmax(-1)
                parts.append(logprobs.gather(1, targets[rows, None])[:, 0])
        return torch.cat(parts) if parts else torch.zeros(0)

    def _check(self, prompt, num_samples, sampling, constraint_factory, batch_size, first):
        config = self.model.config
        for name, value, least in ("num_samples", num_samples, 1), ("batch_size", batch_size, 1), ("first", first, 0):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        for token in prompt:
            if not 0 <= token < config.vocab_size:
                raise ValueError(f"token {token} of the prompt is not in the vocabulary of {config.vocab_size}")
        total, limit = len(prompt) + sampling.max_tokens, config.vocab_size * self.stride
        if total > limit:
            raise ValueError(
                f"prompt and max_tokens together are {total} tokens, more than the {limit} that "
                f"position tokens reach with stride {self.stride}: lower max_tokens"
            )
        if config.n_states and not constraint_factory:
            raise ValueError(
                "this model takes schema positions as input: pass a constraint_factory whose constraints provide them"
            )

    def _admit(self, samples: list["SampleInProgress"], waiting: Iterator["SampleInProgress"], batch_size: int):
        """Start waiting samples until the batch is full. Yield the steps of those with forced tokens."""
        while len(samples) < batch_size and (sample := next(waiting, None)):
            step = sample.advance_forced()
            if step.tokens or step.sample:
                yield step
            if not step.sample:
                samples.append(sample)

    @torch.inference_mode()
    def _next_logits(self, samples: list["SampleInProgress"], cache: KVCache):
        """Let the model read what is new of each sample, and return the logits (B, V) of what comes next."""
        new = [sample.unread(self.model.config.sequence_len, self.stride) for sample in samples]
        sources = rows_to_read(new)
        logits = self._read({row: new[row] for row in sorted(set(sources))}, cache)
        return spread(logits, sources, cache)

    def _read(self, new: dict[int, NewTokens], cache: KVCache):
        """Return the logits (rows read, V) after the last new token of each row."""
        batch = cache.reserve(new)
        hidden = self.model.hidden(batch.tokens, batch)  # (1, N, C)
        ends = np.cumsum([len(part.tokens) for part in new.values()])
        return self.model.logits(hidden[0, ends - 1])

    @staticmethod
    def _constrain(logits, samples: list["SampleInProgress"], measure_allowed: bool):
        """Set the logits (B, V) of tokens that the constraints exclude to -inf."""
        if not samples[0].constraint:
            return logits
        masks = [disallowed_mask(sample.bitmask, logits.size(-1)) for sample in samples]
        disallowed = torch.stack(masks).to(logits.device)
        if measure_allowed:
            allowed_probs = (logits.softmax(dim=-1) * ~disallowed).sum(dim=-1)
            for sample, prob in zip(samples, allowed_probs.tolist()):
                sample.allowed_probs.append(prob)
        return logits.masked_fill(disallowed, -math.inf)

    @staticmethod
    def _append_tokens(candidates, samples: list["SampleInProgress"], sampling: SamplingParams):
        """Draw the next token of each sample from the logits (B, V) of its candidates.

        If the constraint refuses a token, another one is drawn without it. The first token that is allowed has the same
        distribution as one draw from all allowed tokens.
        """
        preferred = mask_repetition(candidates, [sample.repetition for sample in samples])
        refused = draw(preferred, samples, sampling)
        for row, sample in enumerate(samples):
            sample.n_draws += 1
            sample.n_refused += row in refused
        if refused:
            is_same = preferred is candidates
            candidates = candidates.clone()
            preferred = candidates if is_same else preferred.clone()
        while refused:
            for row, token in refused.items():
                tokens = samples[row].refused_like(token).to(candidates.device)
                for logits in (candidates, preferred):
                    logits[row].index_fill_(0, tokens, -math.inf)
                if preferred[row].max() == -math.inf:  # only tokens that repeat the text are allowed
                    preferred[row] = candidates[row]
                if preferred[row].max() == -math.inf:
                    raise RuntimeError(f"the constraint refuses token {token}, and all others that it had allowed")
            rows = list(refused)
            again = draw(preferred[rows], [samples[row] for row in rows], sampling)
            refused = {rows[index]: token for index, token in again.items()}

    @staticmethod
    def _retire(samples: list["SampleInProgress"], cache: KVCache):
        """Yield the step of every sample, and remove those that have ended."""
        for row in reversed(range(len(samples))):
            step = samples[row].advance_forced()
            yield step
            if step.sample:  # the last sample takes its row
                cache.copy(len(samples) - 1, row)
                samples[row] = samples[-1]
                samples.pop()


def draw(logits, samples: list["SampleInProgress"], sampling: SamplingParams) -> dict[int, int]:
    """Draw a token for each sample from logits (B, V), and append it. Return the refused ones: row -> token."""
    uniforms = torch.tensor([sample.draw() for sample in samples], device=logits.device)
    tokens, logprobs = sample_tokens(logits, uniforms, sampling)
    drawn = zip(samples, tokens.tolist(), logprobs.tolist(), strict=True)
    return {row: token for row, (sample, token, logprob) in enumerate(drawn) if not sample.try_append(token, logprob)}


def rows_to_read(new: list[NewTokens]) -> list[int]:
    """Return for each row the row whose logits it takes: samples that start the same window share one prefill."""
    first_row = {}
    return [first_row.setdefault(part, row) if part.starts_window else row for row, part in enumerate(new)]


def spread(logits, sources: list[int], cache: KVCache):
    """Copy each row of the cache from its source, and return the logits (B, V) of all rows."""
    read = sorted(set(sources))
    if len(read) == len(sources):
        return logits
    for row, source in enumerate(sources):
        if row != source:
            cache.copy(source, row)
    return logits[[read.index(source) for source in sources]]


class SampleInProgress:
    """A sample that is not finished."""

    def __init__(
        self, index: int, prompt: list[int], sampling: SamplingParams, config: GPTConfig, constraint: Constraint | None
    ):
        self.index = index
        self.tokens = list(prompt)
        self.constraint = constraint
        self._fill = getattr(constraint, "fill_candidate_bitmask", None) or getattr(
            constraint, "fill_next_token_bitmask", None
        )
        self.n_draws = self.n_refused = 0  # tokens drawn, and those of them whose first draw was refused
        self.bitmask = b""  # which tokens may come next: a bit for each, lowest first
        self.allowed_probs = []  # of all allowed tokens together at each step, if measured
        self.repetition = RepetitionTracker(sampling.max_repeats) if sampling.max_repeats else None
        self._window, self._n_read = None, 0  # where the window in the cache starts, and how many tokens are read
        self._has_schema_positions = config.n_states > 0
        self._schema_positions = constraint.state_ids() if self._has_schema_positions else []  # after 0, 1, ... tokens
        self._words = np.zeros((1, math.ceil(config.vocab_size / 32)), dtype=np.int32)
        self._random = np.random.default_rng((sampling.seed, index))
        self._begin = self._n_emitted = len(prompt)
        self._end = len(prompt) + sampling.max_tokens
        self._logprob = 0.0
        self._fallback = None  # (number of tokens, logprob, ending) of the last ending that fitted
        self._next_ending_check = self._end  # the number of tokens at which to look for an ending
        if hasattr(constraint, "closing_tokens"):
            ending = constraint.closing_tokens()
            if len(ending) > sampling.max_tokens:
                raise ValueError(
                    f"max_tokens {sampling.max_tokens} is too few: the shortest sample has {len(ending)} tokens"
                )
            self._remember(ending)

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
        if self.repetition:
            self.repetition.append(token)
        if self._has_schema_positions:
            self._schema_positions.append(self.constraint.state_id())
        self._logprob += logprob
        return True

    def refused_like(self, token: int):
        """Return the tokens (n,) that the constraint refuses because it has refused one."""
        refused_like = getattr(self.constraint, "refused_like", None)
        return torch.from_numpy(refused_like(token)) if refused_like else torch.tensor([token])

    def advance_forced(self) -> Step:
        """Append forced tokens, check for the end, and return what is new since the last call."""
        while self.constraint and not self.constraint.is_terminated() and len(self.tokens) < self._end:
            self._fill(self._words)
            self.bitmask = self._words.astype("<i4", copy=False).tobytes()
            bits = int.from_bytes(self.bitmask, "little")
            if bits.bit_count() != 1:
                break
            token = bits.bit_length() - 1  # the only allowed token: its probability is 1
            if not self.try_append(token, 0.0):
                raise RuntimeError(f"the constraint refuses token {token}, the only one that it had allowed")
        reason = self._finish_reason()
        new_tokens = self.tokens[self._n_emitted :]
        self._n_emitted = len(self.tokens)
        sample = None
        if reason:
            allowed = float(np.mean(self.allowed_probs)) if self.allowed_probs else None
            accepted = 1 - self.n_refused / self.n_draws if self.constraint and self.n_draws else None
            sample = Sample(self.tokens[self._begin :], reason, self._logprob, allowed, accepted)
        return Step(self.index, new_tokens, sample, self._logprob)

    def _remember(self, ending: list[int]):
        """Remember an ending that fits. One token rarely makes it much longer, so look less often if there is room."""
        self._fallback = len(self.tokens), self._logprob, ending
        self._next_ending_check = len(self.tokens) + max(1, (self._end - len(self.tokens) - len(ending)) // 4)

    def _finish_reason(self) -> str | None:
        """Return why the sample has ended, or None. If it was closed or cut, set its last tokens."""
        left = self._end - len(self.tokens)
        if self.constraint and left >= 0 and self.constraint.is_terminated():
            return "complete"
        if len(self.tokens) >= self._next_ending_check and hasattr(self.constraint, "closing_tokens"):
            try:
                ending = self.constraint.closing_tokens()
            except RuntimeError:
                ending = None
            if ending is not None and len(ending) <= left:
                self._remember(ending)
                return None
            length, self._logprob, ending = self._fallback  # the last one that fitted
            self.tokens[length:] = ending
            return "closed"
        if left > 0:
            return None
        del self.tokens[self._end :]
        return "length"

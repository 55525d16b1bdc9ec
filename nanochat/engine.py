"""Generation: samples token sequences from a GPT, many at a time, within an optional constraint.

It knows tokens, windows and the names of the constraint's calls, nothing of what the tokens mean. The model
always sees a window as in training, `[start // stride] + tokens[start:]`; where a sequence has outgrown its
window, it goes on in a later one.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from nanochat.gpt import GPT
from nanochat.kv_cache import KVCache, window_start
from nanochat.sampling import Loops, leave_loops, refused_tokens, sample_tokens

CLOSING_HORIZON = 256  # with fewer tokens left, a row makes sure that it can still be ended


class Constraint(Protocol):
    """What may come next in one sequence. A constraint may also have `closing_tokens() -> list[int]`, a
    shortest ending from here: its samples are then complete even where they reach max_tokens. A model that is told
    states needs a constraint that knows them: `state_id() -> int`, and `state_ids() -> list[int]` after 0, 1, 2 ...
    tokens of the sequence."""

    def accept_token(self, token: int) -> bool:
        """Go on by one token; False where it is not allowed."""

    def fill_next_token_bitmask(self, bitmask: np.ndarray, index: int = 0) -> bool:
        """Write what may come next to bitmask[index]: int32 words, lowest bit first, bit 1 = allowed."""

    def is_terminated(self) -> bool:
        """Whether the sequence is complete and nothing may follow."""


@dataclass(frozen=True)
class Sample:
    """A finished sequence, without its prompt."""

    tokens: list[int]
    finish_reason: str  # "complete": by itself; "closed": by the constraint's shortest ending; "length": cut
    logprob: float  # nats, of the sampled tokens, under the model renormalised over the allowed ones
    allowed: float | None = None  # the probability the model gave to allowed tokens, on average, if measured


@dataclass(frozen=True)
class Step:
    """What was just added to one sample."""

    index: int  # which sample
    tokens: list[int]  # the tokens added, in order; later steps take none of them back
    sample: Sample | None  # the whole sample, once it has ended


class Engine:
    """Generates from `model`, trained on windows that start at multiples of `stride` tokens. It holds nothing
    that changes, so threads may share one."""

    def __init__(self, model: GPT, *, stride: int):
        if not 1 <= stride <= model.config.sequence_len:
            raise ValueError(f"stride {stride} is not from 1 to the context size {model.config.sequence_len}")
        self.model = model
        self.stride = stride

    def generate(self, prompt: list[int], num_samples: int, **options) -> list[Sample]:
        """`num_samples` continuations of `prompt`, in order. The options are those of `stream`."""
        steps = self.stream(prompt, num_samples, **options)
        samples = {step.index: step.sample for step in steps if step.sample is not None}
        return [samples[index] for index in sorted(samples)]

    def stream(
        self,
        prompt: list[int],
        num_samples: int,
        *,
        max_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int = 0,
        constraint_factory: Callable[[], Constraint] | None = None,
        measure_allowed: bool = False,
        max_repeats: int = 0,
        batch_size: int = 16,
        first: int = 0,
    ) -> Iterator[Step]:
        """Yield the steps of `num_samples` continuations of `prompt`, at most `batch_size` in work at a time.

        Each has at most `max_tokens` tokens. `constraint_factory()` gives it a constraint of its own that
        stands right after the prompt; without one it ends at max_tokens. `temperature` 0 takes the likeliest
        token; `top_k` keeps the k likeliest, `top_p` the fewest that hold this share of the probability, `min_p`
        those with this share of the likeliest one's. With `max_repeats` above 0 the token is refused by which a
        sample would say the same thing more times on end (see `Loops`), unless there is no other. `measure_allowed`
        fills in Sample.allowed.

        Samples are numbered from `first` on, so that several processes can share those of one seed. Sample i depends
        on `seed` and i alone: to the bit on an x86 CPU, with torch 2.13 and a model from `prepare_for_inference`;
        elsewhere up to rounding, so where two tokens are as good as equal, the shape of the batch may decide.
        ValueError where an argument makes no sense.
        """
        self._check(
            prompt, num_samples, max_tokens, temperature, top_k, top_p, min_p, max_repeats, seed, batch_size, first
        )
        if self.model.config.n_states and not constraint_factory:
            raise ValueError("this model is told states: it needs a constraint, which knows them")
        batch_size = min(batch_size, num_samples)
        config, device = self.model.config, self.model.get_device()
        cache = KVCache(config, batch_size, self.model.transformer.wte.weight.dtype, device)
        rows, index, end = [], first, first + num_samples  # rows[i] owns row i of the cache
        while True:
            while len(rows) < batch_size and index < end:
                row = Row(index, prompt, max_tokens, seed, constraint_factory, config, max_repeats)
                index += 1
                step = row.settle()
                if step.tokens or step.sample:
                    yield step
                if not step.sample:
                    rows.append(row)
            if not rows:
                return

            logits = self._next_logits(rows, cache)  # (B, V)
            if constraint_factory:
                refused = torch.stack([refused_tokens(row.allowed, config.vocab_size) for row in rows]).to(device)
                if measure_allowed:
                    for row, share in zip(rows, (logits.softmax(dim=-1) * ~refused).sum(dim=-1).tolist()):
                        row.shares.append(share)
                logits = logits.masked_fill(refused, -math.inf)
            logits = leave_loops(logits, [row.loops for row in rows])
            uniforms = torch.tensor([row.draw() for row in rows], device=device)
            tokens, logprobs = sample_tokens(logits, uniforms, temperature, top_k, top_p, min_p)

            for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist()):
                row.append(token, logprob)
            for slot in reversed(range(len(rows))):
                step = rows[slot].settle()
                yield step
                if step.sample:  # the last row takes the place of the one that ended
                    cache.copy(len(rows) - 1, slot)
                    rows[slot] = rows[-1]
                    rows.pop()

    @torch.inference_mode()
    def _next_logits(self, rows: list["Row"], cache: "KVCache"):
        """Show the model what it has not yet seen of each row; the logits (B, V) of what comes next."""
        # slot -> new (tokens, states after them and the one before); beginnings and their slots; (slot, twin)
        shown, alike, twins = {}, {}, []
        for slot, row in enumerate(rows):
            start = window_start(len(row.tokens), self.model.config.sequence_len, self.stride)
            if start == row.window:
                shown[slot] = row.tokens[row.seen :], row.states[row.seen :]
            else:
                window = (start // self.stride, *row.tokens[start:]), (0, *row.states[start:]) if row.states else ()
                first = alike.setdefault(window, slot)
                if first == slot:
                    cache.lengths[slot] = 0
                    shown[slot] = window
                else:  # one beginning of many samples is shown once
                    twins.append((slot, first))
            row.window, row.seen = start, len(row.tokens)

        counts = [len(tokens) for tokens, _ in shown.values()]
        before = [
            rows[slot].tokens[-count - 1] if cache.lengths[slot] > 1 else rows[slot].window // self.stride
            for slot, count in zip(shown, counts)
        ]
        cache.reserve(list(shown), counts, [states for _, states in shown.values()], before)
        line = [token for tokens, _ in shown.values() for token in tokens]
        hidden = self.model.hidden(torch.tensor([line], device=self.model.get_device()), cache)  # (1, N, C)
        last = hidden[0, np.cumsum(counts) - 1]  # (rows shown, C)
        logits = self.model.logits(last)
        hash_fraction = {slot: place for place, slot in enumerate(shown)}
        for slot, first in twins:
            cache.copy(first, slot)
            hash_fraction[slot] = hash_fraction[first]
        return logits[[hash_fraction[slot] for slot in range(len(rows))]] if twins else logits

    def _check(
        self, prompt, num_samples, max_tokens, temperature, top_k, top_p, min_p, max_repeats, seed, batch_size, first
    ):
        vocab_size = self.model.config.vocab_size
        counts = {"num_samples": num_samples, "max_tokens": max_tokens, "batch_size": batch_size}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature must be 0 or more, not {temperature}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {top_k}")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {top_p}")
        if min_p is not None and not 0 <= min_p <= 1:
            raise ValueError(f"min_p must be from 0 to 1, not {min_p}")
        if max_repeats != 0 and max_repeats < 2:
            raise ValueError(f"max_repeats must be at least 2, or 0 for no limit, not {max_repeats}")
        for name, value in {"seed": seed, "first": first}.items():
            if value < 0:
                raise ValueError(f"{name} must be 0 or more, not {value}")
        for token in prompt:
            if not 0 <= token < vocab_size:
                raise ValueError(f"token {token} of the prompt is not in the vocabulary of {vocab_size}")
        total, limit = len(prompt) + max_tokens, vocab_size * self.stride
        if total > limit:
            raise ValueError(
                f"prompt and max_tokens together are {total} tokens, more than the {limit} that "
                f"position tokens reach with stride {self.stride}: lower max_tokens"
            )


class Row:
    """One sample in the making."""

    def __init__(self, index, prompt, max_tokens, seed, constraint_factory, config, max_repeats):
        self.index = index
        self.tokens = list(prompt)
        self.window = None  # where the window in the cache starts
        self.seen = 0  # how many of the tokens the model has seen
        self.constraint = constraint_factory() if constraint_factory else None
        self._tells_states = config.n_states > 0
        self.states = self.constraint.state_ids() if self._tells_states else []  # after 0, 1, 2 ... tokens, if told
        self.allowed = b""  # what may come next: a bit for each token, lowest bit first
        self._bitmask = np.zeros((1, math.ceil(config.vocab_size / 32)), dtype=np.int32)
        self.shares = []  # of the probability, that the allowed tokens had at each step, if measured
        self.loops = Loops(max_repeats) if max_repeats else None
        self._random = np.random.default_rng((seed, index))
        self._begin = self._told = len(prompt)
        self._end = len(prompt) + max_tokens
        self._logprob = 0.0
        self._fallback = None  # (tokens, their logprob, ending) when the ending was last looked at, and fitted
        self._look_at = self._end - CLOSING_HORIZON  # how many tokens there are when it is looked at next
        if hasattr(self.constraint, "closing_tokens"):
            shortest = len(self.constraint.closing_tokens())
            if shortest > max_tokens:
                raise ValueError(f"max_tokens {max_tokens} is too few: the shortest sample has {shortest}")

    def draw(self) -> float:
        """The row's next random number, uniform in [0, 1); a float32, so that no rounding makes it 1."""
        return float(self._random.random(dtype=np.float32))

    def append(self, token: int, logprob: float):
        if self.constraint and not self.constraint.accept_token(token):
            raise RuntimeError(f"the constraint refuses token {token}, which it had allowed")
        self.tokens.append(token)
        if self.loops:
            self.loops.append(token)
        if self._tells_states:
            self.states.append(self.constraint.state_id())
        self._logprob += logprob

    def settle(self) -> Step:
        """Append what is forced and see whether the sample has ended; what is new since the last call."""
        while self.constraint and not self.constraint.is_terminated() and len(self.tokens) < self._end:
            self.constraint.fill_next_token_bitmask(self._bitmask)
            self.allowed = self._bitmask.astype("<i4", copy=False).tobytes()
            bits = int.from_bytes(self.allowed, "little")
            if bits.bit_count() != 1:
                break
            self.append(bits.bit_length() - 1, 0.0)  # the only one: its probability is 1
        reason = self._finish_reason()
        new_tokens = self.tokens[self._told :]
        self._told = len(self.tokens)
        sample = None
        if reason:
            allowed = float(np.mean(self.shares)) if self.shares else None
            sample = Sample(self.tokens[self._begin :], reason, self._logprob, allowed)
        return Step(self.index, new_tokens, sample)

    def _finish_reason(self) -> str | None:
        """Why the sample has ended, its last tokens put right; None where it goes on."""
        left = self._end - len(self.tokens)
        if self.constraint and left >= 0 and self.constraint.is_terminated():
            return "complete"
        if len(self.tokens) >= self._look_at and hasattr(self.constraint, "closing_tokens"):
            ending = self.constraint.closing_tokens()
            if len(ending) <= left:
                self._fallback = len(self.tokens), self._logprob, ending
                # A token seldom makes the ending longer by more than a few: with room to spare, look less often.
                self._look_at = len(self.tokens) + max(1, (left - len(ending)) // 4)
                return None
            if self._fallback:  # that went too far: end where it was last looked at
                length, self._logprob, ending = self._fallback
                self.tokens[length:] = ending
                return "closed"
        if left > 0:
            return None
        del self.tokens[self._end :]
        return "length"

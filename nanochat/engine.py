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

from nanochat.gpt import GPT, GPTConfig

CLOSING_HORIZON = 256     # with fewer tokens left, a row makes sure at each step that it can still be ended
LEAST_TEMPERATURE = 1e-6  # below it float32 cannot tell sampling from taking the likeliest token


class Constraint(Protocol):
    """What may come next in one sequence. A constraint may also have `closing_tokens() -> list[int]`, a
    shortest ending from here: its samples are then complete even where they reach max_tokens."""

    def accept_token(self, token: int) -> bool:
        """Go on by one token; False where it is not allowed."""

    def fill_next_token_bitmask(self, bitmask: np.ndarray, index: int = 0) -> bool:
        """Write what may come next to bitmask[index]: int32 words, lowest bit first, bit 1 = allowed."""

    def compute_ff_tokens(self) -> list[int]:
        """The tokens that must come next, as far as there is no choice."""

    def is_terminated(self) -> bool:
        """Whether the sequence is complete and nothing may follow."""


@dataclass(frozen=True)
class Sample:
    """A finished sequence, without its prompt."""

    tokens: list[int]
    finish_reason: str  # "complete": by itself; "closed": by the constraint's shortest ending; "length": cut
    logprob: float      # nats, of the sampled tokens, under the model renormalised over the allowed ones


@dataclass(frozen=True)
class Step:
    """What was just added to one sample."""

    index: int             # which sample
    tokens: list[int]      # the tokens added, in order; later steps take none of them back
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
        return [samples[index] for index in range(num_samples)]

    def stream(self, prompt: list[int], num_samples: int, *, max_tokens: int, temperature: float = 1.0,
               top_k: int | None = None, top_p: float | None = None, seed: int = 0,
               constraint_factory: Callable[[], Constraint] | None = None,
               batch_size: int = 16) -> Iterator[Step]:
        """Yield the steps of `num_samples` continuations of `prompt`, at most `batch_size` in work at a time.

        Each has at most `max_tokens` tokens. `constraint_factory()` gives it a constraint of its own that
        stands right after the prompt; without one it ends at max_tokens. `temperature` 0 takes the likeliest
        token; `top_k` keeps the k likeliest, `top_p` the fewest that hold this share of the probability.
        Sample i depends on `seed` and i alone, up to rounding: where two tokens are as good as equal, the
        shape of the batch may decide. ValueError where an argument makes no sense.
        """
        self._check(prompt, num_samples, max_tokens, temperature, top_k, top_p, seed, batch_size)
        batch_size = min(batch_size, num_samples)
        config, device = self.model.config, self.model.get_device()
        cache = KVCache(config, batch_size, self.model.transformer.wte.weight.dtype, device)
        bitmask = np.zeros((batch_size, math.ceil(config.vocab_size / 32)), dtype=np.int32)
        rows, started = [], 0  # rows[i] owns row i of the cache
        while True:
            while len(rows) < batch_size and started < num_samples:
                row = Row(started, prompt, max_tokens, seed, constraint_factory)
                started += 1
                step = row.settle()
                if step.tokens or step.sample:
                    yield step
                if not step.sample:
                    rows.append(row)
            if not rows:
                return

            logits = self._next_logits(rows, cache)  # (B, V)
            if constraint_factory:
                for slot, row in enumerate(rows):
                    row.constraint.fill_next_token_bitmask(bitmask, slot)
                mask_logits_(logits, bitmask[:len(rows)])
            uniforms = torch.tensor([row.draw() for row in rows], device=device)
            tokens, logprobs = sample_tokens(logits, uniforms, temperature, top_k, top_p)

            for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist()):
                row.append(token, logprob)
            for slot in reversed(range(len(rows))):
                step = rows[slot].settle()
                yield step
                if step.sample:  # the last row takes the place of the one that ended
                    cache.move(len(rows) - 1, slot)
                    rows[slot] = rows[-1]
                    rows.pop()

    @torch.inference_mode()
    def _next_logits(self, rows: list["Row"], cache: "KVCache"):
        """Show the model what it has not yet seen of each row; the logits (B, V) of what comes next."""
        context, device = self.model.config.sequence_len, self.model.get_device()
        begin, go_on = {}, [[] for _ in rows]  # new windows, each with its rows; new tokens of the other rows
        for slot, row in enumerate(rows):
            start = window_start(len(row.tokens), context, self.stride)
            if start == row.window:
                go_on[slot] = row.tokens[row.seen:]
            else:
                begin.setdefault((start // self.stride, *row.tokens[start:]), []).append(slot)
            row.window, row.seen = start, len(row.tokens)

        logits = torch.empty(len(rows), self.model.config.vocab_size, device=device)
        for window, slots in begin.items():
            cache.reserve_window(slots, len(window))
            hidden = self.model.hidden(torch.tensor([window], device=device), cache)  # (1, T, C)
            logits[slots] = self.model.logits(hidden[:, -1])
        slots = [slot for slot, tokens in enumerate(go_on) if tokens]
        if slots:
            counts = [len(tokens) for tokens in go_on]
            cache.reserve_tokens(counts)
            padded = [tokens + [0] * (max(counts) - len(tokens)) for tokens in go_on]
            hidden = self.model.hidden(torch.tensor(padded, device=device), cache)  # (B, T, C)
            last = hidden[slots, [counts[slot] - 1 for slot in slots]]
            logits[slots] = self.model.logits(last)
        return logits

    def _check(self, prompt, num_samples, max_tokens, temperature, top_k, top_p, seed, batch_size):
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
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, not {seed}")
        for token in prompt:
            if not 0 <= token < vocab_size:
                raise ValueError(f"token {token} of the prompt is not in the vocabulary of {vocab_size}")
        total, limit = len(prompt) + max_tokens, vocab_size * self.stride
        if total > limit:
            raise ValueError(f"prompt and max_tokens together are {total} tokens, more than the {limit} that "
                             f"position tokens reach with stride {self.stride}: lower max_tokens")


class Row:
    """One sample in the making."""

    def __init__(self, index, prompt, max_tokens, seed, constraint_factory):
        self.index = index
        self.tokens = list(prompt)
        self.window = None  # where the window in the cache starts
        self.seen = 0       # how many of the tokens the model has seen
        self.constraint = constraint_factory() if constraint_factory else None
        self._random = np.random.default_rng((seed, index))
        self._begin = self._told = len(prompt)
        self._end = len(prompt) + max_tokens
        self._logprob = 0.0
        self._fallback = None  # (tokens, their logprob, ending) as of the last step, if the ending fitted
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
        self._logprob += logprob

    def settle(self) -> Step:
        """Append what is forced and see whether the sample has ended; what is new since the last call."""
        if self.constraint:
            for token in self.constraint.compute_ff_tokens():
                self.append(token, 0.0)  # the only one allowed: its probability is 1
        reason = self._finish_reason()
        new_tokens = self.tokens[self._told:]
        self._told = len(self.tokens)
        sample = Sample(self.tokens[self._begin:], reason, self._logprob) if reason else None
        return Step(self.index, new_tokens, sample)

    def _finish_reason(self) -> str | None:
        """Why the sample has ended, its last tokens put right; None where it goes on."""
        left = self._end - len(self.tokens)
        if self.constraint and left >= 0 and self.constraint.is_terminated():
            return "complete"
        if left < CLOSING_HORIZON and hasattr(self.constraint, "closing_tokens"):
            ending = self.constraint.closing_tokens()
            if len(ending) <= left:
                self._fallback = len(self.tokens), self._logprob, ending
                return None
            if self._fallback:  # the last step went too far: end where it began
                length, self._logprob, ending = self._fallback
                self.tokens[length:] = ending
                return "closed"
        if left > 0:
            return None
        del self.tokens[self._end:]
        return "length"


class KVCache:
    """The keys and values of every layer for up to `batch_size` rows, allocated once.

    Before a forward, `reserve_window` or `reserve_tokens` tells where its tokens go. The model then finds
    here their `positions` and, by `update`, the keys and values they attend to, under `mask`.
    """

    def __init__(self, config: GPTConfig, batch_size: int, dtype: torch.dtype, device: torch.device):
        # One place more than the context has takes the padding of full rows; nothing reads it. What padding
        # writes to other places, the tokens that belong there overwrite before anything reads it.
        shape = (config.n_layer, batch_size, config.n_kv_head, config.sequence_len + 1, config.head_dim)
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths = [0] * batch_size  # tokens held for each row
        self.positions = None   # (B, T), of the tokens in this forward
        self.mask = None        # (B, 1, T, T_keys), True where a token attends to a key; None: to all keys
        self.is_causal = False  # a token attends to those before it in this forward, and there are no others

    def reserve_window(self, rows: list[int], count: int):
        """The next forward has one sequence (1, count), with which all of `rows` begin anew."""
        self._rows = rows
        self.positions = torch.arange(count, device=self.k.device)[None]
        self.mask, self.is_causal = None, True
        for row in rows:
            self.lengths[row] = count

    def reserve_tokens(self, counts: list[int]):
        """The next forward has counts[i] more tokens for row i, padded on the right to the longest count."""
        B, T, device = len(counts), max(counts), self.k.device
        spare = self.k.size(3) - 1
        starts = torch.tensor(self.lengths[:B], device=device)[:, None]  # (B, 1)
        slots = starts + torch.arange(T, device=device)                  # (B, T)
        self.positions = slots.clamp(max=spare - 1)
        self._rows = torch.arange(B, device=device)[:, None]
        self._slots = slots.clamp(max=spare)
        self._keys = max(length + count for length, count in zip(self.lengths, counts))
        one_length = len(set(self.lengths[:B])) == 1
        self.mask, self.is_causal = None, False
        if T > 1 or not one_length:
            self.mask = (torch.arange(self._keys, device=device) <= self.positions[:, None, :, None])
        for row, count in enumerate(counts):
            self.lengths[row] += count

    def update(self, layer: int, k, v):
        """Store a layer's new k and v (B, H_kv, T, D); those to attend to, (B, H_kv, T_keys, D)."""
        k_cache, v_cache = self.k[layer], self.v[layer]
        if self.is_causal:
            T = k.size(2)
            k_cache[self._rows, :, :T], v_cache[self._rows, :, :T] = k, v
            return k, v
        k_cache[self._rows, :, self._slots] = k.transpose(1, 2)  # (B, T, H_kv, D)
        v_cache[self._rows, :, self._slots] = v.transpose(1, 2)
        B = len(self._rows)
        return k_cache[:B, :, :self._keys], v_cache[:B, :, :self._keys]

    def move(self, source: int, target: int):
        """Copy row `source` over row `target`."""
        T = self.lengths[target] = self.lengths[source]
        self.k[:, target, :, :T] = self.k[:, source, :, :T]
        self.v[:, target, :, :T] = self.v[:, source, :, :T]


def window_start(length: int, context: int, stride: int) -> int:
    """Where the window starts that shows a sequence of `length` tokens, all but those before the start.

    The start moves in hops of about half the context (a multiple of the stride), by as few as leave room for
    the position token and the tokens: so the window depends on the length alone, not on what came how.

    >>> [window_start(length, 512, 32) for length in (0, 511, 512, 767, 768)]
    [0, 0, 256, 256, 512]
    """
    hop = math.ceil(context / (2 * stride)) * stride
    return max(0, (length - context) // hop + 1) * hop


@torch.inference_mode()
def mask_logits_(logits: torch.Tensor, bitmask: np.ndarray):
    """Set the logits (B, V) of tokens that bitmask (B, ceil(V / 32)) does not allow to -inf, in place."""
    words = bitmask.astype("<i4", copy=False).view(np.uint8)  # (B, bytes)
    allowed = np.unpackbits(words, axis=1, count=logits.size(1), bitorder="little").view(bool)  # (B, V)
    if not allowed.any(axis=1).all():
        raise RuntimeError("the constraint is not terminated, yet it allows no token")
    logits.masked_fill_(~torch.from_numpy(allowed).to(logits.device), -math.inf)


@torch.inference_mode()
def sample_tokens(logits, uniforms, temperature=1.0, top_k=None, top_p=None):
    """One token for each row of logits (B, V), picked by its uniforms (B,) in [0, 1); and log-probabilities.

    Tokens (B,) come from softmax(logits / temperature) cut to top_k, then top_p, by inverting its cumulative
    distribution. The log-probabilities (B,) are those of softmax(logits), in nats.
    """
    logprobs = logits.log_softmax(dim=-1)
    if temperature < LEAST_TEMPERATURE:
        tokens = logits.argmax(dim=-1)
    else:
        best = logits.amax(dim=-1, keepdim=True)
        probs = ((logits - best) / temperature).softmax(dim=-1)
        if top_k is not None:
            kept, order = probs.topk(min(top_k, probs.size(-1)))
            probs = torch.zeros_like(probs).scatter(-1, order, kept)
        if top_p is not None:
            ranked, order = probs.sort(dim=-1, descending=True)
            before = ranked.cumsum(dim=-1) - ranked
            ranked = ranked.masked_fill(before >= top_p * ranked.sum(dim=-1, keepdim=True), 0.0)
            probs = torch.zeros_like(probs).scatter(-1, order, ranked)
        possible = probs > 0  # checked, for the cumulative sum of a parallel device need not rise steadily
        cumulative = probs.cumsum(dim=-1)
        total = cumulative.masked_fill(~possible, 0.0).amax(dim=-1)
        beyond = possible & (cumulative > (uniforms * total)[:, None])
        tokens = beyond.int().argmax(dim=-1)  # the first of them
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]

"""Generation: samples token sequences from a GPT, many at a time, within an optional constraint.

It knows tokens, windows and the names of the constraint's calls, nothing of what the tokens mean. The model
always sees a window as in training, `[start // stride] + tokens[start:]`; where a sequence has outgrown its
window, it goes on in a later one.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

from nanochat.gpt import GPT, STATE_FEATURES, GPTConfig
from nanochat.sampling import Loops, leave_loops, refused_tokens, sample_tokens

CLOSING_HORIZON = 256  # with fewer tokens left, a row makes sure that it can still be ended
KEYS_AT_A_TIME = 64  # attention is to a multiple of so many keys


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
        place_of = {slot: place for place, slot in enumerate(shown)}
        for slot, first in twins:
            cache.copy(first, slot)
            place_of[slot] = place_of[first]
        return logits[[place_of[slot] for slot in range(len(rows))]] if twins else logits

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


class KVCache:
    """The keys and values of every layer for up to `batch_size` rows, allocated once.

    A forward shows more tokens of some rows, side by side in one line (1, N). `reserve` says beforehand how many of
    which row; the model finds here their `positions` (N,), the `longest` row, and what they attend to. On a CPU
    keys and values are float32: attention in bfloat16 takes six times as long there.
    """

    def __init__(self, config: GPTConfig, batch_size: int, dtype: torch.dtype, device: torch.device):
        places = math.ceil(config.sequence_len / KEYS_AT_A_TIME) * KEYS_AT_A_TIME
        features = STATE_FEATURES if config.state_attention else 0
        shape = (config.n_layer, batch_size, config.n_kv_head, places, config.head_dim)
        self.v = torch.zeros(shape, dtype=torch.float32 if device.type == "cpu" else dtype, device=device)
        self.k = self.v.new_zeros(*shape[:-1], config.head_dim + features)
        self.lengths = [0] * batch_size  # tokens held for each row

    def reserve(
        self, rows: list[int], counts: list[int], states: Sequence[Sequence[int]] = (), before: Sequence[int] = ()
    ):
        """The next forward has counts[i] more tokens, at least one, for rows[i]; rows in order. For a model that is
        told, states[i] are the one before these tokens and those after each; for one that looks at previous tokens,
        before[i] is the token before these, if there is one."""
        device = self.k.device
        self.states = self.states_before = None
        if any(states):
            self.states = torch.tensor([[state for row in states for state in row[1:]]], device=device)  # (1, N)
            self.states_before = torch.tensor([[state for row in states for state in row[:-1]]], device=device)
        begins = [self.lengths[row] for row in rows]
        for row, count in zip(rows, counts):
            self.lengths[row] += count
        self.longest = max(self.lengths[row] for row in rows)
        self.positions = torch.tensor(  # (N,)
            [place for begin, count in zip(begins, counts) for place in range(begin, begin + count)], device=device
        )
        self._rows = torch.tensor([row for row, count in zip(rows, counts) for _ in range(count)], device=device)
        ends = np.cumsum(counts).tolist()
        self._firsts, self._before = [0, *ends[:-1]], torch.tensor(before, device=device)
        # Rows with one new token are attended to together, among as many keys as the longest of them holds; the
        # others, which begin a window or were forced some tokens, one by one.
        self._several = [
            (row, slice(end - count, end), self.lengths[row])
            for row, count, end in zip(rows, counts, ends)
            if count > 1
        ]
        singles = [(row, end - 1) for row, count, end in zip(rows, counts, ends) if count == 1]
        self._single_rows, self._single_places = map(list, zip(*singles)) if singles else ([], [])
        if singles:
            lengths = torch.tensor(self.lengths[: singles[-1][0] + 1], device=device)  # (B,)
            keys = math.ceil(max(self.lengths[row] for row, _ in singles) / KEYS_AT_A_TIME) * KEYS_AT_A_TIME
            bias = torch.where(torch.arange(keys, device=device) < lengths[:, None], 0.0, -math.inf)  # (B, T)
            bias[:, 0] = 0  # a row that holds nothing is not looked at
            self._bias = bias.repeat_interleave(self.k.size(2), dim=0)[:, None].to(self.k.dtype)  # (B * H_kv, 1, T)

    def tokens_before(self, idx):
        """The token before each of the new ones (1, N); of the first of a row, any."""
        tokens = idx.roll(1, 1)
        tokens[0, self._firsts] = self._before
        return tokens

    def attend(self, layer: int, q, k, v):
        """Attention (N, H, D) of queries q (N, H, E) within their rows, to which k (N, H_kv, E) and v (N, H_kv, D)
        are added; E is D, or more with features of states."""
        k_cache, v_cache = self.k[layer], self.v[layer]
        q = q.to(k_cache.dtype)
        k_cache[self._rows, :, self.positions] = k.to(k_cache.dtype)
        v_cache[self._rows, :, self.positions] = v.to(v_cache.dtype)
        if not self._several and len(self._single_rows) * k_cache.size(1) == len(self._bias):  # the common case
            return attend_to_keys(q, k_cache, v_cache, self._bias)
        y = q.new_empty(*q.shape[:2], v.size(-1))
        if self._single_rows:
            queries = q.new_zeros(len(self._bias) // k_cache.size(1), *q.shape[1:])  # (B, H, E)
            queries[self._single_rows] = q[self._single_places]
            y[self._single_places] = attend_to_keys(queries, k_cache, v_cache, self._bias)[self._single_rows]
        for row, part, length in self._several:
            count = part.stop - part.start
            mask = torch.ones(count, length, dtype=torch.bool, device=q.device).tril(length - count)
            attended = F.scaled_dot_product_attention(
                q[None, part].transpose(1, 2),
                k_cache[row : row + 1, :, :length],
                v_cache[row : row + 1, :, :length],
                attn_mask=mask,
                enable_gqa=q.size(1) > k.size(1),
            )  # (1, H, count, D)
            y[part] = attended[0].transpose(0, 1)
        return y

    def copy(self, source: int, target: int):
        """Row `target` becomes what row `source` is."""
        T = self.lengths[target] = self.lengths[source]
        self.k[:, target, :, :T] = self.k[:, source, :, :T]
        self.v[:, target, :, :T] = self.v[:, source, :, :T]


def attend_to_keys(q, k_cache, v_cache, bias):
    """Attention (B, H, D) of one query (B, H, E) of each row to the first keys (B, H_kv, S, E) and values
    (B, H_kv, S, D) of its cache; the bias (B * H_kv, 1, T) is -inf where a row has no key.

    As matrix products, and T a multiple of KEYS_AT_A_TIME: on a CPU what comes out for a row is then the same to
    the bit whatever the other rows are, which torch's own attention does not grant.
    """
    B, H, E = q.shape
    keys, values = (cache[:B].flatten(0, 1)[:, : bias.size(-1)] for cache in (k_cache, v_cache))  # (B * H_kv, T, D)
    queries = q.reshape(len(bias), -1, E)  # (B * H_kv, H / H_kv, E)
    scores = torch.baddbmm(bias, queries, keys.mT, alpha=E**-0.5)  # (B * H_kv, H / H_kv, T)
    return torch.bmm(scores.softmax(-1), values).view(B, H, -1)


def window_start(length: int, context: int, stride: int) -> int:
    """Where the window starts that shows a sequence of `length` tokens, all but those before the start.

    The start moves in hops of about half the context (a multiple of the stride), by as few as leave room for
    the position token and the tokens: so the window depends on the length alone, not on what came how.

    >>> [window_start(length, 512, 32) for length in (0, 511, 512, 767, 768)]
    [0, 0, 256, 256, 512]
    """
    hop = math.ceil(context / (2 * stride)) * stride
    return max(0, (length - context) // hop + 1) * hop

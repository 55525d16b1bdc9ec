"""Generation: draw token sequences from a GPT, many at a time, within an optional constraint.

The engine knows tokens, windows and the calls of the constraint, but not what the tokens mean. The model always reads
a window as in training, `[start // stride] + tokens[start:]`. A sequence that outgrows its window continues in a later
one.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import numpy as np
import torch

from nanochat.gpt import GPT
from nanochat.kv_cache import KVCache, NewTokens, window_start
from nanochat.repetition import mask_repetition
from nanochat.sample import Constraint, Sample, SampleInProgress, Step
from nanochat.sampling import SamplingParams, disallowed_mask, sample_tokens

ROWS_AT_A_TIME = 256  # of logits, to save memory


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
            SampleInProgress(index, prompt, sampling, config, constraint_factory)
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
        sample = SampleInProgress(0, prompt, SamplingParams(), self.model.config, constraint and (lambda: constraint))
        return self._next_logits([sample], cache)[0]

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

    def _admit(self, samples: list[SampleInProgress], waiting: Iterator[SampleInProgress], batch_size: int):
        """Start waiting samples until the batch is full. Yield the steps of those with forced tokens."""
        while len(samples) < batch_size and (sample := next(waiting, None)):
            step = sample.advance_forced()
            if step.tokens or step.sample:
                yield step
            if not step.sample:
                samples.append(sample)

    @torch.inference_mode()
    def _next_logits(self, samples: list[SampleInProgress], cache: KVCache):
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
    def _constrain(logits, samples: list[SampleInProgress], measure_allowed: bool):
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
    def _append_tokens(candidates, samples: list[SampleInProgress], sampling: SamplingParams):
        """Draw the next token of each sample from the logits (B, V) of its candidates.

        If the constraint refuses a token, another one is drawn without it. The first token that is allowed has the same
        distribution as one draw from all allowed tokens.
        """
        preferred = mask_repetition(candidates, [sample.repeats for sample in samples])
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
    def _retire(samples: list[SampleInProgress], cache: KVCache):
        """Yield the step of every sample, and remove those that have ended."""
        for row in reversed(range(len(samples))):
            step = samples[row].advance_forced()
            yield step
            if step.sample:  # the last sample takes its row
                cache.copy(len(samples) - 1, row)
                samples[row] = samples[-1]
                samples.pop()


def draw(logits, samples: list[SampleInProgress], sampling: SamplingParams) -> dict[int, int]:
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

"""The next token: how it is drawn from those that are allowed."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from script_tools.bitmask import unpack_bitmask

GREEDY_BELOW = 1e-6  # at lower temperatures float32 cannot tell sampling from taking the most likely token


@dataclass(frozen=True)
class SamplingParams:
    """How samples are drawn. ValueError if a value is out of range."""

    max_tokens: int = 1024  # of a sample, without its prompt; four of five real workflows are shorter
    temperature: float = 1.0  # 0 takes the most likely token
    top_k: int | None = None  # sample from the k most likely tokens
    top_p: float | None = None  # sample from the fewest tokens that have this probability together
    min_p: float | None = None  # sample from tokens with at least this share of the most likely one's probability
    max_repeats: int = 0  # a block of tokens may come this often in a row (RepetitionTracker); 0: no limit
    max_repetition: float = 1.0  # a sample goes back if more of its latest passages came before (Returns); 1: never
    seed: int = 0

    def __post_init__(self):
        checks = {
            "max_tokens": (self.max_tokens >= 1, "at least 1"),
            "temperature": (0 <= self.temperature < math.inf, "0 or more"),
            "top_k": (self.top_k is None or self.top_k >= 1, "at least 1"),
            "top_p": (self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (self.min_p is None or 0 <= self.min_p <= 1, "from 0 to 1"),
            "max_repeats": (self.max_repeats == 0 or self.max_repeats >= 2, "at least 2, or 0 for no limit"),
            "max_repetition": (0 < self.max_repetition <= 1, "above 0 and at most 1"),
            "seed": (self.seed >= 0, "0 or more"),
        }
        for name, (is_valid, expected) in checks.items():
            if not is_valid:
                raise ValueError(f"{name} must be {expected}, not {getattr(self, name)}")


@lru_cache(maxsize=1024)  # many masks of one document are equal
def disallowed_mask(bitmask: bytes, vocab_size: int) -> torch.Tensor:
    """Return which tokens a bit mask excludes, bool (V,)."""
    if not any(bitmask):
        raise RuntimeError("the constraint is not terminated, yet it allows no token")
    return torch.from_numpy(~unpack_bitmask(np.frombuffer(bitmask, np.uint8), vocab_size))


@torch.inference_mode()
def sample_tokens(logits, uniforms, sampling: SamplingParams):
    """Return one token for each row of logits (B, V), and its log-probability in nats: both (B,).

    A token comes from softmax(logits / temperature) restricted by top_k, then top_p, then min_p. The row's uniform
    number in [0, 1) (B,) selects it by the inverse of the cumulative distribution. The log-probability is that of
    softmax(logits).
    """
    plain = logits.softmax(dim=-1)
    if sampling.temperature < GREEDY_BELOW:
        tokens = logits.argmax(dim=-1, keepdim=True)
    else:
        probs = plain
        if sampling.temperature != 1:
            probs = ((logits - logits.amax(dim=-1, keepdim=True)) / sampling.temperature).softmax(dim=-1)
        probs = restrict(probs, sampling)
        cumulative = probs.cumsum(dim=-1)
        total = cumulative[:, -1:]
        below_total = torch.nextafter(total, torch.zeros_like(total))
        tokens = torch.searchsorted(cumulative, torch.minimum(uniforms[:, None] * total, below_total), right=True)
        if logits.is_cuda:  # a parallel cumulative sum may decrease, and so select an excluded token
            tokens = torch.where(probs.gather(-1, tokens) > 0, tokens, probs.argmax(dim=-1, keepdim=True))
    tiny = torch.finfo(plain.dtype).tiny
    return tokens[:, 0], plain.gather(-1, tokens)[:, 0].clamp(min=tiny).log()


def restrict(probs, sampling: SamplingParams):
    """Set the probabilities (B, V) of tokens outside top_k, top_p and min_p to 0."""
    if sampling.top_k is not None:
        kept, order = probs.topk(min(sampling.top_k, probs.size(-1)))
        probs = torch.zeros_like(probs).scatter(-1, order, kept)
    if sampling.top_p is not None:
        ranked, order = probs.sort(dim=-1, descending=True)
        before = ranked.cumsum(dim=-1) - ranked
        ranked = ranked.masked_fill(before >= sampling.top_p * ranked.sum(dim=-1, keepdim=True), 0.0)
        probs = torch.zeros_like(probs).scatter(-1, order, ranked)
    if sampling.min_p is not None:
        probs = probs.masked_fill(probs < sampling.min_p * probs.amax(dim=-1, keepdim=True), 0.0)
    return probs

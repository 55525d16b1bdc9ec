"""Which token comes next: what is refused, and how one is drawn from the rest."""

import math
from functools import lru_cache

import numpy as np
import torch

LONGEST_BLOCK, LEAST_LOOP = 256, 24  # tokens, of what counts as a loop
LEAST_TEMPERATURE = 1e-6  # below it float32 cannot tell sampling from taking the likeliest token


@lru_cache(maxsize=1024)  # of the masks in one document many are the same
def refused_tokens(allowed: bytes, vocab_size: int) -> torch.Tensor:
    """The tokens whose bit is not set, bool (V,)."""
    if not any(allowed):
        raise RuntimeError("the constraint is not terminated, yet it allows no token")
    bits = np.unpackbits(np.frombuffer(allowed, np.uint8), count=vocab_size, bitorder="little")
    return torch.from_numpy(bits == 0)


@torch.inference_mode()
def sample_tokens(logits, uniforms, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """One token for each row of logits (B, V), picked by its uniforms (B,) in [0, 1); and log-probabilities.

    Tokens (B,) come from softmax(logits / temperature) cut to top_k, then top_p, then min_p, by inverting its
    cumulative distribution. The log-probabilities (B,) are those of softmax(logits), in nats.
    """
    plain = logits.softmax(dim=-1)
    if temperature < LEAST_TEMPERATURE:
        tokens = logits.argmax(dim=-1, keepdim=True)
    else:
        probs = plain
        if temperature != 1:
            probs = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
        if top_k is not None:
            kept, order = probs.topk(min(top_k, probs.size(-1)))
            probs = torch.zeros_like(probs).scatter(-1, order, kept)
        if top_p is not None:
            ranked, order = probs.sort(dim=-1, descending=True)
            before = ranked.cumsum(dim=-1) - ranked
            ranked = ranked.masked_fill(before >= top_p * ranked.sum(dim=-1, keepdim=True), 0.0)
            probs = torch.zeros_like(probs).scatter(-1, order, ranked)
        if min_p is not None:
            probs = probs.masked_fill(probs < min_p * probs.amax(dim=-1, keepdim=True), 0.0)
        cumulative = probs.cumsum(dim=-1)
        total = cumulative[:, -1:]
        below_total = torch.nextafter(total, torch.zeros_like(total))
        tokens = torch.searchsorted(cumulative, torch.minimum(uniforms[:, None] * total, below_total), right=True)
        if logits.is_cuda:  # where a cumulative sum is done in parallel, it need not rise steadily
            tokens = torch.where(probs.gather(-1, tokens) > 0, tokens, probs.argmax(dim=-1, keepdim=True))
    tiny = torch.finfo(plain.dtype).tiny
    return tokens[:, 0], plain.gather(-1, tokens)[:, 0].clamp(min=tiny).log()


# -----------------------------------------------------------------------------
# loops


class Loops:
    """Knows by which tokens a sequence would go into a loop: its last tokens one block, of up to LONGEST_BLOCK tokens,
    over and over more than `times` times, and more than LEAST_LOOP tokens in all.

    >>> loops = Loops(4)
    >>> for token in [7] + [1, 2, 3, 4, 5, 6] * 4:
    ...     loops.append(token)
    >>> loops.next_tokens()
    [1]
    """

    def __init__(self, times: int):
        lengths = np.arange(1, LONGEST_BLOCK + 1)  # of blocks; the arrays have a place for each
        self._most = np.maximum(times * lengths, LEAST_LOOP) - lengths
        self._same = np.zeros(LONGEST_BLOCK, np.int64)  # how many of the last tokens are the one a block before
        self._last = np.full(LONGEST_BLOCK, -1)  # the last tokens, the latest first

    def append(self, token: int):
        self._same = (self._same + 1) * (self._last == token)
        self._last[1:] = self._last[:-1]
        self._last[0] = token

    def next_tokens(self) -> list[int]:
        return self._last[self._same >= self._most].tolist()


def leave_loops(logits, loops: list[Loops | None]):
    """The logits (B, V), -inf for tokens by which a row would go into one of its loops (B,), but for a row that has no
    other tokens."""
    places = [(row, token) for row, known in enumerate(loops) if known for token in known.next_tokens()]
    if not places:
        return logits
    refused = torch.zeros_like(logits, dtype=torch.bool)
    refused[tuple(zip(*places))] = True
    without = logits.masked_fill(refused, -math.inf)
    return torch.where(without.isneginf().all(dim=-1, keepdim=True), logits, without)

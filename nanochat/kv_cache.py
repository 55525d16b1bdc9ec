"""Keys and values of the tokens that each row has read."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from nanochat.gpt import STATE_FEATURES, GPTConfig

KEYS_AT_A_TIME = 64  # attention is to a multiple of so many keys


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

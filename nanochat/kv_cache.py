"""The KV cache: keys and values of tokens that the model has read, and the layout of a forward pass over new ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from nanochat.functional import Layout
from nanochat.gpt import SCHEMA_FEATURES, GPTConfig

KEY_MULTIPLE = 64  # the number of keys that attention reads is a multiple of this


class NewTokens(NamedTuple):
    """What the next forward pass reads of one row."""

    tokens: Sequence[int]  # at least one
    previous: int = 0  # the token before these, if there is one
    schema_positions: Sequence[int] = ()  # before the first token and after each, if the model needs them
    starts_window: bool = False  # the row is emptied before they are read


@dataclass(frozen=True, eq=False, kw_only=True)
class ForwardBatch(Layout):
    """The layout of one forward pass over new tokens of some rows of a cache, side by side in one line (1, N)."""

    tokens: torch.Tensor  # (1, N)
    tokens_before: torch.Tensor  # (1, N), the one before each
    schema_positions_before: torch.Tensor | None  # (1, N)
    cache: "KVCache"
    rows: torch.Tensor  # (N,), the row of each token
    # Rows with one new token attend together, each to as many keys as the longest of them has.
    single_rows: list[int]
    single_columns: list[int]  # where in the line their tokens are
    bias: torch.Tensor | None  # (B * H_kv, 1, T) of single rows
    # Rows with several new tokens, which start a window or were forced, attend one after the other.
    several: list[tuple[int, slice, int]]  # (row, columns of its tokens, length of the row)

    def previous_tokens(self, idx):
        return self.tokens_before

    def previous_schema_positions(self):
        return self.schema_positions_before

    def attend(self, layer: int, q, k, v):
        """Add the new keys and values of a layer to the cache, and return the attention within each row."""
        k_cache, v_cache = self.cache.k[layer], self.cache.v[layer]
        k_cache[self.rows, :, self.positions] = k[0].to(k_cache.dtype)
        v_cache[self.rows, :, self.positions] = v[0].to(v_cache.dtype)
        return self._attend(q[0].to(k_cache.dtype), k_cache, v_cache)[None].to(v.dtype)

    def _attend(self, q, k_cache, v_cache):
        H_kv = k_cache.size(1)
        if not self.several and len(self.single_rows) * H_kv == len(self.bias):  # the common case: all rows
            return attend_to_keys(q, k_cache, v_cache, self.bias)
        y = q.new_empty(*q.shape[:2], v_cache.size(-1))  # (N, H, D)
        if self.single_rows:
            queries = q.new_zeros(len(self.bias) // H_kv, *q.shape[1:])  # (B, H, E)
            queries[self.single_rows] = q[self.single_columns]
            y[self.single_columns] = attend_to_keys(queries, k_cache, v_cache, self.bias)[self.single_rows]
        for row, columns, length in self.several:
            count = columns.stop - columns.start
            mask = torch.ones(count, length, dtype=torch.bool, device=q.device).tril(length - count)
            attended = F.scaled_dot_product_attention(
                q[None, columns].transpose(1, 2),
                k_cache[row : row + 1, :, :length],
                v_cache[row : row + 1, :, :length],
                attn_mask=mask,
                enable_gqa=q.size(1) > H_kv,
            )  # (1, H, count, D)
            y[columns] = attended[0].transpose(0, 1)
        return y


class KVCache:
    """The keys and values of every layer for up to `batch_size` rows, allocated once.

    On a CPU they are float32, because attention in bfloat16 is six times slower there.
    """

    def __init__(self, config: GPTConfig, batch_size: int, dtype: torch.dtype, device: torch.device):
        length = math.ceil(config.sequence_len / KEY_MULTIPLE) * KEY_MULTIPLE
        features = SCHEMA_FEATURES if config.state_attention else 0
        shape = (config.n_layer, batch_size, config.n_kv_head, length, config.head_dim)
        self.v = torch.zeros(shape, dtype=torch.float32 if device.type == "cpu" else dtype, device=device)
        self.k = self.v.new_zeros(*shape[:-1], config.head_dim + features)
        self.lengths = [0] * batch_size  # tokens in each row

    def reserve(self, new: dict[int, NewTokens]) -> ForwardBatch:
        """Make room for new tokens of some rows, in ascending order, and return the layout that reads them."""
        rows, positions, singles, several = [], [], [], []
        for row, part in new.items():
            begin = 0 if part.starts_window else self.lengths[row]
            end = self.lengths[row] = begin + len(part.tokens)
            columns = slice(len(rows), len(rows) + end - begin)
            if end - begin == 1:
                singles.append((row, columns.start))
            else:
                several.append((row, columns, end))
            rows += [row] * (end - begin)
            positions += range(begin, end)
        single_rows, single_columns = map(list, zip(*singles)) if singles else ([], [])

        def line(parts):  # (1, N)
            return torch.tensor([[value for part in parts for value in part]], device=self.k.device)

        schema_positions = [part.schema_positions for part in new.values() if part.schema_positions]
        return ForwardBatch(
            tokens=line(part.tokens for part in new.values()),
            tokens_before=line((part.previous, *part.tokens[:-1]) for part in new.values()),
            schema_positions=line(part[1:] for part in schema_positions) if schema_positions else None,
            schema_positions_before=line(part[:-1] for part in schema_positions) if schema_positions else None,
            positions=torch.tensor(positions, device=self.k.device),
            max_seqlen=max(self.lengths[row] for row in new),
            cache=self,
            rows=torch.tensor(rows, device=self.k.device),
            single_rows=single_rows,
            single_columns=single_columns,
            bias=self._bias(single_rows) if singles else None,
            several=several,
        )

    def _bias(self, rows: list[int]):
        """Return what to add to the scores of one query for each row, up to the last of `rows`: (B * H_kv, 1, T)."""
        lengths = torch.tensor(self.lengths[: rows[-1] + 1], device=self.k.device)  # (B,)
        keys = math.ceil(max(self.lengths[row] for row in rows) / KEY_MULTIPLE) * KEY_MULTIPLE
        bias = torch.where(torch.arange(keys, device=self.k.device) < lengths[:, None], 0.0, -math.inf)  # (B, T)
        bias[:, 0] = 0  # the result of an empty row is not used, but must not be NaN
        return bias.repeat_interleave(self.k.size(2), dim=0)[:, None].to(self.k.dtype)

    def copy(self, source: int, target: int):
        """Replace the contents of row `target` with those of row `source`."""
        T = self.lengths[target] = self.lengths[source]
        self.k[:, target, :, :T] = self.k[:, source, :, :T]
        self.v[:, target, :, :T] = self.v[:, source, :, :T]


def attend_to_keys(q, k_cache, v_cache, bias):
    """Return the attention (B, H, D) of one query (B, H, E) for each row to the first T keys (B, H_kv, S, E) and
    values (B, H_kv, S, D) of its cache. The bias (B * H_kv, 1, T) is -inf if a row has no key.

    These are matrix products, and T is a multiple of KEY_MULTIPLE. On a CPU the result of a row is then the same to
    the bit for any other rows. torch's own attention does not guarantee that.
    """
    B, H, E = q.shape
    keys, values = (cache[:B].flatten(0, 1)[:, : bias.size(-1)] for cache in (k_cache, v_cache))  # (B * H_kv, T, D)
    queries = q.reshape(len(bias), -1, E)  # (B * H_kv, H / H_kv, E)
    scores = torch.baddbmm(bias, queries, keys.mT, alpha=E**-0.5)  # (B * H_kv, H / H_kv, T)
    return torch.bmm(scores.softmax(-1), values).view(B, H, -1)


def window_start(length: int, context: int, stride: int) -> int:
    """Return where the window of a sequence of `length` tokens starts. It ends at the sequence's end.

    The start moves in hops of about half the context, a multiple of the stride. It is the first one that leaves room
    for the position token and all tokens of the window. So it depends on the length alone, and is the same however
    the tokens arrived.

    >>> [window_start(length, 512, 32) for length in (0, 511, 512, 767, 768)]
    [0, 0, 256, 256, 512]
    """
    hop = math.ceil(context / (2 * stride)) * stride
    return max(0, (length - context) // hop + 1) * hop

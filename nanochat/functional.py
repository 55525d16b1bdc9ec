"""The operations of the GPT that torch lacks: attention over packed documents, and the loss of capped logits."""

import functools
import inspect
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # before torch 2.10
    varlen_attn = None

IGNORE_INDEX = -1  # a target with this value counts for nothing
LOGIT_CAP = 15.0  # Gemma 2's soft cap, https://arxiv.org/abs/2408.00118
LARGEST_HEAD = 192  # that FlashAttention has gradients for on every GPU that it runs on
ROWS_AT_A_TIME = 128  # of logits in float32: 4 MiB with 8,192 columns, which a CPU's cache holds


# -----------------------------------------------------------------------------
# documents that share a row


def causal_argument(kernel) -> dict:
    """What makes a varlen_attn causal: window_size since torch 2.11, is_causal in 2.10."""
    takes_window = kernel is not None and "window_size" in inspect.signature(kernel).parameters
    return {"window_size": (-1, 0)} if takes_window else {"is_causal": True}


CAUSAL = causal_argument(varlen_attn)


@dataclass(frozen=True)
class Documents:
    """How the one row (1, N) of a packed batch divides into documents, none of which attends to another; and where
    its tokens lead, for models that are told."""

    lengths: tuple[int, ...]  # tokens of each, N together
    positions: torch.Tensor  # (N,) int64, of each token in its document
    offsets: torch.Tensor  # (M + 1,) int32, where each begins; the last ones are N
    longest: int  # no document is longer
    states: torch.Tensor | None = None  # (1, N) int64, the state that each token leads to

    @property
    def states_before(self):
        """(1, N), the state that each token is read in: 0 for the first of a document, which is a position."""
        return self.states.roll(1, 1).masked_fill(self.positions == 0, 0)

    @classmethod
    def of(cls, lengths: list[int], longest: int, spare: int = 1, states=None) -> "Documents":
        """Documents of these lengths. M is the next multiple of spare, so that it seldom changes: compiled
        code wants fixed shapes, and documents of length 0 cost nothing."""
        count = -(-len(lengths) // spare) * spare
        ends = torch.tensor(lengths).cumsum(0)  # (M,)
        starts = (ends - torch.tensor(lengths)).repeat_interleave(torch.tensor(lengths))  # (N,)
        offsets = F.pad(ends, (1, 0))
        offsets = F.pad(offsets, (0, count - len(lengths)), value=int(ends[-1])).int()
        return cls(tuple(lengths), torch.arange(len(starts)) - starts, offsets, longest, states)

    def to(self, device: torch.device) -> "Documents":
        return self._each(functools.partial(move_tensor, device=device))

    def pin_memory(self) -> "Documents":
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change) -> "Documents":
        """With every tensor changed."""
        states = None if self.states is None else change(self.states)
        return Documents(self.lengths, change(self.positions), change(self.offsets), self.longest, states)


def move_tensor(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """To the device; to a GPU without waiting for the copy, where the memory is pinned."""
    return tensor.to(device, non_blocking=True)


def attend_documents(q, k, v, documents: Documents):
    """Causal attention (1, H, N, D) within each document, of q (1, H, N, E), k (1, H_kv, N, E) and v (1, H_kv, N, D);
    E is D, or more if q and k have features of states."""
    if k.size(1) < q.size(1):  # each key and value head serves H / H_kv query heads
        k, v = (x.repeat_interleave(q.size(1) // x.size(1), 1) for x in (k, v))  # (1, H, N, D)
    return (attend_on_gpu if q.is_cuda else attend_one_by_one)(q, k, v, documents)


def attend_on_gpu(q, k, v, documents: Documents):
    """Do what attend_documents does by the best way for these heads. Those of k and v are as many as those of q."""
    return (attend_by_kernel if kernel_takes(q) else attend_in_blocks)(q, k, v, documents)


def kernel_takes(q) -> bool:
    """Whether there is a varlen_attn, and FlashAttention, which it calls, takes the dtype, heads and GPU of q."""
    return (
        varlen_attn is not None
        and q.dtype in (torch.bfloat16, torch.float16)
        and q.size(-1) % 8 == 0
        and q.size(-1) <= LARGEST_HEAD
        and has_flash_attention(q.device)
    )


@torch.compiler.assume_constant_result
def has_flash_attention(device: torch.device) -> bool:
    return torch.backends.cuda.is_flash_attention_available() and torch.cuda.get_device_capability(device) >= (8, 0)


def attend_by_kernel(q, k, v, documents: Documents):
    """Do what attend_documents does by varlen_attn. The heads of k and v are as many as those of q."""
    E, D, T = q.size(-1), v.size(-1), documents.longest
    if D < E:
        v = F.pad(v, (0, E - D))  # the kernel takes one size for all
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in (q, k, v))  # (N, H, E)
    y = varlen_attn(q, k, v, documents.offsets, documents.offsets, T, T, **CAUSAL)
    return y.transpose(0, 1)[None, ..., :D]


def attend_in_blocks(q, k, v, documents: Documents):
    """Do what attend_documents does by SDPA, which takes every dtype. The heads of k and v are as many as those of q.

    The row is cut into blocks of T tokens, and no document is longer: a token attends to its own block and the one
    before. The shapes are fixed, so that compiled code serves every batch.
    """
    N, T = q.size(2), documents.longest
    spare = -N % T
    q, k, v = (F.pad(x[0], (0, 0, 0, spare)).unflatten(1, (-1, T)).transpose(0, 1) for x in (q, k, v))
    k, v = (torch.cat([x.roll(1, 0), x], 2) for x in (k, v))  # (B, H, 2 T, D); q is (B, H, T, D)
    places = torch.arange(2 * T, device=q.device)
    distance = places[T:, None] - places  # (T, 2 T), from a key to the query
    positions = F.pad(documents.positions, (0, spare)).view(-1, 1, T, 1)  # (B, 1, T, 1)
    mask = (distance >= 0) & (distance <= positions)  # (B, 1, T, 2 T)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, H, T, D)
    return y.transpose(0, 1).flatten(1, 2)[None, :, :N]


@torch.compiler.disable  # a graph for every set of lengths would never be used again
def attend_one_by_one(q, k, v, documents: Documents):
    """Do what attend_documents does with a few matrix products for each document. The heads of k and v are as many
    as those of q. On a CPU that is faster than SDPA: its kernel gains nothing from bfloat16, and half the positions
    of a padded row are not there to be masked."""
    bias = causal_bias(documents.longest, q.dtype, q.device)
    scale = 1 / math.sqrt(q.size(-1))
    parts = []
    for q, k, v in zip(*(x[0].split(documents.lengths, 1) for x in (q, k, v))):  # (H, T, D)
        T = q.size(1)
        scores = torch.baddbmm(bias[:T, :T], q, k.mT, alpha=scale)  # (H, T, T)
        parts.append(scores.softmax(-1) @ v)
    return torch.cat(parts, 1)[None]


@functools.lru_cache(maxsize=8)
def causal_bias(length: int, dtype, device):
    """(T, T): -inf where a key comes after the query, else 0."""
    return torch.full((length, length), -math.inf, dtype=dtype, device=device).triu(1)


# -----------------------------------------------------------------------------
# capped logits and their loss


def cap(logits):
    """cap * tanh(logits / cap), in float32."""
    return LOGIT_CAP * torch.tanh(logits.float() / LOGIT_CAP)


def capped_cross_entropy(x, weight, targets):
    """The sum of the cross-entropies in nats of cap(x @ weight.T) for x (N, C), weight (V, C), targets (N,)."""
    if x.device.type == "cpu":  # there the traffic of logits through memory would cost more than the products
        counts = targets != IGNORE_INDEX
        return CappedCrossEntropy.apply(x[counts], weight, targets[counts])
    return F.cross_entropy(cap(F.linear(x, weight)), targets, ignore_index=IGNORE_INDEX, reduction="sum")


class CappedCrossEntropy(torch.autograd.Function):
    """capped_cross_entropy some rows at a time, their gradient found while they are in the cache.

    With s = sigmoid(2 z / cap) the capped logit is cap * tanh(z / cap) = cap * (2 s - 1), the softmax p is
    that of 2 * cap * s, and the gradient for z is (p - onehot) * 4 s (1 - s). The cap bounds the logits, so p
    is far from the smallest float and the loss -log p is exact; and sigmoid costs a tenth of tanh.
    """

    @staticmethod
    def forward(ctx, x, weight, targets):
        autocast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if autocast else torch.promote_types(x.dtype, weight.dtype)
        ctx.dtypes = x.dtype, weight.dtype
        with torch.autocast("cpu", enabled=False):
            x, weight = x.to(dtype), weight.to(dtype)
            wants_gradient = any(ctx.needs_input_grad)
            dz = x.new_empty(len(x), len(weight)) if wants_gradient else None  # (N, V), without its factor 4
            loss = torch.zeros((), dtype=torch.float32)
            for start in range(0, len(x), ROWS_AT_A_TIME):
                rows = slice(start, start + ROWS_AT_A_TIME)
                target = targets[rows, None]  # (n, 1)
                s = (x[rows] @ weight.T).float().mul_(2 / LOGIT_CAP).sigmoid_()  # (n, V)
                p = (s * (2 * LOGIT_CAP)).softmax(-1)
                at_target = p.gather(1, target)
                loss -= at_target.log().sum()
                if wants_gradient:
                    p.scatter_(1, target, at_target - 1)
                    dz[rows] = p.mul_(s.addcmul_(s, s, value=-1))
            ctx.save_for_backward(x, weight, dz)
        return loss

    @staticmethod
    def backward(ctx, gradient):
        x, weight, dz = ctx.saved_tensors
        x_dtype, weight_dtype = ctx.dtypes
        factor = 4 * gradient
        return (dz @ weight).to(x_dtype).mul_(factor), (dz.T @ x).to(weight_dtype).mul_(factor), None

"""The operations of the GPT that torch lacks: attention over packed documents, and the loss of capped logits."""

import functools
import inspect
import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

IGNORE_INDEX = -1  # targets with this value do not count
LOGIT_CAP = 15.0  # Gemma 2's soft cap, https://arxiv.org/abs/2408.00118
LARGEST_HEAD = 192  # head size for which FlashAttention has gradients on every GPU that it supports
ROWS_AT_A_TIME = 128  # of logits in float32: 4 MiB with 8,192 columns, which fit a CPU's cache


def installed_kernel():
    """Return varlen_attn, or None if this torch is older than 2.10."""
    try:
        from torch.nn.attention.varlen import varlen_attn  # slow: it imports the compiler
    except ImportError:
        return None
    return varlen_attn


def causal_argument(kernel) -> dict:
    """Return the keyword argument that makes a varlen_attn causal: window_size since torch 2.11, is_causal in 2.10."""
    takes_window = kernel is not None and "window_size" in inspect.signature(kernel).parameters
    return {"window_size": (-1, 0)} if takes_window else {"is_causal": True}


varlen_attn = installed_kernel() if torch.version.cuda or torch.version.hip else None  # CPUs do not need it
CAUSAL = causal_argument(varlen_attn)


# -- layouts: which tokens attend to which


@dataclass(frozen=True, eq=False, kw_only=True)
class Layout:
    """What a forward pass needs to know of its tokens (B, T). Here each row is one document."""

    positions: torch.Tensor  # (T,) int64, of each token in its document
    max_seqlen: int  # no document is longer
    schema_positions: torch.Tensor | None = None  # (B, T) int64, the one that each token leads to

    @classmethod
    def of_rows(cls, idx) -> "Layout":
        return cls(positions=torch.arange(idx.size(1), device=idx.device), max_seqlen=idx.size(1))

    def previous_tokens(self, idx):
        """Return the token before each of the tokens idx (B, T). The one before a document's first is arbitrary."""
        return idx.roll(1, 1)

    def previous_schema_positions(self):
        """Return the schema position (B, T) at which each token is read. A document starts with a position token,
        which is read at 0."""
        return self.schema_positions.roll(1, 1).masked_fill(self.positions == 0, 0)

    def attend(self, layer: int, q, k, v):
        """Return causal attention (B, T, H, D) within each document.

        Args: q (B, T, H, E), k (B, T, H_kv, E), v (B, T, H_kv, D). E is D, or more with schema features.
        """
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=k.size(1) < q.size(1))
        return y.transpose(1, 2)


@dataclass(frozen=True, eq=False, kw_only=True)
class PackedDocuments(Layout):
    """The layout of a packed batch: one row (1, N) of documents that do not attend to each other."""

    lengths: tuple[int, ...]  # tokens of each document, N together
    cu_seqlens: torch.Tensor  # (M + 1,) int32, where each document begins; the last ones are N

    @classmethod
    def of(cls, lengths: list[int], max_seqlen: int, pad_to_multiple: int = 1, schema_positions=None):
        """Return the layout of documents of these lengths.

        M, the number of documents, is padded with empty ones to a multiple: compiled code needs shapes that rarely
        change, and empty documents cost nothing.
        """
        count = -(-len(lengths) // pad_to_multiple) * pad_to_multiple
        ends = torch.tensor(lengths).cumsum(0)  # (M,)
        starts = (ends - torch.tensor(lengths)).repeat_interleave(torch.tensor(lengths))  # (N,)
        cu_seqlens = F.pad(ends, (1, 0))
        return cls(
            lengths=tuple(lengths),
            positions=torch.arange(len(starts)) - starts,
            cu_seqlens=F.pad(cu_seqlens, (0, count - len(lengths)), value=int(ends[-1])).int(),
            max_seqlen=max_seqlen,
            schema_positions=schema_positions,
        )

    def to(self, device: torch.device) -> "PackedDocuments":
        return self._map(functools.partial(move_tensor, device=device))

    def pin_memory(self) -> "PackedDocuments":
        return self._map(torch.Tensor.pin_memory)

    def _map(self, change) -> "PackedDocuments":
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items()})

    def attend(self, layer: int, q, k, v):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (1, H, N, D)
        # Under autocast the normalized q and k may be float32.
        return attend_documents(q.to(v.dtype), k.to(v.dtype), v, self).transpose(1, 2)


def move_tensor(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy to the device, without waiting for the copy if memory is pinned."""
    return tensor.to(device, non_blocking=True)


# -- attention over packed documents


def attend_documents(q, k, v, documents: PackedDocuments):
    """Return causal attention (1, H, N, D) within each document.

    Args: q (1, H, N, E), k (1, H_kv, N, E), v (1, H_kv, N, D). E is D, or more with schema features.
    """
    if k.size(1) < q.size(1):  # each key and value head serves H / H_kv query heads
        k, v = (x.repeat_interleave(q.size(1) // x.size(1), 1) for x in (k, v))  # (1, H, N, D)
    return (attend_on_gpu if q.is_cuda else attend_one_by_one)(q, k, v, documents)


def attend_on_gpu(q, k, v, documents: PackedDocuments):
    """Compute attend_documents, for H_kv = H, with the best kernel for these heads."""
    return (attend_by_kernel if kernel_takes(q) else attend_in_blocks)(q, k, v, documents)


def kernel_takes(q) -> bool:
    """Return whether varlen_attn exists, and its FlashAttention supports the dtype, head size and GPU of q."""
    return (
        varlen_attn is not None
        and q.dtype in (torch.bfloat16, torch.float16)
        and q.size(-1) % 8 == 0
        and q.size(-1) <= LARGEST_HEAD
        and has_flash_attention(q.device)
    )


def has_flash_attention(device: torch.device) -> bool:
    return torch.backends.cuda.is_flash_attention_available() and torch.cuda.get_device_capability(device) >= (8, 0)


def attend_by_kernel(q, k, v, documents: PackedDocuments):
    """Compute attend_documents, for H_kv = H, with varlen_attn."""
    E, D, T = q.size(-1), v.size(-1), documents.max_seqlen
    if D < E:
        v = F.pad(v, (0, E - D))  # the kernel needs one head size for q, k and v
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in (q, k, v))  # (N, H, E)
    y = varlen_attn(q, k, v, documents.cu_seqlens, documents.cu_seqlens, T, T, **CAUSAL)
    return y.transpose(0, 1)[None, ..., :D]


def attend_in_blocks(q, k, v, documents: PackedDocuments):
    """Compute attend_documents, for H_kv = H, with SDPA, which supports every dtype.

    The row is cut into blocks of T tokens. No document is longer, so a token attends only to its own block and the
    one before. The shapes are fixed, so one compiled graph serves every batch.
    """
    N, T = q.size(2), documents.max_seqlen
    padding = -N % T
    q, k, v = (F.pad(x[0], (0, 0, 0, padding)).unflatten(1, (-1, T)).transpose(0, 1) for x in (q, k, v))
    k, v = (torch.cat([x.roll(1, 0), x], 2) for x in (k, v))  # (B, H, 2 T, D); q is (B, H, T, D)
    columns = torch.arange(2 * T, device=q.device)
    distance = columns[T:, None] - columns  # (T, 2 T), from a key to the query
    positions = F.pad(documents.positions, (0, padding)).view(-1, 1, T, 1)  # (B, 1, T, 1)
    mask = (distance >= 0) & (distance <= positions)  # (B, 1, T, 2 T)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, H, T, D)
    return y.transpose(0, 1).flatten(1, 2)[None, :, :N]


def attend_one_by_one(q, k, v, documents: PackedDocuments):
    """Compute attend_documents, for H_kv = H, with a few matrix products for each document.

    On a CPU this is faster than SDPA, whose kernel gains nothing from bfloat16.
    """
    bias = causal_bias(documents.max_seqlen, q.dtype, q.device)
    scale = 1 / math.sqrt(q.size(-1))
    parts = []
    for q, k, v in zip(*(x[0].split(documents.lengths, 1) for x in (q, k, v))):  # (H, T, D)
        T = q.size(1)
        scores = torch.baddbmm(bias[:T, :T], q, k.mT, alpha=scale)  # (H, T, T)
        parts.append(scores.softmax(-1) @ v)
    return torch.cat(parts, 1)[None]


@functools.lru_cache(maxsize=8)
def causal_bias(length: int, dtype, device):
    """Return (T, T): -inf if the key comes after the query, else 0."""
    return torch.full((length, length), -math.inf, dtype=dtype, device=device).triu(1)


def compiled(model, **options):
    """Return torch.compile(model) for fixed shapes. What it must not trace is marked only now, because the decorators
    import the compiler, which takes seconds."""
    global has_flash_attention, attend_one_by_one
    has_flash_attention = torch.compiler.assume_constant_result(has_flash_attention)
    attend_one_by_one = torch.compiler.disable(attend_one_by_one)  # a graph for one set of lengths is not used again
    return torch.compile(model, dynamic=False, **options)


# -- capped logits and their loss


def cap(logits):
    """Return cap * tanh(logits / cap), in float32."""
    return LOGIT_CAP * torch.tanh(logits.float() / LOGIT_CAP)


def capped_cross_entropy(x, weight, targets):
    """Return the summed cross-entropy in nats of cap(x @ weight.T), for x (N, C), weight (V, C), targets (N,)."""
    if x.device.type == "cpu":  # moving all logits through memory would take longer than the products
        counts = targets != IGNORE_INDEX
        return CappedCrossEntropy.apply(x[counts], weight, targets[counts])
    return F.cross_entropy(cap(F.linear(x, weight)), targets, ignore_index=IGNORE_INDEX, reduction="sum")


class CappedCrossEntropy(torch.autograd.Function):
    """Compute capped_cross_entropy some rows at a time, and their gradient while they are in the CPU's cache.

    With s = sigmoid(2 z / cap), the capped logit is cap * tanh(z / cap) = cap * (2 s - 1). The softmax p is that of
    2 * cap * s, and the gradient for z is (p - onehot) * 4 s (1 - s). The cap bounds the logits, so p is far from the
    smallest float and the loss -log p is exact. sigmoid takes a tenth of the time of tanh.
    """

    @staticmethod
    def forward(ctx, x, weight, targets):
        autocast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if autocast else torch.promote_types(x.dtype, weight.dtype)
        ctx.dtypes = x.dtype, weight.dtype
        with torch.autocast("cpu", enabled=False):
            x, weight = x.to(dtype), weight.to(dtype)
            needs_gradient = any(ctx.needs_input_grad)
            dz = x.new_empty(len(x), len(weight)) if needs_gradient else None  # (N, V), without its factor 4
            loss = torch.zeros((), dtype=torch.float32)
            for start in range(0, len(x), ROWS_AT_A_TIME):
                rows = slice(start, start + ROWS_AT_A_TIME)
                target = targets[rows, None]  # (n, 1)
                s = (x[rows] @ weight.T).float().mul_(2 / LOGIT_CAP).sigmoid_()  # (n, V)
                p = (s * (2 * LOGIT_CAP)).softmax(-1)
                at_target = p.gather(1, target)
                loss -= at_target.log().sum()
                if needs_gradient:
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

"""A pretended GPU, so that the tests run the code for GPUs: tensors on "cuda" are computed on the CPU.

    def test_x(pretended_gpu):              # torch.cuda finds an H200, and FlashAttention has a slow twin
        with pretended_gpu as gpu:
            main(["--device", "cuda"])
        assert gpu.waits == []

Like a real GPU it rejects a call with tensors on both devices. Like real FlashAttention its twin rejects inputs that
the kernel does not support. Each function of torch.cuda that the code calls has a stand-in, which checks arguments
against the signature in the installed torch. It cannot show what code a compiler generates, or how fast that is.
"""

import inspect
import math
import sys
from unittest import mock

import pytest
import torch
import torch.utils.checkpoint
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from nanochat import functional

CUDA = torch.device("cuda", 0)
# Calls that make the host wait for the GPU, and calls that may have arguments on both devices.
WAITS = ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy", "nonzero")
MIXES = ("__getitem__", "__setitem__", "__set__", "copy_", "to", "_has_compatible_shallow_copy_type")


class PretendCuda(TorchFunctionMode):
    """While active, a tensor is on the GPU if it was created or moved there, or computed from one that is.

    `waits` lists the name of each call that makes the host wait for the GPU.
    """

    def __init__(self):
        super().__init__()
        self.waits, self.stand_ins = [], {}
        self.in_backward = False  # autograd creates tensors unseen: all are on the GPU

    def is_there(self, tensor) -> bool:
        return self.in_backward or getattr(tensor, "is_pretended", False)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = function.__name__
        owner = getattr(function, "__self__", None)  # of a property
        if name in ("device", "_parse_to"):  # these only read the words: torch.device(...), Module.to(...)
            return function(*args, **kwargs)
        if name == "__get__" and owner is torch.Tensor.device:
            return CUDA if self.is_there(args[0]) else torch.device("cpu")
        if name == "__get__" and owner is torch.Tensor.is_cuda:
            return self.is_there(args[0])
        if name == "__set__" and owner is torch.Tensor.data:
            args[0].is_pretended = self.is_there(args[1])
        leaves = pytree.tree_leaves((args, kwargs))
        tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
        devices = [torch.device(x).type for x in leaves if names_device(x)]
        here = any(map(self.is_there, tensors))
        self._note(name, tensors, here)
        goes_there = devices[-1] == "cuda" if devices else here and name != "cpu"
        return self._mark(self._call(function, name, args, kwargs), goes_there, tensors)

    def _note(self, name, tensors, here):
        """Reject tensors on two devices, and note calls that make the host wait."""
        if name not in MIXES and any(self.is_there(x) != here for x in tensors if x.dim() or not here):
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")
        by_mask = name == "__getitem__" and any(x.dtype == torch.bool for x in tensors[1:])
        if here and (name in WAITS or by_mask):
            self.waits.append(name)

    @staticmethod
    def _call(function, name, args, kwargs):
        if "pin_memory" in kwargs:
            kwargs["pin_memory"] = False
        args, kwargs = pytree.tree_map(lambda x: "cpu" if names_device(x) else x, (args, kwargs))
        return function(*args, **kwargs)

    def _mark(self, results, goes_there, arguments=()):
        """Mark the results as on the GPU or not."""

        def mark(tensor):
            if self.is_there(tensor) == goes_there:
                return tensor
            if any(tensor is x for x in arguments):
                tensor = tensor.clone()
            tensor.is_pretended = goes_there
            return tensor

        return pytree.tree_map_only(torch.Tensor, mark, results)


def names_device(x) -> bool:
    return isinstance(x, torch.device) or isinstance(x, str) and x in ("cpu", "cuda", "cuda:0")


# The functions for GPUs that the code and torch's optimizers may call, and the answers of an H200.
ANSWERS = {
    "torch.cuda.is_available": True,
    "torch.cuda.is_bf16_supported": True,
    "torch.cuda.set_device": None,
    "torch.cuda.get_device_name": "NVIDIA H200",
    "torch.cuda.get_device_capability": (9, 0),
    "torch.cuda.max_memory_allocated": 2**30,
    "torch.cuda.synchronize": None,
    "torch.cuda.Event": mock.DEFAULT,
    "torch.cuda.is_current_stream_capturing": False,
    "torch.accelerator.synchronize": None,
    "torch.backends.cuda.is_flash_attention_available": True,
    "torch.backends.cuda.enable_cudnn_sdp": None,
    "torch.cuda.memory_allocated": 2**28,
    "torch.cuda.reset_peak_memory_stats": None,
    "torch.cuda.empty_cache": None,
    "torch.cuda.mem_get_info": (2**36, 2**37),
    "torch.cuda.get_device_properties": mock.DEFAULT,
}


@pytest.fixture
def pretended_gpu(monkeypatch, flash_twin):
    """Return a PretendCuda to enter. Its `stand_ins` are mocks by name, which check the real signatures."""
    gpu = PretendCuda()
    autocast, load, run_backward = torch.autocast, torch.load, torch.autograd._engine_run_backward

    def autocast_on_cpu(*args, **kwargs):
        bound = inspect.signature(autocast).bind(*args, **kwargs)
        bound.arguments["device_type"] = "cpu"
        return autocast(*bound.args, **bound.kwargs)

    def load_to(path, map_location="cpu", **options):
        with torch._C.DisableTorchFunction():
            state = load(path, map_location="cpu", **options)
        return gpu._mark(state, torch.device(map_location).type == "cuda")

    def run_backward_here(tensors, *args, **kwargs):  # gradient checkpointing recomputes in it
        gpu.in_backward = any(map(gpu.is_there, tensors))
        try:
            with gpu:
                return run_backward(tensors, *args, **kwargs)
        finally:
            gpu.in_backward = False

    monkeypatch.setattr(torch.autograd, "_engine_run_backward", run_backward_here)
    monkeypatch.setitem(
        torch.utils.checkpoint._allowed_determinism_checks_to_fns,
        "default",
        lambda tensor: (tensor.shape, tensor.dtype),
    )  # not the device, because autograd does not know it
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())  # loaders do it in a thread
    monkeypatch.setattr(torch, "autocast", autocast_on_cpu)
    monkeypatch.setattr(torch, "load", load_to)
    for path, answer in ANSWERS.items():
        module, _, name = path.rpartition(".")
        stand_in = mock.create_autospec(getattr(sys.modules[module], name), return_value=answer)
        monkeypatch.setattr(path, stand_in)
        gpu.stand_ins[path] = stand_in
    return gpu


# -----------------------------------------------------------------------------
# FlashAttention


def flash_scores(q, k, cu_seqlens, window_right, scale):
    """Return (H, N, N) in float32: scaled products within each document, else -inf; causal if window_right is 0."""
    assert (
        cu_seqlens.dtype == torch.int32
        and cu_seqlens.is_contiguous()
        and cu_seqlens[0] == 0
        and cu_seqlens[-1] == len(q)
    )
    places = torch.arange(len(q), device=q.device)
    document = torch.searchsorted(cu_seqlens, places.int(), right=True)
    ahead = places - places[:, None]  # of the query
    mask = (document[:, None] == document) & ((window_right < 0) | (ahead <= window_right))
    scale = q.size(-1) ** -0.5 if scale is None else scale
    return (scale * q.float().transpose(0, 1) @ k.float().permute(1, 2, 0)).masked_fill(~mask, -math.inf)


def check_flash_attention_inputs(q, k, v, cu_seqlens, max_seqlen):
    assert q.dtype in (torch.bfloat16, torch.float16) and q.dtype == k.dtype == v.dtype, "only half precision"
    assert q.size(-1) == k.size(-1) == v.size(-1) and q.size(-1) % 8 == 0 and q.size(-1) <= 256, "head size"
    assert q.shape == k.shape == v.shape and q.dim() == 3, "as many heads for keys as for queries"
    assert {q.stride(-1), k.stride(-1), v.stride(-1)} == {1}, "the last dimension must be contiguous"
    assert type(max_seqlen) is int and cu_seqlens.diff().max() <= max_seqlen, "no document is longer"


def flash_attention(q, k, v, cu_seqlens, max_seqlen, window_right=-1, scale=None):
    """Return (N, H, D), computed slowly in a way that autograd can differentiate."""
    check_flash_attention_inputs(q, k, v, cu_seqlens, max_seqlen)
    weights = flash_scores(q, k, cu_seqlens, window_right, scale).softmax(-1)  # (H, N, N)
    return (weights @ v.float().transpose(0, 1)).transpose(0, 1).to(q.dtype)


def flash_forward(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    max_q,
    max_k,
    dropout,
    is_causal,
    debug,
    *,
    scale=None,
    window_size_left=None,
    window_size_right=None,
    **others,
):
    """aten::_flash_attention_forward"""
    assert dropout == 0 and window_size_left in (None, -1) and not any(x is not None for x in others.values())
    window_right = 0 if is_causal else -1 if window_size_right is None else window_size_right
    out = flash_attention(q, k, v, cu_seqlens_q, max_q, window_right, scale).contiguous()
    lse = flash_scores(q, k, cu_seqlens_q, window_right, scale).logsumexp(-1)  # (H, N)
    return out, lse, torch.zeros(2, dtype=torch.uint64), torch.empty(0), torch.empty(0)


def flash_backward(
    gradient,
    q,
    k,
    v,
    out,
    lse,
    cu_seqlens_q,
    cu_seqlens_k,
    max_q,
    max_k,
    dropout,
    is_causal,
    rng_state,
    unused,
    *,
    scale=None,
    window_size_left=None,
    window_size_right=None,
):
    """aten::_flash_attention_backward"""
    window_right = 0 if is_causal else -1 if window_size_right is None else window_size_right
    weights = (flash_scores(q, k, cu_seqlens_q, window_right, scale) - lse[..., None]).exp()  # (H, N, N)
    d_out, out_, q_, k_, v_ = (x.float().transpose(0, 1) for x in (gradient, out, q, k, v))  # (H, N, D)
    d_scores = weights * (d_out @ v_.mT - (d_out * out_).sum(-1, keepdim=True))
    d_scores = d_scores * (q.size(-1) ** -0.5 if scale is None else scale)
    gradients = d_scores @ k_, d_scores.mT @ q_, weights.mT @ d_out
    return tuple(x.transpose(0, 1).to(q.dtype).contiguous() for x in gradients)  # (N, H, D)


# varlen_attn of each supported torch, as its documentation declares it.


def varlen_attn_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
    return flash_attention(query, key, value, cu_seq_q, max_q, 0 if is_causal else -1)


def varlen_attn_2_11(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)
):
    return flash_attention(query, key, value, cu_seq_q, max_q, window_size[1], scale)


def varlen_attn_2_13(
    query,
    key,
    value,
    cu_seq_q,
    cu_seq_k,
    max_q,
    max_k,
    *,
    return_aux=None,
    scale=None,
    window_size=(-1, -1),
    enable_gqa=False,
    seqused_k=None,
    block_table=None,
    num_splits=None,
):
    return flash_attention(query, key, value, cu_seq_q, max_q, window_size[1], scale)


VARLEN_ATTN = {
    "2.9": None,
    "2.10": varlen_attn_2_10,
    "2.11": varlen_attn_2_11,
    "2.12": varlen_attn_2_13,
    "2.13": varlen_attn_2_13,
}


@pytest.fixture
def flash_twin():
    """Let the installed varlen_attn compute on the CPU."""
    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("_flash_attention_forward", flash_forward, "CPU")
        library.impl("_flash_attention_backward", flash_backward, "CPU")
        yield


def use_varlen_attn(monkeypatch, kernel):
    """Replace nanochat's varlen_attn by this one, or by None."""
    monkeypatch.setattr(functional, "varlen_attn", kernel)
    monkeypatch.setattr(functional, "CAUSAL", functional.causal_argument(kernel))

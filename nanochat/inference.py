"""Prepare a trained model for generation: the fastest dtype, and weights laid out for the processor."""

import platform

import torch
from torch import nn

from nanochat.gpt import GPT, CausalSelfAttention, rotate


class PrepackedLinear(nn.Module):
    """A linear layer without bias whose weight is laid out for oneDNN's kernels.

    For a few rows it is up to twice as fast, close to the limit of memory bandwidth. The result of a row does not
    depend on the other rows.
    """

    def __init__(self, *weights: torch.Tensor):
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(torch.cat(weights).detach())

    def forward(self, x):
        if x.dtype != self.weight.dtype:  # the result of attention is float32
            x = x.to(self.weight.dtype)
        if x.dtype == torch.float32 and x.size(-2) == 1:  # the kernel for a single row adds up in another order
            return self._multiply(torch.cat([x, x], dim=-2)).narrow(-2, 0, 1)
        return self._multiply(x)

    def _multiply(self, x):
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")


class PrepackedAttention(CausalSelfAttention):
    """Attention with one product for queries, keys and values, which are float32 as in the cache."""

    def __init__(self, attn: CausalSelfAttention):
        nn.Module.__init__(self)
        self.layer, self.n_head, self.n_kv_head, self.head_dim = attn.layer, attn.n_head, attn.n_kv_head, attn.head_dim
        self.c_qkv = PrepackedLinear(attn.c_q.weight, attn.c_k.weight, attn.c_v.weight)
        self.c_proj = PrepackedLinear(attn.c_proj.weight)

    def project(self, x, cos, sin):
        qkv = self.c_qkv(x).float().view(1, x.size(1), -1, self.head_dim)  # (1, N, H + 2 * H_kv, D)
        qk, v = qkv.split((self.n_head + self.n_kv_head, self.n_kv_head), dim=2)
        q, k = rotate(qk, cos, sin).split((self.n_head, self.n_kv_head), dim=2)
        return q, k, v


@torch.no_grad()
def prepare_for_inference(model: GPT, dtype: torch.dtype) -> GPT:
    """Return the model itself, in dtype and evaluation mode.

    On an x86 CPU it can only generate from then on. A CPU without bfloat16 products computes in float32 with weights
    rounded to bfloat16. On a GPU this turns off cuDNN's attention for the whole process.
    """
    model.eval().to(dtype)
    if model.get_device().type == "cuda":
        # An H100 prefers cuDNN's attention, which compiles for every shape: generation has thousands of them.
        torch.backends.cuda.enable_cudnn_sdp(False)
    on_x86 = model.get_device().type == "cpu" and platform.machine().lower() in ("x86_64", "amd64")
    if on_x86 and torch.backends.mkldnn.is_available():
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            model.float()
        for block in model.transformer.h:
            block.attn = PrepackedAttention(block.attn)
            block.mlp.c_fc, block.mlp.c_proj = map(PrepackedLinear, (block.mlp.c_fc.weight, block.mlp.c_proj.weight))
        model.lm_head = PrepackedLinear(model.lm_head.weight)
        model.cos, model.sin = model.cos.float(), model.sin.float()
    return model

"""A trained model made ready to generate: in the dtype that is fastest, its weights laid out for the processor."""

import platform

import torch
import torch.nn.functional as F
from torch import nn

from nanochat.gpt import GPT, Block, add_features, norm, rotate


class PackedLinear(nn.Module):
    """A linear layer without bias whose weight is laid out as oneDNN's kernels read it. For a few rows it is up to
    twice as fast, close to what memory allows; and a row's result does not depend on the other rows."""

    def __init__(self, *weights: torch.Tensor):
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(torch.cat(weights).detach())

    def forward(self, x):
        if x.dtype == torch.float32 and x.size(-2) == 1:  # the kernel for one row alone adds up in another order
            return self._multiply(torch.cat([x, x], dim=-2)).narrow(-2, 0, 1)
        return self._multiply(x)

    def _multiply(self, x):
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")


class PackedBlock(nn.Module):
    """A Block of packed layers, for generation with a cache: one product gives queries, keys and values, which are
    float32 from there on, as the cache has them."""

    def __init__(self, block: Block):
        super().__init__()
        attn, mlp = block.attn, block.mlp
        self.layer, self.head_dim, self.heads = attn.layer, attn.head_dim, (attn.n_head, attn.n_kv_head)
        self.c_qkv = PackedLinear(attn.c_q.weight, attn.c_k.weight, attn.c_v.weight)
        self.c_proj = PackedLinear(attn.c_proj.weight)
        self.c_fc, self.c_fc_proj = PackedLinear(mlp.c_fc.weight), PackedLinear(mlp.c_proj.weight)

    def forward(self, x, cos, sin, kv_cache, documents=None, features=None):
        N, (H, H_kv) = x.size(1), self.heads
        qkv = self.c_qkv(norm(x)).float().view(1, N, H + 2 * H_kv, self.head_dim)
        qk, v = qkv.split((H + H_kv, H_kv), dim=2)
        q, k = norm(rotate(qk, cos, sin)).split((H, H_kv), dim=2)  # (1, N, H, D)
        if features is not None:
            q, k = add_features(q, k, *features)
        y = kv_cache.attend(self.layer, q[0], k[0], v[0])  # (N, H, D)
        x = x + self.c_proj(y.to(x.dtype).view(1, N, -1))
        return x + self.c_fc_proj(F.relu(self.c_fc(norm(x))).square())


@torch.no_grad()
def prepare_for_inference(model: GPT, dtype: torch.dtype) -> GPT:
    """Give the model itself, in dtype and evaluation mode. On an x86 CPU it is then good for generation only; one that
    has no products of bfloat16 makes them in float32, of weights rounded to bfloat16. On a GPU the whole process does
    without cuDNN's attention from then on."""
    model.eval().to(dtype)
    if model.get_device().type == "cuda":
        # An H100 prefers cuDNN's attention, which is compiled for every shape: generation has thousands of them.
        torch.backends.cuda.enable_cudnn_sdp(False)
    on_x86 = model.get_device().type == "cpu" and platform.machine().lower() in ("x86_64", "amd64")
    if on_x86 and torch.backends.mkldnn.is_available():
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            model.float()
        model.transformer.h = nn.ModuleList(map(PackedBlock, model.transformer.h))
        model.lm_head = PackedLinear(model.lm_head.weight)
        model.cos, model.sin = model.cos.float(), model.sin.float()
    return model

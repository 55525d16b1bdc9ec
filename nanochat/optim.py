"""The optimizer and its learning rate."""

import math

import torch

BETAS = (0.9, 0.95)  # GPT-3, https://arxiv.org/abs/2005.14165, appendix B


def build_adamw(model, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over all parameters of a GPT, fused into one kernel. The matrices of the blocks decay; the
    embedding and the head, whose rows belong to single tokens, do not, for most rows see few gradients."""
    blocks, tables = [], []
    for name, parameter in model.named_parameters():
        (blocks if name.startswith("transformer.h.") else tables).append(parameter)
    groups = [{"params": blocks, "weight_decay": weight_decay}, {"params": tables, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, fused=True)


def learning_rate_at(step: int, peak: float, warmup_iters: int, num_iterations: int) -> float:
    """The rate of iteration step = 1 .. num_iterations: up to the peak in a line over warmup_iters, then down
    along half a cosine to a tenth of it at num_iterations (https://arxiv.org/abs/2203.15556, section 3)."""
    if step < warmup_iters:
        return peak * step / warmup_iters
    progress = (step - warmup_iters) / max(1, num_iterations - warmup_iters)  # 0 to 1
    return peak * (0.55 + 0.45 * math.cos(math.pi * min(1.0, progress)))

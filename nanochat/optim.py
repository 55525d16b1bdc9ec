"""The optimizers and the schedule of their learning rate.

All optimizers share one learning rate: Muon's updates are scaled to the RMS of AdamW's, and the embeddings have a fixed
multiple of it.
"""

import math

import torch

ADAMW_BETAS = (0.9, 0.95)  # GPT-3, https://arxiv.org/abs/2005.14165, appendix B
EMBEDDING_BETAS = (0.8, 0.95)  # of the AdamW that accompanies Muon, as in nanochat: experiments/recipe
COSINE_FLOOR = 0.1  # https://arxiv.org/abs/2203.15556, section 3
EMBEDDING_LR_SCALE = 30.0  # with Muon, as multiples of the learning rate: experiments/recipe
HEAD_LR_SCALE = 1.0
UPDATE_RMS = 0.2  # of AdamW's updates, to which Muon's are scaled: https://arxiv.org/abs/2502.16982
# Newton-Schulz for the polar factor: a quintic that takes singular values from (0, 1] to about 1 in five steps
# (https://kellerjordan.github.io/posts/muon).
QUINTIC, QUINTIC_STEPS = (3.4445, -4.7750, 2.0315), 5


def build_optimizers(model, name: str, weight_decay: float, dtype=torch.float32) -> list[torch.optim.Optimizer]:
    """Return the optimizers of a GPT.

    "adamw" is for all parameters; "muon" is for the matrices in the blocks, with AdamW for the rest. Only matrices in
    the blocks decay: most rows of an embedding or of the head rarely get a gradient. The "lr_scale" of each group is
    its multiple of the learning rate. Muon computes in dtype.
    """
    matrices = [p for p in model.transformer.h.parameters() if p.dim() == 2]
    embeddings = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    head = model.lm_head.weight
    grouped = {id(p) for p in (*matrices, *embeddings, head)}
    scalars = [p for p in model.parameters() if id(p) not in grouped]
    use_muon = name == "muon"
    groups = [
        {"params": embeddings, "lr_scale": EMBEDDING_LR_SCALE if use_muon else 1.0},
        {"params": [head], "lr_scale": HEAD_LR_SCALE if use_muon else 1.0},
    ]
    if scalars:
        groups.append({"params": scalars, "lr_scale": 1.0})
    if not use_muon:
        groups.append({"params": matrices, "lr_scale": 1.0, "weight_decay": weight_decay})
    betas = EMBEDDING_BETAS if use_muon else ADAMW_BETAS
    adamw = torch.optim.AdamW(groups, lr=0.0, betas=betas, weight_decay=0.0, fused=True)
    return [Muon(matrices, weight_decay, dtype), adamw] if use_muon else [adamw]


def set_lrs(optimizers, lr: float, step: int):
    """Set the learning rate of every group, and Muon's momentum in iteration step."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
            if "momentum" in group:
                group["momentum"] = momentum_at(step)


# -- Muon


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalized updates and decoupled weight decay, for matrices.

    https://kellerjordan.github.io/posts/muon. Each rank makes the same update of all matrices, because the gradients
    are already averaged over the ranks.
    """

    def __init__(self, matrices, weight_decay: float, dtype=torch.float32):
        shapes = sorted({tuple(p.shape) for p in matrices})  # one batched product per shape
        groups = [{"params": [p for p in matrices if p.shape == shape]} for shape in shapes]
        super().__init__(groups, {"lr": 0.0, "lr_scale": 1.0, "weight_decay": weight_decay, "momentum": 0.95})
        self.dtype = dtype

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            matrices, lr, momentum = group["params"], group["lr"], group["momentum"]
            for p in matrices:
                if not self.state[p]:
                    self.state[p]["average"] = torch.zeros_like(p)
            gradients, averages = [p.grad for p in matrices], [self.state[p]["average"] for p in matrices]
            torch._foreach_lerp_(averages, gradients, 1 - momentum)
            steps = torch._foreach_lerp(gradients, averages, momentum)  # Nesterov
            steps = orthogonalize(torch.stack(steps).to(self.dtype)).to(matrices[0].dtype).unbind()
            torch._foreach_mul_(matrices, 1 - lr * group["weight_decay"])
            torch._foreach_add_(matrices, steps, alpha=-lr * UPDATE_RMS * math.sqrt(max(matrices[0].shape)))


def orthogonalize(matrices):
    """Return roughly the nearest matrices (n, R, C) with orthonormal rows or columns: singular values near 1."""
    a, b, c = QUINTIC
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices  # the smaller Gram matrix costs less
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(QUINTIC_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def momentum_at(step: int) -> float:
    """Return Muon's momentum in iteration step: it rises from 0.85 to 0.95 in the first 300, as in nanochat."""
    return 0.85 + 0.10 * min(1.0, step / 300)


# -- the schedule


def lr_multiplier(step: int, schedule: str, warmup_iters: int, num_iterations: int, warmdown_ratio: float) -> float:
    """Return the learning rate of iteration step = 1 .. num_iterations as a share of the peak.

    It rises linearly to 1 over warmup_iters. Then "constant" stays at 1, "linear" falls linearly to 0 in the last
    warmdown_ratio of the run, and "cosine" follows half a cosine down to COSINE_FLOOR.
    """
    if step < warmup_iters:
        return step / warmup_iters
    if schedule == "linear":
        left = num_iterations + 1 - step  # the last iteration still has one step of the line
        return min(1.0, left / max(1.0, warmdown_ratio * num_iterations))
    if schedule == "cosine":
        progress = (step - warmup_iters) / max(1, num_iterations - warmup_iters)  # 0 to 1
        half = (1 + math.cos(math.pi * min(1.0, progress))) / 2
        return COSINE_FLOOR + (1 - COSINE_FLOOR) * half
    return 1.0

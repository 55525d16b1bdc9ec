"""One update after another, whatever the layout: ranks, accumulation, device and dtype."""

import math
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from nanochat.device import autocast
from nanochat.distributed import data_parallel, derive_seed, sum_over_ranks
from nanochat.optim import set_rates


@dataclass
class Update:
    """What came of one iteration. The numbers are on their way from the device: `wait` has them."""

    step: int
    rate: float  # the learning rate
    numbers: torch.Tensor  # (4,) on the CPU: loss, ranks that want to stop, ranks that want to save, gradient norm
    arrived: object  # a torch.cuda.Event, or None where there is nothing to wait for

    def wait(self):
        """(loss, grad_norm, stop, save). ValueError where loss or gradient are not finite."""
        if self.arrived:
            self.arrived.synchronize()
        loss, stop, save, grad_norm = self.numbers.tolist()
        if not math.isfinite(loss + grad_norm):
            raise ValueError(
                f"the loss is {loss} and the gradient norm {grad_norm} at iteration {self.step}, "
                f"learning rate {self.rate:.2e}; this update is not kept. Continue from an earlier "
                "checkpoint with a lower --learning_rate or --grad_clip, or more --warmup_iters"
            )
        return loss, grad_norm, stop > 0, save > 0


def collect(pending: deque[Update], now: bool):
    """(loss, grad_norm, stop, save) of the updates known of, loss and norm those of the last; None where none is.
    Those known are taken out of pending. A GPU is left one update behind, to be busy while the host reads, unless
    `now`, or a rank wants to stop or save. ValueError as in Update.wait."""
    known, stops, saves = None, False, False
    while pending and (now or stops or saves or len(pending) > 1 or not pending[0].arrived):
        loss, grad_norm, stop, save = pending.popleft().wait()
        stops, saves = stops or stop, saves or save
        known = loss, grad_norm, stops, saves
    return known


class Trainer:
    """Makes the updates of a model. On a GPU the host never waits for it here."""

    def __init__(self, model, optimizers, dtype, grad_clip: float, seed: int, ranks, compile: bool = False):
        self.model, self.optimizers, self.dtype, self.ranks = model, optimizers, dtype, ranks
        self.grad_clip, self.seed = grad_clip or math.inf, seed
        self.device = model.get_device()
        self.parallel_model = data_parallel(torch.compile(model, dynamic=False) if compile else model, self.device)

    def update(self, step: int, rate: float, batches: list, targets: int, wishes=lambda: (False, False)) -> Update:
        """Learn from batches (x, y, documents), the accumulated part of this rank, at rate. The loss is the mean
        over the targets of all batches of all ranks, of which there are `targets`. wishes() says whether this
        rank wants to stop and to save, which all ranks get to know.

        ValueError, before the weights change, where loss or gradient are not finite; on a GPU only `wait` of
        what this returns has that error: call it before anything is made of the weights.
        """
        set_rates(self.optimizers, rate, step)
        world_size, last = self.ranks.world_size, len(batches) - 1
        nats = torch.zeros((), device=self.device)
        for i, (x, y, documents) in enumerate(batches):
            # What the model draws depends on seed, step and batch alone: no layout and no resume changes it.
            torch.manual_seed(derive_seed(self.seed, step, i * world_size + self.ranks.rank))
            with self.parallel_model.no_sync() if world_size > 1 and i < last else nullcontext():
                with autocast(self.device, self.dtype):
                    part = self.parallel_model(x, y, loss_reduction="sum", layout=documents) / targets
                (part * world_size).backward()  # the mean over the ranks divides by it
            nats += part.detach()
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip)
        wants = torch.tensor([float(bool(wish)) for wish in wishes()], pin_memory=self.device.type == "cuda")
        shared = sum_over_ranks(torch.cat([nats[None], wants.to(self.device, non_blocking=True)]))
        update = Update(step, rate, *self._bring(torch.cat([shared, grad_norm[None]])))
        if not update.arrived:
            update.wait()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return update

    def _bring(self, numbers):
        if self.device.type != "cuda":
            return numbers.cpu(), None
        pinned = torch.empty(numbers.shape, pin_memory=True).copy_(numbers, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return pinned, arrived

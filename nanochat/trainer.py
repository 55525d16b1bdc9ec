"""One optimizer step after another, the same for any number of ranks, accumulated batches, devices and dtypes."""

import math
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch

from nanochat.device import autocast
from nanochat.distributed import data_parallel, derive_seed, sum_over_ranks
from nanochat.functional import compiled
from nanochat.optim import set_lrs


class StepResult(NamedTuple):
    """The figures of an optimizer step, over all ranks."""

    loss: float  # mean over the targets, in nats
    grad_norm: float  # before clipping
    stop: bool  # a rank requests to stop
    save: bool  # a rank requests a checkpoint


@dataclass
class PendingStep:
    """A step whose figures may still be on their way from the device."""

    step: int
    lr: float
    numbers: torch.Tensor  # (4,) on the CPU: loss, ranks that request to stop, to save, gradient norm
    ready_event: torch.cuda.Event | None  # None if the numbers are there already

    def wait(self) -> StepResult:
        """Wait for the figures. ValueError if loss or gradient are not finite."""
        if self.ready_event:
            self.ready_event.synchronize()
        loss, stop, save, grad_norm = self.numbers.tolist()
        if not math.isfinite(loss + grad_norm):
            raise ValueError(
                f"the loss is {loss} and the gradient norm {grad_norm} at iteration {self.step}, learning rate "
                f"{self.lr:.2e}; this update is not kept. Continue from an earlier checkpoint with a lower "
                "--learning_rate or --grad_clip, or more --warmup_iters"
            )
        return StepResult(loss, grad_norm, stop > 0, save > 0)


class Trainer:
    """Updates the weights of a model. On a GPU the host is one step ahead, so that the GPU never idles."""

    def __init__(self, model, optimizers, dtype, grad_clip: float, seed: int, ranks, compile: bool = False):
        self.model, self.optimizers, self.dtype, self.ranks = model, optimizers, dtype, ranks
        self.grad_clip, self.seed = grad_clip or math.inf, seed
        self.device = model.get_device()
        self.parallel_model = data_parallel(compiled(model) if compile else model, self.device)
        self.pending: deque[PendingStep] = deque()

    def step(self, step: int, lr: float, batches, targets: int, requests=lambda: (False, False), wait: bool = False):
        """Make one optimizer step and return what `flush` returns.

        batches are (x, y, documents), the accumulated part of this rank. The loss is the mean over the targets of all
        batches of all ranks, of which there are `targets`. requests() returns whether this rank requests to stop and
        to save; all ranks see the same answer.

        ValueError, before the weights change, if loss or gradient are not finite. On a GPU the error of a step is
        raised by the next step, or by this one with `wait`: wait before you keep anything of the weights.
        """
        set_lrs(self.optimizers, lr, step)
        nats = self._backward(step, batches, targets)
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip)
        flags = torch.tensor([float(bool(request)) for request in requests()], pin_memory=self.device.type == "cuda")
        shared = sum_over_ranks(torch.cat([nats[None], flags.to(self.device, non_blocking=True)]))
        pending = PendingStep(step, lr, *self._copy_to_host(torch.cat([shared, grad_norm[None]])))
        if not pending.ready_event:
            pending.wait()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.pending.append(pending)
        return self.flush(wait)

    def flush(self, wait: bool = True) -> StepResult | None:
        """Return the result of the last step that is known, with the requests of those before; None if none is known.

        Each step is part of one result only. On a GPU the last step stays pending, unless `wait`, or a rank requests
        to stop or save. ValueError as in `step`.
        """
        result, stop, save = None, False, False
        while self.pending and (wait or stop or save or len(self.pending) > 1 or not self.pending[0].ready_event):
            result = self.pending.popleft().wait()
            stop, save = stop or result.stop, save or result.save
        return result and result._replace(stop=stop, save=save)

    def _backward(self, step: int, batches, targets: int):
        """Add up the gradients of the batches; return this rank's part of the loss."""
        world_size, last = self.ranks.world_size, len(batches) - 1
        nats = torch.zeros((), device=self.device)
        for i, (x, y, documents) in enumerate(batches):
            # What the model draws depends on seed, step and batch alone: no layout and no resume changes it.
            torch.manual_seed(derive_seed(self.seed, step, i * world_size + self.ranks.rank))
            with self.parallel_model.no_sync() if world_size > 1 and i < last else nullcontext():
                with autocast(self.device, self.dtype):
                    part = self.parallel_model(x, y, loss_reduction="sum", layout=documents) / targets
                (part * world_size).backward()  # DDP divides by it: it averages over the ranks
            nats += part.detach()
        return nats

    def _copy_to_host(self, numbers):
        """Return the numbers on the CPU, and on a GPU the event after which they are there."""
        if self.device.type != "cuda":
            return numbers.cpu(), None
        pinned = torch.empty(numbers.shape, pin_memory=True).copy_(numbers, non_blocking=True)
        ready_event = torch.cuda.Event()
        ready_event.record()
        return pinned, ready_event

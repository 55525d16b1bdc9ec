"""A training run: the loop of updates, validations and checkpoints.

Knows nothing of what it trains on: the batches, and the function that writes samples, are handed in.
"""

import math
import platform
import time
from dataclasses import asdict
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import torch

from nanochat.checkpoint_manager import best_val_loss, keep_last, save_best, save_checkpoint
from nanochat.device import autocast, choose_compile, peak_flops
from nanochat.distributed import derive_seed, sum_over_ranks
from nanochat.gpt import GPT, GPTConfig
from nanochat.loss_eval import bits_per_byte, evaluate_loss, perplexity
from nanochat.optim import build_optimizers, lr_multiplier
from nanochat.run_log import NullLog, RunLog
from nanochat.run_start import Process, Start
from nanochat.trainer import StepResult, Trainer
from script_tools.files import write_new_files


class Data(NamedTuple):
    """The prepared data of a run."""

    metadata: dict  # of the folder; ["splits"]["val"] counts the bytes of the validation split
    train: object  # yields batches (x, y, documents) without end
    val: object  # yields those of one validation


class Due(NamedTuple):
    """What follows the update of an iteration."""

    log: bool
    evaluate: bool
    save: bool
    is_last: bool


class Stopwatch:
    """Adds up the seconds between `start` and `pause`."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def start(self):
        self._started = time.perf_counter()

    def pause(self):
        self.seconds += time.perf_counter() - self._started


class TrainingRun:
    """Trains a model; the fields are the state of the loop."""

    def __init__(self, start: Start, config: GPTConfig, data: Data, process: Process, command: str, write_samples):
        """Make or restore the model.

        An experiment calls write_samples(model, metadata, count, folder) at each checkpoint.
        """
        settings = start.settings
        self.settings, self.data = settings, data
        self.device, self.ranks, self.stop = process
        self.checkpoint_dir, self.write_samples = start.checkpoint_dir, write_samples
        self.dtype = getattr(torch, settings.dtype)
        compiles = choose_compile(settings.compile, self.device)

        torch.manual_seed(derive_seed(settings.seed))
        self.model = GPT(config).to(self.device)
        self.model.gradient_checkpointing = settings.gradient_checkpointing
        self.optimizers = build_optimizers(self.model, settings.optimizer, settings.weight_decay, self.dtype)
        self.step, self.first_step = start.step, start.step + 1
        self.lr, self.is_stopping = 0.0, False
        self.best_val_loss, self.saved_at = math.inf, time.monotonic()
        self.stopwatch = Stopwatch(0.0)  # training since the run began, without validations and checkpoints
        if start.checkpoint:
            self._restore(*start.checkpoint)
            start.checkpoint = None  # frees its memory
        self.logged = self.step, self.stopwatch.seconds  # at the last log line
        arguments = self.dtype, settings.grad_clip, settings.seed, self.ranks, compiles
        self.trainer = Trainer(self.model, self.optimizers, *arguments)

        rows = settings.device_batch_size * settings.gradient_accumulation * self.ranks.world_size
        self.targets = rows * config.sequence_len  # of one iteration
        self.meta = {
            "model_config": asdict(config),
            "data": data.metadata,
            "settings": settings.remembered(),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
        }
        self.log = self._open_log(start.record_dir, command, compiles) if self.ranks.rank == 0 else NullLog()

    def _restore(self, model_state, optim_state, meta):
        self.model.load_state_dict(model_state)
        # Only the state of each tensor: learning rates and weight decay follow from the settings.
        for optimizer, saved in zip(self.optimizers, optim_state["optimizers"], strict=True):
            optimizer.load_state_dict({**optimizer.state_dict(), "state": saved["state"]})
        self.data.train.load_state_dict(optim_state["data"])
        self.best_val_loss = best_val_loss(self.checkpoint_dir)
        self.stopwatch.seconds = meta.get("seconds", 0.0)

    def _open_log(self, record_dir: Path, command: str, compiles: bool) -> RunLog:
        """Make the folders and start the log with the settings."""
        settings = self.settings
        self.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        tokenizer = Path(settings.data_dir).expanduser() / "tokenizer.json"
        if tokenizer.is_file():  # of BPE tokens: the checkpoint is useless without it
            write_new_files(self.checkpoint_dir, {"tokenizer.json": tokenizer.read_bytes()})
        config = {
            **self.meta,
            "command": command,
            "date": datetime.now().isoformat(timespec="seconds"),
            "device": str(self.device),
            "parameters": self.model.num_parameters(),
            "checkpoint_dir": str(self.checkpoint_dir),
        }
        options = {"first_step": self.step, "wandb_name": settings.run, "is_experiment": bool(settings.experiment)}
        log = RunLog(record_dir, config=config, **options)
        for name, value in self._description(compiles).items():
            log.log(f"{name:<23} {value}")
        return log

    def _description(self, compiles: bool) -> dict:
        settings, config = self.settings, self.model.config
        world_size, per_epoch = self.ranks.world_size, self.data.train.epoch_targets
        return {
            "device": f"{self.device} x {world_size}, {settings.dtype}{', compiled' if compiles else ''}",
            "checkpoint_dir": self.checkpoint_dir,
            **settings.remembered(),
            **asdict(config),
            "parameters": f"{self.model.num_parameters():,}",
            "FLOPs per token": f"{self.model.estimate_flops():,}",
            "targets per iteration": f"{settings.device_batch_size} x {config.sequence_len} x "
            f"{settings.gradient_accumulation} accumulated x {world_size} ranks = {self.targets:,}",
            "iterations per epoch": f"{per_epoch:,} targets / {self.targets:,} = {per_epoch / self.targets:,.1f}",
            "validation": f"{len(self.data.val.visited):,} windows every {settings.eval_every} iterations",
        }

    def run(self):
        """Train until the last iteration or a signal to stop."""
        self.stop.catch()
        self.saved_at = time.monotonic()
        self.stopwatch.start()
        with self.log:
            for self.step in range(self.step + 1, self.settings.num_iterations + 1):
                due = self.due()
                result = self.update(wait=any(due))
                if result is None:  # still on its way from the GPU
                    continue
                if due.log:
                    self.log_step(result)
                self.log.advance(self.step, loss=result.loss)
                if due.evaluate or due.save or result.stop or result.save:
                    self.pause(due, result)
                if self.is_stopping:
                    break
            if self.is_stopping:
                self.log.log(f"Stopped after iteration {self.step}; --resume_from_iteration {self.step} continues")
            self.log.finish(f"stopped after iteration {self.step}" if self.is_stopping else "finished")

    def due(self) -> Due:
        """Return what follows the update of this iteration."""
        settings, is_last = self.settings, self.step == self.settings.num_iterations
        return Due(
            log=self.step == self.first_step or self.step % settings.log_every == 0 or is_last,
            evaluate=self.step % settings.eval_every == 0 or is_last,
            save=self.step % settings.save_every == 0 or is_last,
            is_last=is_last,
        )

    def update(self, wait: bool) -> StepResult | None:
        """Make the update of this iteration; return the result if it is known."""
        settings = self.settings
        schedule = settings.schedule, settings.warmup_iters, settings.num_iterations, settings.warmdown_ratio
        self.lr = settings.learning_rate * lr_multiplier(self.step, *schedule)
        batches = [next(self.data.train) for _ in range(settings.gradient_accumulation)]
        return self.trainer.step(self.step, self.lr, batches, self.targets, self.requests, wait)

    def requests(self) -> tuple[bool, bool]:
        """Return whether this rank requests to stop and to save after the update in progress."""
        minutes = self.settings.save_every_minutes
        is_late = bool(minutes) and time.monotonic() > self.saved_at + 60 * minutes
        return self.stop.signal > 0, self.ranks.rank == 0 and is_late

    def log_step(self, result: StepResult):
        """Log the figures of this iteration, and the speed since the last log line."""
        self.stopwatch.pause()
        seconds, (logged_step, logged_seconds) = self.stopwatch.seconds, self.logged
        self.logged = self.step, seconds
        speed = (self.step - logged_step) * self.targets / (seconds - logged_seconds)
        eta = (self.settings.num_iterations - self.step) * self.targets / speed
        record = {"step": self.step, "loss": result.loss, "grad_norm": result.grad_norm, "lr": self.lr}
        record |= {"tokens_per_second": speed, "epoch": self.data.train.epoch, "seconds": seconds}
        line = (
            f"step {self.step:06d}/{self.settings.num_iterations:06d} | loss {result.loss:.4f} | "
            f"grad_norm {result.grad_norm:.3f} | lr {self.lr:.2e} | tok/s {speed:,.0f}"
        )
        if peak := peak_flops(self.device):
            record["mfu"] = speed * self.model.estimate_flops() / (peak * self.ranks.world_size)
            line += f" | mfu {record['mfu']:.1%}"
        self.log.log(f"{line} | epoch {record['epoch']:.2f} | eta {duration(eta)}")
        self.log.log_metrics(record)
        self.stopwatch.start()

    def pause(self, due: Due, result: StepResult):
        """Validate and save after an update, as far as that is due or requested."""
        self.stopwatch.pause()
        val_loss, self.is_stopping = None, result.stop
        if due.evaluate and not self.is_stopping:
            val_loss = self.validate()
            self.is_stopping = val_loss is None
        if due.save or result.save or self.is_stopping:
            self.save(val_loss, must=self.is_stopping or due.is_last)
        if due.evaluate and not due.is_last and not self.is_stopping:
            self.log.redraw()
        self.stopwatch.start()

    def validate(self) -> float | None:
        """Return the validation loss and keep the best model; None if a signal has interrupted the validation."""
        with autocast(self.device, self.dtype):
            nats, tokens = evaluate_loss(self.model, takewhile(lambda _: not self.stop.signal, self.data.val))
        if sum_over_ranks(torch.tensor(float(self.stop.signal > 0), device=self.device)).item():
            return None
        val_loss, val_ppl = nats / tokens, perplexity(nats, tokens)
        val_bpb = bits_per_byte(nats, tokens, self.data.metadata["splits"]["val"])
        self.log.log(f"step {self.step:06d} | val_loss {val_loss:.4f} | val_ppl {val_ppl:.2f} | val_bpb {val_bpb:.4f}")
        self.log.log_metrics({"step": self.step, "val_loss": val_loss, "val_ppl": val_ppl, "val_bpb": val_bpb})
        if self.ranks.rank == 0 and val_loss < self.best_val_loss:
            try:
                save_best(self.checkpoint_dir, self.step, self.model.state_dict(), {**self.meta, "val_loss": val_loss})
                self.best_val_loss = val_loss
            except OSError as error:
                self.log.log(f"The best model so far was not saved: {error}")
        return val_loss

    def save(self, val_loss: float | None, must: bool):
        """Write a checkpoint. If that fails the run continues with the previous one, unless it must be written."""
        self.saved_at = time.monotonic()
        if self.ranks.rank > 0:
            return
        settings, folder, step = self.settings, self.checkpoint_dir, self.step
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        optim_state = {"optimizers": optimizers, "data": self.data.train.state_dict()}
        meta = {**self.meta, "val_loss": val_loss, "seconds": self.stopwatch.seconds}
        try:
            save_checkpoint(folder, step, self.model.state_dict(), optim_state, meta)
            self.log.log(f"Saved checkpoint: {folder / f'model_{step:06d}.pt'}")
            if settings.keep_last:
                keep_last(folder, settings.keep_last, newest=step)
            if settings.experiment:
                samples = self.log.folder / f"generated_samples/step_{step:06d}"
                self.write_samples(self.model, self.data.metadata, settings.num_samples, samples)
        except OSError as error:
            if must:
                raise
            self.log.log(f"Not saved, training continues and saves again in {settings.save_every} iterations: {error}")


def duration(seconds: float) -> str:
    """Format a duration.

    >>> duration(7), duration(125), duration(3720)
    ('7s', '2m05s', '1h02m')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"

"""Train a GPT on prepared windows.

python -m scripts.tct_train --model_size small --data_dir prepared/ --checkpoint_dir out/small
python -m scripts.tct_train --checkpoint_dir out/small --resume_from_iteration latest
torchrun --standalone --nproc_per_node=8 -m scripts.tct_train --model_size small --data_dir prepared/
"""

import math
import os
import platform
import shlex
import sys
import time
from collections import deque
from contextlib import nullcontext
from dataclasses import asdict
from datetime import datetime
from itertools import takewhile
from pathlib import Path

from script_tools.cli import StopSignals, cli_errors, print0
from scripts._train_flags import DEFAULTS, parse_arguments, preset_config, settle


@cli_errors
def main(argv=None):
    flags = parse_arguments(argv)
    command = shlex.join(["python", "-m", "scripts.tct_train", *(sys.argv[1:] if argv is None else argv)])

    from nanochat.device import choose_device, tune_process
    from nanochat.distributed import process_group

    tune_process()
    device = choose_device(flags.device or "auto")
    with process_group(device) as ranks, StopSignals() as stop:
        try:
            train(flags, command, device, ranks, stop)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise ValueError(
                f"out of memory on {device.type}: lower --device_batch_size and raise "
                "--gradient_accumulation to match, which trains the same; or give "
                "--gradient_checkpointing, or a smaller --model_size"
            ) from None
    if stop.signal:
        sys.exit(128 + stop.signal)


def train(flags, command, device, ranks, stop):
    import torch

    from nanochat.checkpoint_manager import (
        best_val_loss,
        find_last_step,
        keep_last,
        list_steps,
        load_checkpoint,
        save_best,
        save_checkpoint,
    )
    from nanochat.device import autocast, choose_compile, choose_dtype, peak_flops
    from nanochat.distributed import derive_seed, sum_over_ranks
    from nanochat.gpt import GPT, GPTConfig
    from nanochat.loss_eval import bits_per_byte, evaluate_loss, perplexity
    from nanochat.optim import build_optimizers, rate_at
    from nanochat.run_log import RunLog
    from nanochat.trainer import Trainer, collect
    from script_tools.files import write_new_files
    from tct_packing import packed_data_loader
    from workflow_data.reader import check_metadata, read_metadata

    # -------------------------------------------------------------------------
    # the checkpoint to continue from, and the settings

    default_dir = f"out/{flags.experiment or flags.model_size or DEFAULTS['model_size']}"
    checkpoint_dir = Path(flags.checkpoint_dir or default_dir).expanduser()
    first, saved = 0, None
    resume = flags.resume_from_iteration
    if restarted_by_torchrun() and list_steps(checkpoint_dir):
        resume = "latest"
    if resume is None:
        refuse_used_folder(checkpoint_dir, list_steps(checkpoint_dir))
    else:
        first = find_last_step(checkpoint_dir) if resume == "latest" else resume
        model_state, optim_state, saved = load_checkpoint(checkpoint_dir, first, device)
        print0(f"Resuming from checkpoint: iteration {first}")
        print0(f"Loaded model weights from: {checkpoint_dir / f'model_{first:06d}.pt'}")
        print0(f"Loaded optimizer state from: {checkpoint_dir / f'optim_{first:06d}.pt'}")
    settings = settle(flags, saved and saved["settings"], first, ranks.world_size)
    record_dir = Path("experiments", settings.experiment) if settings.experiment else checkpoint_dir
    report_name = "README.md" if settings.experiment else "report.md"
    refuse_foreign_files(record_dir, checkpoint_dir, report_name, is_new=resume is None)
    dtype = choose_dtype(settings.dtype, device)
    settings.dtype = str(dtype).removeprefix("torch.")  # what a trial chose once, a resumed run keeps
    compiles = choose_compile(flags.compile or "auto", device)

    # -------------------------------------------------------------------------
    # data, model, optimizers

    metadata = read_metadata(settings.data_dir)
    n_states = metadata.get("n_states", 0)
    if settings.state_embedding and not n_states:
        raise ValueError(f"--state_embedding: {settings.data_dir} has no states: prepare it again with --states")
    fields = saved["model_config"] | {"dropout": settings.dropout} if saved else preset_config(settings, n_states)
    config = GPTConfig.from_dict(fields)
    if saved:
        check_metadata(metadata, settings.data_dir, tokenizer=saved["data"]["tokenizer"], n_states=config.n_states)
    share = {
        "vocab_size": config.vocab_size,
        "max_files": settings.max_files,
        "rank": ranks.rank,
        "with_states": settings.state_embedding,
        "world_size": ranks.world_size,
    }
    loader, val_loader = (
        packed_data_loader(
            settings.device_batch_size,
            config.sequence_len,
            split,
            settings.data_dir,
            device,
            seed=settings.seed,
            max_windows=settings.eval_windows,
            **share,
        )
        for split in ("train", "val")
    )

    torch.manual_seed(derive_seed(settings.seed))
    model = GPT(config).to(device)
    model.gradient_checkpointing = settings.gradient_checkpointing
    optimizers = build_optimizers(model, settings.optimizer, settings.weight_decay, dtype)
    if saved:
        model.load_state_dict(model_state)
        # What belongs to each tensor only; rates and decay are the settings' business.
        for optimizer, state in zip(optimizers, optim_state["optimizers"], strict=True):
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state["state"]})
        loader.load_state_dict(optim_state["data"])
        del model_state, optim_state
    trainer = Trainer(model, optimizers, dtype, settings.grad_clip, settings.seed, ranks, compiles)

    targets = (
        settings.device_batch_size * settings.gradient_accumulation * ranks.world_size * config.sequence_len
    )  # of one iteration
    peak = peak_flops(device)
    meta = {
        "model_config": asdict(config),
        "data": metadata,
        "settings": vars(settings),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    log = None
    if ranks.rank == 0:
        checkpoint_dir.mkdir(parents=True, exist_ok=True)
        tokenizer_file = Path(settings.data_dir).expanduser() / "tokenizer.json"
        if tokenizer_file.is_file():  # of BPE tokens: the checkpoint is of no use without it
            write_new_files(checkpoint_dir, {"tokenizer.json": tokenizer_file.read_bytes()})
        log = RunLog(
            record_dir,
            first_step=first,
            config={
                **meta,
                "command": command,
                "date": datetime.now().isoformat(timespec="seconds"),
                "device": str(device),
                "parameters": model.num_parameters(),
                "checkpoint_dir": str(checkpoint_dir),
            },
            wandb_name=settings.run,
            log_file=bool(settings.experiment),
            is_experiment=bool(settings.experiment),
            bar_total=settings.num_iterations,
        )
        for name, value in {
            "device": f"{device} x {ranks.world_size}, {settings.dtype}{', compiled' if compiles else ''}",
            "checkpoint_dir": checkpoint_dir,
            **vars(settings),
            **asdict(config),
            "parameters": f"{model.num_parameters():,}",
            "FLOPs per token": f"{model.estimate_flops():,}",
            "targets per iteration": f"{settings.device_batch_size} x {config.sequence_len} x "
            f"{settings.gradient_accumulation} accumulated x {ranks.world_size} ranks = "
            f"{targets:,}",
            "iterations per epoch": f"{loader.epoch_targets:,} targets / {targets:,} = "
            f"{loader.epoch_targets / targets:,.1f}",
            "validation": f"{len(val_loader.visited):,} windows every {settings.eval_every} iterations",
        }.items():
            log.line(f"{name:<23} {value}")

    # -------------------------------------------------------------------------
    # what happens between updates

    def report(line, record):
        if log:
            log.line(line)
            log.write(record)

    def validate(step):
        """The validation loss; None where a signal has cut it short."""
        with autocast(device, dtype):
            totals = evaluate_loss(model, takewhile(lambda _: not stop.signal, val_loader))
        if sum_over_ranks(torch.tensor(float(stop.signal > 0), device=device)).item():
            return None
        val_loss, val_ppl = totals[0] / totals[1], perplexity(*totals)
        val_bpb = bits_per_byte(*totals, metadata["splits"]["val"])
        report(
            f"step {step:06d} | val_loss {val_loss:.4f} | val_ppl {val_ppl:.2f} | val_bpb {val_bpb:.4f}",
            {"step": step, "val_loss": val_loss, "val_ppl": val_ppl, "val_bpb": val_bpb},
        )
        return val_loss

    def save(step, val_loss, must=False):
        """Write a checkpoint; where the disk refuses, the run goes on with the former one, unless it must."""
        nonlocal saved_at
        saved_at = time.monotonic()
        if not log:
            return
        try:
            optim_state = {
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "data": loader.state_dict(),
            }
            save_checkpoint(
                checkpoint_dir,
                step,
                model.state_dict(),
                optim_state,
                {**meta, "val_loss": val_loss, "seconds": seconds},
            )
            log.line(f"Saved checkpoint: {checkpoint_dir / f'model_{step:06d}.pt'}")
            if settings.keep_last:
                keep_last(checkpoint_dir, settings.keep_last, newest=step)
            if settings.experiment:
                write_samples(model, metadata, settings.num_samples, log.folder / f"generated_samples/step_{step:06d}")
        except OSError as error:
            if must:
                raise
            log.line(f"Not saved, the run goes on and tries again in {settings.save_every} iterations: {error}")

    def keep_if_best(step, val_loss):
        nonlocal best
        if log and val_loss < best:
            try:
                save_best(checkpoint_dir, step, model.state_dict(), {**meta, "val_loss": val_loss})
                best = val_loss
            except OSError as error:
                log.line(f"The best model so far was not saved: {error}")

    def wishes():
        """What this rank wants after the update in progress: (to stop, to save)."""
        minutes = settings.save_every_minutes
        return stop.signal > 0, log and minutes and time.monotonic() > saved_at + 60 * minutes

    # -------------------------------------------------------------------------
    # the loop

    stop.catch()
    best = best_val_loss(checkpoint_dir) if saved else math.inf
    saved_at = time.monotonic()
    seconds = saved.get("seconds", 0.0) if saved else 0.0  # of training since the run began
    logged = first, seconds
    stops = False
    pending = deque()
    started = time.perf_counter()
    with log or nullcontext():
        for step in range(first + 1, settings.num_iterations + 1):
            is_last = step == settings.num_iterations
            logs = step == first + 1 or step % settings.log_every == 0 or is_last
            evaluates = step % settings.eval_every == 0 or is_last
            saves = step % settings.save_every == 0 or is_last

            rate = settings.learning_rate * rate_at(
                step, settings.schedule, settings.warmup_iters, settings.num_iterations, settings.warmdown_ratio
            )
            batches = [next(loader) for _ in range(settings.gradient_accumulation)]
            pending.append(trainer.update(step, rate, batches, targets, wishes))
            known = collect(pending, now=logs or evaluates or saves)
            if not known:
                continue
            loss, grad_norm, stops, wants_save = known

            if logs:
                seconds += time.perf_counter() - started
                speed = (step - logged[0]) * targets / (seconds - logged[1])
                eta = (settings.num_iterations - step) * targets / speed
                record = {
                    "step": step,
                    "loss": loss,
                    "grad_norm": grad_norm,
                    "lr": rate,
                    "tokens_per_second": speed,
                    "epoch": loader.epoch,
                    "seconds": seconds,
                }
                line = (
                    f"step {step:06d}/{settings.num_iterations:06d} | loss {loss:.4f} | "
                    f"grad_norm {grad_norm:.3f} | lr {rate:.2e} | tok/s {speed:,.0f}"
                )
                if peak:
                    record["mfu"] = speed * model.estimate_flops() / (peak * ranks.world_size)
                    line += f" | mfu {record['mfu']:.1%}"
                report(f"{line} | epoch {loader.epoch:.2f} | eta {duration(eta)}", record)
                logged, started = (step, seconds), time.perf_counter()
            if log:
                log.advance(step, loss=loss)
            if not (evaluates or saves or stops or wants_save):
                continue

            seconds += time.perf_counter() - started
            val_loss = None
            if evaluates and not stops:
                val_loss = validate(step)
                stops = val_loss is None
                if not stops:
                    keep_if_best(step, val_loss)
            if saves or stops or wants_save:
                save(step, val_loss, must=stops or is_last)
            if stops:
                break
            if log and evaluates and not is_last:
                log.draw()
            started = time.perf_counter()

        if log:
            if stops:
                log.line(f"Stopped after iteration {step}; --resume_from_iteration {step} continues")
            log.finish(f"stopped after iteration {step}" if stops else "finished")


# -----------------------------------------------------------------------------
# small parts


def restarted_by_torchrun() -> bool:
    """Whether torchrun has started this process again after a failure (--max-restarts)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def refuse_used_folder(checkpoint_dir: Path, steps: list[int]):
    """ValueError where a new run would mix its checkpoints with those of another."""
    if steps:
        raise ValueError(
            f"{checkpoint_dir} already holds checkpoints, the last of iteration {steps[-1]}: "
            f"continue with --resume_from_iteration {steps[-1]}, or give another "
            "--checkpoint_dir"
        )


def refuse_foreign_files(record_dir: Path, checkpoint_dir: Path, report: str, is_new: bool):
    """ValueError or OSError if the run would replace files that no run wrote, or, if it is new, another's record."""
    from nanochat.checkpoint_manager import has_step_files
    from nanochat.run_folder import CONFIG, CURVES, METRICS, read_config
    from script_tools.files import refuse_to_replace

    record = read_config(record_dir) if (record_dir / CONFIG).exists() else {}
    if is_new and record.get("status", "").startswith(("finished", "stopped")):
        raise ValueError(f"{record_dir} holds the record of a run that is {record['status']}: name another folder")
    if is_new and record.get("checkpoint_dir") != str(checkpoint_dir) and has_step_files(checkpoint_dir):
        raise ValueError(
            f"{checkpoint_dir} holds files of checkpoints that are not of this run: name another --checkpoint_dir"
        )
    if record and record["report"] != report:
        refuse_to_replace(record_dir, [report])
    if not record and (is_new or record_dir != checkpoint_dir):
        refuse_to_replace(record_dir, [METRICS, CURVES, report, "generated_samples"])


def write_samples(model, metadata: dict, count: int, folder: Path):
    """Workflows from scratch, for the eye, as folder/sample_N.yml; none of a model of other tokens."""
    from workflow_generator import WorkflowGenerator, is_installed

    if not count or not is_installed(metadata["tokenizer"]):
        return
    folder.mkdir(parents=True, exist_ok=True)
    model.eval()
    for i, workflow in enumerate(WorkflowGenerator(model, metadata["stride"]).generate(count, max_tokens=512), 1):
        (folder / f"sample_{i}.yml").write_text(workflow.yaml, "utf-8")
    model.train()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether this is how torch says, for GPU or CPU, that memory ran out."""
    return any(words in str(error) for words in ("out of memory", "can't allocate memory"))


def duration(seconds: float) -> str:
    """
    >>> duration(7), duration(125), duration(3720)
    ('7s', '2m05s', '1h02m')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


if __name__ == "__main__":
    main()

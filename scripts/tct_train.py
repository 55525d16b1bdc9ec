"""Train a GPT on prepared windows.

    python -m scripts.tct_train --model_size small --data_dir prepared/ --checkpoint_dir out/small
    python -m scripts.tct_train --checkpoint_dir out/small --resume_from_iteration latest
    torchrun --standalone --nproc_per_node=8 -m scripts.tct_train --model_size small --data_dir prepared/
"""

import math
import platform
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace

from model_config import PRESET_NAMES, get_config
from nanochat.common import ArgumentParser, StopSignals, print0, user_errors

# Where neither a flag nor, on resume, the checkpoint says otherwise.
DEFAULTS = {"model_size": "small", "data_dir": None, "eval_every": 500, "save_every": 5000, "log_every": 10,
            "max_files": None, "gradient_checkpointing": False, "seed": 0, "dtype": "auto"}
PRESET_DEFAULTS = ("num_iterations", "device_batch_size", "gradient_accumulation", "learning_rate",
                   "warmup_iters", "grad_clip", "weight_decay")
FIXED_ON_RESUME = ("model_size", "max_files", "seed")

EVAL_WINDOWS = 128  # validation while training visits about so many windows; scripts.tct_eval visits all


@user_errors
def main(argv=None):
    flags = parse_arguments(argv)

    from nanochat.common import choose_device, keep_freed_memory, process_group

    keep_freed_memory()
    device = choose_device(flags.device or "auto")
    with process_group(device) as ranks, StopSignals() as stop:
        try:
            train(flags, device, ranks, stop)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise ValueError(f"out of memory on {device}: lower --device_batch_size and raise "
                             "--gradient_accumulation to match, which trains the same; or give "
                             "--gradient_checkpointing, or a smaller --model_size") from None
    if stop.signal:
        sys.exit(128 + stop.signal)


def train(flags, device, ranks, stop):
    import torch
    from nanochat.checkpoint_manager import find_last_step, load_checkpoint, save_checkpoint
    from nanochat.common import autocast, choose_dtype, data_parallel, derive_seed, peak_flops, sum_over_ranks
    from nanochat.gpt import GPT, IGNORE_INDEX, GPTConfig
    from nanochat.loss_eval import bits_per_byte, evaluate_loss, perplexity
    from nanochat.optim import build_adamw, learning_rate_at
    from nanochat.report import MetricsLog
    from tct_dataloader import check_metadata, read_metadata, tokenizing_distributed_data_loader

    # -------------------------------------------------------------------------
    # the checkpoint to continue from, and the settings

    default_dir = f"out/{flags.model_size or DEFAULTS['model_size']}"
    checkpoint_dir = Path(flags.checkpoint_dir or default_dir).expanduser()
    first, saved = 0, None
    if flags.resume_from_iteration is None:
        refuse_used_folder(checkpoint_dir)
    else:
        latest = flags.resume_from_iteration == "latest"
        first = find_last_step(checkpoint_dir) if latest else flags.resume_from_iteration
        model_state, optim_state, saved = load_checkpoint(checkpoint_dir, first, device)
        print0(f"Resuming from checkpoint: iteration {first}")
        print0(f"Loaded model weights from: {checkpoint_dir / f'model_{first:06d}.pt'}")
        print0(f"Loaded optimizer state from: {checkpoint_dir / f'optim_{first:06d}.pt'}")
    settings = settle(flags, saved and saved["settings"], first, ranks.world_size)
    dtype = choose_dtype(settings.dtype, device)

    # -------------------------------------------------------------------------
    # data, model, optimizer

    config = GPTConfig(**(saved["model_config"] if saved else preset_config(settings.model_size)))
    metadata = read_metadata(settings.data_dir)
    if saved:
        check_metadata(metadata, settings.data_dir, tokenizer=saved["data"]["tokenizer"])
    share = {"vocab_size": config.vocab_size, "max_files": settings.max_files, "rank": ranks.rank,
             "world_size": ranks.world_size}
    loader = tokenizing_distributed_data_loader(
        settings.device_batch_size, config.sequence_len, "train", settings.data_dir, device,
        seed=settings.seed, **share)
    val_loader = tokenizing_distributed_data_loader(
        settings.device_batch_size, config.sequence_len, "val", settings.data_dir, device,
        max_windows=EVAL_WINDOWS, **share)

    torch.manual_seed(derive_seed(settings.seed))
    model = GPT(config).to(device)
    model.gradient_checkpointing = settings.gradient_checkpointing
    optimizer = build_adamw(model, settings.learning_rate, settings.weight_decay)
    if saved:
        model.load_state_dict(model_state)
        # What belongs to each tensor only; rates and decay are the settings' business.
        optimizer.load_state_dict({**optimizer.state_dict(), "state": optim_state["optimizer"]["state"]})
        loader.load_state_dict(optim_state["data"])
        del model_state, optim_state
    parallel_model = data_parallel(model, device)

    rows_per_iteration = settings.device_batch_size * settings.gradient_accumulation * ranks.world_size
    tokens_per_iteration = rows_per_iteration * config.sequence_len
    peak = peak_flops(device)
    print_table({
        "device": f"{device} x {ranks.world_size}, {str(dtype).removeprefix('torch.')}",
        "checkpoint_dir": checkpoint_dir, **vars(settings), **asdict(config),
        "parameters": f"{model.num_parameters():,}",
        "FLOPs per token": f"{model.estimate_flops():,}",
        "tokens per iteration": f"{settings.device_batch_size} windows x {config.sequence_len} x "
                                f"{settings.gradient_accumulation} accumulated x {ranks.world_size} ranks = "
                                f"{tokens_per_iteration:,}",
        "iterations per epoch": f"{len(loader.rows):,} windows / {rows_per_iteration} = "
                                f"{len(loader.rows) / rows_per_iteration:,.1f}",
        "validation": f"{len(val_loader.visited):,} windows every {settings.eval_every} iterations",
    })

    checkpoint_dir.mkdir(parents=True, exist_ok=True)
    log = MetricsLog(checkpoint_dir, first, flags.run, vars(settings)) if ranks.rank == 0 else None

    def report(line, record):
        print0(line)
        if log:
            log.write(record)

    def save(step, val_loss):
        if ranks.rank == 0:
            optim_state = {"optimizer": optimizer.state_dict(), "data": loader.state_dict()}
            save_checkpoint(checkpoint_dir, step, model.state_dict(), optim_state, {
                "model_config": asdict(config), "data": metadata, "val_loss": val_loss,
                "settings": vars(settings),
                "versions": {"python": platform.python_version(), "torch": torch.__version__}})
        print0(f"Saved checkpoint: {checkpoint_dir / f'model_{step:06d}.pt'}")

    def any_rank_stops():
        return sum_over_ranks(torch.tensor(float(stop.signal > 0))).item() > 0

    # -------------------------------------------------------------------------
    # the loop

    stop.catch()
    seconds = steps = 0  # since the last log line, without evaluation and saving
    for step in range(first + 1, settings.num_iterations + 1):
        started = time.perf_counter()
        rate = learning_rate_at(step, settings.learning_rate, settings.warmup_iters, settings.num_iterations)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batches = [next(loader) for _ in range(settings.gradient_accumulation)]
        targets = sum_over_ranks(sum((y != IGNORE_INDEX).sum() for _, y in batches))  # of the global batch
        loss = torch.zeros((), device=device)
        for i, (x, y) in enumerate(batches):
            # What the model draws depends on seed, step and batch alone: no layout and no resume changes it.
            torch.manual_seed(derive_seed(settings.seed, step, i * ranks.world_size + ranks.rank))
            is_last = i == len(batches) - 1
            with nullcontext() if is_last or parallel_model is model else parallel_model.no_sync():
                with autocast(device, dtype):
                    part = parallel_model(x, y, loss_reduction="sum") / targets
                (part * ranks.world_size).backward()  # the mean over the ranks divides by it
            loss += part.detach()
        grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip or math.inf)
        loss, grad_norm = sum_over_ranks(loss).item(), grad_norm.item()
        if not math.isfinite(loss + grad_norm):
            raise ValueError(f"the loss is {loss} and the gradient norm {grad_norm} at iteration {step}, "
                             f"learning rate {rate:.2e}; the update was not made. Continue from an earlier "
                             "checkpoint with a lower --learning_rate or --grad_clip, or more --warmup_iters")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds, steps = seconds + time.perf_counter() - started, steps + 1

        is_last = step == settings.num_iterations
        if step == first + 1 or step % settings.log_every == 0 or is_last:
            speed = steps * tokens_per_iteration / seconds
            record = {"step": step, "loss": loss, "grad_norm": grad_norm, "lr": rate,
                      "tokens_per_second": speed, "epoch": loader.epoch}
            line = (f"step {step:06d}/{settings.num_iterations:06d} | loss {loss:.4f} | "
                    f"grad_norm {grad_norm:.3f} | lr {rate:.2e} | tok/s {speed:,.0f}")
            if peak:
                record["mfu"] = speed * model.estimate_flops() / (peak * ranks.world_size)
                line += f" | mfu {record['mfu']:.1%}"
            eta = (settings.num_iterations - step) * seconds / steps
            report(f"{line} | epoch {loader.epoch:.2f} | eta {duration(eta)}", record)
            seconds = steps = 0

        stops, val_loss = any_rank_stops(), None
        if not stops and (step % settings.eval_every == 0 or is_last):
            with autocast(device, dtype):
                totals = evaluate_loss(model, takewhile(lambda _: not stop.signal, val_loader))
            stops = any_rank_stops()
            if not stops:  # else it may have been cut short
                val_loss, val_ppl = totals[0] / totals[1], perplexity(*totals)
                val_bpb = bits_per_byte(*totals, metadata["splits"]["val"])
                report(f"step {step:06d} | val_loss {val_loss:.4f} | val_ppl {val_ppl:.2f} | "
                       f"val_bpb {val_bpb:.4f}",
                       {"step": step, "val_loss": val_loss, "val_ppl": val_ppl, "val_bpb": val_bpb})
        if stops or step % settings.save_every == 0 or is_last:
            save(step, val_loss)
        if log and (stops or val_loss is not None):
            log.draw()
        if stops:
            print0(f"Stopped after iteration {step}; --resume_from_iteration {step} continues")
            break

    if log:
        log.finish()


# -----------------------------------------------------------------------------
# arguments

def parse_arguments(argv) -> SimpleNamespace:
    """The flags, None where not given. One ValueError names every fault."""
    faults = []
    parser = ArgumentParser(prog="python -m scripts.tct_train",
                            description="Train a GPT on prepared windows. A resumed run remembers the flags "
                                        "that it was started with.")

    def add(flag, convert, wanted, help, aliases=(), metavar=None):
        def checked(text):  # notes a fault and goes on, so that all are reported together
            try:
                return convert(text)
            except ValueError:
                faults.append(f"{flag} must be {wanted}, not {text!r}")
        default = DEFAULTS.get(flag.removeprefix("--"))
        parser.add_argument(flag, *aliases, type=checked, metavar=metavar,
                            help=help + (f" (default: {default})" if default is not None else ""))

    def whole(flag, least, help, *aliases):
        wanted = f"a whole number from {least} up"
        add(flag, lambda text: at_least(least, int(text)), wanted, help, aliases, "N")

    def decimal(flag, help):
        add(flag, lambda text: at_least(0, float(text)), "a number from 0 up", help, metavar="X")

    def choice(flag, names, help):
        add(flag, lambda text: names[names.index(text)], f"one of {', '.join(names)}", help,
            metavar="{" + ",".join(names) + "}")

    choice("--model_size", PRESET_NAMES, "preset of model and training")
    add("--data_dir", str, "a folder", "prepared folder", metavar="DIR")
    add("--checkpoint_dir", str, "a folder", "where checkpoints go (default: out/MODEL_SIZE)", metavar="DIR")
    whole("--num_iterations", 1, "optimizer updates in all (default: the preset's, like all below without "
          "one)", "--max_iters")
    whole("--device_batch_size", 1, "windows in one forward pass on one device")
    whole("--gradient_accumulation", 1, "forward passes for one update")
    decimal("--learning_rate", "its peak")
    whole("--warmup_iters", 0, "iterations until the peak (default: the preset's, or a tenth of a short run)")
    decimal("--grad_clip", "largest norm of the gradient; 0 does not clip")
    decimal("--weight_decay", "of the matrices in the blocks")
    whole("--eval_every", 1, "iterations between validations")
    whole("--save_every", 1, "iterations between checkpoints")
    whole("--log_every", 1, "iterations between log lines")
    whole("--max_files", 1, "use the first N workflows of each split only")
    parser.add_argument("--gradient_checkpointing", action="store_true", default=None,
                        help="compute each block twice to need less memory")
    add("--resume_from_iteration", lambda text: text if text == "latest" else at_least(0, int(text)),
        "an iteration or latest", "continue from this checkpoint, or from the latest", metavar="N|latest")
    add("--run", str, "a name", "also log to wandb under this name", metavar="NAME")
    whole("--seed", 0, "of the weights and of the order of the data")
    add("--device", str, "a device", "cpu, cuda or mps (default: the best there is)", metavar="NAME")
    choice("--dtype", ("auto", "float32", "bfloat16"),
           "of matrix products; auto is bfloat16 on a GPU that has it")

    flags, unknown = parser.parse_known_args(argv)
    if unknown:
        faults.append(f"there is no flag {' '.join(unknown)}; --help lists those there are")
    if flags.data_dir is None and flags.resume_from_iteration is None:
        faults.append("--data_dir is needed: the folder that prepare_training_data.py --output made")
    if faults:
        raise ValueError("; ".join(faults))
    return flags


def settle(flags, before: dict | None, first: int, world_size: int) -> SimpleNamespace:
    """Every setting: from its flag, else as it was before, else the default. Says what changed on resume;
    ValueError where that would not continue the same run."""
    before = before or {}
    given = {name: value for name, value in vars(flags).items() if value is not None}
    preset = get_config((DEFAULTS | before | given)["model_size"])
    defaults = DEFAULTS | {name: preset[name] for name in PRESET_DEFAULTS}
    iterations = (defaults | before | given)["num_iterations"]
    defaults["warmup_iters"] = min(defaults["warmup_iters"], iterations // 10)  # a short run has a peak too
    settings = {name: (defaults | before | given)[name] for name in defaults} | {"world_size": world_size}

    changed = {name: f"{name} {before[name]} -> {value}" for name, value in settings.items()
               if name in before and value != before[name]}
    fixed = [change for name, change in changed.items() if name in FIXED_ON_RESUME]
    if fixed:
        raise ValueError(f"a resumed run cannot change {', '.join(fixed)}: leave the flag out, or begin a "
                         "new run in another --checkpoint_dir")
    if settings["num_iterations"] < first:
        raise ValueError(f"the checkpoint is at iteration {first}, past --num_iterations "
                         f"{settings['num_iterations']}: raise it, or resume from an earlier iteration")
    if changed:
        print0(f"Changed since the checkpoint: {', '.join(changed.values())}")
    return SimpleNamespace(**settings)


# -----------------------------------------------------------------------------
# small parts

def preset_config(model_size: str) -> dict:
    """The fields of the GPTConfig of a preset."""
    preset = get_config(model_size)
    return {"sequence_len": preset["context_size"], "vocab_size": preset["vocab_size"],
            "n_layer": preset["n_layers"], "n_head": preset["n_heads"], "n_kv_head": preset["n_heads"],
            "n_embd": preset["d_model"]}


def refuse_used_folder(checkpoint_dir: Path):
    """ValueError where a new run would mix its checkpoints with those of another."""
    from nanochat.checkpoint_manager import list_steps

    steps = list_steps(checkpoint_dir)
    if steps:
        raise ValueError(f"{checkpoint_dir} already holds checkpoints, the last of iteration {steps[-1]}: "
                         f"continue with --resume_from_iteration {steps[-1]}, or give another "
                         "--checkpoint_dir")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether this is how torch says, for GPU or CPU, that memory ran out."""
    return any(words in str(error) for words in ("out of memory", "can't allocate memory"))


def at_least(least, number):
    if not least <= number < math.inf:
        raise ValueError
    return number


def print_table(rows: dict):
    for name, value in rows.items():
        print0(f"{name:<24}{value}")


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

"""Step 2: how fast is training on this device, and how far from the limit?

MFU is targets per second * FLOPs of a target / the data sheet's dense bfloat16 FLOPs per second.
"""

import time
from itertools import pairwise
from statistics import median

import torch
from step import Step
from torch.profiler import ProfilerActivity, profile

from model_config import get_config, gpt_fields
from nanochat.device import choose_dtype, peak_flops
from nanochat.distributed import Ranks
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim import build_optimizers
from nanochat.packing import PackedTrainLoader
from nanochat.trainer import Trainer
from scripts.bench.train import run as run_bench
from workflow_data.loaders import open_split
from workflow_data.reader import load_schema_positions

WARM_UP = 3  # updates; the first compiles
TIMED_SECONDS, MIN_UPDATES = 1.5, 2
PROFILED = 3  # updates
ROWS = 32  # contexts of a batch
LONGEST_CASE = 60  # seconds that a case may take, compiling included
SAFE = 0.85  # share of the memory that the largest batch is planned for


def main():
    step = Step(__doc__)
    args = step.args
    device = torch.device(args.device)
    sizes = ["tiny"] if args.dry_run else ["small", "medium", "large"]
    rows = 1 if args.dry_run else ROWS
    with step.check("loader alone") as figures:
        figures |= measure_loader(args, device, rows)
    per_row = {}  # size -> bytes of memory for each context
    cases = [(size, flags, True) for size in sizes for flags in ([True, False] if size == sizes[0] else [False])]
    cases += [(size, False, False) for size in sizes]
    for size, flags, compiles in cases:
        measured = timed(step, size, flags, compiles, rows, device)
        if compiles and not flags and measured.get("memory_per_row"):
            per_row[size] = measured["memory_per_row"]
    with step.check(f"profile of {sizes[0]}") as figures:
        figures |= {"table": profile_of(args, sizes[0], rows, device)}
    if args.against:
        with step.check(f"against, {sizes[0]}") as figures:
            figures |= against(args, sizes[0], rows, device)
    for size in sizes:
        largest = largest_batch(per_row.get(size), device) or 2 * rows
        timed(step, size, False, True, largest, device)
    step.end()


def timed(step: Step, size: str, flags: bool, compiles: bool, rows: int, device) -> dict:
    """Measure one case, if there is time for it, and record it."""
    name = f"{size}{' with flags' if flags else ''}, batch {rows}, {'compiled' if compiles else 'eager'}"
    if step.seconds_left() < (0 if step.args.dry_run else LONGEST_CASE):
        step.note(name, ok=True, left_out="no time left")
        return {}
    with step.check(name) as figures:
        figures |= {"size": size, "flags": flags, "compiled": compiles, "rows": rows}
        figures |= measure(step.args, size, flags, compiles, rows, device)
    return figures


def build(args, size: str, flags: bool, compiles: bool, rows: int, device):
    """Return (trainer, batches, targets of a batch)."""
    dtype = choose_dtype("bfloat16" if device.type == "cuda" else "float32", device)
    preset = get_config(size)
    train_rows, metadata, share = open_split(preset["context_size"], "train", str(args.data), device,
                                             preset["vocab_size"], None, 0, 1)  # fmt: skip
    fields = {"previous_token": True, "n_states": metadata["n_states"], "state_attention": True} if flags else {}
    states = load_schema_positions(str(args.data), "train", metadata) if flags else None
    torch.manual_seed(0)
    model = GPT(GPTConfig(**gpt_fields(preset), **fields)).to(device)
    optimizers = build_optimizers(model, "muon", preset["weight_decay"], dtype)
    targets = rows * preset["context_size"]
    batches = PackedTrainLoader(train_rows, targets, metadata, states=states, seed=0, **share)
    return Trainer(model, optimizers, dtype, 1.0, 0, Ranks(0, 1), compiles), batches, targets


def measure(args, size: str, flags: bool, compiles: bool, rows: int, device) -> dict:
    """Time updates after a warm-up. Memory is the peak that torch had allocated, in bytes."""
    is_gpu = device.type == "cuda"
    torch.compiler.reset()  # or the model before is still in memory, and compiling again is soon given up
    if is_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    trainer, batches, targets = build(args, size, flags, compiles, rows, device)
    at_rest = torch.cuda.memory_allocated(device) if is_gpu else 0
    started = time.perf_counter()
    for i in range(WARM_UP):
        trainer.step(i + 1, 1e-4, [next(batches)], targets, wait=True)
    warm_up = time.perf_counter() - started
    seconds = update_seconds(trainer, batches, targets)
    memory = torch.cuda.max_memory_allocated(device) if is_gpu else 0
    flops = trainer.model.estimate_flops()
    figures = {
        "parameters": trainer.model.num_parameters(),
        "tokens_per_second": targets / seconds,
        "ms_per_update": 1000 * seconds,
        "tflops": targets / seconds * flops / 1e12,
        "memory": memory,
        "memory_per_row": (memory - at_rest) / rows,
        "warm_up_seconds": warm_up,
    }
    if peak := peak_flops(device):
        figures["mfu"] = targets / seconds * flops / peak
    return figures


def update_seconds(trainer: Trainer, batches, targets: int) -> float:
    """Return the median time of an update in seconds: a batch of another shape may compile in between."""
    trainer.step(WARM_UP + 1, 1e-4, [next(batches)], targets)
    ends = [time.perf_counter()]
    while len(ends) <= MIN_UPDATES or ends[-1] - ends[0] < TIMED_SECONDS:
        trainer.step(WARM_UP + 1 + len(ends), 1e-4, [next(batches)], targets)
        ends.append(time.perf_counter())
    trainer.flush()
    return median(b - a for a, b in pairwise(ends))


def largest_batch(bytes_per_row: float | None, device) -> int | None:
    """Return how many rows should fit on the device, a multiple of 16."""
    if not bytes_per_row:
        return None
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return int(SAFE * free / bytes_per_row) // 16 * 16


def measure_loader(args, device, rows: int) -> dict:
    """Measure how many targets per second the loader can supply while nothing else runs."""
    _, batches, targets = build(args, "tiny", True, False, rows, device)
    next(batches)
    started, count = time.perf_counter(), 0
    while count < MIN_UPDATES or time.perf_counter() - started < TIMED_SECONDS:
        next(batches)
        count += 1
    return {"tokens_per_second": count * targets / (time.perf_counter() - started)}


def profile_of(args, size: str, rows: int, device) -> str:
    """Return torch's table of the operations that take most of the device's time."""
    trainer, batches, targets = build(args, size, True, True, rows, device)
    for i in range(WARM_UP):
        trainer.step(i + 1, 1e-4, [next(batches)], targets, wait=True)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as profiler:
        for i in range(PROFILED):
            trainer.step(WARM_UP + i + 1, 1e-4, [next(batches)], targets, wait=True)
    order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    return profiler.key_averages().table(sort_by=order, row_limit=40, max_name_column_width=60)


def against(args, size: str, rows: int, device) -> dict:
    """Measure another checkout's nanochat.gpt on padded rows with AdamW, as scripts.bench.train does."""
    preset = get_config(size)
    job = {
        "mode": "against", "against": str(args.against), "dtype": "bfloat16", "model_size": size,
        "config": gpt_fields(preset), "device": str(device), "compile": device.type == "cuda", "round": 0,
        "data_dir": str(args.data), "steps": MIN_UPDATES, "device_batch_size": rows,
        **{name: preset[name] for name in ("learning_rate", "weight_decay", "grad_clip")},
    }  # fmt: skip
    result = run_bench(job)
    positions = rows * preset["context_size"]
    return {"ms_per_update": 1000 * result["seconds"], "positions_per_second": positions / result["seconds"],
            "memory": result["memory"]}  # fmt: skip


if __name__ == "__main__":
    main()

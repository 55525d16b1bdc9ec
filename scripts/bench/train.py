"""Measure how fast training is, and how far from the limit, on this machine.

    python -m scripts.bench.train --data_dir prepared/ --output bench.json
    python -m scripts.bench.train --model_size small --against ../nanochat

Each preset is trained for a few updates in several ways:

plain    padded rows, float32, all logits at once, torch's AdamW, malloc as it comes: what is usual elsewhere
against  the same with the nanochat.gpt of another checkout, in each dtype; only with --against
padded   the trainer of scripts.tct_train on padded rows
packed   the same on packed rows, which is what scripts.tct_train does

The last two learn with Muon, the default, whose Newton-Schulz steps are part of the update's time. A useful
token is a target that counts; without --data_dir every one does, so that packing has nothing to gain. MFU is
useful tokens a second * FLOPs of a token / ceiling, and the ceiling what the best of some large square matrix
products reaches here in the same dtype. Every way has a process of its own in each round, all take turns, and
the median of the rounds counts. GiB is the peak memory of the process; on a GPU, what torch had allocated.
"""

import argparse
import json
import math
import os
import platform
import random
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from statistics import mean, median

from model_config import PRESET_NAMES, get_config

# Nothing of nanochat is imported up here: in the process that measures --against it is the other one's.

ROUNDS = 3
WARM_UP = 2  # updates before the clock starts: the first allocates, the second may compile anew
RANDOM_ROWS = 256  # where there is no data
IGNORE_INDEX = -1  # a target that does not count, to every nanochat
CEILING_SECONDS = 2
CEILING_SIZES, GPU_CEILING_SIZES = (1024, 2048, 4096), (4096, 8192)  # of square matrices


def main(argv=None):
    from script_tools.cli import cli_errors

    cli_errors(bench)(argv)


def bench(argv):
    args = parse_arguments(argv)

    from tqdm import tqdm

    from script_tools.files import write_atomic

    machine = run(
        {
            "mode": "probe",
            "device": args.device,
            "data_dir": args.data_dir,
            "compile": args.compile,
            "configs": {name: config_of(get_config(name)) for name in args.model_size},
        }
    )
    print(
        f"{machine['device']} ({machine['name']}), {machine['threads']} threads, torch {machine['torch']}"
        f"{', compiled' if machine['compile'] else ''}; {ROUNDS} rounds of {args.steps} updates of "
        f"{args.device_batch_size} rows, {machine['padded_share']:.0%} of whose targets count",
        flush=True,
    )
    jobs = plan(args, machine)
    results = [[] for _ in jobs]
    with tqdm([*range(len(jobs))] * ROUNDS, unit="run", disable=None) as progress:
        for i in progress:
            progress.set_description(label(jobs[i]))
            results[i].append(run({**jobs[i], "round": len(results[i])}))

    ceilings = {
        job["dtype"]: max(result["flops"] for result in rounds)
        for job, rounds in zip(jobs, results)
        if job["mode"] == "ceiling"
    }
    rows = compare(
        [
            figures(job, rounds, machine, ceilings[job["dtype"]])
            for job, rounds in zip(jobs, results)
            if job["mode"] != "ceiling"
        ]
    )
    for dtype, flops in ceilings.items():
        print(f"ceiling of {dtype}: {flops / 1e12:.3g} TFLOP/s")
    if machine["peak_flops"]:
        print(f"bfloat16 by the data sheet: {machine['peak_flops'] / 1e12:.3g} TFLOP/s")
    show(rows)
    if args.output:
        record = {"flags": vars(args), "rounds": ROUNDS, "machine": machine, "ceilings": ceilings, "rows": rows}
        write_atomic(args.output, json.dumps(record, indent=2).encode() + b"\n")
        print(f"written to {args.output}")


def parse_arguments(argv):
    from script_tools.cli import ArgumentParser

    parser = ArgumentParser(
        prog="python -m scripts.bench.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--model_size",
        nargs="+",
        choices=PRESET_NAMES,
        default=["tiny", "small"],
        metavar="NAME",
        help=f"of {', '.join(PRESET_NAMES)} (default: tiny small)",
    )
    add(
        "--dtype",
        nargs="+",
        choices=("float32", "bfloat16"),
        default=["float32", "bfloat16"],
        metavar="NAME",
        help="of matrix products (default: float32 bfloat16)",
    )
    add("--device", default="auto", metavar="NAME", help="cpu, cuda or mps (default: the best there is)")
    add("--device_batch_size", type=int, default=8, metavar="N", help="rows of an update (default: 8)")
    add("--steps", type=int, default=5, metavar="N", help="updates timed in each round (default: 5)")
    add("--data_dir", metavar="DIR", help="prepared folder (default: random full rows)")
    add(
        "--compile",
        choices=("auto", "on", "off"),
        default="auto",
        help="torch.compile for all but plain; auto is on for a GPU, off for a CPU",
    )
    add("--against", metavar="DIR", help="checkout with another nanochat/gpt.py")
    add("--output", metavar="FILE", help="JSON file for the figures")
    args = parser.parse_args(argv)
    if args.device_batch_size < 1 or args.steps < 1:
        raise ValueError("--device_batch_size and --steps must be at least 1")
    if args.output and not Path(args.output).parent.is_dir():
        raise ValueError(f"--output {args.output}: there is no folder {Path(args.output).parent}")
    if args.against and not Path(args.against, "nanochat/gpt.py").is_file():
        raise ValueError(f"--against {args.against} has no nanochat/gpt.py: give the root of a checkout")
    return args


# -----------------------------------------------------------------------------
# what to measure


def plan(args, machine: dict) -> list[dict]:
    """The jobs of one round: the ceiling of each dtype, then the rows of the table."""
    shared = {
        "device": machine["device"],
        "compile": machine["compile"],
        "data_dir": args.data_dir,
        "steps": args.steps,
        "device_batch_size": args.device_batch_size,
    }
    dtypes = dict.fromkeys(args.dtype)
    jobs = [{**shared, "mode": "ceiling", "dtype": dtype} for dtype in {"float32": None, **dtypes}]
    for name in dict.fromkeys(args.model_size):
        preset = get_config(name)
        row = {
            **shared,
            "model_size": name,
            "config": config_of(preset),
            **{key: preset[key] for key in ("learning_rate", "weight_decay", "grad_clip")},
        }
        jobs.append({**row, "mode": "plain", "dtype": "float32"})
        for dtype in dtypes:
            if args.against:
                jobs.append({**row, "mode": "against", "dtype": dtype, "against": args.against})
            jobs += [{**row, "mode": mode, "dtype": dtype} for mode in ("padded", "packed")]
    return jobs


def config_of(preset: dict) -> dict:
    """The fields of a GPTConfig, those that every nanochat has."""
    return {
        "sequence_len": preset["context_size"],
        "vocab_size": preset["vocab_size"],
        "n_layer": preset["n_layers"],
        "n_head": preset["n_heads"],
        "n_kv_head": preset["n_heads"],
        "n_embd": preset["d_model"],
    }


def run(job: dict) -> dict:
    """What `measure` gives for a job in a process of its own. ValueError where it fails."""
    against = job.get("against")
    first = [str(Path(against).resolve())] if against else []  # there nanochat is looked for
    process = subprocess.run(
        [sys.executable, __file__, "--job", json.dumps(job)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(first + sys.path)},
        capture_output=True,
        text=True,
    )
    if process.returncode == 0:
        return json.loads(process.stdout.splitlines()[-1])
    complaint = process.stderr.strip().rpartition("\n")[2] or f"exit code {process.returncode}"
    if against:
        complaint = f"--against {against}: its nanochat.gpt does not run as {label(job)}: {complaint}"
    elif job["mode"] != "probe":  # our bug, or too little memory
        sys.stderr.write(process.stderr)
        complaint = f"{label(job)} failed: {complaint}"
    raise ValueError(complaint)


# -----------------------------------------------------------------------------
# in the process of a job


def measure(job: dict) -> dict:
    if job["mode"] == "probe":
        return probe(job)

    ours = job["mode"] in ("padded", "packed")
    if ours:
        from nanochat.device import tune_process

        tune_process()  # before torch is loaded
    import torch

    device = torch.device(job["device"])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    synchronize = torch.accelerator.synchronize if device.type != "cpu" else lambda: None
    if job["mode"] == "ceiling":
        return {"flops": matmul_flops(job, device, synchronize)}
    torch.manual_seed(job["round"])
    train = train_ours if ours else train_usually
    updates = train(job, device, *load_rows(job))
    list(islice(updates, WARM_UP))
    synchronize()
    started = time.perf_counter()
    timed = list(islice(updates, job["steps"]))
    synchronize()
    seconds = time.perf_counter() - started
    for _, wait in timed:
        wait()
    return {
        "seconds": seconds / len(timed),
        "positions": mean(positions for positions, _ in timed),
        "memory": torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_memory(),
    }


def peak_memory() -> float:
    """Bytes that this process had at most; not a number if the system does not say, as Windows."""
    try:
        import resource
    except ImportError:
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def probe(job: dict) -> dict:
    """The machine, the data and the models. ValueError or OSError where what the user gave does not hold."""
    import torch

    from nanochat.device import choose_compile, choose_device, peak_flops
    from nanochat.gpt import GPT, GPTConfig
    from nanochat.packing import count_tokens
    from workflow_data.loaders import open_split

    device = choose_device(job["device"])
    padded_share, flops = 1.0, {}
    for name, config in job["configs"].items():
        if job["data_dir"]:
            rows, metadata, _ = open_split(
                config["sequence_len"], "train", job["data_dir"], device, config["vocab_size"], None, 0, 1
            )
            padded_share = float(count_tokens(rows, metadata["pad_token"]).sum() / rows[:, 1:].numel())
        with torch.device("meta"):
            flops[name] = GPT(GPTConfig(**config)).estimate_flops()
    return {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "compile": choose_compile(job["compile"], device),
        "peak_flops": peak_flops(device),
        "padded_share": padded_share,
        "flops_of_a_token": flops,
    }


def matmul_flops(job: dict, device, synchronize) -> float:
    """The most FLOPs a second of large square products, computed as the trainer would have them."""
    import torch

    from nanochat.device import choose_dtype

    dtype = choose_dtype(job["dtype"], device)
    best, deadline = 0.0, time.perf_counter() + CEILING_SECONDS
    for size in GPU_CEILING_SIZES if device.type == "cuda" else CEILING_SIZES:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        for _ in range(10):
            synchronize()
            started = time.perf_counter()
            a @ b
            synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - started))
            if time.perf_counter() > deadline:
                return best
    return best


def load_rows(job: dict):
    """(rows, pad token): the prepared windows (R, C + 1) int16, or random ones without padding."""
    import torch

    if job["data_dir"]:
        from workflow_data.table_file import open_table

        folder = Path(job["data_dir"]).expanduser()
        metadata = json.loads((folder / "metadata.json").read_bytes())
        return open_table(folder / "train.pt"), metadata["pad_token"]
    shape = RANDOM_ROWS, job["config"]["sequence_len"] + 1
    return torch.randint(1, job["config"]["vocab_size"], shape, dtype=torch.int16), 0


def train_ours(job: dict, device, rows, pad_token: int):
    """Updates as scripts.tct_train makes them. Each gives the number of its positions, and a function that
    waits for its end."""
    from nanochat.device import choose_dtype
    from nanochat.distributed import Ranks
    from nanochat.gpt import GPT, GPTConfig
    from nanochat.optim import build_optimizers
    from nanochat.packing import PackedTrainLoader
    from nanochat.trainer import Trainer
    from workflow_data.loaders import TrainLoader

    dtype = choose_dtype(job["dtype"], device)
    model = GPT(GPTConfig(**job["config"])).to(device)
    optimizers = build_optimizers(model, "muon", job["weight_decay"], dtype)
    trainer = Trainer(model, optimizers, dtype, job["grad_clip"], 0, Ranks(0, 1), job["compile"])
    loading = {"metadata": {"pad_token": pad_token}, "seed": job["round"], "device": device}
    if job["mode"] == "packed":
        batches = PackedTrainLoader(rows, job["device_batch_size"] * job["config"]["sequence_len"], **loading)
    else:
        batches = ((x, y, None) for x, y in TrainLoader(rows, job["device_batch_size"], **loading))
    for step, batch in enumerate(batches, 1):
        targets = (batch[1] != IGNORE_INDEX).sum()
        update = trainer.update(step, job["learning_rate"], [batch], targets)
        yield batch[0].numel(), update.wait


def train_usually(job: dict, device, rows, pad_token: int):
    """The same for padded rows and AdamW, with our GPT or the one of another checkout."""
    import torch
    import torch.nn.functional as F

    from nanochat import gpt

    dtype = getattr(torch, job["dtype"])
    model = gpt.GPT(gpt.GPTConfig(**job["config"])).to(device)
    if job["mode"] == "plain":

        def loss_of(x, y):
            logits = model.logits(model.hidden(x))  # (B, C, V)
            return F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=IGNORE_INDEX)
    else:
        if Path(job["against"]).resolve() not in Path(gpt.__file__).resolve().parents:
            raise ValueError(f"python imports {gpt.__file__} in its place")
        if hasattr(model, "init_weights"):
            model.init_weights()
        if dtype == torch.float32:  # some keep the embedding in bfloat16, which only autocast puts up with
            for parameter in model.parameters():
                parameter.data = parameter.data.float()
        loss_of = torch.compile(model, dynamic=False) if job["compile"] else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=job["learning_rate"])
    order = random.Random(job["round"])
    while True:
        chosen = rows[order.choices(range(len(rows)), k=job["device_batch_size"])].long()  # (B, C + 1)
        x, y = chosen[:, :-1].contiguous().to(device), chosen[:, 1:].contiguous().to(device)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = loss_of(x, y.masked_fill(y == pad_token, IGNORE_INDEX))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield x.numel(), loss.detach().item


# -----------------------------------------------------------------------------
# figures


def figures(job: dict, rounds: list[dict], machine: dict, ceiling: float) -> dict:
    """A row of the table, from what was measured in its rounds."""
    positions, seconds = mean(r["positions"] for r in rounds), median(r["seconds"] for r in rounds)
    targets = job["device_batch_size"] * job["config"]["sequence_len"]
    share = targets / positions if job["mode"] == "packed" else machine["padded_share"]
    useful = share * positions / seconds
    return {
        "model_size": job["model_size"],
        "dtype": job["dtype"],
        "mode": job["mode"],
        "tokens_per_second": positions / seconds,
        "useful_tokens_per_second": useful,
        "useful_share": share,
        "seconds_per_update": seconds,
        "seconds_of_rounds": [r["seconds"] for r in rounds],
        "mfu": useful * machine["flops_of_a_token"][job["model_size"]] / ceiling,
        "peak_memory_bytes": max(r["memory"] for r in rounds),
    }


def compare(rows: list[dict]) -> list[dict]:
    """The rows, each with its useful tokens a second as a multiple of plain's and, in the same dtype, of the
    other checkout's; None where there is no such row."""
    speeds = {label(row): row["useful_tokens_per_second"] for row in rows}
    for row in rows:
        for mode, dtype in (("plain", "float32"), ("against", row["dtype"])):
            speed = speeds.get(label({**row, "dtype": dtype, "mode": mode}))
            row[f"times_{mode}"] = row["useful_tokens_per_second"] / speed if speed else None
    return rows


def show(rows: list[dict]):
    """Print the table, and what the best of our rows gains."""
    from script_tools.tables import columns as aligned

    ours = [row for row in rows if row["mode"] in ("padded", "packed")]
    best = max(ours, key=lambda row: row["times_plain"])
    line = f"best: {label(best)}, {best['times_plain']:.2f} times the useful tokens per second of plain"
    columns = {
        "tok/s": "{tokens_per_second:,.0f}",
        "useful tok/s": "{useful_tokens_per_second:,.0f}",
        "useful": "{useful_share:.1%}",
        "ms/update": "{ms:,.1f}",
        "MFU": "{mfu:.1%}",
        "GiB": "{gib:.2f}",
        "x plain": "{times_plain:.2f}",
    }
    if best["times_against"]:
        columns["x against"] = "{times_against}"
        line += f", {best['times_against']:.2f} times those of the other checkout"
    cells = []
    for row in rows:
        against = f"{row['times_against']:.2f}" if row["times_against"] else "-"
        values = {
            **row,
            "ms": 1e3 * row["seconds_per_update"],
            "gib": row["peak_memory_bytes"] / 2**30,
            "times_against": against,
        }
        cells.append([label(row), *(column.format(**values) for column in columns.values())])
    print(f"\n{aligned([['training', *columns], *cells])}")
    print(line)


def label(job: dict) -> str:
    """
    >>> label({"model_size": "tiny", "dtype": "float32", "mode": "packed"})
    'tiny float32 packed'
    """
    return " ".join(job[key] for key in ("model_size", "dtype", "mode") if key in job)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        try:
            print(json.dumps(measure(json.loads(sys.argv[2]))))
        except (ValueError, OSError) as error:
            sys.exit(str(error))
    else:
        main()

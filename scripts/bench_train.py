"""Measure how fast training is, and how far from the limit, on this machine.

    python -m scripts.bench_train --data_dir prepared/ --output bench.json
    python -m scripts.bench_train --model_size small --against ../nanochat

Each preset is trained for a few updates in several ways:

plain    padded rows, float32, all logits at once, torch's AdamW, malloc as it comes: what is usual elsewhere
against  nanochat.gpt of another checkout on the same padded rows, with torch's AdamW; only with --against
padded   the trainer of scripts.tct_train on padded rows
packed   the same on packed rows, which is what scripts.tct_train does

The last two learn with Muon, the default, whose Newton-Schulz steps are part of the update's time. A useful
token is a target that counts; without --data_dir every one does, so that packing has nothing to gain. MFU is
useful tokens a second * FLOPs of a token / ceiling, and the ceiling what the best of some large square matrix
products reaches here in the same dtype. Every way has a process of its own in each round, all take turns, and
the median of the rounds counts. Memory is the peak of the whole process; on a GPU, what torch had allocated.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from itertools import count, islice
from pathlib import Path
from statistics import mean, median

from model_config import PRESET_NAMES, get_config

# Nothing of nanochat is imported up here: in the process that measures --against it is the other one's.

ROUNDS = 3
WARM_UP = 2           # updates before the clock starts: the first allocates, the second may compile anew
RANDOM_ROWS = 256     # where there is no data
IGNORE_INDEX = -1     # of targets, to nanochat and to us
CEILING_SECONDS = 2.0


def main(argv=None):
    from nanochat.common import user_errors

    user_errors(bench)(argv)


def bench(argv):
    args = parse_arguments(argv)

    from nanochat.common import write_atomic
    from tqdm import tqdm

    machine = run({"mode": "probe", "device": args.device, "data_dir": args.data_dir, "compile": args.compile,
                   "config": config_of(get_config(args.model_size[0]))})
    jobs = plan(args, machine)
    print(f"{machine['device']} ({machine['name']}), {machine['threads']} threads, torch {machine['torch']}"
          f"{', compiled' if machine['compile'] else ''}; {ROUNDS} rounds of {args.steps} updates of "
          f"{args.device_batch_size} rows, {machine['padded_share']:.0%} of their targets count", flush=True)
    measured = [[] for _ in jobs]
    turns = [(turn, i) for turn in range(ROUNDS) for i in range(len(jobs))]
    with tqdm(turns, unit="run", disable=None) as progress:
        for turn, i in progress:
            progress.set_description(label(jobs[i]))
            measured[i].append(run({**jobs[i], "round": turn}))

    ceilings = {job["dtype"]: max(result["flops"] for result in results)
                for job, results in zip(jobs, measured) if job["mode"] == "ceiling"}
    rows = compare([figures(job, results, ceilings[job["dtype"]], machine["padded_share"])
                    for job, results in zip(jobs, measured) if job["mode"] != "ceiling"])
    for dtype, flops in ceilings.items():
        print(f"ceiling of {dtype}: {flops / 1e12:.3g} TFLOP/s")
    if machine["peak_flops"]:
        print(f"the data sheet's bfloat16: {machine['peak_flops'] / 1e12:.3g} TFLOP/s")
    show(rows)
    if args.output:
        record = {"machine": machine, "flags": vars(args) | {"output": str(args.output)}, "rounds": ROUNDS,
                  "ceilings": ceilings, "rows": rows}
        write_atomic(args.output, json.dumps(record, indent=2).encode() + b"\n")
        print(f"written to {args.output}")


def parse_arguments(argv):
    from nanochat.common import ArgumentParser

    parser = ArgumentParser(prog="python -m scripts.bench_train", description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_size", nargs="+", choices=PRESET_NAMES, default=["tiny", "small"],
                        metavar="NAME", help=f"of {', '.join(PRESET_NAMES)} (default: tiny small)")
    parser.add_argument("--dtype", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"],
                        metavar="NAME", help="of matrix products (default: float32 bfloat16)")
    parser.add_argument("--device", default="auto", metavar="NAME",
                        help="cpu, cuda or mps (default: the best there is)")
    parser.add_argument("--device_batch_size", type=int, default=8, metavar="N",
                        help="rows of an update (default: 8)")
    parser.add_argument("--steps", type=int, default=5, metavar="N",
                        help="updates that are timed in each round (default: 5)")
    parser.add_argument("--data_dir", metavar="DIR", help="prepared folder (default: random full rows)")
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="auto",
                        help="torch.compile, but for plain; auto is on for a GPU, off for a CPU")
    parser.add_argument("--against", metavar="DIR", help="checkout with another nanochat/gpt.py")
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON file for the figures")
    args = parser.parse_args(argv)
    if args.device_batch_size < 1 or args.steps < 1:
        raise ValueError("--device_batch_size and --steps must be at least 1")
    if args.output and not args.output.parent.is_dir():
        raise ValueError(f"--output {args.output}: there is no folder {args.output.parent}")
    if args.data_dir:
        args.data_dir = str(Path(args.data_dir).expanduser())
    if args.against:
        args.against = str(Path(args.against).expanduser().resolve())
        if not Path(args.against, "nanochat/gpt.py").is_file():
            raise ValueError(f"--against {args.against} has no nanochat/gpt.py: give the root of a checkout")
    return args


# -----------------------------------------------------------------------------
# what to measure

def plan(args, machine: dict) -> list[dict]:
    """The jobs of one round: the ceiling of each dtype, then the rows of the table."""
    shared = {"device": machine["device"], "compile": machine["compile"], "steps": args.steps,
              "device_batch_size": args.device_batch_size, "data_dir": args.data_dir}
    dtypes = list(dict.fromkeys(args.dtype))
    jobs = [{**shared, "mode": "ceiling", "dtype": dtype} for dtype in dict.fromkeys(["float32", *dtypes])]
    for name in dict.fromkeys(args.model_size):
        preset = get_config(name)
        ours = {**shared, "model_size": name, "config": config_of(preset),
                **{key: preset[key] for key in ("learning_rate", "weight_decay", "grad_clip")}}
        jobs.append({**ours, "mode": "plain", "dtype": "float32"})
        for dtype in dtypes:
            if args.against:
                jobs.append({**ours, "mode": "against", "dtype": dtype, "against": args.against})
            jobs += [{**ours, "mode": mode, "dtype": dtype} for mode in ("padded", "packed")]
    return jobs


def config_of(preset: dict) -> dict:
    """The fields of a GPTConfig, those that every nanochat has."""
    return {"sequence_len": preset["context_size"], "vocab_size": preset["vocab_size"],
            "n_layer": preset["n_layers"], "n_head": preset["n_heads"], "n_kv_head": preset["n_heads"],
            "n_embd": preset["d_model"]}


def run(job: dict) -> dict:
    """What `measure` says of a job in a process of its own. ValueError where that fails."""
    path = os.pathsep.join([job["against"]] * ("against" in job) + sys.path)  # whose nanochat comes first
    process = subprocess.run([sys.executable, __file__, "--job", json.dumps(job)], capture_output=True, text=True,
                             env={**os.environ, "PYTHONPATH": path})
    if process.returncode == 0:
        return json.loads(process.stdout.splitlines()[-1])
    complaint = process.stderr.strip().rpartition("\n")[2] or f"exit code {process.returncode}"
    if job["mode"] == "probe":
        raise ValueError(complaint)
    if job["mode"] == "against":
        raise ValueError(f"--against {job['against']}: its nanochat.gpt does not run as {label(job)}: {complaint}")
    sys.stderr.write(process.stderr)
    raise ValueError(f"{label(job)} failed: {complaint}")


# -----------------------------------------------------------------------------
# in the process of a job

def measure(job: dict) -> dict:
    import torch

    if job["mode"] == "probe":
        return probe(job)
    device = torch.device(job["device"])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if job["mode"] == "ceiling":
        return {"flops": matmul_flops(job, device)}
    torch.manual_seed(job["round"])
    train = {"plain": train_plainly, "against": train_other}.get(job["mode"], train_ours)
    updates = train(job, device, *load_rows(job))
    list(islice(updates, WARM_UP))
    synchronize(device)
    started = time.perf_counter()
    timed = list(islice(updates, job["steps"]))
    synchronize(device)
    seconds = time.perf_counter() - started
    for _, outcome in timed:
        outcome()
    return {"seconds": seconds / len(timed), "positions": mean(positions for positions, _ in timed),
            "memory": peak_memory(device), "flops": updates_flops}


def probe(job: dict) -> dict:
    """The machine, and what the data is like. ValueError or OSError where what the user gave does not hold."""
    import torch

    from nanochat.common import choose_compile, choose_device, peak_flops
    from tct_dataloader import open_split
    from tct_packing import count_tokens

    device = choose_device(job["device"])
    if job["data_dir"]:
        config = job["config"]
        rows, metadata, _ = open_split(config["sequence_len"], "train", job["data_dir"], device,
                                       config["vocab_size"], None, 0, 1)
        padded_share = float(count_tokens(rows, metadata["pad_token"]).sum()) / (rows.numel() - len(rows))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": str(device), "name": name, "threads": torch.get_num_threads(), "torch": torch.__version__,
            "compile": choose_compile(job["compile"], device), "peak_flops": peak_flops(device),
            "padded_share": padded_share if job["data_dir"] else 1.0}


def matmul_flops(job: dict, device) -> float:
    """The most FLOPs a second of large square products, computed as the trainer would have them."""
    import torch

    from nanochat.common import choose_dtype

    dtype = choose_dtype(job["dtype"], device)
    best, deadline = 0.0, time.perf_counter() + CEILING_SECONDS
    for size in (4096, 8192) if device.type == "cuda" else (1024, 2048, 4096):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        for _ in range(10):
            synchronize(device)
            started = time.perf_counter()
            a @ b
            synchronize(device)
            best = max(best, 2 * size**3 / (time.perf_counter() - started))
            if time.perf_counter() > deadline:
                return best
    return best


def load_rows(job: dict):
    """(rows, pad token): the prepared windows (R, C + 1) int16, or random ones without padding."""
    import torch

    if job["data_dir"]:
        folder = Path(job["data_dir"])
        metadata = json.loads((folder / "metadata.json").read_bytes())
        return torch.load(folder / "train.pt", mmap=True, weights_only=True), metadata["pad_token"]
    shape = RANDOM_ROWS, job["config"]["sequence_len"] + 1
    return torch.randint(1, job["config"]["vocab_size"], shape, dtype=torch.int16), 0

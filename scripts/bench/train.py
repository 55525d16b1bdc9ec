"""Measure how fast training is, and how far from the limit, on this machine.

    python -m scripts.bench.train --data_dir prepared/ --output bench.json
    python -m scripts.bench.train --model_size small --against ../nanochat

Each preset is trained for a few updates in several modes:

plain    padded rows, float32, all logits at once, torch's AdamW, default malloc: the usual baseline
against  the same with the nanochat.gpt of another checkout, in each dtype; only with --against
padded   the trainer of scripts.tct_train on padded rows
packed   the same on packed rows, as in scripts.tct_train

The last two use Muon, the default, and their time includes its Newton-Schulz steps. A useful token is a target that
counts; without --data_dir every target counts, so packing gains nothing. MFU is useful tokens per second * FLOPs per
token / ceiling. The ceiling is the best of several large square matrix products on this machine in the same dtype.
Each measurement runs in its own process; in each round all modes take turns, and the median of the rounds counts. GiB
is the peak memory of the process; on a GPU, that allocated by torch.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean, median

from tqdm import tqdm

from model_config import PRESET_NAMES, get_config, gpt_fields
from nanochat.process import OPENMP_SETTINGS
from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_json
from script_tools.tables import columns

ROUNDS = 3


@cli_errors
def main(argv=None):
    args = parse_arguments(argv)
    configs = {name: gpt_fields(get_config(name)) for name in args.model_size}
    place = {"device": args.device, "data_dir": args.data_dir, "compile": args.compile}
    machine = run({"mode": "probe", "configs": configs, **place})
    print(
        f"{machine['device']} ({machine['name']}), {machine['threads']} threads, torch {machine['torch']}"
        f"{', compiled' if machine['compile'] else ''}; {ROUNDS} rounds of {args.steps} updates of "
        f"{args.device_batch_size} rows, {machine['padded_share']:.0%} of whose targets count",
        flush=True,
    )
    measured = measure_all(plan(args, machine))
    rows, ceilings = [], {}
    for job, rounds in measured:  # the ceilings come first
        if job["mode"] == "ceiling":
            ceilings[job["dtype"]] = max(result["flops"] for result in rounds)
        else:
            rows.append(figures(job, rounds, machine, ceilings[job["dtype"]]))
    for dtype, flops in ceilings.items():
        print(f"ceiling of {dtype}: {flops / 1e12:.3g} TFLOP/s")
    if machine["peak_flops"]:
        print(f"bfloat16 by the data sheet: {machine['peak_flops'] / 1e12:.3g} TFLOP/s")
    show(compare(rows))
    if args.output:
        record = {"flags": vars(args), "rounds": ROUNDS, "machine": machine, "ceilings": ceilings, "rows": rows}
        write_json(args.output, record)
        print(f"written to {args.output}")


def parse_arguments(argv):
    parser = ArgumentParser(
        prog="python -m scripts.bench.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, several = parser.add, {"type": str, "nargs": "+"}
    presets, dtypes = ["tiny", "small"], ["float32", "bfloat16"]
    add("--model_size", "presets (default: tiny small)", presets, choices=PRESET_NAMES, **several)
    add("--dtype", "of matrix products (default: both)", dtypes, choices=dtypes, **several)
    add("--device", "cpu, cuda or mps (default: the best available)", "auto")
    add("--device_batch_size", "rows per update", 8)
    add("--steps", "timed updates per round", 5)
    add("--data_dir", "prepared folder (default: random full rows)", metavar="DIR")
    text = "torch.compile for all modes but plain; auto is on for a GPU and off for a CPU"
    add("--compile", text, "auto", choices=("auto", "on", "off"))
    add("--against", "checkout with another nanochat/gpt.py", metavar="DIR")
    add("--output", "write the figures to this JSON file", metavar="FILE")
    args = parser.parse_args(argv)
    if args.device_batch_size < 1 or args.steps < 1:
        raise ValueError("--device_batch_size and --steps must be at least 1")
    if args.output and not Path(args.output).parent.is_dir():
        raise ValueError(f"--output {args.output}: there is no folder {Path(args.output).parent}")
    if args.against and not Path(args.against, "nanochat/gpt.py").is_file():
        raise ValueError(f"--against {args.against} has no nanochat/gpt.py: give the root of a checkout")
    return args


def plan(args, machine: dict) -> list[dict]:
    """Return the jobs of one round: the ceiling of each dtype, then the rows of the table."""
    shared = {name: machine[name] for name in ("device", "compile")}
    shared |= {name: getattr(args, name) for name in ("data_dir", "steps", "device_batch_size")}
    dtypes = dict.fromkeys(args.dtype)
    jobs = [{**shared, "mode": "ceiling", "dtype": dtype} for dtype in {"float32": None, **dtypes}]
    for name in dict.fromkeys(args.model_size):
        preset = get_config(name)
        rates = {key: preset[key] for key in ("learning_rate", "weight_decay", "grad_clip")}
        row = {**shared, "model_size": name, "config": gpt_fields(preset), **rates}
        jobs.append({**row, "mode": "plain", "dtype": "float32"})
        for dtype in dtypes:
            if args.against:
                jobs.append({**row, "mode": "against", "dtype": dtype, "against": args.against})
            jobs += [{**row, "mode": mode, "dtype": dtype} for mode in ("padded", "packed")]
    return jobs


def measure_all(jobs: list[dict]) -> list[tuple[dict, list[dict]]]:
    """Return each job with its results, one for each round; in each round all jobs take turns."""
    results = [[] for _ in jobs]
    with tqdm([*range(len(jobs))] * ROUNDS, unit="run", disable=None) as progress:
        for i in progress:
            progress.set_description(label(jobs[i]))
            results[i].append(run({**jobs[i], "round": len(results[i])}))
    return list(zip(jobs, results))


def run(job: dict) -> dict:
    """Return what train_job.measure returns for a job, in a process of its own. ValueError if it fails."""
    against, is_tuned = job.get("against"), job["mode"] in ("padded", "packed")
    first = [str(Path(against).resolve())] if against else []  # where Python looks for nanochat first
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(first + sys.path)}
    environment = (OPENMP_SETTINGS if is_tuned else {}) | environment
    command = [sys.executable, str(Path(__file__).with_name("train_job.py")), json.dumps(job)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    if process.returncode == 0:
        return json.loads(process.stdout.splitlines()[-1])
    complaint = process.stderr.strip().rpartition("\n")[2] or f"exit code {process.returncode}"
    if against:
        complaint = f"--against {against}: its nanochat.gpt does not run as {label(job)}: {complaint}"
    elif job["mode"] != "probe":  # our bug, or too little memory
        sys.stderr.write(process.stderr)
        complaint = f"{label(job)} failed: {complaint}"
    raise ValueError(complaint)


def figures(job: dict, rounds: list[dict], machine: dict, ceiling: float) -> dict:
    positions, seconds = mean(r["positions"] for r in rounds), median(r["seconds"] for r in rounds)
    targets = job["device_batch_size"] * job["config"]["sequence_len"]
    share = targets / positions if job["mode"] == "packed" else machine["padded_share"]
    useful = share * positions / seconds
    return {
        **{name: job[name] for name in ("model_size", "dtype", "mode")},
        "tokens_per_second": positions / seconds,
        "useful_tokens_per_second": useful,
        "useful_share": share,
        "seconds_per_update": seconds,
        "seconds_of_rounds": [r["seconds"] for r in rounds],
        "mfu": useful * machine["flops_of_a_token"][job["model_size"]] / ceiling,
        "peak_memory_bytes": max(r["memory"] for r in rounds),
    }


def compare(rows: list[dict]) -> list[dict]:
    """Add to each row its useful tokens per second as a multiple of plain's and, in the same dtype, of against's.

    The multiple is None if there is no such row.
    """
    speeds = {label(row): row["useful_tokens_per_second"] for row in rows}
    for row in rows:
        for mode, dtype in (("plain", "float32"), ("against", row["dtype"])):
            speed = speeds.get(label({**row, "dtype": dtype, "mode": mode}))
            row[f"times_{mode}"] = row["useful_tokens_per_second"] / speed if speed else None
    return rows


def show(rows: list[dict]):
    """Print the table, and the gain of our best row."""
    ours = [row for row in rows if row["mode"] in ("padded", "packed")]
    best = max(ours, key=lambda row: row["times_plain"])
    line = f"best: {label(best)}, {best['times_plain']:.2f} times the useful tokens per second of plain"
    header = ["training", "tok/s", "useful tok/s", "useful", "ms/update", "MFU", "GiB", "x plain"]
    cells = [
        [
            label(row),
            f"{row['tokens_per_second']:,.0f}",
            f"{row['useful_tokens_per_second']:,.0f}",
            f"{row['useful_share']:.1%}",
            f"{1e3 * row['seconds_per_update']:,.1f}",
            f"{row['mfu']:.1%}",
            f"{row['peak_memory_bytes'] / 2**30:.2f}",
            f"{row['times_plain']:.2f}",
        ]
        for row in rows
    ]
    if best["times_against"]:
        line += f", {best['times_against']:.2f} times those of the other checkout"
        header.append("x against")
        for row, cell in zip(rows, cells):
            cell.append(f"{row['times_against']:.2f}" if row["times_against"] else "-")
    print(f"\n{columns([header, *cells])}")
    print(line)


def label(job: dict) -> str:
    """Return the name of a job.

    >>> label({"model_size": "tiny", "dtype": "float32", "mode": "packed"})
    'tiny float32 packed'
    """
    return " ".join(job[key] for key in ("model_size", "dtype", "mode") if key in job)


if __name__ == "__main__":
    main()

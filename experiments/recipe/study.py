"""Compare the default recipe with AdamW and the documented flags, on real workflows split by owner.

    python experiments/recipe/study.py prepare --workflows WORKFLOWS --work WORK   # folders OWNER__REPOSITORY
    python experiments/recipe/study.py run --work WORK                             # an hour on two cores
    python experiments/recipe/study.py plot --work WORK

Every run is scripts.tct_train on one core. Two runs are active at a time, so that both sides have the same machine.
Each side makes as many updates as fit in 20 minutes on one core; `run` first measures how many these are.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
MINUTES = 20
TRIAL = 60  # iterations to measure the speed of a side
SIDES = {
    "default": [],
    "adamw": [
        "--optimizer=adamw",
        "--schedule=cosine",
        "--learning_rate=3e-4",
        "--weight_decay=0.1",
        "--warmup_iters=200",
        "--grad_clip=1.0",
    ],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("prepare", "run", "plot"))
    parser.add_argument("--workflows", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    flags = parser.parse_args()
    {"prepare": prepare, "run": run, "plot": plot}[flags.what](flags)


def prepare(flags):
    """Make a folder for each owner, and prepare them so that no owner is in both splits."""
    for folder in sorted(flags.workflows.iterdir()):
        owner, repository = folder.name.split("__", 1)
        shutil.copytree(folder, flags.work / "owners" / owner / repository, dirs_exist_ok=True)
    for owner in (flags.work / "owners").iterdir():  # the split is by folder
        for file in [path for path in owner.rglob("*") if path.is_file()]:
            if file.parent != owner:
                file.rename(owner / f"{file.parent.name}__{file.name}")
    subprocess.run(
        [
            sys.executable,
            "tct-bundle/scripts/prepare_training_data.py",
            "--input",
            flags.work / "owners",
            "--output",
            flags.work / "prepared",
            "--context-size",
            "512",
            "--stride",
            "32",
            "--window-step",
            "256",
            "--train-split",
            "0.8",
            "--split-by",
            "folder",
        ],
        check=True,
    )


def run(flags):
    iterations = {}
    for side in SIDES:  # one after the other; two copies at a time, because the runs later share the machine too
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda copy, side=side: train(flags.work, f"trial-{side}-{copy}", side, 0, TRIAL), (0, 1)))
        speeds = [
            record["tokens_per_second"]
            for record in metrics(flags.work / f"trial-{side}-0")
            if record.get("loss") and record["step"] > TRIAL // 2
        ]
        iterations[side] = round(60 * MINUTES * sum(speeds) / len(speeds) / 4096)
    print(f"iterations in {MINUTES} minutes on one core: {iterations}", flush=True)
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(train, flags.work, f"{side}-{seed}", side, seed, iterations[side])
            for seed in SEEDS
            for side in SIDES
        ]
        for job in jobs:
            print(job.result(), flush=True)


def train(work: Path, name: str, side: str, seed: int, iterations: int) -> str:
    """Train in work/name unless that is done. Return a line with the CPU time of all runs."""
    command = [
        sys.executable,
        "-m",
        "scripts.tct_train",
        "--model_size=tiny",
        f"--data_dir={work / 'prepared'}",
        f"--checkpoint_dir={work / name}",
        f"--num_iterations={iterations}",
        f"--seed={seed}",
        *SIDES[side],
        "--device=cpu",
        "--dtype=bfloat16",
        "--log_every=20",
        "--eval_windows=400",
        f"--eval_every={max(1, iterations // 12)}",
    ]
    if not list((work / name).glob(f"meta_{iterations:06d}.json")):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN)
    return f"{name}: done, {(seconds.ru_utime + seconds.ru_stime) / 60:.1f} minutes of CPU time for all runs so far"


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def plot(flags):
    """Write curves.png and results.json next to this file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    results = {}
    for side, color in zip(SIDES, ("tab:blue", "tab:orange")):
        for seed in SEEDS:
            if json.loads((flags.work / f"{side}-{seed}" / "config.json").read_text())["status"] != "finished":
                continue
            records = [record for record in metrics(flags.work / f"{side}-{seed}") if "val_bpb" in record]
            last = records[-1]["step"]
            curve = [(MINUTES * record["step"] / last, record["val_bpb"]) for record in records]
            results[f"{side}-{seed}"] = {"iterations": last, "curve": curve}
            axes.plot(*zip(*curve), "o-", color=color, markersize=3, linewidth=1, label=side if not seed else None)
    axes.set(
        xlabel=f"minutes on one core ({MINUTES} in total)",
        ylabel="bits per byte, held-out owners",
        title="tiny, a line for each seed",
    )
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(HERE / "curves.png", dpi=120)
    (HERE / "results.json").write_text(json.dumps(results, indent=1))
    for name, result in results.items():
        print(f"{name:<12}{result['iterations']:>7} iterations  {result['curve'][-1][1]:.4f} bits per byte")


if __name__ == "__main__":
    main()

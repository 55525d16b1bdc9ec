"""Run a study of experiments/: prepare, train every arm with every seed, and draw the report.

    python -m scripts.run_study experiments/exp004-schedule --workflows WORKFLOWS --work out/studies

The folder's study.json says what to run: {"title", "question", "prepare": flags of prepare_training_data.py, "train":
flags of scripts.tct_train, "seeds", "reference": an arm, "arms": {name: {"prepare", "train", "seeds", "note"}}}. What an
arm says overrides what all have in common. "own_merges" learns the workflow tokenizer's merges from the training
workflows alone, for the one that is shipped knows all. Owners are either trained on or held out. A finished run is
not run again and one that was stopped goes on, so the command may be given as often as it takes.

Writes results.json, study.png and README.md to the folder; conclusion.md there, written by hand, becomes part of it.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nanochat.common import ArgumentParser, user_errors, write_atomic

PREPARE = "tct-bundle/scripts/prepare_training_data.py"
BUILD = "tct-bundle/scripts/build_tokenizer.py"
KEYS = {"title", "question", "prepare", "train", "seeds", "reference", "own_merges", "arms"}
ARM_KEYS = {"prepare", "train", "seeds", "note"}
VALIDATIONS = 8  # of a run
ALL_WINDOWS = 1_000_000_000
SUFFIXES = {".yml", ".yaml", ".json"}


@dataclass(frozen=True)
class Run:
    """One training run: an arm with a seed."""

    arm: str
    seed: int
    prepare: dict  # flags
    train: dict    # flags

    @property
    def name(self) -> str:
        return f"{self.arm.replace(' ', '_').replace('/', '_').replace(',', '')}-{self.seed}"


@user_errors
def main(argv=None):
    parser = ArgumentParser(prog="python -m scripts.run_study", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("study", type=Path, metavar="FOLDER", help="with study.json, such as experiments/exp004-schedule")
    add("--workflows", type=Path, metavar="DIR", help="folders OWNER__REPOSITORY of workflows; needed until all is trained")
    add("--work", type=Path, default=Path("out/studies"), metavar="DIR", help="for data and checkpoints (%(default)s)")
    add("--jobs", type=int, default=2, metavar="N", help="runs at a time, each on one core (default 2)")
    add("--device", default="cpu", help="cpu; or cuda, where runs come one after the other (default cpu)")
    add("--report-only", action="store_true", help="draw the report again from what results.json has")
    args = parser.parse_args(argv)
    study = read_study(args.study)
    results = read_results(args.study)
    if not args.report_only:
        if not args.workflows or not args.workflows.is_dir():
            raise ValueError("--workflows is needed: a folder of workflows, in folders OWNER__REPOSITORY")
        results = train_all(args, study, results)
    write_report(args.study, study, results)
    print(f"written to {args.study}: README.md, results.json, study.png")


def read_study(folder: Path) -> dict:
    """study.json. ValueError or OSError where it is none."""
    path = folder / "study.json"
    try:
        study = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    for where, found, known in [("", study, KEYS), *((f"arms.{arm}.", value, ARM_KEYS)
                                                     for arm, value in study.get("arms", {}).items())]:
        if unknown := found.keys() - known:
            raise ValueError(f"{path}: there is no {where}{min(unknown)}; known are {', '.join(sorted(known))}")
    if missing := {"title", "question", "train", "seeds", "arms", "reference"} - study.keys():
        raise ValueError(f"{path}: {min(missing)} is missing")
    if study["reference"] not in study["arms"]:
        raise ValueError(f"{path}: the reference {study['reference']!r} is no arm")
    return study


def runs_of(study: dict) -> list[Run]:
    """All runs, those of one seed together, so that a study that is stopped early has whole seeds."""
    runs = [Run(name, seed, study.get("prepare", {}) | arm.get("prepare", {}), study["train"] | arm.get("train", {}))
            for name, arm in study["arms"].items() for seed in arm.get("seeds", study["seeds"])]
    return sorted(runs, key=lambda run: run.seed)


# -----------------------------------------------------------------------------
# running

def train_all(args, study: dict, results: dict) -> dict:
    """Trains what is not yet trained; the results, which are also written run by run. ValueError at the end where a
    run has failed."""
    from tqdm import tqdm

    args.work.mkdir(parents=True, exist_ok=True)
    environment, artifact = dict(os.environ), None
    if study.get("own_merges"):
        artifact = learn_merges(args)
        environment["TCT_ARTIFACT"] = str(artifact.resolve())
    runs = runs_of(study)
    folders = {}
    for run in runs:
        key = json.dumps([run.prepare, bool(artifact)], sort_keys=True)
        if key not in folders:
            folders[key] = prepare(args, run.prepare, environment, "own" if artifact else "shipped")
    if args.device == "cpu":
        environment |= {"OMP_NUM_THREADS": "1"}
    failed = []
    with ThreadPoolExecutor(args.jobs if args.device == "cpu" else 1) as pool, tqdm(
            total=len(runs), unit="run", disable=None) as progress:
        def one(run: Run):
            data = folders[json.dumps([run.prepare, bool(artifact)], sort_keys=True)]
            return run, train(args, run, data, environment)
        for run, outcome in pool.map(one, runs):
            progress.update()
            if isinstance(outcome, str):
                failed.append(f"{run.name}: {outcome}")
                progress.write(f"failed: {failed[-1]}")
                continue
            results[run.name] = outcome
            progress.write(f"{run.name:<28}{outcome['val_bpb']:.4f} bits per byte, {outcome['seconds'] / 60:.1f} minutes")
            write_atomic(args.study / "results.json", json.dumps(results, indent=1, sort_keys=True).encode() + b"\n")
    if failed:
        raise ValueError(f"{len(failed)} of {len(runs)} runs failed: {'; '.join(failed)}")
    return results


def table_of_workflows(args) -> Path:
    """All workflows in one table with their owners, by which they are split."""
    path = args.work / "workflows.jsonl"
    if not path.exists():
        lines = []
        for file in sorted(file for file in args.workflows.rglob("*") if file.suffix in SUFFIXES and file.is_file()):
            name = file.relative_to(args.workflows)
            lines.append({"path": str(name), "owner": name.parts[0].split("__")[0],
                          "content": file.read_text("utf-8", errors="replace")})
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
    return path


def prepare(args, flags: dict, environment: dict, merges: str) -> Path:
    """The prepared folder for these flags; those that several runs share are made once."""
    digest = hashlib.sha256(json.dumps([flags, merges], sort_keys=True).encode()).hexdigest()[:8]
    folder = args.work / "prepared" / f"{flags.get('tokenizer', 'tct')}-{merges}-{digest}"
    if not (folder / "metadata.json").is_file():
        folder.parent.mkdir(exist_ok=True)
        command = [sys.executable, PREPARE, "--input", str(table_of_workflows(args)), "--split-by", "owner",
                   "--output", str(folder), *as_flags(flags)]
        call(command, environment, folder.with_suffix(".log"))
    return folder


def learn_merges(args) -> Path:
    """A workflow tokenizer whose merges come from the training workflows alone."""
    from prepared_reader import open_tokenizer, read_split
    from tct_dataloader import read_metadata

    artifact = args.work / "own_merges.json"
    if not artifact.exists():
        data = prepare(args, {}, dict(os.environ), "shipped")
        metadata = read_metadata(data)
        tokenizer = open_tokenizer(data, metadata)
        corpus = args.work / "training"
        for i, workflow in enumerate(read_split(data, "train", metadata)):
            (corpus / workflow.group).mkdir(parents=True, exist_ok=True)
            (corpus / workflow.group / f"{i:06d}.json").write_text(tokenizer.decode(workflow.tokens.tolist()))
        call([sys.executable, BUILD, "--corpus", str(corpus), "--output", str(artifact)], dict(os.environ),
             artifact.with_suffix(".log"))
    return artifact


def train(args, run: Run, data: Path, environment: dict) -> dict | str:
    """The result of a run, trained as far as it was not; or what went wrong."""
    folder = args.work / "runs" / args.study.name / run.name
    iterations = run.train["num_iterations"]
    config = json.loads((folder / "config.json").read_bytes()) if (folder / "config.json").is_file() else {}
    if not (folder / f"meta_{iterations:06d}.json").is_file():
        flags = {"device": args.device, "eval_windows": ALL_WINDOWS, "eval_every": -(-iterations // VALIDATIONS),
                 "save_every": iterations, "num_samples": 0} | run.train
        if args.device == "cpu":
            flags.setdefault("dtype", "bfloat16")
        command = [sys.executable, "-m", "scripts.tct_train", f"--data_dir={data}", f"--checkpoint_dir={folder}",
                   f"--seed={run.seed}", *as_flags(flags)]
        if list(folder.glob("meta_*.json")):
            command = [*command, "--resume_from_iteration=latest"]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            call(command, environment, folder / "output.log")
        except OSError as error:
            return str(error)
        config = json.loads((folder / "config.json").read_bytes())
    return describe_run(run, config, folder)


def call(command: list[str], environment: dict, log: Path):
    """Runs a command, its output to a file. OSError with the last line of it where it fails."""
    with open(log, "ab") as file:
        status = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        lines = log.read_text(errors="replace").strip().splitlines()
        raise OSError(f"exit code {status}: {lines[-1] if lines else 'no output'} ({log})")


def as_flags(flags: dict) -> list[str]:
    """Those of a command line; true is a switch, null leaves one out."""
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in flags.items()
            if value not in (None, False)]


def describe_run(run: Run, config: dict, folder: Path) -> dict:
    from nanochat.gpt import GPT, GPTConfig
    from nanochat.report import read_metrics
    import torch

    records = read_metrics(folder / "metrics.jsonl")
    with torch.device("meta"):
        model = GPT(GPTConfig(**config["model_config"]))
    settings = config["settings"]
    targets = settings["device_batch_size"] * settings["gradient_accumulation"] * model.config.sequence_len
    validations = [record for record in records if "val_bpb" in record]
    training = [record for record in records if "loss" in record]
    split = config["data"]["splits"]
    return {
        "arm": run.arm, "seed": run.seed, "iterations": settings["num_iterations"], "targets": targets,
        "flops_per_target": model.estimate_flops(), "parameters": model.num_parameters(),
        "epochs": round(training[-1]["epoch"], 3), "seconds": round(training[-1]["seconds"], 1),
        "loss": round(training[-1]["loss"], 4), "val_loss": round(validations[-1]["val_loss"], 4),
        "val_bpb": round(validations[-1]["val_bpb"], 5),
        "bytes_per_token": round(split["val"]["json_bytes"] / split["val"]["tokens"], 3),
        "curve": [[record["step"], round(record["val_bpb"], 4)] for record in validations],
        "device": config["device"], "versions": config["versions"],
    }


# -----------------------------------------------------------------------------
# reporting

def read_results(folder: Path) -> dict:
    path = folder / "results.json"
    return json.loads(path.read_bytes()) if path.is_file() else {}


def write_report(folder: Path, study: dict, results: dict):
    """study.png and README.md."""
    from nanochat.report import fenced, table

    done = [results[run.name] | {"arm": run.arm} for run in runs_of(study) if run.name in results]
    if not done:
        raise ValueError(f"{folder}: there are no results yet")
    draw(folder / "study.png", study, done)
    rows = [row_of(arm, study, done) for arm in study["arms"] if any(run["arm"] == arm for run in done)]
    conclusion = folder / "conclusion.md"
    flags = {"all": {key: study[key] for key in ("prepare", "train") if key in study},
             **{arm: {key: value for key, value in says.items() if key != "note"} for arm, says in study["arms"].items()}}
    notes = [f"- *{arm}*: {says['note']}" for arm, says in study["arms"].items() if "note" in says]
    versions = ", ".join(f"{name} {version}" for name, version in done[0]["versions"].items())
    parts = [f"# {study['title']}", study["question"],
             table(("", "seeds", "parameters", "tokens", "epochs", "PFLOPs", "nats per token", "bits per byte",
                    f"minus {study['reference']}"), rows),
             "![Bits per byte over compute, and at the end](study.png)",
             *(["\n".join(notes)] if notes else []),
             *([conclusion.read_text().strip()] if conclusion.is_file() else []),
             "## Method",
             "Owners are held out, a fifth of them or what the flags say; each of their tokens counts once. Bits are of "
             "compact JSON. With several seeds there are means, and differences are taken seed by seed, with the 95% "
             "interval of Student's t." + (" The workflow tokenizer's merges were learned from the training workflows "
                                           "alone, as those of the baselines." if study.get("own_merges") else ""),
             f"Trained on {done[0]['device']} ({platform.machine()}), one thread a run; {versions}.",
             fenced(f"python -m scripts.run_study {folder.as_posix()} --workflows WORKFLOWS"),
             fenced(json.dumps(flags, indent=2), "json")]
    (folder / "README.md").write_text("\n\n".join(parts) + "\n")


def row_of(arm: str, study: dict, done: list[dict]) -> tuple:
    """The line of an arm in the table."""
    runs = [run for run in done if run["arm"] == arm]
    first, bits = runs[0], [run["val_bpb"] for run in runs]
    tokens = first["iterations"] * first["targets"]
    return (arm, len(runs), f"{first['parameters']:,}", f"{tokens:,}", f"{first['epochs']:.2f}",
            f"{tokens * first['flops_per_target'] / 1e15:.3f}", f"{mean([run['val_loss'] for run in runs]):.3f}",
            f"{mean(bits):.4f}", difference(arm, study["reference"], done))


def difference(arm: str, reference: str, done: list[dict]) -> str:
    """How far an arm is from the reference, seed by seed, absolutely and in percent."""
    by_seed = [{run["seed"]: run["val_bpb"] for run in done if run["arm"] == name} for name in (arm, reference)]
    seeds = by_seed[0].keys() & by_seed[1].keys()
    if arm == reference or not seeds:
        return ""
    differences = [by_seed[0][seed] - by_seed[1][seed] for seed in sorted(seeds)]
    percent = 100 * mean(differences) / mean([by_seed[1][seed] for seed in seeds])
    interval = f" ± {half_interval(differences):.4f}" if len(differences) > 1 else ""
    return f"{mean(differences):+.4f}{interval} ({percent:+.1f}%)"


def half_interval(values: list[float]) -> float:
    """Half of the 95% interval of the mean of a sample: t * s / sqrt(n).

    >>> round(half_interval([1.0, 2.0, 3.0]), 3)
    2.484
    """
    from statistics import stdev

    # Student's t at 97.5% with 1, 2 ... 9 degrees of freedom (NIST/SEMATECH e-Handbook, section 1.3.6.7.2)
    quantiles = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
    return quantiles[min(len(values), 10) - 2] * stdev(values) / len(values) ** 0.5


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def draw(path: Path, study: dict, done: list[dict]):
    """Left the curves over compute, right how the runs ended."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    curves, ends = figure.subplots(1, 2)
    arms = [arm for arm in study["arms"] if any(run["arm"] == arm for run in done)]
    for place, arm in enumerate(arms):
        color, runs = f"C{place % 10}", [run for run in done if run["arm"] == arm]
        for run in runs:
            points = [(step * run["targets"] * run["flops_per_target"] / 1e15, bits) for step, bits in run["curve"]]
            curves.plot(*zip(*points), "o-", color=color, markersize=3, linewidth=1, label=arm if run is runs[0] else None)
        bits = [run["val_bpb"] for run in runs]
        ends.plot(bits, [-place] * len(bits), "o", color=color, alpha=0.5)
        error = half_interval(bits) if len(bits) > 1 else 0
        ends.errorbar(mean(bits), -place, xerr=error, fmt="|", color=color, capsize=4, markersize=16)
    best = min(bits for run in done for _, bits in run["curve"])
    curves.set(xlabel="PFLOPs", ylabel="bits per byte, owners held out", xscale="log", title="Learning curves",
               ylim=(0.97 * best, 1.6 * best))
    ends.set_yticks([-place for place in range(len(arms))], arms)
    ends.set(xlabel="bits per byte at the end: runs, mean, 95% interval", title="At the end")
    curves.legend(frameon=False, fontsize=8)
    for axis in (curves, ends):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()

"""Run a study of experiments/: prepare, train every arm with every seed, and draw the report.

    python -m scripts.run_study experiments/exp004-schedule --workflows WORKFLOWS --work out/studies

The folder's study.json says what to run: {"title", "question", "prepare": flags of prepare_training_data.py, "train":
flags of scripts.tct_train, "seeds", "reference": an arm, "arms": {name: {"prepare", "train", "seeds", "note"}}}. What an
arm says overrides what all have in common. "own_merges" learns the workflow tokenizer's merges from the training
workflows alone, for the one that is shipped knows all. "evaluate" has flags of scripts.tct_eval for every run, "samples"
of an arm {label: flags} for its first seed. Owners are either trained on or held out. A finished run is
not run again and one that was stopped goes on, so the command may be given as often as it takes.

Writes results.json, study.png and README.md to the folder; conclusion.md there, written by hand, becomes part of it.
"""

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nanochat.common import ArgumentParser, user_errors, write_atomic

PREPARE = "tct-bundle/scripts/prepare_training_data.py"
BUILD = "tct-bundle/scripts/build_tokenizer.py"
KEYS = {"title", "question", "prepare", "train", "evaluate", "seeds", "reference", "own_merges", "arms"}
ARM_KEYS = {"prepare", "train", "seeds", "samples", "note"}
VALIDATIONS, EVAL_WINDOWS = 8, 200  # of a run, for its curve; with "evaluate" its end is judged by the whole split


@dataclass(frozen=True)
class Run:
    """One training run: an arm with a seed."""

    arm: str
    seed: int
    prepare: dict  # flags
    train: dict    # flags
    evaluate: dict[str, dict]  # flags of each evaluation

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
    from scripts._study_report import read_results, write_report

    study = read_study(args.study)
    results = read_results(args.study)
    if not args.report_only:
        if not args.workflows or not args.workflows.is_dir():
            raise ValueError("--workflows is needed: a folder of workflows, in folders OWNER__REPOSITORY")
        results = train_all(args, study, results)
    done = [results[run.name] for run in runs_of(study) if run.name in results]
    write_report(args.study, study, done)
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
    runs = []
    for name, arm in study["arms"].items():
        prepare, train = (study.get(part, {}) | arm.get(part, {}) for part in ("prepare", "train"))
        seeds = arm.get("seeds", study["seeds"])
        for seed in seeds:
            evaluations = {"held_out": study["evaluate"]} if "evaluate" in study else {}
            if seed == seeds[0]:
                evaluations |= arm.get("samples", {})
            runs.append(Run(name, seed, prepare, train, evaluations))
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


def prepare(args, flags: dict, environment: dict, merges: str) -> Path:
    """The prepared folder for these flags; those that several runs share are made once."""
    digest = hashlib.sha256(json.dumps([flags, merges], sort_keys=True).encode()).hexdigest()[:8]
    folder = args.work / "prepared" / f"{flags.get('tokenizer', 'tct')}-{merges}-{digest}"
    if not (folder / "metadata.json").is_file():
        folder.parent.mkdir(exist_ok=True)
        command = [sys.executable, PREPARE, "--input", str(args.workflows), "--split-by", "owner",
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
        flags = {"device": args.device, "eval_windows": EVAL_WINDOWS, "eval_every": -(-iterations // VALIDATIONS),
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
    try:
        evaluations = {label: evaluate(folder, data, label, flags, environment) for label, flags in run.evaluate.items()}
    except OSError as error:
        return str(error)
    result = describe_run(run, config, folder) | evaluations
    if "held_out" in evaluations:
        found = evaluations["held_out"]["held_out"]
        result |= {"val_loss": found["val_loss"], "val_bpb": found["val_bits_per_byte"]}
    return result


def evaluate(folder: Path, data: Path, label: str, flags: dict, environment: dict) -> dict:
    """What tct_eval finds of a checkpoint, the parts that a report of a study has."""
    output = folder / f"eval-{label.replace(' ', '_')}"
    if not (output / "timing.json").is_file():
        command = [sys.executable, "-m", "scripts.tct_eval", f"--checkpoint={folder}", f"--data_dir={data}",
                   f"--output={output}", *as_flags(flags)]
        call(command, environment, output.with_suffix(".log"))
    figures = json.loads((output / "eval.json").read_bytes())
    return {part: figures[part] for part in ("held_out", "samples", "real") if part in figures} | {
        "seconds_of_sampling": round(json.loads((output / "timing.json").read_bytes())["seconds"], 2)}


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
            if value is not None and value is not False]


def describe_run(run: Run, config: dict, folder: Path) -> dict:
    import torch
    from nanochat.gpt import GPT, GPTConfig
    from nanochat.report import read_metrics

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


if __name__ == "__main__":
    main()

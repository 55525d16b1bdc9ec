"""Run a study of experiments/: prepare, train every arm with every seed, and draw the report.

    python -m scripts.run_study experiments/exp004-schedule --workflows WORKFLOWS --work out/studies

The folder's study.json says what to run: {"title", "question", "prepare": flags of
prepare_training_data.py, "train": flags of scripts.tct_train, "seeds", "reference": an arm, "arms": {name:
{"prepare", "train", "seeds", "note"}}}. What an arm says overrides what all have in common, "reference" too.
"own_merges" learns the workflow tokenizer's merges from the training workflows alone, for the one that is
shipped knows all. "evaluate" has flags of scripts.tct_eval for every run, "samples" of an arm {label: flags}
for its first seed. "evaluate_on" has flags of prepare that make the data of all evaluations, where the
windows of arms show held-out tokens with more or less before them. "x" is what curves are drawn over: flops
or tokens.

Owners are either trained on or held out. A finished run is not run again and one that was stopped goes on,
so the command may be given as often as it takes; one that was made with other flags than it has now is
refused.

Writes results.json, study.png and README.md to the folder; conclusion.md there, written by hand, becomes part of it.
"""

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from script_tools.cli import ArgumentParser, StopSignals, cli_errors
from script_tools.files import refuse_to_replace, write_atomic

PREPARE = "tct-bundle/scripts/prepare_training_data.py"
BUILD = "tct-bundle/scripts/build_tokenizer.py"
KEYS = {
    "title",
    "question",
    "prepare",
    "train",
    "evaluate",
    "evaluate_on",
    "seeds",
    "reference",
    "own_merges",
    "x",
    "arms",
}
ARM_KEYS = {"prepare", "train", "seeds", "samples", "note", "reference"}
# Of a run, for its curve. Which workflows so few windows come from depends on how an arm cuts windows, so the
# end of each run is judged by scripts.tct_eval, which scores the whole split.
VALIDATIONS, EVAL_WINDOWS = 8, 200
POLL_SECONDS = 2
children = set()  # processes under way, to be ended where this one is told to stop


@dataclass(frozen=True, eq=False)
class Run:
    """One training run: an arm with a seed."""

    arm: str
    seed: int
    prepare: dict  # flags
    train: dict  # flags
    evaluate: dict[str, dict]  # flags of each evaluation
    evaluate_on: dict  # flags: of the data that evaluations read

    @property
    def name(self) -> str:
        return f"{self.arm.replace(' ', '_').replace('/', '_').replace(',', '')}-{self.seed}"


@cli_errors
def main(argv=None):
    parser = ArgumentParser(prog="python -m scripts.run_study", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("study", type=Path, metavar="FOLDER", help="with study.json, such as experiments/exp004-schedule")
    add(
        "--workflows",
        type=Path,
        metavar="DIR",
        help="folders OWNER__REPOSITORY of workflows; needed until all is trained",
    )
    add("--work", type=Path, default=Path("out/studies"), metavar="DIR", help="for data and checkpoints (%(default)s)")
    add("--jobs", type=int, default=2, metavar="N", help="runs at a time, each on one core (default 2)")
    add("--device", default="cpu", help="cpu; or cuda, where runs come one after the other (default cpu)")
    add("--report-only", action="store_true", help="draw the report again from what results.json has")
    add("--dry-run", action="store_true", help="list the runs and what they cost, and do nothing")
    args = parser.parse_args(argv)
    from nanochat.study_report import read_results, write_report

    study = read_study(args.study)
    runs = runs_of(study)
    settings = {run: settings_of(args.study, run) for run in runs}  # a wrong flag shows before any training
    if args.dry_run:
        print(list_runs(settings))
        return
    results = {
        run.name: result
        for run in runs
        if (result := read_results(args.study).get(run.name)) and result.get("flags", flags_of(run)) == flags_of(run)
    }  # others are of an earlier study.json
    if not (args.study / "results.json").is_file():
        refuse_to_replace(args.study, ["README.md", "study.png"])
    if not args.report_only:
        if not args.workflows or not args.workflows.is_dir():
            raise ValueError("--workflows is needed: a folder of workflows, in folders OWNER__REPOSITORY")
        train_all(args, study, settings, results)
    done = [results[run.name] for run in runs if run.name in results]
    write_report(args.study, study, done)
    print(f"written to {args.study}: README.md, results.json, study.png")


def read_study(folder: Path) -> dict:
    """study.json. ValueError or OSError where it is none."""
    path = folder / "study.json"
    try:
        study = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    for where, found, known in [
        ("", study, KEYS),
        *((f"arms.{arm}.", value, ARM_KEYS) for arm, value in study.get("arms", {}).items()),
    ]:
        if unknown := found.keys() - known:
            raise ValueError(f"{path}: there is no {where}{min(unknown)}; known are {', '.join(sorted(known))}")
    if missing := {"title", "question", "train", "seeds", "arms", "reference"} - study.keys():
        raise ValueError(f"{path}: {min(missing)} is missing")
    for part in (study, *study["arms"].values()):
        if (reference := part.get("reference", study["reference"])) not in study["arms"]:
            raise ValueError(f"{path}: the reference {reference!r} is no arm")
    if study.setdefault("x", "flops") not in ("flops", "tokens"):
        raise ValueError(f"{path}: x must be flops or tokens, not {study['x']!r}")
    return study


def runs_of(study: dict) -> list[Run]:
    """All runs, those of one seed together, so that a study that is stopped early has whole seeds."""
    runs = []
    for name, arm in study["arms"].items():
        prepare, train = (study.get(part, {}) | arm.get(part, {}) for part in ("prepare", "train"))
        seeds = arm.get("seeds", study["seeds"])
        for seed in seeds:
            evaluations = {"held_out": {"num_samples": 0} | study.get("evaluate", {})}
            if seed == seeds[0]:
                evaluations |= arm.get("samples", {})
            judged = study.get("prepare", {}) | study["evaluate_on"] if "evaluate_on" in study else prepare
            runs.append(Run(name, seed, prepare, train, evaluations, judged))
    return sorted(runs, key=lambda run: run.seed)


def flags_of(run: Run) -> dict:
    """What a result depends on, to be kept with it."""
    return {"prepare": run.prepare, "train": run.train, "evaluate_on": run.evaluate_on}


def settings_of(path: Path, run: Run):
    """Every setting of a run, as scripts.tct_train will settle it. ValueError that names study.json and the
    arm for a flag that it does not take."""
    from scripts._train_flags import parse_arguments, settle

    try:
        flags = parse_arguments(["--data_dir=DATA", f"--seed={run.seed}", *as_flags(run.train)])
        return settle(flags, None, 0, world_size=1)
    except ValueError as error:
        raise ValueError(f"{path / 'study.json'}: arms.{run.arm}: {error}") from None


def list_runs(settings: dict) -> str:
    """A line for each run: iterations, tokens trained on, FLOPs of training."""
    import torch

    from nanochat.gpt import GPT, GPTConfig
    from script_tools.tables import columns
    from scripts._train_flags import preset_config

    rows = [("run", "iterations", "tokens", "PFLOPs")]
    for run, found in settings.items():
        with torch.device("meta"):
            model = GPT(GPTConfig(**preset_config(found, n_states=1)))  # an embedding, which costs no FLOPs
        contexts = found.num_iterations * found.device_batch_size * found.gradient_accumulation
        tokens = contexts * found.context_size
        flops = tokens * model.estimate_flops() / 1e15
        rows.append((run.name, f"{found.num_iterations:,}", f"{tokens:,}", f"{flops:.3f}"))
    return columns(rows)


# -----------------------------------------------------------------------------
# running


def train_all(args, study: dict, settings: dict, results: dict):
    """Trains what is not yet trained, and adds to the results, which are also written run by run. ValueError
    at the end where a run has failed."""
    from tqdm import tqdm

    args.work.mkdir(parents=True, exist_ok=True)
    environment, merges = dict(os.environ), "shipped"
    if study.get("own_merges"):
        environment["TCT_ARTIFACT"], merges = str(learn_merges(args).resolve()), "own"
    data = {
        run: [prepare(args, flags, environment, merges) for flags in (run.prepare, run.evaluate_on)] for run in settings
    }
    if args.device == "cpu":
        environment |= {"OMP_NUM_THREADS": "1"}
    failed = []
    with (
        StopSignals() as stop,
        ThreadPoolExecutor(args.jobs if args.device == "cpu" else 1) as pool,
        tqdm(
            total=sum(found.num_iterations for found in settings.values()), unit="it", smoothing=0.02, disable=None
        ) as progress,
    ):
        waiting = {
            pool.submit(train, args, run, found.num_iterations, *data[run], environment): run
            for run, found in settings.items()
        }
        progress.initial = progress.n = iterations_done(args, settings)
        stop.catch()
        while waiting and not stop.signal:
            done, _ = wait(waiting, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            progress.update(iterations_done(args, settings) - progress.n)
            for future in done:
                run, outcome = waiting.pop(future), future.result()
                if stop.signal:
                    continue  # what it says is that it was stopped
                if isinstance(outcome, str):
                    failed.append(f"{run.name}: {outcome}")
                    progress.write(f"failed: {failed[-1]}")
                    continue
                results[run.name] = outcome
                progress.write(
                    f"{run.name:<28} {outcome['val_bpb']:.4f} bits per byte, {outcome['seconds'] / 60:.1f} minutes"
                )
                write_atomic(
                    args.study / "results.json", json.dumps(dict(sorted(results.items())), indent=1).encode() + b"\n"
                )
        for future in waiting:
            future.cancel()
        while stop.signal and not all(future.done() for future in waiting):
            for process in list(children):
                process.terminate()  # training saves, then ends
            wait(waiting, timeout=POLL_SECONDS)
    if stop.signal:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        sys.exit(128 + stop.signal)
    if failed:
        raise ValueError(f"{len(failed)} of {len(settings)} runs failed: {'; '.join(failed)}")


def iterations_done(args, settings: dict) -> int:
    """By all runs together."""
    from nanochat.run_folder import read_metrics

    records = [read_metrics(folder_of(args, run) / "metrics.jsonl") for run in settings]
    return sum(found[-1]["step"] for found in records if found)


def folder_of(args, run: Run) -> Path:
    return args.work / "runs" / args.study.name / run.name


def prepare(args, flags: dict, environment: dict, merges: str) -> Path:
    """The prepared folder for these flags; those that several runs share are made once."""
    digest = hashlib.sha256(json.dumps([flags, merges], sort_keys=True).encode()).hexdigest()[:8]
    folder = args.work / "prepared" / f"{flags.get('tokenizer', 'tct')}-{merges}-{digest}"
    if not (folder / "metadata.json").is_file():
        folder.parent.mkdir(exist_ok=True)
        command = [
            sys.executable,
            PREPARE,
            "--input",
            str(args.workflows),
            "--split-by",
            "owner",
            "--output",
            str(folder),
            *as_flags(flags),
        ]
        call(command, environment, folder.with_suffix(".log"))
    return folder


def learn_merges(args) -> Path:
    """A workflow tokenizer whose merges come from the training workflows alone."""
    from workflow_data.reader import open_tokenizer, read_metadata, read_split

    artifact = args.work / "own_merges.json"
    if not artifact.exists():
        data = prepare(args, {}, dict(os.environ), "shipped")
        metadata = read_metadata(data)
        tokenizer = open_tokenizer(data, metadata)
        corpus = artifact.with_suffix(".corpus")
        for i, workflow in enumerate(read_split(data, "train", metadata)):
            (corpus / workflow.group).mkdir(parents=True, exist_ok=True)
            (corpus / workflow.group / f"{i:06d}.json").write_text(tokenizer.decode(workflow.tokens.tolist()), "utf-8")
        call(
            [sys.executable, BUILD, "--corpus", str(corpus), "--output", str(artifact)],
            dict(os.environ),
            artifact.with_suffix(".log"),
        )
    return artifact


def train(args, run: Run, iterations: int, data: Path, judged: Path, environment: dict) -> dict | str:
    """The result of a run, trained as far as it was not; or what went wrong."""
    folder = folder_of(args, run)
    try:
        refuse_other_flags(folder, run, data)
        if not (folder / f"meta_{iterations:06d}.json").is_file():
            flags = {
                "device": args.device,
                "eval_windows": EVAL_WINDOWS,
                "eval_every": -(-iterations // VALIDATIONS),
                "save_every": iterations,
                "num_samples": 0,
            } | run.train
            if args.device == "cpu":
                flags.setdefault("dtype", "bfloat16")
            command = [
                sys.executable,
                "-m",
                "scripts.tct_train",
                f"--data_dir={data}",
                f"--checkpoint_dir={folder}",
                f"--seed={run.seed}",
                *as_flags(flags),
            ]
            if list(folder.glob("meta_*.json")):
                command = [*command, "--resume_from_iteration=latest"]
            folder.mkdir(parents=True, exist_ok=True)
            call(command, environment, folder / "output.log")
        config = json.loads((folder / "config.json").read_bytes())
        evaluations = {
            label: evaluate(folder, judged, label, flags, environment) for label, flags in run.evaluate.items()
        }
    except (OSError, ValueError) as error:
        return str(error)
    found = evaluations["held_out"]["held_out"]
    return (
        describe_run(run, config, folder)
        | evaluations
        | {"val_loss": round(found["val_loss"], 4), "val_bpb": round(found["val_bits_per_byte"], 5)}
    )


def refuse_other_flags(folder: Path, run: Run, data: Path):
    """ValueError where the folder's checkpoints are of other flags or data: to go on from them, or to report
    them, would pass one run off as another."""
    if not list(folder.glob("meta_*.json")):
        return
    settings = json.loads((folder / "config.json").read_bytes())["settings"]
    before = settings | {"data_dir": Path(settings["data_dir"]).name}
    now = run.train | {"data_dir": data.name, "seed": run.seed}
    changed = [
        f"{name} {before[name]} -> {value}"
        for name, value in now.items()
        if value is not None and name in before and before[name] != value
    ]
    if changed:
        raise ValueError(
            f"{folder} was trained with other flags ({', '.join(changed)}): remove it, or give the arm another name"
        )


def evaluate(folder: Path, data: Path, label: str, flags: dict, environment: dict) -> dict:
    """What tct_eval finds of a checkpoint, the parts that a report of a study has."""
    output = folder / f"eval-{label.replace(' ', '_')}"
    before = json.loads((output / "eval.json").read_bytes()) if (output / "timing.json").is_file() else None
    if (
        before is None
        or any(before[name] != value for name, value in flags.items() if name in before)
        or (Path(before["data_dir"]).name != data.name)
    ):
        command = [
            sys.executable,
            "-m",
            "scripts.tct_eval",
            f"--checkpoint={folder}",
            f"--data_dir={data}",
            f"--output={output}",
            *as_flags(flags),
        ]
        call(command, environment, output.with_suffix(".log"))
    figures = json.loads((output / "eval.json").read_bytes())
    return {part: figures[part] for part in ("held_out", "samples", "real") if part in figures} | {
        "seconds_of_sampling": round(json.loads((output / "timing.json").read_bytes())["seconds"], 2)
    }


def call(command: list[str], environment: dict, log: Path):
    """Runs a command, its output to a file. OSError with the last line of it where it fails."""
    with (
        open(log, "ab") as file,
        subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT) as process,
    ):
        children.add(process)
        status = process.wait()
        children.remove(process)
    if status:
        lines = log.read_text(errors="replace").strip().splitlines()
        raise OSError(f"exit code {status}: {lines[-1] if lines else 'no output'} ({log})")


def as_flags(flags: dict) -> list[str]:
    """Those of a command line; true is a switch, null leaves one out."""
    return [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in flags.items()
        if value is not None and value is not False
    ]


def describe_run(run: Run, config: dict, folder: Path) -> dict:
    import torch

    from nanochat.gpt import GPT, GPTConfig
    from nanochat.run_folder import read_metrics

    records = read_metrics(folder / "metrics.jsonl")
    with torch.device("meta"):
        model = GPT(GPTConfig.from_dict(config["model_config"]))
    settings = config["settings"]
    targets = settings["device_batch_size"] * settings["gradient_accumulation"] * model.config.sequence_len
    validations = [record for record in records if "val_bpb" in record]
    training = [record for record in records if "loss" in record]
    split = config["data"]["splits"]
    return {
        "arm": run.arm,
        "seed": run.seed,
        "flags": flags_of(run),
        "iterations": settings["num_iterations"],
        "targets": targets,
        "flops_per_target": model.estimate_flops(),
        "parameters": model.num_parameters(),
        "epochs": round(training[-1]["epoch"], 3),
        "seconds": round(training[-1]["seconds"], 1),
        "loss": round(training[-1]["loss"], 4),
        "bytes_per_token": round(split["val"]["json_bytes"] / split["val"]["tokens"], 3),
        "curve": [[record["step"], round(record["val_bpb"], 4)] for record in validations],
        "device": config["device"],
        "versions": config["versions"],
    }


if __name__ == "__main__":
    main()

"""Run a study of experiments/: prepare, train every arm with every seed, and draw the report.

    python -m scripts.run_study experiments/exp004-schedule --workflows WORKFLOWS --work out/studies

The study.json of the folder describes the runs: {"title", "question", "prepare": flags of prepare_training_data.py,
"train": flags of scripts.tct_train, "seeds", "reference": an arm, "arms": {name: {"prepare", "train", "seeds",
"note"}}}. What an arm has overrides what is common to all, also its "reference". "own_merges" learns the workflow
tokenizer's merges from the training workflows alone, because the committed merges were learned from all workflows.
"evaluate" has flags of scripts.tct_eval for every run, "samples" of an arm {label: flags} for its first seed.
"evaluate_on" has flags of prepare for the data of all evaluations; it is needed if the windows of the arms show
held-out tokens with different context. "x" is the horizontal axis of the curves: flops or tokens.

Owners are either trained on or held out. The command may be repeated: it skips finished runs and resumes stopped ones.
It refuses a run that was made with other flags.

Writes results.json, study.png and README.md to the folder. A conclusion.md there becomes part of the README.
"""

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from model_config import PRESETS, gpt_fields
from nanochat.run_folder import CONFIG, METRICS, read_metrics
from nanochat.settings import TrainSettings, parse_flags
from script_tools.cli import ArgumentParser, StopSignals, cli_errors
from script_tools.files import refuse_to_replace, write_json

NEEDED_KEYS = {"title", "question", "train", "seeds", "arms", "reference"}
KEYS = NEEDED_KEYS | {"prepare", "evaluate", "evaluate_on", "own_merges", "x"}
ARM_KEYS = {"prepare", "train", "seeds", "samples", "note", "reference"}
# For the curve of a run. Which workflows so few windows come from depends on how an arm cuts windows. So the end of
# each run is evaluated by scripts.tct_eval, which scores the whole split.
VALIDATIONS, EVAL_WINDOWS = 8, 200
POLL_SECONDS = 2


@cli_errors
def main(argv=None):
    parser = ArgumentParser(prog="python -m scripts.run_study", description=__doc__.split("\n")[0])
    add, folder = parser.add, {"type": Path, "metavar": "DIR"}
    add("study", "folder with study.json, such as experiments/exp004-schedule", type=Path, metavar="FOLDER")
    add("--workflows", "workflows in folders OWNER__REPOSITORY; needed for training", **folder)
    add("--work", "for data and checkpoints", Path("out/studies"), **folder)
    add("--jobs", "parallel runs, each on one core", 2)
    add("--device", "cpu, or cuda, where runs are sequential", "cpu")
    add("--report-only", "draw the report again from results.json", False)
    add("--dry-run", "list the runs and their cost, and do nothing", False)
    flags = parser.parse_args(argv)
    from nanochat.study_report import cost_table, read_results, write_report  # torch is slow to import

    study = read_study(flags.study)
    runs = runs_of(study)
    settings = {run: resolved_settings(flags.study, run) for run in runs}  # a wrong flag shows before any training
    if flags.dry_run:
        models = [gpt_fields(PRESETS[found.model_size]) | found.model_fields(n_states=1) for found in settings.values()]
        print(cost_table([run.name for run in runs], list(settings.values()), models))
        return
    found = read_results(flags.study)
    current = [run for run in runs if found.get(run.name, {}).get("flags", run.flags) == run.flags]
    results = {run.name: found[run.name] for run in current if run.name in found}  # others: of an earlier study.json
    if not (flags.study / "results.json").is_file():
        refuse_to_replace(flags.study, ["README.md", "study.png"])
    if not flags.report_only:
        if not flags.workflows or not flags.workflows.is_dir():
            raise ValueError("--workflows is missing: give a folder of workflows in folders OWNER__REPOSITORY")
        train_all(Runner(flags, study), settings, results)
    write_report(flags.study, study, [results[run.name] for run in runs if run.name in results])
    print(f"written to {flags.study}: README.md, results.json, study.png")


# -- the study


@dataclass(frozen=True, eq=False)
class Run:
    """One training run: an arm with a seed. All dicts but evaluate hold flags."""

    arm: str
    seed: int
    prepare: dict
    train: dict
    evaluate: dict[str, dict]  # flags of each evaluation, by its label
    evaluate_on: dict  # prepares the data of the evaluations

    @property
    def name(self) -> str:
        return f"{self.arm.replace(' ', '_').replace('/', '_').replace(',', '')}-{self.seed}"

    @property
    def flags(self) -> dict:
        """What a result depends on, to be kept with it."""
        return {"prepare": self.prepare, "train": self.train, "evaluate_on": self.evaluate_on}


def read_study(folder: Path) -> dict:
    """Return the value of study.json. ValueError or OSError if it is missing or faulty."""
    path = folder / "study.json"
    try:
        study = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    arms = [(f"arms.{arm}.", value, ARM_KEYS) for arm, value in study.get("arms", {}).items()]
    for where, found, known in [("", study, KEYS), *arms]:
        if unknown := found.keys() - known:
            raise ValueError(f"{path}: unknown key {where}{min(unknown)}; known are {', '.join(sorted(known))}")
    if missing := NEEDED_KEYS - study.keys():
        raise ValueError(f"{path}: {min(missing)} is missing")
    for part in (study, *study["arms"].values()):
        if (reference := part.get("reference", study["reference"])) not in study["arms"]:
            raise ValueError(f"{path}: the reference {reference!r} is not an arm")
    if study.setdefault("x", "flops") not in ("flops", "tokens"):
        raise ValueError(f"{path}: x must be flops or tokens, not {study['x']!r}")
    return study


def runs_of(study: dict) -> list[Run]:
    """Return all runs, seed by seed, so that a study that is stopped early has complete seeds."""
    runs = []
    for name, arm in study["arms"].items():
        prepare, train = (study.get(part, {}) | arm.get(part, {}) for part in ("prepare", "train"))
        seeds = arm.get("seeds", study["seeds"])
        for seed in seeds:
            evaluations = {"held_out": {"num_samples": 0} | study.get("evaluate", {})}
            if seed == seeds[0]:
                evaluations |= arm.get("samples", {})
            evaluate_on = study.get("prepare", {}) | study["evaluate_on"] if "evaluate_on" in study else prepare
            runs.append(Run(name, seed, prepare, train, evaluations, evaluate_on))
    return sorted(runs, key=lambda run: run.seed)


def resolved_settings(folder: Path, run: Run) -> TrainSettings:
    """Return the settings that scripts.tct_train will use. ValueError, which names the arm, for a wrong flag."""
    try:
        given = parse_flags(["--data_dir=DATA", f"--seed={run.seed}", *as_flags(run.train)], PRESETS)
        return TrainSettings.resolve(given, PRESETS)
    except ValueError as error:
        raise ValueError(f"{folder / 'study.json'}: arms.{run.arm}: {error}") from None


def as_flags(flags: dict) -> list[str]:
    """Return flags as arguments: true is a switch, null and false leave the flag out."""
    given = {name: value for name, value in flags.items() if value is not None and value is not False}
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()]


# -- running


def train_all(runner: "Runner", settings: dict[Run, TrainSettings], results: dict):
    """Train and evaluate what is not done yet; add to the results, and to results.json, run by run.

    ValueError at the end if a run has failed. A signal stops the runs, which save first, and exits.
    """
    failed = []
    total = sum(found.num_iterations for found in settings.values())
    with StopSignals() as stop, tqdm(total=total, unit="it", smoothing=0.02, disable=None) as progress:
        runner.start(settings)
        progress.initial = progress.n = runner.iterations_done()
        stop.catch()
        while runner.futures and not stop.signal:
            done = runner.poll()
            progress.update(runner.iterations_done() - progress.n)
            for run, future in done:
                if stop.signal:
                    continue  # the run was stopped, too
                try:
                    results[run.name] = result = future.result()
                except (OSError, ValueError) as error:
                    failed.append(f"{run.name}: {error}")
                    progress.write(f"failed: {failed[-1]}")
                    continue
                minutes = result["seconds"] / 60
                progress.write(f"{run.name:<28} {result['val_bpb']:.4f} bits per byte, {minutes:.1f} minutes")
                write_json(runner.study_dir / "results.json", dict(sorted(results.items())), indent=1)
        runner.finish()
    if stop.signal:
        print("stopped; the same command continues", file=sys.stderr)
        sys.exit(128 + stop.signal)
    if failed:
        raise ValueError(f"{len(failed)} of {len(settings)} runs failed: {'; '.join(failed)}")


class Runner:
    """Runs the commands of a study, several at a time."""

    def __init__(self, flags, study: dict):
        self.study_dir, self.work, self.workflows, self.device = flags.study, flags.work, flags.workflows, flags.device
        self.work.mkdir(parents=True, exist_ok=True)
        self.processes = set()  # those running, to be terminated if this one is stopped
        self.futures: dict[Future, Run] = {}  # of the runs that are not done
        self.runs: list[Run] = []
        self.environment, self.merges = dict(os.environ), "shipped"
        if study.get("own_merges"):
            artifact = self.learn_merges()
            self.environment["TCT_ARTIFACT"], self.merges = str(artifact.resolve()), "own"
        self.pool = ThreadPoolExecutor(flags.jobs if self.device == "cpu" else 1)

    def start(self, settings: dict[Run, TrainSettings]):
        """Prepare all data, and queue the runs."""
        self.runs = list(settings)
        data = {run: [self.prepare(flags) for flags in (run.prepare, run.evaluate_on)] for run in settings}
        if self.device == "cpu":
            self.environment["OMP_NUM_THREADS"] = "1"
        for run, found in settings.items():
            self.futures[self.pool.submit(self.train, run, found.num_iterations, *data[run])] = run

    def poll(self) -> list[tuple[Run, Future]]:
        """Return the runs that are done, after a short wait."""
        done, _ = wait(self.futures, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        return [(self.futures.pop(future), future) for future in done]

    def finish(self):
        """Cancel the runs in the queue and terminate those in progress: training saves, then ends."""
        for future in self.futures:
            future.cancel()
        while not all(future.done() for future in self.futures):
            for process in list(self.processes):
                process.terminate()
            wait(self.futures, timeout=POLL_SECONDS)
        self.pool.shutdown()

    def run_dir(self, run: Run) -> Path:
        return self.work / "runs" / self.study_dir.name / run.name

    def iterations_done(self) -> int:
        records = [read_metrics(self.run_dir(run) / METRICS) for run in self.runs]
        return sum(found[-1]["step"] for found in records if found)

    def prepare(self, flags: dict) -> Path:
        """Return the prepared folder for these flags; make it if it is missing."""
        digest = hashlib.sha256(json.dumps([flags, self.merges], sort_keys=True).encode()).hexdigest()[:8]
        folder = self.work / "prepared" / f"{flags.get('tokenizer', 'tct')}-{self.merges}-{digest}"
        if not (folder / "metadata.json").is_file():
            folder.parent.mkdir(exist_ok=True)
            paths = ["--input", str(self.workflows), "--split-by", "owner", "--output", str(folder)]
            self.call(["-m", "workflow_data.prepare", *paths, *as_flags(flags)], folder.with_suffix(".log"))
        return folder

    def learn_merges(self) -> Path:
        """Return a workflow tokenizer whose merges come from the training workflows alone."""
        from workflow_data.reader import iter_workflows, open_tokenizer, read_metadata  # few studies need it; slow

        artifact = self.work / "own_merges.json"
        if not artifact.exists():
            data = self.prepare({})
            metadata = read_metadata(data)
            tokenizer = open_tokenizer(data, metadata)
            corpus = artifact.with_suffix(".corpus")
            for i, workflow in enumerate(iter_workflows(data, "train", metadata)):
                path = corpus / workflow.group / f"{i:06d}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(tokenizer.decode(workflow.tokens.tolist()), "utf-8")
            paths = ["--corpus", str(corpus), "--output", str(artifact)]
            self.call(["-m", "workflow_data.build_tokenizer", *paths], artifact.with_suffix(".log"))
        return artifact

    def train(self, run: Run, iterations: int, data: Path, evaluation_data: Path) -> dict:
        """Train a run as far as it is not trained, evaluate it, and return its result."""
        from nanochat.study_report import run_figures  # slow to import

        folder = self.run_dir(run)
        refuse_other_flags(folder, run, data)
        if not (folder / f"meta_{iterations:06d}.json").is_file():
            flags = {"data_dir": data, "checkpoint_dir": folder, "seed": run.seed, "device": self.device}
            flags |= {"eval_windows": EVAL_WINDOWS, "eval_every": -(-iterations // VALIDATIONS)}
            flags |= {"save_every": iterations, "num_samples": 0} | run.train
            if self.device == "cpu":
                flags.setdefault("dtype", "bfloat16")
            resume = ["--resume_from_iteration=latest"] if list(folder.glob("meta_*.json")) else []
            folder.mkdir(parents=True, exist_ok=True)
            self.call(["-m", "scripts.tct_train", *as_flags(flags), *resume], folder / "output.log")
        result = {"arm": run.arm, "seed": run.seed, "flags": run.flags} | run_figures(folder)
        for label, flags in run.evaluate.items():
            result[label] = self.evaluate(folder, evaluation_data, label, flags)
        found = result["held_out"]["held_out"]
        return result | {"val_loss": round(found["val_loss"], 4), "val_bpb": round(found["val_bits_per_byte"], 5)}

    def evaluate(self, folder: Path, data: Path, label: str, flags: dict) -> dict:
        """Evaluate a checkpoint with scripts.tct_eval if that is not done; return the parts that the report shows."""
        output = folder / f"eval-{label.replace(' ', '_')}"
        before = json.loads((output / "eval.json").read_bytes()) if (output / "timing.json").is_file() else None
        is_same = before and all(before.get(name, value) == value for name, value in flags.items())
        if not is_same or Path(before["data_dir"]).name != data.name:
            flags = {"checkpoint": folder, "data_dir": data, "output": output} | flags
            self.call(["-m", "scripts.tct_eval", *as_flags(flags)], output.with_suffix(".log"))
        figures = json.loads((output / "eval.json").read_bytes())
        timing = json.loads((output / "timing.json").read_bytes())
        parts = {part: figures[part] for part in ("held_out", "samples", "real", "fields") if part in figures}
        return parts | {"seconds_of_sampling": round(timing["seconds"], 2)}

    def call(self, arguments: list[str], log: Path):
        """Run Python with these arguments and its output in a file. OSError, with the last line, if it fails."""
        command = [sys.executable, *arguments]
        with open(log, "ab") as file:
            process = subprocess.Popen(command, env=self.environment, stdout=file, stderr=subprocess.STDOUT)
            self.processes.add(process)
            status = process.wait()
            self.processes.remove(process)
        if status:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise OSError(f"exit code {status}: {lines[-1] if lines else 'no output'} ({log})")


def refuse_other_flags(folder: Path, run: Run, data: Path):
    """ValueError if the checkpoints in a folder are of other flags or data, so that no run passes for another."""
    if not list(folder.glob("meta_*.json")):
        return
    settings = json.loads((folder / CONFIG).read_bytes())["settings"]
    before = settings | {"data_dir": Path(settings["data_dir"]).name}
    now = run.train | {"data_dir": data.name, "seed": run.seed}
    known = {name: value for name, value in now.items() if value is not None and name in before}
    changed = [f"{name} {before[name]} -> {value}" for name, value in known.items() if before[name] != value]
    if changed:
        fault = f"{folder} was trained with other flags ({', '.join(changed)})"
        raise ValueError(f"{fault}: remove it, or give the arm another name")


if __name__ == "__main__":
    main()

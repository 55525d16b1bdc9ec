"""A study runs once, resumes, and reports its results."""

import json
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import exit_code

from nanochat.study_report import difference, half_interval
from scripts import run_study, tct_eval, tct_train  # noqa: F401, the last two run by name
from workflow_data import prepare  # noqa: F401, runs by name


@pytest.fixture(scope="module")
def workflows(tmp_path_factory) -> Path:
    """Twelve owners with two workflows each."""
    folder = tmp_path_factory.mktemp("workflows")
    for owner in range(12):
        for index in range(2):
            steps = [{"uses": "actions/checkout@v4"}, {"run": f"make {owner} {index} " + "all " * owner}]
            value = {"name": f"{owner} {index}", "on": "push", "jobs": {"a": {"runs-on": "x", "steps": steps}}}
            path = folder / f"owner{owner}__repository{index}" / "ci.json"
            path.parent.mkdir()
            path.write_text(json.dumps(value))
    return folder


def write_study(folder: Path, **changes) -> Path:
    study = {
        "title": "Rates",
        "question": "Which?",
        "prepare": {"train-split": 0.5},
        "seeds": [0],
        "reference": "low",
        "train": {"model_size": "tiny", "num_iterations": 2, "device_batch_size": 1, "dtype": "float32"},
        "arms": {
            "low": {},
            "high": {
                "train": {"learning_rate": 0.02},
                "note": "a high one",
                "samples": {"raw": {"num_samples": 2, "max_tokens": 40, "num_completions": 0, "no_constraint": True}},
            },
        },
    }
    folder.mkdir(exist_ok=True)
    (folder / "study.json").write_text(json.dumps(study | changes))
    return folder


class Here(ThreadPoolExecutor):
    """Runs what is submitted at once, in the thread that submits it."""

    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except (OSError, ValueError) as error:
            future.set_exception(error)
        return future


@pytest.fixture
def no_processes(monkeypatch):
    """The commands of a study run in this process: each of its own would load torch again."""

    def call(self, arguments, log):
        assert exit_code(sys.modules[arguments[1]].main, arguments[2:]) == 0

    monkeypatch.setattr(run_study.Runner, "call", call)
    monkeypatch.setattr(run_study, "ThreadPoolExecutor", Here)


@pytest.mark.slow
def test_a_study_runs_each_arm_once_and_reports(workflows, tmp_path, monkeypatch, capsys, no_processes):
    study, work = write_study(tmp_path / "rates"), tmp_path / "work"
    (study / "conclusion.md").write_text("## What we conclude\n\nNothing.")
    command = [str(study), "--workflows", str(workflows), "--work", str(work), "--jobs=1"]
    run_study.main(command)
    results = json.loads((study / "results.json").read_text())
    assert results.keys() == {"low-0", "high-0"}
    assert results["low-0"]["val_bpb"] != results["high-0"]["val_bpb"]
    assert results["low-0"]["held_out"]["held_out"]["val_bits_per_byte"] == pytest.approx(
        results["low-0"]["val_bpb"], abs=1e-4
    )
    page = (study / "README.md").read_text()
    for words in ("# Rates", "a high one", "Nothing.", "renormalised", "high, raw", "study.png", '"num_iterations": 2'):
        assert words in page

    [data] = (work / "prepared").glob("*/workflows.jsonl")
    sides = {}
    for line in data.read_text().splitlines():
        entry = json.loads(line)
        assert sides.setdefault(entry["group"], entry["split"]) == entry["split"]
    assert set(sides.values()) == {"train", "val"}

    monkeypatch.setattr(run_study.Runner, "call", None)  # nothing is left to do
    run_study.main(command)
    (study / "README.md").unlink()
    run_study.main([str(study), "--report-only"])
    assert (study / "README.md").read_text() == page
    assert json.loads((study / "results.json").read_text()) == results

    trained = json.loads((study / "study.json").read_text())["train"]
    write_study(study, train=trained | {"weight_decay": 0.1})
    with pytest.raises(SystemExit):
        run_study.main([str(study), "--report-only"])
    assert "there are no results yet" in capsys.readouterr().err  # none of these flags
    with pytest.raises(SystemExit):
        run_study.main(command)
    assert "trained with other flags (weight_decay 0.4 -> 0.1)" in capsys.readouterr().err


def test_a_readme_of_another_origin_is_not_replaced(workflows, tmp_path, capsys):
    study = write_study(tmp_path / "study")
    (study / "README.md").write_text("mine")
    with pytest.raises(SystemExit):
        run_study.main([str(study), "--workflows", str(workflows), "--work", str(tmp_path / "work")])
    assert "README.md exists and is not an earlier result" in capsys.readouterr().err
    assert (study / "README.md").read_text() == "mine" and not (tmp_path / "work").exists()


def test_a_failed_run_is_named_with_its_error(workflows, tmp_path, capsys, no_processes, monkeypatch):
    call = run_study.Runner.call

    def fail(self, arguments, log):
        if "scripts.tct_train" in arguments:
            raise OSError("exit code 2: error: no")
        call(self, arguments, log)

    monkeypatch.setattr(run_study.Runner, "call", fail)
    study = write_study(tmp_path / "wrong", arms={"low": {}})
    with pytest.raises(SystemExit) as exit:
        run_study.main([str(study), "--workflows", str(workflows), "--work", str(tmp_path / "work")])
    assert exit.value.code == 2 and "1 of 1 runs failed: low-0: exit code 2: error: no" in capsys.readouterr().err


def test_a_failing_command_is_reported_by_its_last_line(tmp_path):
    flags = SimpleNamespace(study=tmp_path, work=tmp_path, workflows=None, device="cpu", jobs=1)
    code = "print('first'); raise SystemExit('error: last')"
    with pytest.raises(OSError, match="exit code 1: error: last .*output.log"):
        run_study.Runner(flags, {}).call(["-c", code], tmp_path / "output.log")


@pytest.mark.slow
def test_a_stopped_study_saves_its_runs(workflows, tmp_path, spawn):
    study, work = write_study(tmp_path / "stopped"), tmp_path / "work"
    trained = json.loads((study / "study.json").read_text())["train"]
    write_study(study, arms={"low": {}}, train=trained | {"num_iterations": 100_000})
    process = spawn(sys.executable, "-m", "scripts.run_study", study, "--workflows", workflows, "--work", work)
    folder = work / "runs/stopped/low-0"
    while not (folder / "metrics.jsonl").is_file() or not (folder / "metrics.jsonl").read_text():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.terminate()  # the runner alone, not what it has started
    assert "the same command continues" in process.communicate()[1] and process.returncode == 143
    [saved] = folder.glob("meta_*.json")
    assert int(saved.stem.removeprefix("meta_")) < 100_000


def test_a_dry_run_lists_what_runs_cost(tmp_path, capsys):
    arms = {"low": {}, "high": {"train": {"num_iterations": 4000}}}
    study = write_study(
        tmp_path / "dry", arms=arms, train={"model_size": "tiny", "num_iterations": 2000, "device_batch_size": 1}
    )
    run_study.main([str(study), "--dry-run"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [["low-0", "2,000", "1,024,000", "0.014"], ["high-0", "4,000", "2,048,000", "0.029"]]


def test_evaluations_read_the_data_that_the_study_names(tmp_path):
    study = write_study(
        tmp_path / "study", evaluate_on={"window-step": 256}, arms={"low": {"prepare": {"window-step": 512}}}
    )
    [run] = run_study.runs_of(run_study.read_study(study))
    assert run.prepare == {"train-split": 0.5, "window-step": 512}
    assert run.evaluate_on == {"train-split": 0.5, "window-step": 256}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"reference": "none"}, "the reference 'none' is not an arm"),
        ({"arms": {"low": {"reference": "none"}}}, "the reference 'none' is not an arm"),
        ({"seed": 3}, "unknown key seed"),
        ({"arms": {"low": {"trian": {}}}}, "unknown key arms.low.trian"),
        ({"x": "hours"}, "x must be flops or tokens"),
        ({"arms": {"low": {"train": {"learning_rate": "fast"}}}}, "arms.low: --learning_rate must be a number"),
    ],
)
def test_a_study_with_a_fault_is_refused(changes, message, tmp_path, capsys):
    study = write_study(tmp_path / "study", **changes)
    with pytest.raises(SystemExit):
        run_study.main([str(study), "--report-only"])
    assert message in capsys.readouterr().err


def test_differences_are_paired_by_seed():
    runs = [("a", 0, 2.0), ("b", 0, 1.9), ("a", 1, 3.0), ("b", 1, 2.8), ("a", 2, 9.0)]
    done = [{"arm": arm, "seed": seed, "val_bpb": bits} for arm, seed, bits in runs]
    study = {"reference": "a", "arms": {"a": {}, "b": {}, "c": {"reference": "b"}}}
    assert difference("b", study, done) == "-0.1500 ± 0.6353 (-6.0%)"  # 12.706 * 0.0707 / sqrt(2)
    assert difference("a", study, done) == ""
    assert difference("c", study, [*done, {"arm": "c", "seed": 1, "val_bpb": 1.1}]) == "-1.7000 (-60.7%)"
    assert half_interval([1.0, 2.0, 3.0]) == pytest.approx(4.303 / 3**0.5)

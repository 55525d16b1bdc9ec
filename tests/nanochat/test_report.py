"""The record of a run: complete, legible, and never a reason for the run to end."""

import doctest
import io
import json
import math
import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat import curves
from nanochat.curves import plot_metrics
from nanochat.report import main, render_report
from nanochat.run_folder import read_metrics
from nanochat.run_log import RunLog
from script_tools import tables

CONFIG = {
    "command": "python -m scripts.tct_train --model_size small",
    "date": "2026-11-30T10:00:00",
    "versions": {"python": "3.11.9", "torch": "2.13.0"},
    "device": "cuda x 1, bfloat16",
    "settings": {"num_iterations": 400, "learning_rate": 0.002},
    "model_config": {"n_layer": 4},
    "parameters": 1234567,
    "data": {"splits": {"val": {"tokens": 890}}},
    "checkpoint_dir": "out/small",
}
SHORT = CONFIG | {"settings": {"num_iterations": 10}}


def training(step, loss=2.0):
    return {
        "step": step,
        "loss": loss,
        "grad_norm": 0.5,
        "lr": 1e-3,
        "tokens_per_second": 1000.0 + step,
        "epoch": step / 50,
        "seconds": 60.0 * step,
    }


def validation(step, loss):
    return {"step": step, "val_loss": loss, "val_ppl": math.exp(loss) if loss < 700 else math.inf, "val_bpb": loss / 5}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def log(folder):
    return RunLog(folder, config=CONFIG)


@pytest.fixture
def no_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # makes the import fail
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def test_examples_in_docstrings_hold():
    assert doctest.testmod(curves).failed == 0


# -----------------------------------------------------------------------------
# metrics.jsonl


def test_a_resumed_run_keeps_the_metrics_until_its_checkpoint(folder, log):
    for step in (1, 2, 3):
        log.log_metrics(training(step))
    RunLog(folder, config=CONFIG, first_step=2).log_metrics(training(3, loss=1.0))
    assert read_metrics(folder / "metrics.jsonl") == [training(1), training(2), training(3, loss=1.0)]


def test_a_line_cut_by_a_crash_is_skipped(folder, log):
    log.log_metrics(training(1))
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "lo')
    assert read_metrics(folder / "metrics.jsonl") == [training(1)]
    RunLog(folder, config=CONFIG, first_step=5).log_metrics(training(6))
    assert read_metrics(folder / "metrics.jsonl") == [training(1), training(6)]


def test_a_new_run_begins_with_no_metrics(folder, log):
    log.log_metrics(training(1))
    RunLog(folder, config=CONFIG)
    assert (folder / "metrics.jsonl").read_text() == ""


def test_metrics_that_are_not_finite_are_skipped(folder, log):
    log.log_metrics(validation(1, 800.0))
    log.log_metrics({"step": 2, "loss": math.nan})
    one, two = (folder / "metrics.jsonl").read_text().splitlines()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads(one, parse_constant=refuse) == {"step": 1, "val_loss": 800.0, "val_bpb": 160.0}
    assert json.loads(two, parse_constant=refuse) == {"step": 2}


# -----------------------------------------------------------------------------
# config.json


def test_config_has_the_status_of_the_run(folder, log):
    assert config_of(folder).items() >= {**CONFIG, "status": "running", "history": []}.items()
    log.finish("stopped at iteration 120")
    assert config_of(folder)["status"] == "stopped at iteration 120"


def test_history_keeps_the_commands_of_every_start(folder, log):
    for first_step in (100, 200):
        RunLog(
            folder,
            first_step=first_step,
            config={**CONFIG, "command": f"resumed {first_step}", "date": f"day {first_step}"},
        )
    assert config_of(folder)["command"] == "resumed 200"
    assert config_of(folder)["history"] == [
        {"command": CONFIG["command"], "date": CONFIG["date"], "first_step": 0},
        {"command": "resumed 100", "date": "day 100", "first_step": 100},
    ]
    text = render_report(folder)
    assert CONFIG["command"] in text and "resumed 100" in text and "resumed 200" in text


def test_a_run_without_a_config_can_be_resumed(folder):
    folder.mkdir()
    RunLog(folder, config=CONFIG, first_step=7)
    assert config_of(folder)["history"] == []


# -----------------------------------------------------------------------------
# lines and the progress bar


def test_lines_go_to_stdout_and_to_the_log_file(folder, capsys):
    log = RunLog(folder, config=CONFIG, is_experiment=True)
    log.log("step 1 → 2")
    log.log("step 2")
    assert capsys.readouterr().out == "step 1 → 2\nstep 2\n"
    [path] = (folder / "logs").iterdir()
    assert re.fullmatch(r"training_\d{8}_\d{6}\.log", path.name)
    assert path.read_text("utf-8") == "step 1 → 2\nstep 2\n"


def test_there_is_no_bar_without_a_terminal(folder, capsys):
    log = RunLog(folder, config=SHORT)
    log.advance(5, loss=1.0)
    log.finish("finished")
    assert capsys.readouterr().err == ""


def test_the_bar_of_a_resumed_run_starts_at_its_step(folder, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    log = RunLog(folder, config=SHORT, first_step=4)
    log.advance(7, loss=1.25)
    log.finish("stopped")
    first, *_, last = sys.stderr.getvalue().strip().split("\r")
    assert " 4/10 " in first and " 7/10 " in last and "it/s" in last and "loss=1.25" in last


def test_a_line_clears_the_bar_before_it_and_redraws_it_after(folder, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(sys, "stdout", sys.stderr)  # as on a screen
    log = RunLog(folder, config=SHORT)
    log.log("a line")
    assert re.search(r" 0/10 .*\r +\ra line\n\r? .* 0/10 ", sys.stderr.getvalue())
    log.finish("stopped")


def test_lines_reach_stdout_if_only_stderr_is_a_terminal(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", Terminal())
    log = RunLog(folder, config=SHORT)
    log.log("a line")
    assert capsys.readouterr().out == "a line\n" and "a line" not in sys.stderr.getvalue()
    log.finish("stopped")


# -----------------------------------------------------------------------------
# what must not stop a run


def test_a_full_disk_is_reported_once_per_file(tmp_path, file_size_limit, capsys):
    log = RunLog(tmp_path, config=CONFIG, is_experiment=True)
    log.log_metrics(training(1))
    with file_size_limit(200):
        for step in (2, 3):
            log.log_metrics(training(step))
            log.log(f"step {step}")
            log.redraw()
    log.log_metrics(training(9))
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if line.startswith("training continues without")]
    for name in ("metrics.jsonl", "curves.png", "README.md", "the log file"):
        assert sum(line.startswith(f"training continues without {name}: ") for line in told) == 1, lines
    assert all(line.endswith("File too large") for line in told) and len(told) == 4
    assert [line for line in lines if line not in told] == ["step 2", "step 3"]
    assert read_metrics(tmp_path / "metrics.jsonl") == [training(1), training(9)]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "curves.png", "README.md", "the log file"])
def test_a_file_that_cannot_be_written_is_reported_once(folder, capsys, monkeypatch, name):
    if name != "curves.png":
        monkeypatch.setattr(curves, "plot_metrics", lambda *paths: None)  # which takes a second
    if name == "the log file":
        folder.mkdir()
        (folder / "logs").write_text("not a folder")
    else:
        (folder / name).mkdir(parents=True)
    log = RunLog(folder, config=CONFIG, is_experiment=True)
    for step in (1, 2):
        log.log(f"step {step}")
        log.log_metrics(training(step))
        log.redraw()
    log.finish("finished")
    told = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("step")]
    assert told[0].startswith(f"training continues without {name}: {folder}/")
    assert [line.split(":")[0] for line in told[1:]] == (  # which is made from it
        ["training continues without README.md"] if name == "config.json" else []
    )


def test_without_matplotlib_there_is_one_note_and_no_picture(folder, log, no_matplotlib, capsys):
    for step in (1, 2):
        log.log_metrics(training(step))
        log.redraw()
    log.finish("finished")
    assert capsys.readouterr().out == "training continues without curves.png: matplotlib is not installed\n"
    assert not (folder / "curves.png").exists()
    assert "curves.png" not in (folder / "report.md").read_text()


# -----------------------------------------------------------------------------
# the curves


@pytest.mark.parametrize("steps", [1, 2, 150])
def test_curves_are_a_png(folder, log, steps):
    for step in range(1, steps + 1):
        log.log_metrics(training(step, loss=9 / step))
        if step % 50 == 0:
            log.log_metrics(validation(step, 10 / step))
    log.redraw()
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "](curves.png)" in (folder / "report.md").read_text()


def test_a_run_with_validations_only_can_be_drawn(folder, log):
    log.log_metrics(validation(1, 800.0))
    plot_metrics(folder / "metrics.jsonl", folder / "curves.png")
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


# -----------------------------------------------------------------------------
# the report


def test_the_report_has_the_figures_of_the_run(folder, log):
    for step, loss in ((10, 3.0), (20, 2.5), (30, 2.25)):
        log.log_metrics(training(step, loss))
    for step, loss in ((10, 3.0), (20, 1.0), (30, 2.0)):
        log.log_metrics(validation(step, loss))
    text = render_report(folder)
    for shown in (
        "# run\n",
        "| status | running |",
        "| parameters | 1,234,567 |",
        "| iterations | 30 of 400 |",
        "| epochs | 0.60 |",
        "| training time | 0:30:00 |",
        "| tokens per second (median) | 1,020 |",
        "| last training loss | 2.2500 nats per token |",
        "| best validation | 1.0000 nats per token, perplexity 2.72, 0.2000 bits per byte, at iteration 20 |",
        "| checkpoints | `out/small` |",
        "| 30 | 2.0000 | 7.39 | 0.4000 |",
        "```\npython -m scripts.tct_train --model_size small\n```",
        "2026-11-30T10:00:00",
        "python 3.11.9, torch 2.13.0",
        "cuda x 1, bfloat16",
        "| learning_rate | 0.002 |",
        '"n_layer": 4',
        '"tokens": 890',
    ):
        assert shown in text, shown


@pytest.mark.parametrize("best", [1, 2, 37, 100])
@pytest.mark.parametrize("count", [1, 2, 18, 19, 20, 21, 100])
def test_the_validation_table_has_first_best_and_last(folder, log, count, best):
    best = min(best, count)
    for step in range(1, count + 1):
        log.log_metrics(validation(step, 1.0 if step == best else 2.0))
    rows = re.findall(r"^\| (\d+) \| (\d\.\d{4}) \|", render_report(folder), re.MULTILINE)
    steps = [int(step) for step, _ in rows]
    assert steps == sorted(set(steps)) and {1, best, count} <= set(steps)
    assert min(count, 19) <= len(steps) <= 20


def test_a_run_that_just_began_has_a_report(folder, log):
    log.redraw()
    assert "| status | running |" in (folder / "report.md").read_text()
    (folder / "metrics.jsonl").unlink()
    assert render_report(folder) == (folder / "report.md").read_text()


def test_an_infinite_perplexity_is_shown(folder, log):
    log.log_metrics(validation(5, 800.0))
    assert "| 5 | 800.0000 | inf | 160.0000 |" in render_report(folder)


def test_samples_are_linked_and_the_newest_is_shown(folder, log):
    for step in (500, 1000):
        for name in ("0.yml", "1 b.yml"):
            path = folder / f"generated_samples/step_{step:06d}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"name: {name} of {step}\n")
    text = render_report(folder)
    assert (
        "- step_000500: [0.yml](generated_samples/step_000500/0.yml), "
        "[1 b.yml](generated_samples/step_000500/1%20b.yml)\n" in text
    )
    assert "```yaml\nname: 0.yml of 1000\n```" in text and "of 500" not in text


def test_a_sample_cannot_end_its_code_block(folder, log):
    path = folder / "generated_samples/step_000001/0.yml"
    path.parent.mkdir(parents=True)
    path.write_text("run: |\n  ```\n  x\n  ```\n")
    assert "````yaml\nrun: |\n  ```\n  x\n  ```\n````" in render_report(folder)


def test_the_report_of_an_experiment_is_its_readme(folder):
    RunLog(folder, config=CONFIG, is_experiment=True).finish("finished")
    assert "| status | finished |" in (folder / "README.md").read_text()
    assert not (folder / "report.md").exists() and not (folder / "report.html").exists()


def test_the_report_is_also_a_page_with_its_curves(folder, log):
    log.log_metrics(training(1))
    log.finish("stopped: a < b")
    page = (folder / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 1 and "curves.png" not in page
    assert '<meta name="viewport"' in page and "prefers-color-scheme: dark" in page
    assert "<td>stopped: a &lt; b</td>" in page


# -----------------------------------------------------------------------------
# plain tables

CELL = st.text("abc1,. ", min_size=1, max_size=30).map(str.strip).filter(bool)


@given(st.lists(st.lists(CELL, min_size=1, max_size=4), min_size=1, max_size=5))
def test_no_two_cells_of_a_row_touch(rows):
    rows = [[re.sub(" +", " ", cell) for cell in row] for row in rows]
    assert [re.split("  +", line.strip()) for line in tables.columns(rows).split("\n")] == rows


# -----------------------------------------------------------------------------
# the command


def test_the_command_writes_the_report_again(folder, log, capsys):
    log.log_metrics(training(1))
    main([str(folder)])
    assert capsys.readouterr().out.endswith(f"written to {folder / 'report.md'}\n")
    assert (folder / "report.md").read_text() == render_report(folder)


def test_the_command_works_without_matplotlib(folder, log, no_matplotlib, capsys):
    log.log_metrics(training(1))
    main([str(folder)])
    assert "no curves.png: matplotlib is not installed" in capsys.readouterr().out
    assert (folder / "report.md").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "there is no folder"),
        ({}, "it has no config.json"),
        ({"config.json": "{"}, "is not of a training run"),
        ({"config.json": '{"vocab_size": 1}'}, "is not of a training run"),
        ({"config.json": '{"report": "/etc/hosts"}'}, "is not of a training run"),
        ({"config.json": "[]"}, "is not of a training run"),
    ],
)
def test_a_folder_without_a_run_is_refused_in_one_sentence(folder, capsys, content, message):
    if content is not None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)
    with pytest.raises(SystemExit) as exit:
        main([str(folder)])
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert message in error and str(folder) in error


def test_help_imports_neither_matplotlib_nor_torch():
    code = """
import sys
from nanochat.report import main
try:
    main(["--help"])
except SystemExit as exit:
    assert exit.code == 0
assert not {"matplotlib", "torch", "numpy", "tqdm"} & sys.modules.keys()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "FOLDER" in run.stdout


# -----------------------------------------------------------------------------
# wandb


def test_wandb_that_is_missing_is_an_error_for_the_user(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="--run needs the package wandb: install it, or leave --run out"):
        RunLog(folder, config=CONFIG, wandb_name="name")


def test_wandb_gets_the_records_offline(folder, tmp_path):
    pytest.importorskip("wandb")
    code = f"""
from nanochat.run_log import RunLog
log = RunLog({str(folder)!r}, config={CONFIG!r}, wandb_name="name")
log.log_metrics({training(1)})
log.finish("finished")
"""
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))

"""The campaign of experiments/gpu, dry: every line of it runs on a CPU, and a step that fails stops no other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "experiments/gpu"


def run_campaign(output: Path, *fail: str) -> dict[str, str]:
    """Run the campaign with these steps made to fail. Return the status of each step."""
    flags = [flag for name in fail for flag in ("--fail", name)]
    command = ["bash", FOLDER / "campaign.sh", "--dry-run", "--output", output, *flags]
    process = subprocess.run(command, capture_output=True, text=True)
    log = (output / "log.txt").read_text()
    assert process.returncode == 1, log
    assert f"{', '.join(fail)} failed" in process.stderr
    assert "results.jsonl" in process.stdout
    lines = map(json.loads, (output / "results.jsonl").read_text().splitlines())
    statuses = {line["step"]: line["status"] for line in lines if line["check"] == "step"}
    print(log)  # pytest shows it if what follows fails
    return statuses


FAILED = "failed with exit code 1"


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("campaign") / "results"
    assert run_campaign(output, "correct") == {"correct": FAILED, "fast": "ok", "trained": "ok"}
    return output


@pytest.mark.slow
def test_the_step_before_and_after_a_failed_one_runs(tmp_path):
    statuses = run_campaign(tmp_path / "results", "fast", "trained")
    assert statuses == {"correct": "ok", "fast": FAILED, "trained": FAILED}


@pytest.mark.slow
def test_what_comes_back_is_small_enough(results):
    sizes = [path.stat().st_size for path in results.iterdir()]
    assert len(sizes) <= 8 and max(sizes) <= 15 << 20 and sum(sizes) <= 60 << 20


@pytest.mark.slow
def test_a_report_and_a_model_are_made_of_what_came_back(results, tmp_path):
    report, model = tmp_path / "report", tmp_path / "model"
    command = [sys.executable, FOLDER / "report.py", results, "--output", report, "--model", model]
    subprocess.run(command, check=True)
    text = (report / "README.md").read_text()
    assert "tiny with flags, batch 1, compiled" in text and "![Loss over updates](loss.png)" in text
    assert (report / "loss.png").is_file() and (report / "speed.png").is_file()

    from nanochat.checkpoint_manager import load_model

    loaded, meta = load_model(model)
    assert meta["model_config"]["state_attention"]
    assert all(torch.equal(t, t.bfloat16().float()) for t in loaded.state_dict().values())


def test_results_are_never_overwritten(results):
    process = subprocess.run(
        ["bash", FOLDER / "campaign.sh", "--dry-run", "--output", results], capture_output=True, text=True
    )
    assert process.returncode == 1 and "is not empty" in process.stderr

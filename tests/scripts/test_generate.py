"""Generation from a checkpoint: samples are valid without training, errors are one sentence."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import jsonschema_rs
import pytest

import tct_github_workflow as tct
from nanochat.checkpoint_manager import save_checkpoint
from nanochat.gpt import GPT, GPTConfig
from scripts import generate_workflow
from tct_github_workflow.workflow_yaml import load_workflow

ROOT = Path(__file__).parents[2]


def is_valid(workflow) -> bool:
    return jsonschema_rs.validator_for(tct.workflow_schema()).is_valid(workflow)


def test_samples_are_valid_distinct_and_reproducible(tct_checkpoint, tmp_path):
    for run in ("first", "second"):
        flags = [
            "--checkpoint",
            str(tct_checkpoint),
            "--num_samples",
            "8",
            "--max_tokens=150",
            "--temperature=1.0",
        ]
        generate_workflow.main([*flags, "--output", str(tmp_path / run), "--format", "json"])
    files = sorted((tmp_path / "first").iterdir())
    texts = [file.read_text() for file in files]
    assert len(files) == len(set(texts)) == 8
    assert all(is_valid(json.loads(text)) for text in texts)
    assert texts == [(tmp_path / "second" / file.name).read_text() for file in files]


def test_a_prompt_is_kept_and_completed(tct_checkpoint, tmp_path):
    prompt = {
        "name": "Mine",
        "on": {"push": {"branches": ["main"]}},
        "jobs": {"test": {"runs-on": "ubuntu-latest"}},
    }
    (tmp_path / "begun.json").write_text(json.dumps(prompt))
    flags = ["--checkpoint", str(tct_checkpoint / "model_000003.pt"), "--prompt", str(tmp_path / "begun.json")]
    generate_workflow.main([*flags, "--max_tokens", "100", "--output", str(tmp_path / "out")])
    workflow = load_workflow((tmp_path / "out/workflow_0000.yml").read_text())
    assert is_valid(workflow)
    assert workflow["name"] == "Mine" and workflow["on"] == prompt["on"]
    assert workflow["jobs"]["test"]["runs-on"] == "ubuntu-latest"


def test_samples_go_to_the_screen_in_order(tct_checkpoint, capsys):
    generate_workflow.main(["--checkpoint", str(tct_checkpoint), "--num_samples=3", "--max_tokens=60"])
    shown = capsys.readouterr().out
    assert [line[:10] for line in shown.splitlines() if line.startswith("# sample ")] == [
        f"# sample {i}" for i in range(3)
    ]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--checkpoint", "nowhere"], "nowhere"),
        (["--checkpoint", "{checkpoint}", "--prompt", "missing.yml"], "missing.yml: No such file"),
        (["--checkpoint", "{checkpoint}", "--prompt", "{tmp}/broken.yml"], "broken.yml: line 2"),
        (["--checkpoint", "{checkpoint}", "--prompt", "{tmp}/invalid.json"], r"$.on: expected"),
        (["--checkpoint", "{checkpoint}/model_000009.pt"], "iteration 9"),
        (["--checkpoint", "{other}"], "was made with tokenizer other 123"),
        (["--checkpoint", "{checkpoint}", "--temprature", "1"], "--temprature"),
        (["--checkpoint", "{checkpoint}", "--top_p", "7"], "top_p"),
        (["--checkpoint", "{checkpoint}", "--num_samples", "0"], "num_samples"),
    ],
)
def test_a_user_error_is_one_sentence_and_exit_code_2(flags, message, tct_checkpoint, tmp_path, capsys):
    (tmp_path / "broken.yml").write_text("on: push\nname: ]\njobs:\n")
    (tmp_path / "invalid.json").write_text('{"on": 7}')
    other = tmp_path / "other"
    model = GPT(GPTConfig(sequence_len=64, n_layer=1, n_head=1, n_kv_head=1, n_embd=16))
    data = {"stride": 32, "tokenizer": {"name": "other", "fingerprint": "123"}}
    save_checkpoint(other, 1, model.state_dict(), {}, {"model_config": vars(model.config), "data": data})
    places = {"checkpoint": tct_checkpoint, "tmp": tmp_path, "other": other}
    with pytest.raises(SystemExit) as exit:
        generate_workflow.main([flag.format(**places) for flag in flags])
    shown = capsys.readouterr().err
    assert exit.value.code == 2
    assert message in shown and shown.startswith("error: ") and shown.count("\n") == 1


@pytest.mark.parametrize("example", ["example_quickstart.py", "example_windowed.py"])
def test_the_examples_run(example, capsys):
    runpy.run_path(str(ROOT / "tct-bundle/examples" / example), run_name="__main__")
    said = "round trip: SUCCESS" if "quickstart" in example else "structure verified"
    assert said in capsys.readouterr().out


@pytest.mark.slow
def test_the_script_runs_by_its_path_too(tct_checkpoint):
    command = [
        sys.executable,
        "scripts/generate_workflow.py",
        "--checkpoint",
        tct_checkpoint,
        "--max_tokens",
        "60",
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and is_valid(load_workflow(run.stdout))

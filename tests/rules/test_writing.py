"""The rules while a workflow is written: what may follow, what is owed, and how it ends."""

import json
import random
from itertools import cycle, islice, takewhile

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

import tct_github_workflow as tct
from script_tools.bitmask import allowed_tokens
from tct.symbols import FIRST_BYTE
from tct_github_workflow.rules import check
from tct_github_workflow.rules.checks import LARGEST_NUMBER, MAX_INPUTS
from tct_github_workflow.workflow_yaml import WorkflowSyntaxError, load_workflow
from workflow_synth.compose import compose_workflows

JOB = {"runs-on": "ubuntu-latest", "steps": [{"run": "make"}]}


def close(tokens: list[int], matcher) -> dict:
    """Complete a workflow, and return it. The matcher accepts what completes it."""
    ending = matcher.closing_tokens()
    assert matcher.fork().accept_tokens(ending)
    text = tct.decode([*tokens, *ending])[0]
    tct.encode(text)  # schema-valid
    assert check(json.loads(text)) == []
    return json.loads(text)


def assert_written_and_closed(workflow: dict, cuts: int, seed: int) -> None:
    """Write a workflow without findings token by token, and complete it where it is cut."""
    tokens = tct.encode(json.dumps(workflow))
    at = set(random.Random(seed).sample(range(len(tokens)), min(cuts, len(tokens))))
    matcher = tct.matcher("github")
    for index, token in enumerate(tokens):
        if index in at:
            said, ended = json.loads(tct.decode_prefix(tokens[:index])[0]), close(tokens[:index], matcher)
            assert is_kept(said, ended)
        assert matcher.accept_token(token), (index, tct.id_to_token(token))
    assert matcher.is_terminated()


def is_kept(start, whole) -> bool:
    """Does a value begin with another one, which is cut?"""
    if isinstance(start, dict):
        return isinstance(whole, dict) and all(key in whole and is_kept(start[key], whole[key]) for key in start)
    if isinstance(start, list):
        return isinstance(whole, list) and all(map(is_kept, start, whole)) and len(start) <= len(whole)
    return whole.startswith(start) if isinstance(start, str) else True


@pytest.mark.parametrize(("name", "workflow"), compose_workflows(12, seed=3))
def test_a_clean_workflow_can_be_written_and_closed_anywhere(name, workflow):
    assert check(workflow) == []
    assert_written_and_closed(workflow, cuts=6, seed=1)


@pytest.mark.slow
def test_every_real_workflow_without_findings_can_be_written(corpus):
    files, written = sorted((corpus / "workflows").rglob("*.y*ml")), 0
    for file in random.Random(4).sample(files, 150):
        try:
            workflow = load_workflow(file.read_bytes())
            tct.encode(json.dumps(workflow))
        except (WorkflowSyntaxError, ValueError):
            continue
        if not check(workflow):
            assert_written_and_closed(workflow, cuts=2, seed=2)
            written += 1
    assert written > 100


def walk(seed: int, length: int) -> tuple[list[int], object]:
    """Write random tokens, mostly structure. Return them and the matcher."""
    rng, matcher, tokens = np.random.default_rng(seed), tct.matcher("github"), []
    mask = matcher.allocate_token_bitmask()
    sizes = np.array([len(tct.tokenizer().bpe.symbols_of[token]) for token in range(tct.vocab_size())])
    while len(tokens) < length and not matcher.is_terminated():
        matcher.fill_candidate_bitmask(mask)
        candidates = allowed_tokens(mask[0])
        order = candidates[np.argsort(rng.gumbel(size=len(candidates)) - 2 * (sizes[candidates] < 3))]
        tokens.append(next(token for token in map(int, order) if matcher.accept_token(token)))  # no dead end
    return tokens, matcher


@given(st.integers(0, 2**32), st.integers(0, 40))
def test_a_random_walk_can_be_closed(seed, length):
    tokens, matcher = walk(seed, length)
    close(tokens, matcher)


CHOICE = "on:\n  workflow_dispatch:\n    inputs:\n      i:\n        type: choice\n        default: b\n"
OWED = [  # the start of a workflow, and a part of its end
    ("jobs:\n  a:\n    runs-on: ${{ matrix.os }}\n", lambda w: "os" in w["jobs"]["a"]["strategy"]["matrix"]),
    ("jobs:\n  a:\n    needs: test\n", lambda w: "test" in w["jobs"]),
    ("jobs:\n  a:\n    if: needs.b.outputs.c == 'd'\n", lambda w: "c" in w["jobs"]["b"]["outputs"]),
    ("jobs:\n  a:\n    name: ${{ inputs.who }}\n", lambda w: "who" in w["on"]["workflow_dispatch"]["inputs"]),
    (
        "on:\n  workflow_call:\n    outputs:\n      o:\n        value: ${{ jobs.build.outputs.path }}\njobs:\n",
        lambda w: "path" in w["jobs"]["build"]["outputs"],
    ),
    (CHOICE, lambda w: "b" in w["on"]["workflow_dispatch"]["inputs"]["i"]["options"]),
    (
        "name: x\nconcurrency: ${{ inputs.who }}\non:\n  workflow_dispatch:\n    inputs: {a: {}}\n"
        "  workflow_call:\n    inputs:\n      b",
        lambda w: "who" in w["on"]["workflow_call"]["inputs"],
    ),
    ("jobs:\n  a:\n    outputs:\n      x: ${{ steps.get.outputs.y }}\n", lambda w: w["jobs"]["a"]["steps"][0]["id"]),
]  # fmt: skip


@pytest.mark.parametrize(("start", "is_paid"), OWED)
def test_what_is_owed_is_paid(start, is_paid):
    prefix, matcher = tct.encode_prefix(start), tct.matcher("github")
    assert matcher.accept_prefix(prefix)
    assert is_paid(close(prefix[: prefix.n_stable], matcher))


REFUSED = [  # a workflow that is complete up to its last value, which the rules refuse
    {"on": "push", "jobs": {"a": {**JOB, "needs": "a"}}},
    {"on": "push", "jobs": {"a": JOB, "b": {**JOB, "needs": ["a", "A"]}}},
    {"on": "push", "jobs": {"a": {"runs-on": "x", "steps": [{"run": "${{ steps.none.outcome }}"}]}}},
    {"on": "push", "jobs": {"a": {"runs-on": "x", "steps": [{"run": "echo ${{ github.event.issue.title }}"}]}}},
    {"on": {"schedule": [{"cron": "* * * * *"}]}, "jobs": {"a": JOB}},
    {"on": {"push": {"branches": ["a b"]}}, "jobs": {"a": JOB}},
    {"on": "push", "jobs": {"a": {**JOB, "timeout-minutes": 0}}},
    {"on": "push", "jobs": {"a": {"runs-on": "", "steps": [{"run": "make"}]}}},
    {"on": "push", "env": {"A B": "1"}, "jobs": {"a": JOB}},
    {"on": "push", "env": {"A}} ${{ github.sha }}": "1"}, "jobs": {"a": JOB}},  # actionlint sees no expression
    {"on": "push", "env": "\x1f${{ fromJSON('{}') }}", "jobs": {"a": JOB}},
    {"on": {"push": {"paths": ["a\0"]}}, "jobs": {"a": JOB}},
    {"on": "push", "jobs": {"a": {**JOB, "container": {"image": "a", "env": "${{ secrets }}"}}}},
]


@pytest.mark.parametrize("workflow", REFUSED)
def test_what_has_a_finding_cannot_be_written(workflow):
    tokens = tct.encode(json.dumps(workflow))
    assert check(workflow)
    assert tct.matcher("schema").validate_tokens(tokens) == len(tokens)
    assert tct.matcher("github").validate_tokens(tokens) < len(tokens)


@pytest.mark.slow
def test_the_mask_is_exact():
    for seed in range(3):
        _, matcher = walk(seed, 12)
        if matcher.is_terminated():
            continue
        mask = matcher.allocate_token_bitmask()
        matcher.fill_next_token_bitmask(mask)
        allowed = {token for token in range(tct.vocab_size()) if matcher.validate_tokens([token])}
        assert set(map(int, allowed_tokens(mask[0]))) == allowed


def test_a_prompt_that_breaks_a_rule_is_named():
    prefix = tct.encode_prefix(
        "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: ${{ steps.b.outcome }}\n"
    )
    matcher = tct.matcher("github")
    assert not matcher.accept_prefix(prefix)
    assert matcher.fault(prefix) == "jobs.a.steps.0.run: no expression starts with '${{ steps.' here [no-ending]"
    assert tct.matcher("schema").accept_prefix(prefix)


def test_an_index_with_capitals_refers_to_nothing_that_may_come():
    prefix = tct.encode_prefix("jobs:\n  a:\n    if: inputs['Who'] == 'x'\n    name: a\n")
    assert not tct.matcher("github").accept_prefix(prefix)
    prefix = tct.encode_prefix("jobs:\n  a:\n    if: inputs['who'] == 'x'\n    name: a\n")
    assert tct.matcher("github").accept_prefix(prefix)


def test_a_prompt_may_be_cut_in_a_text_that_follows_structure():
    prefix, matcher = (
        tct.encode_prefix("jobs:\n  a:\n    steps:\n      - with:\n          node-ve"),
        tct.matcher("github"),
    )
    assert matcher.accept_prefix(prefix)
    close(prefix[: prefix.n_stable], matcher)


def test_what_is_refused_with_a_token_is_refused():
    n_refused = 0
    for seed in range(12):
        _, matcher = walk(seed, 20)
        mask = matcher.allocate_token_bitmask()
        matcher.fill_candidate_bitmask(mask)
        candidates = np.random.default_rng(seed).permutation(allowed_tokens(mask[0]))[:40]
        for token in map(int, candidates):
            if not matcher.validate_tokens([token]):
                like = matcher.refused_like(token)
                assert token in like and not any(matcher.validate_tokens([int(other)]) for other in like[:20])
                n_refused += 1
    assert n_refused > 10


@pytest.mark.parametrize("include", ["", "include: [", "include:\n          - a: 1\n", "include: [{os: c}, {a: 1, b: "])
def test_an_ending_includes_what_is_excluded_and_not_in_its_row(include):
    matrix = f"exclude: [{{os: b, a: 1}}, {{os: c}}, {{os: {{d: [1]}}}}]\n        os: [a]\n        {include}"
    prefix = tct.encode_prefix(f"on: push\njobs:\n  a:\n    strategy:\n      matrix:\n        {matrix}")
    matcher = tct.matcher("github")
    assert matcher.accept_prefix(prefix)
    found = close(prefix[: prefix.n_stable], matcher)["jobs"]["a"]["strategy"]["matrix"]
    assert found["os"] == ["a"] and found["include"]


def test_inputs_that_are_owed_always_have_room():
    start = "run-name: ${{ github.event.inputs.b }}\non:\n  workflow_dispatch:\n    inputs:\n"
    for count in range(MAX_INPUTS + 1):
        prefix = tct.encode_prefix(start + "".join(f"      a{i}:\n        type: string\n" for i in range(count)))
        matcher = tct.matcher("github")
        assert matcher.accept_prefix(prefix) == (count < MAX_INPUTS)
        if count < MAX_INPUTS:
            inputs = close(prefix[: prefix.n_stable], matcher)["on"]["workflow_dispatch"]["inputs"]
            assert list(inputs)[count:] == ["b"]


def test_more_owed_inputs_than_allowed_exclude_their_event():
    env = "".join(f"  A{i}: ${{{{ github.event.inputs.a{i} }}}}\n" for i in range(MAX_INPUTS + 1))
    assert not tct.matcher("github").accept_prefix(tct.encode_prefix(f"env:\n{env}on:\n  workflow_dispatch:\n"))
    assert tct.matcher("github").accept_prefix(tct.encode_prefix(f"env:\n{env}on:\n  push:\n"))


NESTING = ["(", "!", "startsWith(1||", "fromJSON(", "contains(", "format('{0}', ", "github[", "1 == ", "hashFiles("]
NESTING += ["github.event.", "!!!!!"]


@given(st.lists(st.sampled_from(NESTING), min_size=1, max_size=3), st.integers(20, 60))
@settings(max_examples=3, phases=[Phase.explicit, Phase.generate])  # shrinking takes minutes
@example(["(", "startsWith(1||", "("], 41)
@example(["startsWith(1||"], 26)
@example(["("], 20)
@example(["1 == ", "!!!!!", "hashFiles("], 28)
@example(["!!!!!", "!!!!!", "github.event."], 30)
def test_an_expression_at_the_greatest_depth_can_be_completed_byte_by_byte(pieces, count):
    matcher, workflow = tct.matcher("github"), {"on": "push", "jobs": {"a": {"runs-on": "b", "steps": [{"run": ""}]}}}
    assert matcher.accept_tokens(tct.encode(json.dumps(workflow))[:-2])
    text = "${{ fromJSON(" + "".join(islice(cycle(pieces), count))
    written = sum(1 for byte in takewhile(lambda byte: matcher.accept_token(byte + FIRST_BYTE), text.encode()))
    assert written > 13
    for token in matcher.closing_tokens():
        for symbol in tct.tokenizer().vocabulary.bpe.symbols_of[token]:
            assert matcher.accept_token(symbol)
    assert matcher.is_terminated()


@pytest.mark.parametrize("job", [{"timeout-minutes": 7}, {"strategy": {"matrix": {"a": ["b"]}, "max-parallel": 7}}])
def test_a_number_grows_up_to_the_largest_one(job):
    matcher, symbols_of = tct.matcher("github"), tct.tokenizer().vocabulary.bpe.symbols_of
    tokens = tct.encode(json.dumps({"on": "push", "jobs": {"a": JOB | job}}))
    symbols = [symbol for token in tokens for symbol in symbols_of[token]]
    assert matcher.accept_tokens(symbols[: symbols.index(ord("7") + FIRST_BYTE)])
    digits = "".join(takewhile(lambda digit: matcher.accept_token(ord(digit) + FIRST_BYTE), "21474836479"))
    assert int(digits) == LARGEST_NUMBER


def test_rules_have_three_names():
    with pytest.raises(ValueError, match="rules must be schema or github or known, not 'none'"):
        tct.matcher("none")

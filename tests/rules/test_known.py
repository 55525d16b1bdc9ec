"""Workflows that have only known actions, inputs and runners, and the table of those."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tct_github_workflow as tct
from tct_github_workflow.rules import check
from tct_github_workflow.rules.known import known_actions
from workflow_data.build_known_actions import build, main

START = "on: push\njobs:\n  a:\n"


def completed(start: str) -> dict:
    prefix, matcher = tct.encode_prefix(start), tct.matcher("known")
    assert matcher.accept_prefix(prefix), matcher.fault(prefix)
    workflow = json.loads(tct.decode([*prefix[: prefix.n_stable], *matcher.closing_tokens()])[0])
    assert check(workflow, known_actions=True) == []
    return workflow["jobs"]["a"]


def test_what_is_cut_becomes_known():
    assert completed(START + "    runs-on: windows-11")["runs-on"] == "windows-11-arm"
    assert completed(START + "    steps:\n      - uses: actions/che")["steps"][0]["uses"].startswith(
        "actions/checkout@"
    )
    assert completed(START + "    uses: s")["uses"] in known_actions().workflows
    step = completed(START + "    steps:\n      - uses: actions/setup-node@v4\n        with: {")["steps"][0]
    assert step["with"].keys() <= set(known_actions().inputs["actions/setup-node"])


def test_inputs_before_the_action_choose_it():
    step = completed(START + "    steps:\n      - with:\n          node-version: 20\n          cache: npm\n")["steps"][
        0
    ]
    assert {"node-version", "cache"} <= set(known_actions().inputs[step["uses"].split("@")[0]])


@pytest.mark.parametrize(
    "job",
    [
        "runs-on: my-runner",
        "uses: octocat/a/.github/workflows/b.yml@v1",
        "steps: [{uses: octocat/checkout@v1}]",
        "steps: [{uses: actions/checkout@v4, with: {node-version: 1}}]",
        "steps: [{with: {node-version: 1, fetch-depth: 1}, uses: actions/checkout@v4}]",
    ],
)
def test_what_is_not_known_cannot_be_written(job):
    prefix = tct.encode_prefix(f"{START}    {job}\n    name: a\n")
    assert tct.matcher("github").accept_prefix(prefix)
    assert not tct.matcher("known").accept_prefix(prefix)


@given(st.sampled_from(known_actions().uses), st.data())
def test_known_steps_have_no_finding(uses, data):
    inputs = known_actions().inputs.get(uses.split("@")[0], [])
    step = {"uses": uses}
    if inputs:
        step["with"] = {name: "x" for name in data.draw(st.lists(st.sampled_from(inputs), min_size=1, unique=True))}
    workflow = {"on": "push", "jobs": {"a": {"runs-on": "ubuntu-latest", "steps": [step]}}}
    assert [finding.rule for finding in check(workflow, known_actions=True) if finding.rule.startswith("known")] == []


def write_corpus(folder, owners: int) -> None:
    """Write a workflow for each owner, with the actions that all use and with actions of its own."""
    for owner in range(owners):
        step = {"uses": "octocat/build@v1", "with": {"fast": True, f"own-{owner}": 1}}
        own = [{"uses": f"octocat/own-{owner}@v1"}, {"uses": "./local"}, {"uses": "docker://alpine:3"}]
        jobs = {"a": {"runs-on": "x", "steps": [step, *own]}, "b": {"uses": "octocat/ci/.github/workflows/c.yml@v2"}}
        path = folder / f"owner{owner}__repository" / "ci.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"on": "push", "jobs": jobs}))


def test_the_table_has_what_three_owners_use(tmp_path):
    write_corpus(tmp_path / "three", 3)
    assert build(tmp_path / "three") == {
        "refs": {"octocat/build": ["v1"]},
        "inputs": {"octocat/build": ["fast"]},
        "workflows": ["octocat/ci/.github/workflows/c.yml@v2"],
    }


def test_a_corpus_of_two_owners_is_refused(tmp_path, capsys):
    write_corpus(tmp_path / "two", 2)
    with pytest.raises(SystemExit):
        main(["--corpus", str(tmp_path / "two"), "--output", str(tmp_path / "table.json")])
    assert "no action is used by 3 owners" in capsys.readouterr().err
    assert not (tmp_path / "table.json").exists()


@pytest.mark.slow
def test_the_committed_table_is_that_of_the_corpus(corpus):
    table = build(corpus / "workflows")
    known = known_actions()
    assert (known.refs, known.inputs, known.workflows) == (table["refs"], table["inputs"], table["workflows"])

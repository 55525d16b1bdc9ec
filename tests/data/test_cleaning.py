"""Cleaning: skipped texts have a reason, and repairs change only what the schema rejects."""

import copy
import functools
import json
import operator
from pathlib import Path

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tct_github_workflow import workflow_schema
from tct_github_workflow.files import find_files
from tct_github_workflow.rules import RULES, example
from workflow_data.cleaning import Skipped, Workflow, clean
from workflow_data.repairs import MAX_REPAIRS, REPAIRS
from workflow_data.sources import Record
from workflow_synth.compose import compose_workflows

JOB = {"runs-on": "ubuntu-latest", "steps": [{"run": "make"}]}


def judge(text, name="ci.yml", repair=False, rules=False):
    return clean(Record(name, text=text if isinstance(text, str) else json.dumps(text)), repair, rules)


# -----------------------------------------------------------------------------
# reasons


@pytest.mark.parametrize(
    "text, reason, detail",
    [
        ("", "syntax", "the file is empty"),
        ("- a\n- b\n", "not_a_workflow", 'not a mapping but ["a", "b"]'),
        ("version: 3\nservices: {}\n", "not_a_workflow", "neither 'on' nor 'jobs' among its keys: version, services"),
        ("jobs: {a: {runs-on: x}}\n", "not_schema_valid", "$: a required key is missing: on"),
        ("on: push\n", "not_schema_valid", "$: a required key is missing: jobs"),
        ("on: push\njobs: {a: {runs-on: 3}}\n", "not_schema_valid", "$.jobs.a.runs-on: "),
        ("on: {push: {branches: [$default-branch]}}\njobs: {a: {runs-on: x}}\n", "template", "$default-branch"),
        ("on: {schedule: [{cron: $cron-daily}]}\njobs: {a: {runs-on: x}}\n", "template", "$cron-daily"),
        ("{% if ci %}\non: push\n", "template", "line 1"),
        ("on: push\njobs:\n  a:\n    runs-on: {{ runner }}\n", "template", "line 4"),
        ("on: push\njobs:\n<% jobs.each do |job| %>\n", "template", "line 4"),
        ("on: push\n---\njobs: {}\n", "syntax", "a second document starts here"),
        ("a: 1\na: 2\n", "syntax", "duplicate key"),
        ("x: &a [1]\ny: *b\n", "syntax", "alias *b has no anchor"),
    ],
)
def test_skipped_texts_have_a_reason(text, reason, detail):
    result = judge(text)
    assert isinstance(result, Skipped) and result.reason == reason and detail in result.detail
    assert "\n" not in result.detail


@pytest.mark.parametrize(
    "text",
    [
        "on: push\njobs: {a: {runs-on: x, steps: [{run: 'echo ${{ github.sha }} {{.Name}} {% raw %}'}]}}\n",
        "\ufeffon: push\r\njobs: {a: {runs-on: x}}\r\n",
        "on: push\njobs: {a: {runs-on: x, steps: [{run: 'echo $default-branch'}]}}\n",
    ],
)
def test_a_workflow_may_look_like_a_template(text):
    assert isinstance(judge(text), Workflow)


@pytest.mark.parametrize(
    "name, text",
    [
        ("3", '{"on":"push","jobs":{"a":{"runs-on":"x"}}}'),
        ("3:ci.yml", "{on: push, jobs: {a: {runs-on: x}}}"),
        ("3", "on: push\njobs: {a: {runs-on: x}}"),
        ("3:ci.json", '{"on":"push","jobs":{"a":{"runs-on":"x"}}}'),
    ],
)
def test_name_or_first_character_decides_between_json_and_yaml(name, text):
    assert judge(text, name).value == {"on": "push", "jobs": {"a": {"runs-on": "x"}}}


def test_alias_and_nesting_bombs_are_bounded():
    bomb = "a: &a [x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(20)
    )
    assert "aliases expand" in judge(bomb).detail
    for text in ("[" * 100_000, "- " * 100_000, '{"a":' * 100_000):
        assert judge(text).reason == judge(text, "x.json").reason == "syntax"


def test_a_deleted_file_is_unreadable():
    assert clean(Record("x.yml", path=Path("/nowhere/x.yml"))) == Skipped("unreadable", "No such file or directory")


# -----------------------------------------------------------------------------
# rules


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_what_breaks_a_rule_is_skipped(rule):
    for text in rule.fails:
        kept, skipped = judge(example(text)), judge(example(text), rules=True)
        assert skipped.reason == (kept.reason if isinstance(kept, Skipped) else f"rule {rule.name}")
    for text in rule.passes:
        assert isinstance(judge(example(text), rules=True), Workflow)


def test_the_detail_has_the_first_finding_in_one_line():
    steps = [{"run": "${{\n steps.b.outcome\n || steps.c }}"}, {"run": "${{ matrix.x }}"}]
    result = judge({"on": "push", "jobs": {"a": {"runs-on": "x", "steps": steps}}}, rules=True)
    message = "there is no property 'b' in `steps.b.outcome || steps.c`"
    assert result == Skipped("rule undefined-property", f"jobs.a.steps.0.run: {message} (and 1 more)")


def test_rules_judge_what_is_repaired():
    broken = {"on": "push", "jobs": {"a": {**JOB, "needs": []}}}
    assert judge(broken, repair=True, rules=True).repairs == ["empty_needs"]
    broken["jobs"]["a"]["if"] = "nothing()"
    assert judge(broken, repair=True, rules=True).reason == "rule expression-syntax"


# -----------------------------------------------------------------------------
# repairs


def started_by(on, **job) -> dict:
    return {"on": on, "jobs": {"a": {**job, **JOB}}}


def with_step(**step) -> dict:
    return {"on": "push", "jobs": {"a": {"runs-on": "x", "steps": [step]}}}


@pytest.mark.parametrize(
    "name, value, repaired",
    [
        (
            "list_of_one",
            started_by({"push": {"branches": "main", "tags": ["v*"]}}),
            started_by({"push": {"branches": ["main"], "tags": ["v*"]}}),
        ),
        ("scalar_as_text", started_by({"push": {"tags": [3.10]}}), started_by({"push": {"tags": ["3.1"]}})),
        ("deprecated_event", started_by("pull_request_comment"), started_by("issue_comment")),
        ("deprecated_event", started_by(["push", "pull_request_comment"]), started_by(["push", "issue_comment"])),
        ("deprecated_event", started_by(["issue_comment", "pull_request_comment"]), started_by(["issue_comment"])),
        (
            "deprecated_event",
            started_by({"pull_request_comment": {"types": ["created"]}, "push": None}),
            started_by({"issue_comment": {"types": ["created"]}, "push": None}),
        ),
        (
            "empty_secret",
            started_by({"workflow_call": {"secrets": {"token": None}}}),
            started_by({"workflow_call": {"secrets": {"token": {}}}}),
        ),
        ("empty_needs", started_by("push", needs=[]), started_by("push")),
        ("strategy_without_matrix", started_by("push", strategy={"fail-fast": False}), started_by("push")),
        ("workflow_description", {"description": "Tests", **started_by("push")}, started_by("push")),
        ("scalar_as_text", with_step(run=True), with_step(run="true")),
        ("scalar_as_text", with_step(run="x", name=3.1), with_step(run="x", name="3.1")),
        ("scalar_as_text", with_step(run="x", env={"run": None}), with_step(run="x", env={"run": ""})),
        (
            "scalar_as_text",
            with_step(uses="a/b@v1", **{"with": {"x": None}}),
            with_step(uses="a/b@v1", **{"with": {"x": ""}}),
        ),
        (
            "scalar_as_text",
            started_by({"workflow_call": {"inputs": {"x": {"type": "string", "default": None}}}}),
            started_by({"workflow_call": {"inputs": {"x": {"type": "string", "default": ""}}}}),
        ),
    ],
)
def test_each_repair_makes_an_invalid_workflow_valid(name, value, repaired):
    schema = jsonschema_rs.validator_for(workflow_schema())
    assert not schema.is_valid(value) and judge(value).reason == "not_schema_valid"
    result = judge(value, repair=True)
    assert result.value == repaired and list(result.value["on"]) == list(repaired["on"])
    assert result.repairs == [name] and schema.is_valid(result.value)


def test_every_repair_is_tested():
    marks = test_each_repair_makes_an_invalid_workflow_valid.pytestmark
    assert {case[0] for case in marks[0].args[1]} == {repair.__name__ for repair in REPAIRS}


@pytest.mark.parametrize(
    "value",
    [
        started_by({"pull_request_comment": {"types": ["created"]}, "issue_comment": {"types": ["edited"]}}),
        started_by("push", strategy={"matrix": {"include": [{"x": None}]}}),  # there null is a value of its own
        started_by({"workflow_call": {"inputs": {"x": {"type": "boolean", "default": None}}}}),
        started_by({"push": {"branches": None}}),
        started_by({"push": {"branches": ""}}),
        started_by("push", **{"timeout-minutes": "30"}),
        started_by("push", permissions=None),
        started_by("push", strategy={"matrix": {"x": [1]}, "fail-fast": 5}),
        started_by({"pull_request": {"types": True}}),
        with_step(run="x", id=5),
        with_step(run="x", shell=None),
        with_step(run="x", name=1e20),
        with_step(uses="x", run=True),
        {"on": "push", "jobs": {"env": {"runs-on": None}}},
        {"on": None, "jobs": None},
        {"on": 3, "jobs": []},
        {"on": {"push": 5}, "jobs": {"a": 6, "b": {"steps": 7, "strategy": 8, "needs": 9}}},
        {"jobs": {"a": {"steps": [1, None, {}]}}},
    ],
)
def test_what_github_refuses_is_not_repaired(value):
    assert judge(value, repair=True).reason == "not_schema_valid"


OLD = "pull_request_comment"
KEPT = {  # valid, and much like what repairs change
    "on": {
        "workflow_dispatch": {
            "inputs": {OLD: {"type": "choice", "options": [OLD, "b"], "default": OLD}, "branches": {"default": True}}
        },
        "repository_dispatch": {"types": OLD},
        "issue_comment": {"types": "created"},
    },
    "env": {"needs": "", "strategy": False, OLD: OLD},
    "jobs": {
        "strategy": {"runs-on": "x", "strategy": {"matrix": {"description": ["", True, 3.10], "needs": [[]]}}},
        OLD: {"needs": ["strategy"], **JOB, "env": {"A": 0, "run": True}},
    },
}


def test_valid_values_that_resemble_faults_are_kept():
    result = judge(KEPT, repair=True)
    assert result.value == KEPT and result.repairs == []


def test_a_repair_changes_only_what_the_schema_rejects():
    broken = copy.deepcopy(KEPT)
    broken["jobs"]["broken"] = {"runs-on": "x", "env": {"A": None}, "steps": [{"run": True}]}
    repaired = copy.deepcopy(KEPT)
    repaired["jobs"]["broken"] = {"runs-on": "x", "env": {"A": ""}, "steps": [{"run": "true"}]}
    result = judge(broken, repair=True)
    assert result.value == repaired and result.repairs == ["scalar_as_text"] * 2


def test_a_place_may_need_two_repairs():
    result = judge(started_by({"push": {"branches": 3.10}}), repair=True)
    assert result.value == started_by({"push": {"branches": ["3.1"]}})
    assert result.repairs == ["scalar_as_text", "list_of_one"]


def test_a_repair_leaves_other_uses_of_an_alias():
    result = judge(
        "on:\n  workflow_call: {inputs: {x: &x {type: string, default: }}}\n"
        "  workflow_dispatch: {inputs: {x: *x}}\njobs: {a: {runs-on: x}}\n",
        repair=True,
    )
    on = result.value["on"]
    assert on["workflow_call"]["inputs"]["x"]["default"] == ""
    assert on["workflow_dispatch"]["inputs"]["x"]["default"] is None


VALUES = st.sampled_from([None, True, 3, 3.10, "", "main", OLD, [], [OLD], {}, {OLD: None}])
SYNTHETIC = [workflow for _, workflow in compose_workflows(40)]


def places(value, path=()):
    """The path of everything in a value."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(value[key], (*path, key))


@pytest.mark.slow
@settings(max_examples=300)
@given(st.sampled_from([KEPT, *SYNTHETIC]), st.data())
def test_no_repair_changes_a_valid_workflow(workflow, data):
    value = copy.deepcopy(workflow)
    for _ in range(data.draw(st.integers(0, 3))):
        *path, key = data.draw(st.sampled_from(list(places(value))))
        holder = functools.reduce(operator.getitem, path, value)
        holder[key] = copy.deepcopy(data.draw(VALUES))
    if isinstance(judge(value), Workflow):
        result = judge(value, repair=True)
        assert result.repairs == [] and json.dumps(result.value) == json.dumps(value)


@pytest.mark.slow
def test_no_repair_changes_a_valid_real_workflow(corpus):
    for name in find_files(corpus / "workflows")[::20]:
        record = Record(name, path=corpus / "workflows" / name)
        plain = clean(record)
        if isinstance(plain, Workflow):
            assert clean(record, repair=True) == plain


def test_a_failed_repair_keeps_the_reason():
    result = judge({"on": {"push": {"branches": "main"}}, "jobs": {"a": 1}}, repair=True)
    assert result.reason == "not_schema_valid" and "$.jobs" in result.detail


def test_repairs_per_workflow_are_bounded():
    env = dict.fromkeys(map(str, range(MAX_REPAIRS + 1)))
    assert "$.env" in judge({"env": env, **started_by("push")}, repair=True).detail
    del env["0"]
    assert len(judge({"env": env, **started_by("push")}, repair=True).repairs) == MAX_REPAIRS

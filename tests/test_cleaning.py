"""Cleaning: what is no workflow is told apart and why, and repairs mend what GitHub accepts, nothing else."""

import copy
import json
from pathlib import Path

import jsonschema_rs
import pytest
from tct_github_workflow import workflow_schema
from workflow_cleaning import REPAIRS, Skipped, Workflow, clean, mend
from workflow_sources import Record

JOB = {"runs-on": "ubuntu-latest", "steps": [{"run": "make"}]}


def judge(text, name="ci.yml", repair=False):
    return clean(Record(name, text=text if isinstance(text, str) else json.dumps(text)), repair)


# -----------------------------------------------------------------------------
# reasons

@pytest.mark.parametrize("text, reason, detail", [
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
])
def test_what_is_left_out_has_its_reason(text, reason, detail):
    result = judge(text)
    assert isinstance(result, Skipped) and result.reason == reason and detail in result.detail
    assert "\n" not in result.detail


@pytest.mark.parametrize("text", [
    "on: push\njobs: {a: {runs-on: x, steps: [{run: 'echo ${{ github.sha }} {{.Name}} {% raw %}'}]}}\n",
    "\ufeffon: push\r\njobs: {a: {runs-on: x}}\r\n",
    "on: push\njobs: {a: {runs-on: x, steps: [{run: 'echo $default-branch'}]}}\n",
])
def test_what_only_looks_like_a_template_is_a_workflow(text):
    assert isinstance(judge(text), Workflow)


@pytest.mark.parametrize("name, text", [
    ("3", '{"on":"push","jobs":{"a":{"runs-on":"x"}}}'), ("3:ci.yml", '{on: push, jobs: {a: {runs-on: x}}}'),
    ("3", "on: push\njobs: {a: {runs-on: x}}"), ("3:ci.json", '{"on":"push","jobs":{"a":{"runs-on":"x"}}}')])
def test_a_text_is_json_or_yaml_by_its_name_or_by_how_it_begins(name, text):
    assert judge(text, name).value == {"on": "push", "jobs": {"a": {"runs-on": "x"}}}


def test_bombs_of_aliases_and_of_nesting_are_bounded():
    bomb = "a: &a [x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n"
                                   for i in range(20))
    assert "aliases expand" in judge(bomb).detail
    for text in ("[" * 100_000, "- " * 100_000, '{"a":' * 100_000):
        assert judge(text).reason == judge(text, "x.json").reason == "syntax"


def test_a_file_deleted_meanwhile_is_unreadable():
    assert clean(Record("x.yml", path=Path("/nowhere/x.yml"))) == Skipped(
        "unreadable", "No such file or directory")


# -----------------------------------------------------------------------------
# repairs

@pytest.mark.parametrize("name, value, mended", [
    ("list_of_one", {"on": {"push": {"branches": "main", "tags": ["v*"]}}, "jobs": {"a": JOB}},
     {"on": {"push": {"branches": ["main"], "tags": ["v*"]}}, "jobs": {"a": JOB}}),
    ("deprecated_event", {"on": ["push", "pull_request_comment"], "jobs": {"a": JOB}},
     {"on": ["push", "issue_comment"], "jobs": {"a": JOB}}),
    ("empty_secret", {"on": {"workflow_call": {"secrets": {"token": None}}}, "jobs": {"a": JOB}},
     {"on": {"workflow_call": {"secrets": {"token": {}}}}, "jobs": {"a": JOB}}),
    ("empty_needs", {"on": "push", "jobs": {"a": {"needs": [], **JOB}}}, {"on": "push", "jobs": {"a": JOB}}),
    ("strategy_without_matrix", {"on": "push", "jobs": {"a": {"strategy": {"fail-fast": False}, **JOB}}},
     {"on": "push", "jobs": {"a": JOB}}),
    ("quoted_number", {"on": "push", "jobs": {"a": {**JOB, "timeout-minutes": "30"}}},
     {"on": "push", "jobs": {"a": {**JOB, "timeout-minutes": 30}}}),
])
def test_each_repair_makes_a_valid_workflow_of_one_that_is_refused(name, value, mended):
    schema = jsonschema_rs.validator_for(workflow_schema())
    assert not schema.is_valid(value) and judge(value).reason == "not_schema_valid"
    result = judge(value, repair=True)
    assert result.value == mended and result.repairs == [name] and schema.is_valid(result.value)


def test_every_repair_is_tested():
    marks = test_each_repair_makes_a_valid_workflow_of_one_that_is_refused.pytestmark
    assert [case[0] for case in marks[0].args[1]] == list(REPAIRS)


def test_a_valid_workflow_is_not_touched():
    value = {"on": {"push": {"branches": ["main"]}}, "jobs": {"a": {**JOB, "timeout-minutes": "${{ inputs.t }}"}}}
    before = copy.deepcopy(value)
    assert mend(value) == [] and value == before


@pytest.mark.parametrize("value", [
    {"on": 3, "jobs": 4}, {"on": {"push": 5}, "jobs": {"a": 6, "b": {"steps": 7, "strategy": 8, "needs": 9}}},
    {"on": {"workflow_call": {"secrets": 1}}, "jobs": []}, {"jobs": {"a": {"steps": [1, None, {}]}}}, {"on": None}])
def test_repairs_take_values_of_any_shape(value):
    assert mend(value) == []


def test_a_repair_that_does_not_help_leaves_the_reason():
    result = judge({"on": {"push": {"branches": "main"}}, "jobs": {"a": 1}}, repair=True)
    assert result.reason == "not_schema_valid" and "$.jobs" in result.detail

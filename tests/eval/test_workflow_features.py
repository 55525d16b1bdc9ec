"""Workflow features: what is counted, how far sets are apart, which references are called broken."""

import copy
import random
from collections import Counter

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tct_github_workflow import workflow_schema
from tct_github_workflow.workflow_yaml import load_workflow
from workflow_eval import features, references
from workflow_eval.features import compare, count_distance, distance
from workflow_eval.references import broken_references

WORKFLOW = load_workflow("""
on:
  push: {branches: [main]}
  workflow_dispatch: {inputs: {level: {type: string}}}
permissions: {contents: read}
defaults: {run: {shell: bash}}
jobs:
  build:
    runs-on: [self-hosted, linux]
    permissions: write-all
    strategy: {matrix: {os: [a, b], include: [{os: a, extra: 1}]}}
    outputs: {version: "${{ steps.last.outputs.version }}"}
    steps:
      - {id: first, uses: actions/checkout@v4}
      - {run: "echo ${{ steps.first.outputs.ref }} ${{ matrix.extra }} ${{ inputs.level }}", shell: pwsh}
      - {id: last, run: make, if: "steps['first'].outcome == 'steps.never' && matrix.os == 'a'"}
  call:
    needs: build
    permissions: {}
    uses: owner/repo/.github/workflows/x.yml@main
    with: {version: "${{ needs.build.outputs.version }}"}
  wait:
    needs: [build, call]
    runs-on: {group: large, labels: [x64, gpu]}
    if: always() && needs.call.result == 'success'
    steps: []
""")

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("${} .'[]stepsid", max_size=12),
    max_leaves=12,
    extend=lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "on",
                    "jobs",
                    "steps",
                    "runs-on",
                    "permissions",
                    "defaults",
                    "run",
                    "shell",
                    "uses",
                    "needs",
                    "id",
                    "if",
                    "strategy",
                    "matrix",
                    "include",
                    "inputs",
                    "workflow_call",
                    "a",
                    "B",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
)


def broken(**job) -> list[str]:
    """What is broken in a workflow of this job a, and a job b that is fine."""
    return broken_references({"on": "push", "jobs": {"a": {"runs-on": "x", **job}, "b": {"runs-on": "x"}}})


# -----------------------------------------------------------------------------
# what it says


def test_every_field_is_read():
    fields = {name: say(WORKFLOW) for name, say in (features.FIELDS | features.COUNTS).items()}
    assert fields == {
        "triggers": ["push", "workflow_dispatch"],
        "runners": ["self-hosted, linux", "group: large, labels: x64, gpu"],
        "actions": ["actions/checkout", "owner/repo/.github/workflows/x.yml"],
        "permissions": ["contents: read", "write-all", "{}"],
        "shells": ["bash", "pwsh"],
        "jobs": [3],
        "steps": [3],
        "steps a job": [3, 0, 0],
    }
    assert features.actions(WORKFLOW)[0] == "actions/checkout@v4"


@pytest.mark.parametrize("on", ["push", ["push"], {"push": None}])
def test_triggers_come_in_three_forms(on):
    assert features.triggers({"on": on}) == ["push"]


@given(anything)
def test_nothing_is_too_odd(value):
    for workflow in (
        value,
        {"on": value, "jobs": value},
        {"jobs": {"a": value, "b": {"steps": value, "if": value}}},
    ):
        for say in (features.FIELDS | features.COUNTS).values():
            assert isinstance(say(workflow), list)
        assert all(isinstance(fault, str) for fault in broken_references(workflow))
        assert set(compare([workflow], [workflow, WORKFLOW])) == {*features.FIELDS, *features.COUNTS}


@given(st.dictionaries(st.text(), st.integers() | st.text()))
def test_canonical_text_knows_no_order(value):
    shuffled = dict(random.Random(0).sample(list(value.items()), len(value)))
    assert features.canonical(value) == features.canonical(shuffled)


# -----------------------------------------------------------------------------
# how far sets are apart

counters = st.dictionaries(st.integers(0, 9), st.integers(1, 5), max_size=6).map(Counter)


@pytest.mark.parametrize("measure", [distance, count_distance])
@given(a=counters, b=counters, c=counters)
def test_a_distance_is_a_metric_of_shares(measure, a, b, c):
    assert 0 <= measure(a, b) <= 1 and measure(a, b) == pytest.approx(measure(b, a))
    assert measure(a, a) == 0 and measure(a, a + a) == pytest.approx(0)
    assert measure(a, c) <= measure(a, b) + measure(b, c) + 1e-9


@pytest.mark.parametrize("measure", [distance, count_distance])
def test_what_has_nothing_in_common_is_at_distance_one(measure):
    assert measure(Counter([1, 2]), Counter([3])) == 1 and measure(Counter(), Counter([3])) == 1


def test_seven_steps_are_nearer_to_eight_than_total_variation_has_it():
    a, b = Counter([7, 7, 9, 9]), Counter([8, 8, 9, 9])
    assert count_distance(a, b) == distance(a, b) == 0.5
    a, b = Counter(range(100)), Counter(range(1, 101))
    assert count_distance(a, b) == pytest.approx(0.01)
    assert distance(Counter(range(0, 200, 2)), Counter(range(1, 200, 2))) == 1
    assert count_distance(Counter(range(0, 200, 2)), Counter(range(1, 200, 2))) == pytest.approx(0.01)


def test_samples_like_the_real_ones_are_at_the_noise_floor():
    chance = random.Random(1)
    workflows = [
        {"on": chance.choices("abcdef", k=2), "jobs": {str(i): {} for i in range(chance.randrange(9))}}
        for _ in range(400)
    ]
    like, unlike = compare(workflows[:100], workflows[100:]), compare([{"on": "z"}] * 100, workflows[100:])
    for field in "triggers", "jobs":
        assert 0 < like[field]["noise_floor"] == unlike[field]["noise_floor"] < 0.15
        assert like[field]["distance"] < 2 * like[field]["noise_floor"] < 3 * unlike[field]["distance"]
    assert compare(workflows[:100], workflows[100:]) == like  # of one seed


def test_a_category_counts_once_a_workflow_and_none_is_one():
    again = {"jobs": {name: {"runs-on": "x"} for name in "abc"}}
    result = compare([again, again, {}], [again, {}])["runners"]
    assert result["categories"] == [
        ["x", pytest.approx(2 / 3), 0.5],
        [features.NONE, pytest.approx(1 / 3), 0.5],
    ]


@pytest.mark.parametrize("samples, real", [([], [{}, {}]), ([{}], [{}])])
def test_too_few_to_compare_are_refused(samples, real):
    with pytest.raises(ValueError, match="too few to compare"):
        compare(samples, real)


# -----------------------------------------------------------------------------
# references


def test_what_is_there_is_not_broken():
    assert broken_references(WORKFLOW) == []


@pytest.mark.parametrize(
    "job, faults",
    [
        ({"needs": "c"}, ["job a: it needs c, which is no job"]),
        ({"needs": ["b", "a"]}, ["job a: it needs itself"]),
        ({"if": "needs.b.result == 'success'"}, ["job a: needs.b is not among its needs"]),
        ({"env": {"X": "${{ needs['c'].outputs.x }}"}}, ["job a: needs.c is not among its needs"]),
        (
            {"steps": [{"run": "${{ steps.x.outputs.y }}"}, {"id": "x"}]},
            ["job a: step 1: steps.x comes no earlier"],
        ),
        ({"steps": [{"id": "x", "if": "steps.x.outputs.y"}]}, ["job a: step 1: steps.x comes no earlier"]),
        (
            {"steps": [{"with": {"a": ["${{ fromJSON(steps['x y'].outputs.z) }}"]}}]},
            ["job a: step 1: steps.x y is no step"],
        ),
        (
            {"outputs": {"o": "${{ steps.x.outputs.y }}"}, "steps": [{"id": "y"}]},
            ["job a: steps.x is no step"],
        ),
        ({"runs-on": "${{ matrix.os }}"}, ["job a: matrix.os is no key of its matrix"]),
        (
            {"name": "${{ matrix.os }}", "strategy": {"matrix": {"o": [1], "include": [{"s": 1}]}}},
            ["job a: matrix.os is no key of its matrix"],
        ),
        ({"env": {"X": "${{ inputs.x }}${{ INPUTS.x }}"}}, ["inputs.x is no input"]),
    ],
)
def test_what_is_not_there_is_named(job, faults):
    assert broken(**job) == faults


@pytest.mark.parametrize(
    "job",
    [
        {"needs": "B", "if": "NEEDS.b.result"},  # capitals make no difference
        {"steps": [{"id": "X"}, {"run": "${{ Steps.x.outputs.y }}"}]},
        {
            "steps": [
                {"run": "steps.x, needs.c and $matrix.os are text"},
                {"if": "contains('steps.x', 'needs.c')"},
            ]
        },
        {"steps": [{"run": "${{ toJSON(steps) }}${{ steps.*.outcome }}${{ steps[env.ID] }}${{ needs.*.result }}"}]},
        {"steps": [{"run": "${{ github.event.inputs.x }}${{ github['inputs'].x }}${{ env.my-matrix.os }}"}]},
        {
            "strategy": {"matrix": "${{ fromJSON(needs.b.outputs.m) }}"},
            "needs": "b",
            "name": "${{ matrix.os }}",
        },
        {"strategy": {"matrix": {"include": "${{ fromJSON('[]') }}"}}, "name": "${{ matrix.os }}"},
        {"strategy": {"matrix": {"include": ["${{ fromJSON('{}') }}"]}}, "name": "${{ matrix.os }}"},
        {"strategy": {"matrix": {"os": "${{ fromJSON('[1]') }}"}}, "name": "${{ matrix.os }}"},
        {"strategy": "${{ fromJSON('{}') }}", "name": "${{ matrix.os }}"},
        {"if": "${{ github.ref }} == steps.x"},
    ],
)  # with braces, only what is in them is an expression
def test_what_may_be_there_is_not_named(job):
    assert broken(**job) == []


def test_jobs_that_wait_for_each_other_are_named_once():
    jobs = {"a": {"needs": "b"}, "b": {"needs": ["c"]}, "c": {"needs": "a"}, "d": {"needs": "a"}}
    assert broken_references({"jobs": jobs}) == ["jobs need each other: a and b and c"]


def test_an_input_of_either_trigger_is_an_input():
    on = {"workflow_call": {"inputs": {"x": {}}}, "workflow_dispatch": {"inputs": {"y": {}}}}
    workflow = {"on": on, "run-name": "${{ inputs.x }}${{ inputs.Y }}", "env": {"z": "${{ inputs.z }}"}}
    assert broken_references(workflow) == ["inputs.z is no input"]


def test_quotes_that_never_close_take_no_time():
    assert broken(name="${{ " + "'a''" * 20_000, env={"X": "${{ '" * 1000}) == []


def test_few_real_workflows_are_broken_and_all_are_once_their_steps_are_renamed(corpus):
    valid = jsonschema_rs.validator_for(workflow_schema()).is_valid
    real, renamed = [], []
    for path in sorted((corpus / "workflows").rglob("*.y*ml"))[:400]:
        try:
            workflow = load_workflow(path.read_text())
        except ValueError:
            continue
        if valid(workflow):
            real.append(workflow)
            used = {name for job in features.jobs(workflow).values() for name in references.references(job, "steps")}
            if used:
                renamed.append(copy.deepcopy(workflow))
                for step in features.steps(renamed[-1]):
                    step.pop("id", None)
    assert len(real) > 300 and len(renamed) > 30
    assert sum(map(bool, map(broken_references, real))) < 0.03 * len(real)
    assert all(map(broken_references, renamed))

"""Workflow features: their values, the distance of two sets, and broken references."""

import copy
import random
from collections import Counter

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tct.json_text import canonical
from tct_github_workflow import workflow_schema
from tct_github_workflow.workflow_yaml import load_workflow
from workflow_eval import features, references
from workflow_eval.features import compare_features, kolmogorov_smirnov, total_variation
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
    """Return the broken references of a workflow with this job a and a correct job b."""
    return broken_references({"on": "push", "jobs": {"a": {"runs-on": "x", **job}, "b": {"runs-on": "x"}}})


# -----------------------------------------------------------------------------
# features


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


@pytest.mark.slow
@given(anything)
def test_any_value_has_features(value):
    for workflow in (
        value,
        {"on": value, "jobs": value},
        {"jobs": {"a": value, "b": {"steps": value, "if": value}}},
    ):
        for say in (features.FIELDS | features.COUNTS).values():
            assert isinstance(say(workflow), list)
        assert all(isinstance(fault, str) for fault in broken_references(workflow))
        assert set(compare_features([workflow], [workflow, WORKFLOW])) == {*features.FIELDS, *features.COUNTS}


@given(st.dictionaries(st.text(), st.integers() | st.text()))
def test_canonical_text_does_not_depend_on_key_order(value):
    shuffled = dict(random.Random(0).sample(list(value.items()), len(value)))
    assert canonical(value) == canonical(shuffled)


# -----------------------------------------------------------------------------
# distances

counters = st.dictionaries(st.integers(0, 9), st.integers(1, 5), max_size=6).map(Counter)


@pytest.mark.parametrize("measure", [total_variation, kolmogorov_smirnov])
@given(a=counters, b=counters, c=counters)
def test_a_distance_is_a_metric_of_shares(measure, a, b, c):
    assert 0 <= measure(a, b) <= 1 and measure(a, b) == pytest.approx(measure(b, a))
    assert measure(a, a) == 0 and measure(a, a + a) == pytest.approx(0)
    assert measure(a, c) <= measure(a, b) + measure(b, c) + 1e-9


@pytest.mark.parametrize("measure", [total_variation, kolmogorov_smirnov])
def test_disjoint_sets_have_distance_one(measure):
    assert measure(Counter([1, 2]), Counter([3])) == 1 and measure(Counter(), Counter([3])) == 1


def test_seven_steps_are_close_to_eight():
    a, b = Counter([7, 7, 9, 9]), Counter([8, 8, 9, 9])
    assert kolmogorov_smirnov(a, b) == total_variation(a, b) == 0.5
    a, b = Counter(range(100)), Counter(range(1, 101))
    assert kolmogorov_smirnov(a, b) == pytest.approx(0.01)
    assert total_variation(Counter(range(0, 200, 2)), Counter(range(1, 200, 2))) == 1
    assert kolmogorov_smirnov(Counter(range(0, 200, 2)), Counter(range(1, 200, 2))) == pytest.approx(0.01)


def test_samples_like_real_workflows_reach_the_noise_floor():
    chance = random.Random(1)
    workflows = [
        {"on": chance.choices("abcdef", k=2), "jobs": {str(i): {} for i in range(chance.randrange(9))}}
        for _ in range(400)
    ]
    like, unlike = (
        compare_features(workflows[:100], workflows[100:]),
        compare_features([{"on": "z"}] * 100, workflows[100:]),
    )
    for field in "triggers", "jobs":
        assert 0 < like[field]["noise_floor"] == unlike[field]["noise_floor"] < 0.15
        assert like[field]["distance"] < 2 * like[field]["noise_floor"] < 3 * unlike[field]["distance"]
    assert compare_features(workflows[:100], workflows[100:]) == like


def test_a_category_counts_once_per_workflow():
    again = {"jobs": {name: {"runs-on": "x"} for name in "abc"}}
    result = compare_features([again, again, {}], [again, {}])["runners"]
    assert result["categories"] == [
        ["x", pytest.approx(2 / 3), 0.5],
        [features.NONE, pytest.approx(1 / 3), 0.5],
    ]


@pytest.mark.parametrize("samples, real", [([], [{}, {}]), ([{}], [{}])])
def test_too_few_to_compare_are_refused(samples, real):
    with pytest.raises(ValueError, match="too few to compare"):
        compare_features(samples, real)


# -----------------------------------------------------------------------------
# references


def test_a_correct_workflow_has_no_broken_references():
    assert broken_references(WORKFLOW) == []


@pytest.mark.parametrize(
    "job, faults",
    [
        ({"needs": "c"}, ["job a: needs an undefined job: c"]),
        ({"needs": ["b", "a"]}, ["job a: needs itself"]),
        ({"if": "needs.b.result == 'success'"}, ["job a: needs.b is not among its needs"]),
        ({"env": {"X": "${{ needs['c'].outputs.x }}"}}, ["job a: needs.c is not among its needs"]),
        (
            {"steps": [{"run": "${{ steps.x.outputs.y }}"}, {"id": "x"}]},
            ["job a: step 1: steps.x does not come earlier"],
        ),
        ({"steps": [{"id": "x", "if": "steps.x.outputs.y"}]}, ["job a: step 1: steps.x does not come earlier"]),
        (
            {"steps": [{"with": {"a": ["${{ fromJSON(steps['x y'].outputs.z) }}"]}}]},
            ["job a: step 1: steps.x y is not a step"],
        ),
        (
            {"outputs": {"o": "${{ steps.x.outputs.y }}"}, "steps": [{"id": "y"}]},
            ["job a: steps.x is not a step"],
        ),
        ({"runs-on": "${{ matrix.os }}"}, ["job a: matrix.os is not a key of its matrix"]),
        (
            {"name": "${{ matrix.os }}", "strategy": {"matrix": {"o": [1], "include": [{"s": 1}]}}},
            ["job a: matrix.os is not a key of its matrix"],
        ),
        ({"env": {"X": "${{ inputs.x }}${{ INPUTS.x }}"}}, ["inputs.x is not an input"]),
    ],
)
def test_undefined_names_are_reported(job, faults):
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
        {"if": "${{ github.ref }} == steps.x"},  # with braces, only their contents are an expression
    ],
)
def test_names_that_may_exist_are_not_reported(job):
    assert broken(**job) == []


def test_a_cycle_of_jobs_is_reported_once():
    jobs = {"a": {"needs": "b"}, "b": {"needs": ["c"]}, "c": {"needs": "a"}, "d": {"needs": "a"}}
    assert broken_references({"jobs": jobs}) == ["jobs need each other: a and b and c"]


def test_both_triggers_define_inputs():
    on = {"workflow_call": {"inputs": {"x": {}}}, "workflow_dispatch": {"inputs": {"y": {}}}}
    workflow = {"on": on, "run-name": "${{ inputs.x }}${{ inputs.Y }}", "env": {"z": "${{ inputs.z }}"}}
    assert broken_references(workflow) == ["inputs.z is not an input"]


def test_unclosed_quotes_are_fast():
    assert broken(name="${{ " + "'a''" * 20_000, env={"X": "${{ '" * 1000}) == []


def test_real_workflows_are_broken_only_after_their_ids_are_removed(corpus):
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

"""Workflow features: their values, and the distance of two sets."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tct.json_text import canonical
from tct_github_workflow.workflow_yaml import load_workflow
from workflow_eval import features
from workflow_eval.features import compare_features, kolmogorov_smirnov, total_variation

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

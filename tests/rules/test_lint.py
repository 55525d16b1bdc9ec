"""Linting a text: each problem stands in its line, and what two checks find is told once."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tct_github_workflow.lint import SAYS, lint
from tct_github_workflow.workflow_yaml import WorkflowSyntaxError, dump_workflow, load_with_positions, load_workflow
from workflow_synth.compose import compose_workflows

README = Path(__file__).parents[2] / "README.md"
HEAD = "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n"


def lines(text: str) -> list[tuple[int, int, str]]:
    return [(problem.line, problem.column, problem.rule) for problem in lint(text)]


@pytest.mark.parametrize(
    "text, expected",
    [
        (HEAD + "      - run: make\n", []),
        (
            HEAD + "      - name: b\n        run: |\n          x\n          ${{ github.x }}\n",
            [(7, 9, "undefined-property")],
        ),
        (HEAD + "      - run: make\n      - name: b\n", [(7, 9, "missing-key")]),
        (HEAD + "      - {run: make, id: 1a}\n", [(6, 21, "identifier")]),
        ("\ufeff" + HEAD + "      - {run: é, dir: x}\n", [(6, 18, "unknown-key")]),
        (HEAD + "      - run: make\n    needs: [b, c]\n", [(7, 13, "needs"), (7, 16, "needs")]),
        (HEAD.replace("push", "\n  push:\n   'tags': ['']") + "      - run: make\n", [(3, 13, "empty-value")]),
        ("name: x\n", [(1, 1, "missing-key")]),
        ("[1]", [(1, 1, "value-type")]),
        ("3", [(1, 1, "value-type")]),
        ("", [(1, 1, "yaml")]),
        ("on: push\non: pull_request\n", [(2, 1, "yaml")]),
        ("on: push\njobs:\n\ta: 1\n", [(3, 1, "yaml")]),
        ("[" * 999 + "]" * 999, [(1, 1, "yaml")]),
        ("on: \xff".encode("latin-1"), [(1, 5, "yaml")]),
    ],
)
def test_a_problem_stands_in_its_line(text, expected):
    assert lines(text) == expected


def test_a_problem_inside_an_alias_stands_at_the_anchor_once():
    job = "    runs-on: ubuntu-latest\n    steps: {}\n"
    text = "on: push\njobs:\n  a:\n" + job.format("&s [run: '${{ x }}']") + "  b:\n" + job.format("*s")
    assert lines(text) == [(5, 16, "expression-syntax")]


def test_a_key_that_is_an_alias_stands_where_it_is():
    text = "name: &k dir\n" + HEAD + "      - run: make\n        *k : x\n"
    assert lines(text) == [(8, 9, "unknown-key")]


def test_what_only_the_schema_refuses_is_found():
    text = "on: push\njobs:\n  a:\n    uses: ./.github/workflows/a.exe\n"
    assert lines(text) == [(4, 5, "schema")]


@pytest.mark.parametrize("step", ["{uses: a/a@v1, run: make}", "{run: make, dir: x}", "{run: make, env: [1]}", "{}"])
def test_what_rule_and_schema_find_is_told_once(step):
    (problem,) = lint(f"{HEAD}      - {step}\n")
    assert problem.rule in SAYS and problem.rule != "schema"


RELEASE = """name: Release
on: {push: {tags: [v*]}}
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - run: make VERSION=${{ steps.version.outputs.tag }}
  publish:
    needs: [build, test]
    runs-on: ubuntu-latest
    steps:
      - name: Announce
        run: echo ${{ github.head_ref }}
"""


def test_the_example_of_the_readme_is_true():
    shown = "".join(f".github/workflows/release.yml:{problem}\n" for problem in lint(RELEASE))
    assert f"```\n{shown}```" in README.read_text(encoding="utf-8")


TEXTS = [dump_workflow(workflow) for _, workflow in compose_workflows(30)]


def paths(value, path=()):
    """Yield the paths of all values in a value."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from paths(part, (*path, key))


@pytest.mark.parametrize("text", TEXTS[:10])
def test_the_position_of_each_key_is_that_of_its_text(text):
    value, positions = load_with_positions(text)
    rows = text.split("\n")
    for path in paths(value):
        line, column = positions.find(path)
        rest = rows[line - 1][column - 1 :]
        if isinstance(path[-1], str):
            assert rest.lstrip("'\"").startswith(path[-1])
        else:
            assert column == 1 or rows[line - 1][column - 2] in " ["


@settings(max_examples=200)
@given(st.sampled_from(TEXTS), st.data())
def test_a_cut_or_changed_text_never_fails(text, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 60)))
    text = (
        text[:start] + data.draw(st.sampled_from(["", "&a ", "*a", "${{ ", "}}", "[", ": ", "\n", "- "])) + text[end:]
    )
    n_lines = text.count("\n") + 2  # the end may count as a line
    assert all(1 <= problem.line <= n_lines and problem.column >= 1 for problem in lint(text))
    try:
        value = load_workflow(text)
    except WorkflowSyntaxError:
        return
    assert load_with_positions(text)[0] == value

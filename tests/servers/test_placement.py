"""A text is kept as it is, and goes on where the document goes on."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tct_github_workflow.workflow_yaml import dump_workflow, load_workflow
from workflow_servers.placement import Placement, line_starts, says
from workflow_synth.compose import compose_workflows

PLAIN = """\
name: CI

on:
  push:
    branches:
      - main

jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - name: Test
        run: |
          npm ci
          npm test

          echo done
      - run: make

  deploy:
    needs: test
    runs-on: ubuntu-latest
    steps:
      - run: echo
"""
OTHER = """\
# the build
"on": [push, "pull_request"]   # both
env: {A: 1, B: 'two # not a comment'}
jobs:
    test:
        name: 'It''s a test'
        # which machine
        runs-on: [self-hosted, linux]
        steps:
        - uses: actions/checkout@v4   # the code
          with: {fetch-depth: 0}
        -   run: >-
                make
                test
        - run: "echo 1\\n\\
            echo 2"
"""


@pytest.mark.parametrize("text", [PLAIN, OTHER])
def test_a_text_that_is_cut_anywhere_says_the_whole_value_again(text):
    value = load_workflow(text)
    for cut in range(len(text) + 1):
        edit = Placement(text[:cut], dump_workflow).edit(value)
        assert says(edit.apply(text[:cut]), value), text[:cut]
        assert edit.start in (cut, *line_starts(text[:cut]))


def test_our_own_style_is_appended_to():
    value = load_workflow(PLAIN)
    assert dump_workflow(value) == PLAIN
    replaced = [cut for cut in range(len(PLAIN)) if Placement(PLAIN[:cut], dump_workflow).edit(value).start < cut]
    assert all(PLAIN[:cut].endswith("\n") or not PLAIN[:cut].split("\n")[-1].strip() for cut in replaced)
    assert len(replaced) <= 0.03 * len(PLAIN)


@given(st.integers(0, 10**6), st.data())
@settings(max_examples=30, deadline=None)
def test_every_start_of_a_composed_workflow_goes_on(seed, data):
    [(_, value)] = compose_workflows(1, seed)
    text = dump_workflow(value)
    text = text[: data.draw(st.integers(0, len(text)))]
    wider = re.sub(r"(?m)^( *)(?=\S)", lambda match: match[1] * 2, text)  # blocks of text have other contents then
    for start in text, *([wider] if "|" not in text else []):
        assert says(Placement(start, dump_workflow).edit(value).apply(start), value)


@pytest.mark.parametrize(
    "start, more",
    [
        ("on: push\njobs:\n    a:\n        runs-on: ", "x\n"),
        ("on: push\njobs:\n    a:\n        runs-on: x # where\n", ""),
        ("on: push\njobs:\n    a:\n      ", "runs-on: x\n"),
        ("on: push\n", "\njobs:\n  a:\n    runs-on: x\n"),
        ("# CI\n", "on: push\n\njobs:\n  a:\n    runs-on: x\n"),
        ("", "on: push\n\njobs:\n  a:\n    runs-on: x\n"),
    ],
)
def test_the_indentation_of_the_text_is_kept(start, more):
    edit = Placement(start, dump_workflow).edit({"on": "push", "jobs": {"a": {"runs-on": "x"}}})
    assert edit.start == len(start)
    assert edit.text == more


def test_a_list_in_brackets_goes_on_in_lines():
    edit = Placement("jobs: {}\non: [push, pu", dump_workflow).edit({"jobs": {}, "on": ["push", "pull_request"]})
    assert (edit.start, edit.text) == (len("jobs: {}\n"), "on:\n  - push\n  - pull_request\n")


def test_a_document_grows_by_the_same_text():
    """The edits for ever longer documents begin alike, so that nobody sees text jump."""
    placement = Placement("on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n", dump_workflow)
    steps = [{"uses": "actions/checkout@v4"}, {"run": "make\nmake test\n"}, {"run": "echo"}]
    last = ""
    for count in range(1, len(steps) + 1):
        edit = placement.edit({"on": "push", "jobs": {"a": {"runs-on": "x", "steps": steps[:count]}}})
        assert edit.text.startswith(last.rstrip("\n"))
        last = edit.text

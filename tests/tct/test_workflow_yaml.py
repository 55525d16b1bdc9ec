"""YAML is read as GitHub reads it, refused with place and reason, and written so that it reads back."""

import json
import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tct_github_workflow.files import load_text
from tct_github_workflow.workflow_yaml import (
    MAX_DEPTH,
    WorkflowSyntaxError,
    dump_workflow,
    load_json,
    load_workflow,
)


def same(a, b):
    """Equal in value, type and key order."""
    return json.dumps(a) == json.dumps(b)


# -----------------------------------------------------------------------------
# reading


@pytest.mark.parametrize(
    "text, value",
    [
        ("null", None),
        ("Null", None),
        ("~", None),
        ("", None),
        ("nULL", "nULL"),
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("tRUE", "tRUE"),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("17", 17),
        ("017", 17),
        ("-3", -3),
        ("+3", 3),
        ("0o17", 15),
        ("0x1F", 31),
        ("0o8", "0o8"),
        ("-0x1", "-0x1"),
        ("0b1", "0b1"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("3.10", 3.1),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("-1.5E-3", -0.0015),
        (".", "."),
        ("+", "+"),
        ("2001-01-01", "2001-01-01"),
        ("v3.10", "v3.10"),
        ("'3.10'", "3.10"),
        ('"true"', "true"),
        ("''", ""),
    ],
)
def test_scalars_have_yaml_1_2_core_types(text, value):
    assert same(load_workflow(f"a: {text}"), {"a": value})


@pytest.mark.parametrize(
    "text, value",
    [
        ("!!str 3.10", "3.10"),
        ("!!str null", "null"),
        ("!!str", ""),
        ("!!str 'x'", "x"),
        ("!!str >-\n  x", "x"),
        ("!!int 017", 17),
        ("!!int 0x1F", 31),
        ("!!float 3.10", 3.1),
        ("!!float 3", 3.0),
        ("!!bool True", True),
        ("!!null ~", None),
        ("!!null", None),
        ("!<tag:yaml.org,2002:str> 3", "3"),
        ("&x !!str 3", "3"),
        ("!!map {b: 1}", {"b": 1}),
        ("!!seq [1]", [1]),
    ],
)
def test_core_tags_say_the_type(text, value):
    assert same(load_workflow(f"a: {text}"), {"a": value})


def test_keys_are_the_source_text():
    text = "on: push\n3.10: a\ntrue: b\n0x1F: d\n'q': e\n<<: {f: 1}\n!!str 1.0: g\n'~': h\n"
    assert list(load_workflow(text)) == ["on", "3.10", "true", "0x1F", "q", "<<", "1.0", "~"]


@pytest.mark.parametrize("key", ["null", "Null", "~", "!!null null", "''", "&x ~", "*n "])
def test_null_is_an_empty_key(key):
    assert load_workflow(f"a: &n\n{key}: x") == {"a": None, "": "x"}


def test_aliases_stand_for_their_anchors():
    text = "a: &x [1, &y two]\nb: *x\nc: {*y : *y}\nd: &x 3\ne: *x\n"
    assert load_workflow(text) == {"a": [1, "two"], "b": [1, "two"], "c": {"two": "two"}, "d": 3, "e": 3}


@pytest.mark.parametrize(
    "text",
    [
        "on: push\nenv: {A: b}\n",
        b"on: push\nenv: {A: b}\n",
        b"\xef\xbb\xbfon: push\nenv: {A: b}\n",
        "on: push\r\nenv: {A: b}\r\n",
        "---\non: push\nenv: {A: b}\n...\n",
    ],
)
def test_bytes_byte_order_marks_and_windows_line_ends_are_read(text):
    assert load_workflow(text) == {"on": "push", "env": {"A": "b"}}


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("a: 1\nb: 2\n'a': 3\n", 'line 3, column 1: duplicate key "a"'),
        ("a: {b: 1, b: 2}", 'line 1, column 11: duplicate key "b"'),
        ("a:\n\tb: 1\n", "line 2, column 1: a tab cannot indent; use spaces"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: a second document"),
        (b"a: b\nc: \xff\n", "line 2, column 4: not UTF-8"),
        ("a: b\nc: \ud800\n", "line 2, column 4: half of a surrogate pair"),
        ("a: b\nc: d\x00\n", "line 2, column 5: control characters are not allowed"),
        ("a: *b", "line 1, column 4: alias *b has no anchor before it"),
        ("a: &x [*x]", "line 1, column 8: alias *x stands inside its own anchor"),
        ("a: &x 1\nb: &x {c: *x}", "line 2, column 11: alias *x stands inside its own anchor"),
        ("if: !contains(x)", "line 1, column 5: tag !contains(x) is not allowed"),
        ("a: !!binary aGk=", "line 1, column 4: tag !!binary is not allowed here; scalars may have !!str, "),
        ("a: ! 3", "line 1, column 4: tag ! is not allowed"),
        ("a: !!map x", "line 1, column 4: tag !!map is not allowed here"),
        ("a: !!str [x]", "line 1, column 4: tag !!str is not allowed here"),
        ("a: !!seq {}", "line 1, column 4: tag !!seq is not allowed here"),
        ("a: !!int x", 'line 1, column 4: tag !!int does not fit "x"; remove it'),
        ("a: !!int '3'", 'line 1, column 4: tag !!int does not fit "3"; remove it'),
        ("a: !!int 3.0", "tag !!int does not fit"),
        ("a: !!float 0x1F", "tag !!float does not fit"),
        ("a: !!bool yes", "tag !!bool does not fit"),
        ("a: !!null x", "tag !!null does not fit"),
        ("a: !!int", 'tag !!int does not fit ""'),
        ("a: !!float " + "9" * 400, "has no JSON form"),
        ("~: a\nnull: b", 'line 2, column 1: duplicate key ""'),
        ("a: .inf", "line 1, column 4: .inf has no JSON form"),
        ("a: [-.INF]", "line 1, column 5: -.INF has no JSON form"),
        ("a: .NaN", "line 1, column 4: .NaN has no JSON form"),
        ("a: 1e999", "line 1, column 4: 1e999 has no JSON form"),
        ("a: " + "9" * 5000, "line 1, column 4: Exceeds the limit (4300 digits)"),
        ("name: {{ name }}", "line 1, column 8: a mapping key must be a scalar"),
        ("a: &x []\n*x : b", "line 2, column 1: a mapping key must be a scalar"),
        ("a: 'b", "line 1, column 6: found unexpected end of stream"),
    ],
)
def test_bad_yaml_is_refused_with_place_and_reason_in_one_line(text, message):
    with pytest.raises(WorkflowSyntaxError) as caught:
        load_workflow(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghijk", "bcdefghijkl")),
        "a: &a " + "x" * 100_000 + "\nb: [" + "*a," * 100_000 + "]",
    ],
)
def test_alias_bombs_are_refused(text):
    with pytest.raises(WorkflowSyntaxError, match="aliases expand to more than"):
        load_workflow(text)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "- " * 100_000, "{a: " * 100_000, "\n".join(" " * i + "a:" for i in range(3_000))]
)
def test_bottomless_nesting_is_refused(text):
    with pytest.raises(WorkflowSyntaxError, match="nested collections"):
        load_workflow(text)


def test_the_allowed_nesting_is_read_and_written():
    value = load_workflow("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    again = load_workflow(dump_workflow(value))
    for _ in range(MAX_DEPTH - 1):
        assert len(value) == len(again) == 1
        value, again = value[0], again[0]
    assert value == again == []


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', 'duplicate key "c"'),
        ('{"a":\n tru}', "line 2, column 2: Expecting value"),
        ("", "line 1, column 1: Expecting value"),
        ("[NaN]", "NaN has no JSON form"),
        ("[-Infinity]", "-Infinity has no JSON form"),
        ("[1e999]", "1e999 has no JSON form"),
        ('["\\ud800"]', "half of a surrogate pair"),
        (b'["\xff"]', "line 1, column 3: not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "Exceeds the limit (4300 digits)"),
    ],
)
def test_bad_json_is_refused_with_the_reason_in_one_line(text, message):
    with pytest.raises(WorkflowSyntaxError) as caught:
        load_json(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_is_read_as_json():
    assert load_json(b'\xef\xbb\xbf{"on": "\\ud83d\\ude80", "x": 1e3}') == {"on": "🚀", "x": 1000.0}


@pytest.mark.parametrize("text", ['\ufeff{"a": "\\ud83d\\ude80"}', b'\xef\xbb\xbf {"a": "\\ud83d\\ude80"}'])
def test_a_byte_order_mark_does_not_hide_that_a_text_is_json(text):
    assert load_text(text, "3") == {"a": "🚀"}  # YAML knows no escapes of halves


# -----------------------------------------------------------------------------
# writing

TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(list(" \t\n\r:#-ab'\"|>?{}[],&*!%@\\\x85\u2028\ufeffé🚀"), max_size=12),
    st.sampled_from(
        [
            "on",
            "no",
            "~",
            "3.10",
            "017",
            "0o17",
            "0x1F",
            "1e5",
            "1:30",
            "<<",
            "=",
            ".inf",
            "0b1",
            "+1",
            "1_0",
            "2001-01-01",
            "---",
            "...",
            "a\n---\nb\n",
            " x\ny",
            "\n x\n",
            "x \ny\n",
            "x\n\ty",
            "\tx\n",
            "x\n\n",
            "   \nx\n",
            "k" * 200,
        ]
    ),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT)
JSON = st.recursive(
    SCALARS,
    lambda child: st.one_of(st.lists(child, max_size=4), st.dictionaries(TEXT, child, max_size=4)),
    max_leaves=10,
)


@pytest.mark.slow
@settings(max_examples=400)
@given(st.one_of(JSON, st.fixed_dictionaries({"on": JSON, "jobs": st.dictionaries(TEXT, JSON)})))
def test_what_is_written_reads_back_equal_with_types_and_key_order(value):
    assert same(load_workflow(dump_workflow(value)), value)


@settings(max_examples=300)
@given(st.lists(SCALARS, min_size=1))
def test_readers_of_yaml_1_1_see_the_same_types(values):
    assert same(yaml.safe_load(dump_workflow(values)), values)


def test_yaml_looks_as_people_write_it():
    workflow = {
        "name": "CI",
        "on": {"push": {"branches": ["main", "release/**"]}, "schedule": [{"cron": "0 3 * * 1"}]},
        "env": {"FLAG": "on", "VERSION": "3.10", "EMPTY": "", "NOTHING": {}},
        "jobs": {
            "build": {
                "runs-on": "ubuntu-latest",
                "if": "${{ !cancelled() }}",
                "timeout-minutes": 10,
                "strategy": {"matrix": {"python": [3.11, "3.10"], "include": []}},
                "steps": [
                    {"uses": "actions/checkout@v4"},
                    {"name": "Test: all", "run": "pip install .\nmake test  \n\n\tpytest\n"},
                    {"run": "echo one\necho two"},
                ],
            },
            "lint": {"needs": ["build"], "uses": "./.github/workflows/lint.yml"},
        },
    }
    assert (
        dump_workflow(workflow)
        == """\
name: CI

on:
  push:
    branches:
      - main
      - release/**
  schedule:
    - cron: 0 3 * * 1

env:
  FLAG: 'on'
  VERSION: '3.10'
  EMPTY: ''
  NOTHING: {}

jobs:
  build:
    runs-on: ubuntu-latest
    if: ${{ !cancelled() }}
    timeout-minutes: 10
    strategy:
      matrix:
        python:
          - 3.11
          - '3.10'
        include: []
    steps:
      - uses: actions/checkout@v4
      - name: 'Test: all'
        run: |
          pip install .
          make test\x20\x20

          \tpytest
      - run: |-
          echo one
          echo two

  lint:
    needs:
      - build
    uses: ./.github/workflows/lint.yml
"""
    )


def test_long_strings_are_not_folded():
    line = "echo " + "word " * 100 + "end"
    assert line in dump_workflow({"run": line})
    assert f"    {line}\n" in dump_workflow({"steps": [{"run": f"{line}\n{line}\n"}]})


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_numbers_without_json_form_are_not_written(number):
    with pytest.raises(ValueError):
        dump_workflow({"a": number})

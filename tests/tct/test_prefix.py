"""Documents cut anywhere: every completion keeps what was given, and is tokenised as if nothing had been cut."""

import json
import random
import re

import pytest
from helpers import allowed
from hypothesis import given, settings
from hypothesis import strategies as st

import tct_github_workflow as tct
from scripts.stress.generation import keeps_json, keeps_yaml
from tct import Tokenizer
from tct.bpe import split_words
from tct.codec import CUT, Encoder, flatten
from tct.json_text import compact
from tct.prefix import settled_words
from tct.symbols import (
    END_ARRAY,
    END_NUMBER,
    END_OBJECT,
    END_STRING,
    FALSE,
    FIRST_BYTE,
    FIRST_NAME,
    NULL,
    NUMBER,
    TRUE,
    literal,
    text_symbols,
)  # fmt: skip
from tct_github_workflow.files import find_files, load_file
from tct_github_workflow.workflow_yaml import dump_workflow, load_workflow
from workflow_synth.compose import compose_workflows

WORKFLOWS = [workflow for _, workflow in compose_workflows(60)]
ODD = {
    "name": 'it\'s "odd"\\ \t\n🚀 é',
    "on": {"schedule": [{"cron": "0 0 * * *"}], "workflow_dispatch": None},
    "env": {"N": -0.5, "E": 1e300, "FLAG": True, "EMPTY": "", "FALSE": "false", "on": "off", "": " "},
    "jobs": {
        "a": {
            "runs-on": ["self-hosted", "x"],
            "strategy": {"matrix": {"n": [1, -2.5, "3.10", {"k": []}, [[], {}]]}},
            "steps": [
                {"run": "\n\n  a:\n    b # ${{ github.ref }} ${{ x \n", "if": True},
                {"uses": "docker://alpine:3.8", "with": {"args": "--flag -x", "path": "a/b"}},
            ],
        }
    },
}
HAND_WRITTEN = """\
---
# a comment, with: signs - of [structure]
name: 'it''s'   # why
on: [push, "pull_request", ]
env: {A: 1, 'B': "x\\ty\\u00e9
  z", C: True,
  "E" : 3.10}
jobs:
  one:
    runs-on:
    - self-hosted
    - >-
      big
      one
    strategy: {matrix: {a: [1, -x, [b: c], -3]}}
    steps:
    - run: |

        echo "a: b" # no comment

          more
    -
      name: "two
        lines

        and a blank"
      uses: http://x
    - {run: 'x', shell: bash}
    - run: |2-
          indented
        if: no key
      if: ${{ !cancelled() }}
"""
WITH_PROPERTIES = """\
%YAML 1.2
---
on: !!str push
env: &env !!map
  A: &a-1 "x y"
  B: *a-1
  C: !!float 3.5
  !!str D: !!bool true
  &k E: !!str &e 3.10
jobs:
  one: &job
    runs-on: &os it's
    env: *env
    strategy: {matrix: {os: !!seq [*os, &os2 x, *os2 , !!str 'b'], k: [{*a-1 : 1}]}}
    steps: &steps
      - &s1 {run: make}
      - *s1
      - &s2
        run: !!str |
          [ &x
  ? two
  : *job
  three:
    runs-on: *os
    steps: *steps
...
"""


def as_json(value, ascii) -> str:
    return json.dumps(value, ensure_ascii=ascii, separators=(",", ":"))


def spelled(tokens) -> tuple[int, ...]:
    """The base symbols of tokens."""
    return tuple(s for token in tokens for s in tct.tokenizer().bpe.symbols_of[token])


def completions(prefix, count=2) -> list[str]:
    """JSON texts of some documents that go on from a prefix."""
    texts = []
    for way in random.Random(0).sample(prefix.pending, min(count, len(prefix.pending))):
        matcher = tct.matcher()
        assert matcher.accept_tokens(prefix[: prefix.n_stable]) and matcher.accept_tokens(way)
        texts.append(tct.decode([*prefix[: prefix.n_stable], *way, *matcher.closing_tokens()])[0])
    return texts


def check(prefix, tokens) -> None:
    """Assert that a document's tokens continue the prefix, and are those of the whole document."""
    assert tokens[: prefix.n_stable] == prefix[: prefix.n_stable]
    rest = spelled(tokens[prefix.n_stable :])
    assert any(rest[: len(way)] == way for way in prefix.pending)
    assert tct.matcher().accept_tokens(prefix)
    if len(prefix.pending) == 1:
        assert spelled(prefix[prefix.n_stable :]) == prefix.pending[0]
    matcher = tct.matcher()
    assert matcher.accept_prefix(prefix) and matcher.accept_tokens(tokens[prefix.n_stable :])
    assert matcher.is_terminated()


# -- JSON


@pytest.mark.slow
@settings(max_examples=300)
@given(st.sampled_from([ODD, *WORKFLOWS]), st.booleans(), st.floats(0, 1))
def test_json_cut_anywhere_is_kept(workflow, ascii, share):
    text = as_json(workflow, ascii)
    cut = text[: round(share * len(text))]
    prefix = tct.encode_prefix(cut)
    check(prefix, tct.encode(text))
    for whole in completions(prefix):
        if cut != text:
            assert keeps_json(as_json(json.loads(whole), ascii), cut)


@pytest.mark.parametrize(
    "text, escapes",
    [
        ("", 179),
        ("u", 179),
        ("u00e", 16),
        ("u00E9", 1),
        ("ud83", 179),
        ("ud83d", 1024),
        (r"ud83d\ud", 1024),
        (r"ud83d\ude8", 16),
    ],
)
def test_a_cut_escape_goes_on_with_the_characters_that_it_may_be(text, escapes):
    prefix = tct.encode_prefix('{"name":"x\\' + text)
    assert len(prefix.pending) == escapes


def test_a_cut_says_no_more_than_is_certain():
    says = {
        "": "",
        "{": "",
        '{"na': "<name:>",
        '{"name"': "<name:>",
        '{"name":"npm run bui': "<name:>npm run bui",
        '{"name":"x"': "<name:>x<END_STRING>",
        '{"on":"pu': "<on:>",
        '{"on":"pus': '<on:><"push">',
        '{"on":["push"],"env":{"A': '<on:><ARRAY><"push"><END_ARRAY><env:><OBJECT>A',
        '{"env":{"A":1': "<env:><OBJECT>A<END_STRING><NUMBER>1",
        '{"env":{"A":1,': "<env:><OBJECT>A<END_STRING><NUMBER>1<END_NUMBER>",
        '{"env":{"A":tr': "<env:><OBJECT>A<END_STRING><TRUE>",
        '{"env":{"A":1.50': "<env:><OBJECT>A<END_STRING><NUMBER>1.5",
        '{"env":{"A":1.50}': "<env:><OBJECT>A<END_STRING><NUMBER>1.5<END_NUMBER><END_OBJECT>",
        '{"env":{}}': "<env:><OBJECT>",
    }
    describe = tct.tokenizer().machine.symbols.describe
    assert {text: describe(spelled(tct.encode_prefix(text))) for text in says} == says


def test_an_item_that_has_begun_has_to_come():
    text = '{"on":"push","jobs":{"a":{"runs-on":"x","steps":[{"run":"y"}'
    tokens = tct.encode(text + "]}}}")
    check(tct.encode_prefix(text), tokens)
    for begun in (",", ",{"):
        with pytest.raises(AssertionError):
            check(tct.encode_prefix(text + begun), tokens)
        check(tct.encode_prefix(text + begun), tct.encode(text + ',{"run":"z"}]}}}'))


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"x', r'^\$: a key that starts with "x" does not fit'),
        ('{"on":"pux', r'^\$\.on: a string that starts with "pux" does not fit'),
        ('{"on":7', r"^\$\.on: expected a string"),
        ('{"on":"push","on', r'^\$: a key that starts with "on"'),
        ('{"on":"push","on":"p', r"^\$\.on: .*twice"),
        ('{"on":["push"]],', r"not JSON"),
        ('{"on":["push" "p', r"not JSON: .*line 1 column 15"),
        ('{"on":nulx', r"not JSON"),
        ('{"env":{"A":.5', r"not JSON"),
        ('{"on":' + "[" * 100_000, "nested too deeply"),
        ('{"env":{"A":NaN', r"NaN is not a JSON number"),
        (r'{"name":"\x', r"not JSON: Invalid \\escape"),
        (r'{"name":"\ud800x', r"^\$\.name: a lone surrogate"),
        ("[" * 100_000, "more than 1,000 nested"),
        ('{"env":{"A":' + "9" * 10_000, r"digits|number"),
        ("on: push: x", "^line 1, column 9: "),
        ("on: push\non: x", r'^line 2, column 1: duplicate key "on"'),
        ("jobs: {null: {runs-on: x}}", r"^\$\.jobs\[''\]: this key does not fit here; allowed are keys"),
        ("jobs:\n  a:\n    runz: x\n", r"^\$\.jobs\.a\.runz: unknown key; allowed are"),
        ("jobs:\n  a:\n    runs-on: x\n   b", "^line 4, column"),
        ("jobs:\n  - ", r"^\$\.jobs: expected an object"),
        ("name: *x ", "alias \\*x has no anchor"),
        ("name: !x", "tag !x is not allowed"),
        ("name: !!i ", "tag !!i is not allowed"),
        ("env: {A: !!bool x", "tag !!bool does not fit"),
    ],
)
def test_where_no_workflow_starts_so_the_error_tells_where(text, message):
    with pytest.raises(ValueError) as error:
        tct.encode_prefix(text)
    assert re.search(message, str(error.value)) and "\n" not in str(error.value)


# -- YAML


@pytest.mark.parametrize("text", ["", "on: pu", '{"on":"pu', ' {"on"', "# on"])
def test_a_byte_order_mark_says_nothing(text):
    marked, plain = tct.encode_prefix("\ufeff" + text), tct.encode_prefix(text)
    assert (marked, marked.pending) == (plain, plain.pending)


@pytest.mark.slow
@settings(max_examples=150)
@given(st.sampled_from([ODD, *WORKFLOWS]), st.floats(0, 1))
def test_yaml_cut_anywhere_is_kept(workflow, share):
    text = dump_workflow(workflow)
    cut = text[: round(share * len(text))]
    prefix = tct.encode_prefix(cut)
    check(prefix, tct.encode(compact(workflow)))
    for whole in completions(prefix):
        assert keeps_yaml(json.loads(whole), cut)


@pytest.mark.slow
@pytest.mark.parametrize("text", [HAND_WRITTEN, WITH_PROPERTIES])
def test_every_style_of_yaml_is_read_up_to_any_cut(text):
    tokens = tct.encode(compact(load_workflow(text)))
    for end in range(len(text) + 1):
        prefix = tct.encode_prefix(text[:end])
        check(prefix, tokens)
        assert all(keeps_yaml(json.loads(whole), text[:end]) for whole in completions(prefix))


def test_a_windows_line_end_may_be_cut_in_two():
    text = HAND_WRITTEN.replace("\n", "\r\n")
    tokens = tct.encode(compact(load_workflow(text)))
    for line_end in re.finditer("\r", text):
        check(tct.encode_prefix(text[: line_end.end()]), tokens)


JOB = "on: push\njobs:\n  a:\n    "


@pytest.mark.parametrize(
    "text, says",
    [
        ("on: pu", "<on:>"),
        ("on: pus", '<on:><"push">'),
        ("on: [push", '<on:><ARRAY><"push">'),
        ("on: [push]", '<on:><ARRAY><"push"><END_ARRAY>'),
        ("on:\n  push: &filter\n  ", "<on:><OBJECT><push:>"),
        ("on: &", "<on:>"),
        ("name: &x", "<name:>"),
        ("name: &x a\nrun-name: *x", "<name:>a<END_STRING><run-name:>a<END_STRING>"),
        ("name: &xy a\nrun-name: *x", "<name:>a<END_STRING><run-name:>"),
        ("env: {A: !!bool t", "<env:><OBJECT>A<END_STRING><TRUE>"),
        ("env: {A: !!str t", "<env:><OBJECT>A<END_STRING>t"),
        ("env: {A: &", "<env:><OBJECT>A<END_STRING>"),
        ("name:", "<name:>"),
        ("name: x", "<name:>x"),
        ("name: x\n", "<name:>x<END_STRING>"),
        ("name: x # y", "<name:>x<END_STRING>"),
        ("name: |\n  x\n", "<name:>x\\n"),
        ("name: |-\n  x\n", "<name:>x"),
        ("name: 'x'\n", "<name:>x<END_STRING>"),
        (JOB, "a<END_STRING>"),
        (JOB + "runs-o", "a<END_STRING><runs-on:>"),
        (JOB + "runs-on: x\n    steps:\n    -", "a<END_STRING><runs-on:>x<END_STRING><steps:>"),
        (JOB + "runs-on: x\n    steps:\n    - us", "a<END_STRING><runs-on:>x<END_STRING><steps:><uses:>"),
        (JOB + "env:\n      A: 3.1\n", "a<END_STRING><env:><OBJECT>A<END_STRING><NUMBER>3.1<END_NUMBER>"),
        (JOB + "timeout-minutes: 017", "a<END_STRING><timeout-minutes:><NUMBER>17<END_NUMBER>"),
        (JOB + "timeout-minutes: 1", "a<END_STRING><timeout-minutes:><NUMBER>1"),
    ],
)
def test_a_yaml_text_says_what_is_certain(text, says):
    described = tct.tokenizer().machine.symbols.describe(spelled(tct.encode_prefix(text)))
    assert described.removeprefix('<on:><"push"><jobs:>' if text.startswith(JOB) else "") == says


def test_a_plain_scalar_may_become_whatever_starts_so():
    prefix = tct.encode_prefix("on: push\njobs: {a: {runs-on: x}}\nenv:\n  A: 3.1")
    for value in ("3.1.4", "3.14", 3.14, 3.1):
        workflow = {"on": "push", "jobs": {"a": {"runs-on": "x"}}, "env": {"A": value}}
        check(prefix, tct.encode(compact(workflow)))


# -- values


@pytest.mark.parametrize("value", [{}, {"name": "x"}, {"on": {"push": {"branches": []}}}, ODD, *WORKFLOWS[:5]])
def test_a_value_and_its_whole_json_text_are_left_open(value):
    prefix = tct.encode_prefix(value)
    assert list(prefix) == list(tct.encode_prefix(compact(value)))
    assert len(prefix.pending) == 1
    matcher = tct.matcher()
    assert matcher.accept_tokens(prefix) and not matcher.is_terminated()
    if value in WORKFLOWS:
        check(prefix, tct.encode(compact(value)))


def test_a_value_is_not_changed():
    value = {"on": {"push": {"branches": ["a"]}}}
    tct.encode_prefix(value)
    assert value == {"on": {"push": {"branches": ["a"]}}}


def test_any_schema_has_prefixes():
    tokenizer = Tokenizer({"type": "array", "items": {"enum": ["ab", "ac", 12, 17, True, None]}})
    symbols = tokenizer.machine.symbols
    ways = {
        '["a': {'<"ab">', '<"ac">'},
        "[1": {"<12>", "<17>"},
        "[12,n": {"<12><NULL>"},
        "": {""},
        "[": {""},
    }
    for text, said in ways.items():
        assert {symbols.describe(way) for way in tokenizer.encode_prefix(text).pending} == said
    scalar = Tokenizer({"type": ["string", "number"]})
    assert [scalar.machine.symbols.describe(scalar.encode_prefix(text)) for text in ('"a', "12")] == [
        "a",
        "<NUMBER>12",
    ]


# -- token healing


@pytest.mark.slow
@settings(max_examples=500)
@given(st.data())
def test_settled_words_stay_as_they_are(data):
    pieces = st.sampled_from(
        [
            "a",
            "é",
            "1",
            "23",
            " ",
            "  ",
            "\n",
            "\r\n",
            "\t",
            "_",
            ".",
            "://",
            "a/b@",
            "0123abcd" * 5,
            "$",
            "${{",
            "}}",
            "}",
            " x ",
            "-",
            "'",
        ]
    )
    text, more = ("".join(data.draw(st.lists(pieces, max_size=30))) for _ in range(2))
    words = settled_words(text)
    assert split_words(text + more)[: len(words)] == words


def test_a_model_sees_the_tokens_that_it_was_trained_on():
    prefix = tct.encode_prefix('{"on":"push","jobs":{"a":{"runs-on":"ubuntu-la')
    matcher = tct.matcher()
    assert matcher.accept_prefix(prefix)
    names = {tct.id_to_token(int(token)) for token in allowed(matcher)}
    assert "ubuntu-latest<END_STRING>" in names and all(
        "ubuntu-la".startswith(n) or n.startswith("ubuntu-la") for n in names
    )


@settings(max_examples=30)
@given(st.sampled_from(WORKFLOWS), st.floats(0, 1), st.randoms(use_true_random=False))
def test_random_completions_keep_what_was_given(workflow, share, rng):
    text = compact(workflow)
    cut = text[: round(share * len(text))].rstrip("\\")
    prefix, matcher = tct.encode_prefix(cut), tct.matcher()
    assert matcher.accept_prefix(prefix)
    tokens = prefix[: prefix.n_stable]
    for _ in range(20):
        if matcher.is_terminated():
            break
        tokens.append(int(rng.choice(allowed(matcher))))
        assert matcher.accept_token(tokens[-1])
    whole = tct.decode(tokens + matcher.closing_tokens())[0]
    assert cut == text or whole.startswith(cut)


# -- decode_prefix


@settings(max_examples=200)
@given(st.sampled_from([ODD, *WORKFLOWS]), st.booleans(), st.floats(0, 1))
def test_truncated_tokens_say_just_what_they_say(workflow, by_symbols, share):
    tokens = tct.encode(compact(workflow))
    tokens = list(spelled(tokens)) if by_symbols else tokens
    tokens = tokens[: round(share * len(tokens))]
    text, consumed, is_complete = tct.decode_prefix(tokens)
    assert consumed == len(tokens)
    if is_complete:
        assert text == compact(workflow)
        return
    before, scalar = cut_before_last_scalar(json.loads(text))
    symbols, said = spelled(tokens), tuple(flatten(Encoder(tct.tokenizer().machine).encode(before)))
    assert symbols[: len(said)] == said
    left = symbols[len(said) :]
    if scalar is not CUT:
        left = left[len(next(way for way in ways_to_say(scalar) if left[: len(way)] == way)) :]
    while left and left[0] in (END_STRING, END_NUMBER, END_OBJECT, END_ARRAY):
        left = left[1:]
    if left and left[0] >= FIRST_NAME:  # a key with no value yet
        left = left[1:]
    elif END_STRING in left:
        left = left[left.index(END_STRING) + 1 :]
    assert all(FIRST_BYTE <= s < END_STRING or s == NUMBER for s in left)  # a key or character that is cut, 1. or -


def cut_before_last_scalar(value):
    """A value cut before the scalar with which it ends, and that scalar, CUT where it ends with no scalar."""
    if not isinstance(value, (dict, list)):
        return CUT, value
    if not value:
        return ({CUT: CUT} if isinstance(value, dict) else [CUT]), CUT
    last = [*value][-1] if isinstance(value, dict) else len(value) - 1
    inner, scalar = cut_before_last_scalar(value[last])
    return ({**value, last: inner} if isinstance(value, dict) else [*value[:-1], inner]), scalar


def ways_to_say(scalar) -> list[tuple[int, ...]]:
    """Symbols for a scalar, or for what there is of it."""
    text = tuple(text_symbols(scalar if isinstance(scalar, str) else literal(scalar)))
    choice = tct.tokenizer().machine.symbols.value.get(literal(scalar))
    return [
        (choice,),
        (TRUE,) if scalar is True else (FALSE,) if scalar is False else (NULL,),
        (NUMBER, *text),
        text,
    ]


# -- the generator


def test_a_generator_goes_on_where_a_text_is_cut():
    torch = pytest.importorskip("torch")
    from nanochat.gpt import GPT, GPTConfig
    from workflow_generator import WorkflowGenerator

    torch.manual_seed(0)
    model = GPT(GPTConfig(sequence_len=64, n_layer=1, n_head=1, n_kv_head=1, n_embd=16))
    prompt = "name: Mine\non: [pu"
    for workflow in WorkflowGenerator(model, stride=32).generate(4, prompt, max_tokens=40, temperature=1.0):
        assert workflow.value["name"] == "Mine" and workflow.value["on"][0].startswith("pu")


# -- real workflows


@pytest.mark.slow
def test_real_workflows_cut_anywhere_are_kept(corpus):
    rng = random.Random(0)
    for name in rng.sample(find_files(corpus / "workflows"), 60):
        path = corpus / "workflows" / name
        try:
            workflow = load_file(path)
            tokens = tct.encode(compact(workflow))
        except ValueError:
            continue
        text, source = compact(workflow), path.read_text("utf-8-sig")
        check(tct.encode_prefix(text[: rng.randrange(len(text))]), tokens)
        check(tct.encode_prefix(source[: rng.randrange(len(source))]), tokens)

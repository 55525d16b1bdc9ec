"""The tokenizer for workflows, as its documentation promises it."""

import json
import re

import jsonschema_rs
import pytest
from helpers import allowed
from hypothesis import given, settings
from hypothesis import strategies as st

import tct_github_workflow as tct
from tct import SchemaValidationError, Tokenizer
from tct.bpe import find_all_words, split_lines, words_of_line
from tct.json_text import compact
from tct.symbols import symbol_of, to_chars
from tct_github_workflow.files import find_files, load_file

EXAMPLE = {
    "name": "CI",
    "on": "push",
    "jobs": {"build": {"runs-on": "ubuntu-latest", "steps": [{"uses": "actions/checkout@v4"}]}},
}
LARGER = {
    "on": {
        "workflow_dispatch": {"inputs": {"tag": {"default": "v1", "type": "string"}}},
        "push": {"branches": ["main"]},
        "watch": None,
    },
    "env": {"N": 3, "PI": 3.14, "FLAG": True, "TEXT": 'ünïcode 🚀 \\ " \n tab\t', "EMPTY": ""},
    "jobs": {
        "test": {
            "runs-on": ["self-hosted", "linux"],
            "strategy": {"matrix": {"os": ["a", "b"], "include": [{"os": "c", "x": [1, {"deep": False}]}]}},
            "steps": [
                {"run": "make\nmake test\n", "shell": "bash", "timeout-minutes": 5},
                {"uses": "./local"},
            ],
        },
        "call": {"uses": "a/b/.github/workflows/c.yml@main", "secrets": "inherit"},
    },
}


def test_the_documented_example_needs_at_most_13_tokens():
    tokens = tct.encode(compact(EXAMPLE))
    assert len(tokens) <= 13
    assert tct.decode(tokens) == (compact(EXAMPLE), len(tokens), len(tokens))


def test_the_vocabulary_has_8192_tokens_and_none_of_a_document_is_pad():
    assert tct.vocab_size() == 8192 and tct.pad_token() == 0
    assert len({tct.id_to_token(token) for token in range(8192)}) == 8192
    assert 0 not in tct.encode(compact(LARGER))


@given(
    st.lists(
        st.sampled_from(["a", "9", "/", "@", "@" + "0a" * 20, "${{", "}}", " ", "\t", "\n", "\r", "é", "secrets.A"])
    )
)
def test_the_quick_pattern_finds_the_same_words(pieces):
    for line in split_lines("".join(pieces)):
        assert words_of_line(line) == find_all_words(line)


@given(st.lists(st.integers(0, 2000)))
def test_symbols_are_kept_as_characters(symbols):
    assert [symbol_of(char) for char in to_chars(symbols)] == symbols


def test_decode_gives_the_text_back_and_counts_surplus_tokens():
    tokens = tct.encode(compact(LARGER))
    assert tct.decode([*tokens, 0, 0, 0]) == (compact(LARGER), len(tokens), len(tokens) + 3)


@pytest.mark.slow
def test_every_valid_real_workflow_round_trips_and_every_other_is_refused(corpus):
    judge = jsonschema_rs.validator_for(tct.workflow_schema())
    refused = 0
    for name in find_files(corpus / "workflows"):
        try:
            workflow = load_file(corpus / "workflows" / name)
        except ValueError:
            continue
        text = compact(workflow)
        try:
            tokens = tct.encode(text)
        except SchemaValidationError as error:
            assert not judge.is_valid(workflow), (name, str(error))
            assert error.path.startswith("$")
            refused += 1
        else:
            assert judge.is_valid(workflow), name
            assert tct.decode(tokens)[0] == text, name
    assert refused > 0


def test_the_tests_of_the_schema_itself_get_their_verdict(corpus):
    judge = jsonschema_rs.validator_for(tct.workflow_schema())  # the bundled schema is older than the tests
    for name in find_files(corpus / "workflow-tests"):
        workflow = load_file(corpus / "workflow-tests" / name)
        try:
            tokens = tct.encode(compact(workflow))
        except SchemaValidationError:
            assert not judge.is_valid(workflow), name
        else:
            assert judge.is_valid(workflow) and tct.decode(tokens)[0] == compact(workflow), name


@pytest.mark.parametrize("workflow", [EXAMPLE, LARGER])
def test_a_prefix_says_what_its_tokens_say_and_invents_nothing(workflow):
    tokens = tct.encode(compact(workflow))
    for end in range(len(tokens)):
        text, consumed, is_complete = tct.decode_prefix(tokens[:end])
        assert consumed == end and not is_complete
        assert is_beginning(json.loads(text), workflow)
    assert tct.decode_prefix(tokens) == (compact(workflow), len(tokens), True)


def is_beginning(part, whole) -> bool:
    """Is `part` what one knows of `whole` after reading some of it?"""
    if isinstance(part, dict) and isinstance(whole, dict):
        *before, last = [*part] or [None]
        return (
            [*part] == [*whole][: len(part)]
            and all(part[key] == whole[key] for key in before)
            and (last is None or is_beginning(part[last], whole[last]))
        )
    if isinstance(part, list) and isinstance(whole, list):
        return part[:-1] == whole[: len(part)][:-1] and all(map(is_beginning, part[-1:], whole[len(part) - 1 :]))
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    return part == whole


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"on":"push"}', r"^\$: .*required.*jobs"),
        (
            '{"on":"push","jobs":{"a":{"runs-on":"x","steps":[{"uses":"a","run":"b"}]}}}',
            r"^\$\.jobs\.a\.steps\[0\]\.run",
        ),
        ('{"on":"push","jobs":{"a":{"runs-on":7}}}', r"^\$\.jobs\.a\.runs-on: expected .*, found 7"),
        ('{"on":"push","jobs":{"1a":{"runs-on":"x"}}}', r"^\$\.jobs\.1a: .* allowed are keys that match \^\["),
        ('{"on":"push","jobs":{"a.b":{}}}', r"^\$\.jobs\['a\.b'\]: .* allowed are keys that match \^\["),
        ('{"on":"push","jobs":{"a":{"b":1}}}', r"^\$\.jobs\.a\.b: unknown key; allowed are "),
        ('{"on":"push","on":"pull_request","jobs":{}}', r"^\$\.on: .*twice"),
        ('{"on":"pusch","jobs":{}}', r'^\$\.on: "pusch" is not one of \["branch_protection_rule", ' ),
        ('{"on":"push","env":{"A":"\\ud800"}}', r"^\$\.env\.A: .*surrogate"),
        ('{"on":"push","env":{"A":NaN}}', r"NaN is not a JSON number"),
        ('{"on":"push",', r"not JSON: .*line 1"),
        ('{"on":{"status":' + '{"a":' * 500 + "1" + "}" * 502, r"nested more than 100 levels"),
        ("[" * 100_000, r"nested too deeply"),
        ('{"on":"push","env":{"A":' + "9" * 10_000 + "}}", r"digits"),
    ],
)  # fmt: skip
def test_what_is_no_workflow_is_refused_with_path_and_reason(text, message):
    with pytest.raises(ValueError) as error:
        tct.encode(text)
    assert re.search(message, str(error.value)) and "\n" not in str(error.value)


@pytest.mark.parametrize("tokens", [[], [8191], [-1], [9000], [1, 2, 3]])
def test_tokens_that_are_no_workflow_are_refused(tokens):
    with pytest.raises(ValueError):
        tct.decode(tokens)


def test_a_window_starts_with_its_position_in_strides():
    tokens = list(range(100, 200))
    assert tct.extract_window(tokens, 64, 96, stride=32) == [2, *range(164, 196)]
    with pytest.raises(ValueError):
        tct.extract_window(tokens, 5, 10, stride=32)


def test_a_batch_is_encoded_as_its_texts_are():
    texts = [compact(EXAMPLE), compact(LARGER)] * 3
    assert [array.tolist() for array in tct.encode_batch(texts, 2)] == [tct.encode(text) for text in texts]


@pytest.mark.parametrize("partial", [{}, {"name": "x"}, {"on": {"push": {}}}, EXAMPLE, LARGER])
def test_every_completion_of_a_prefix_keeps_what_was_given(partial):
    matcher = tct.matcher()
    tokens = tct.encode_prefix(partial)
    assert matcher.accept_tokens(tokens)
    ending = matcher.closing_tokens()
    assert matcher.accept_tokens(ending) and matcher.is_terminated()
    whole = json.loads(tct.decode(tokens + ending)[0])
    assert jsonschema_rs.validator_for(tct.workflow_schema()).is_valid(whole)
    assert is_beginning(partial, whole) or {**whole, **partial} == whole


# -- the matcher


@pytest.mark.parametrize("workflow", [EXAMPLE, LARGER])
def test_the_mask_is_what_trying_every_token_gives(workflow):
    tokens = tct.encode(compact(workflow))
    matcher = tct.matcher()
    for index, token in enumerate(tokens):
        mask = allowed(matcher)
        assert token in mask
        if index % 3 == 0:
            assert mask == [t for t in range(8192) if matcher.validate_tokens([t])]
        assert matcher.accept_token(token)
    assert matcher.is_terminated() and matcher.is_completed() and len(allowed(matcher)) == 0
    assert not matcher.accept_token(tokens[0]) and matcher.compute_ff_tokens() == matcher.closing_tokens() == []


@settings(max_examples=40)
@given(st.randoms(use_true_random=False), st.integers(1, 120))
def test_random_walks_end_in_valid_workflows(random, length):
    matcher, tokens = tct.matcher(), []
    while not matcher.is_terminated() and len(tokens) < length:
        tokens.append(int(random.choice(allowed(matcher))))
        assert matcher.accept_token(tokens[-1])
    tokens += matcher.closing_tokens()
    text, consumed, total = tct.decode(tokens)
    assert consumed == total
    assert jsonschema_rs.validator_for(tct.workflow_schema()).is_valid(json.loads(text))


def test_a_refused_token_changes_nothing_and_rollback_goes_back():
    tokens = tct.encode(compact(LARGER))
    matcher = tct.matcher()
    assert matcher.accept_tokens(tokens[:20])
    before = allowed(matcher)
    refused = next(t for t in range(8192) if t not in before)
    assert not matcher.accept_token(refused) and not matcher.accept_tokens([tokens[20], refused, 0])
    assert allowed(matcher) == before
    fork = matcher.fork()
    assert matcher.accept_tokens(tokens[20:30])
    matcher.rollback(10)
    assert allowed(matcher) == allowed(fork) == before
    assert matcher.validate_tokens(tokens[20:]) == len(tokens) - 20
    matcher.reset()
    assert matcher.accept_tokens(tokens) and not fork.is_terminated()
    with pytest.raises(ValueError):
        fork.rollback(21)


def test_a_forced_token_is_the_only_one_allowed():
    matcher = Tokenizer({"type": "array", "items": {"const": "x"}, "minItems": 2, "additionalItems": False}).matcher()
    forced = matcher.compute_ff_tokens()
    assert len(forced) == 2 and matcher.accept_tokens(forced) and len(allowed(matcher)) == 2


# -- the artifact


def test_an_artifact_is_refused_where_it_does_not_fit(tmp_path):
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    path = tmp_path / "artifact.json"
    Tokenizer(schema).save(path)
    assert Tokenizer.load(path).encode('{"a":"b"}') == Tokenizer(schema).encode('{"a":"b"}')
    content = json.loads(path.read_text())
    for change, reason in [
        ({"format": 99}, "format 99"),
        ({"merges": "98+99"}, "damaged"),
        ({"schema_sha256": "0"}, "another version of the schema"),
        ({"schema": None}, "does not contain its schema"),
        ({"merges": None}, "not a tokenizer artifact"),
    ]:
        path.write_text(json.dumps(content | change))
        with pytest.raises(ValueError, match=reason):
            Tokenizer.load(path)


@pytest.mark.slow
def test_the_committed_artifact_is_what_the_corpus_gives(corpus, tmp_path):
    import subprocess
    import sys
    from pathlib import Path

    script = Path(__file__).parents[2] / "tct-bundle/scripts/build_tokenizer.py"
    output = tmp_path / tct.ARTIFACT.name
    subprocess.run([sys.executable, script, "--corpus", corpus / "workflows", "--output", output], check=True)
    assert output.read_bytes() == tct.ARTIFACT.read_bytes()
    listing = tct.ARTIFACT.with_suffix(".vocab.txt")
    assert output.with_suffix(".vocab.txt").read_bytes() == listing.read_bytes()

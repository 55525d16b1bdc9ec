"""Completions at the caret: they fit the text, fulfil the rules, and say how likely they are."""

import pytest
import torch

from nanochat.gpt import GPT, GPTConfig
from tct_github_workflow.lint import lint
from workflow_generator import BpeLanguage, WorkflowGenerator
from workflow_servers.completion import Completer, end_of_entry

JOB = "name: CI\non: push\njobs:\n  test:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v4\n"


@pytest.fixture(scope="module")
def completer():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Completer.load()
    torch.set_num_threads(threads)


def texts(candidates):
    return [candidate.edit.text for candidate in candidates]


def test_the_end_of_a_word_is_completed(completer):
    candidates = completer.candidates("on: push\njobs:\n  a:\n    runs-on: ubuntu-la", until="value")
    assert "test" in texts(candidates)
    assert [c.logprob for c in candidates] == sorted((c.logprob for c in candidates), reverse=True)
    assert len(set(texts(candidates))) == len(candidates) <= 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "indent, is_fitting", [(6, lambda text: text.startswith("- ")), (8, lambda text: not text.startswith("- "))]
)
def test_the_indentation_of_the_caret_says_what_comes(completer, indent, is_fitting):
    found = texts(completer.candidates(JOB + " " * indent))
    assert found and all(map(is_fitting, found))


@pytest.mark.slow
def test_a_completion_fits_before_the_text_after_the_caret(completer):
    before, after = JOB + "      - uses: actions/setup-", "\n      - run: make\n"
    for until in "value", "entry":
        for candidate in completer.candidates(before, until=until):
            text = candidate.edit.apply(before) + after
            assert lint(text) == []
            assert until == "entry" or "with" not in candidate.edit.text


@pytest.mark.slow
def test_a_stream_grows_to_a_clean_workflow(completer):
    grown = list(completer.stream(JOB, max_tokens=200, temperature=0.8, max_repeats=2))
    edits, tokens = [growth.edit for growth in grown], [growth.tokens for growth in grown]
    assert all(edit.start == len(JOB) for edit in edits)
    assert lint(edits[-1].apply(JOB)) == []
    assert edits == list(dict.fromkeys(edits)) and tokens == sorted(tokens) and 0 < tokens[-1] <= 200


@pytest.mark.slow
def test_a_stream_that_goes_back_ends_with_a_clean_workflow(completer):
    *grown, last = completer.stream(JOB, max_tokens=200, temperature=0.8, max_repetition=0.1)
    tokens = [growth.tokens for growth in grown]
    assert tokens != sorted(tokens)
    assert lint(last.edit.apply(JOB)) == []


def test_a_stream_of_one_entry_ends_with_it(completer):
    text = JOB + "      - uses: actions/setup-python@v5\n        with:\n          python-version: "
    *_, last = completer.stream(text, until="entry", temperature=0)
    assert last.edit.text and "\n" not in last.edit.text


def test_a_stream_can_be_closed(completer):
    stream = completer.stream(JOB)
    assert next(stream).edit.start == len(JOB)
    stream.close()
    assert next(stream, None) is None


def test_the_outlook_has_the_likeliest_tokens_and_why_some_are_forbidden(completer):
    text = "on: push\njobs:\n  a:\n    runs-on: ${{ matrix.os }}\n    steps:\n      - run: a ${{ steps"
    outlook = completer.outlook(text, 99)
    probs = [token.probability for token in outlook.tokens]
    assert probs == sorted(probs, reverse=True) and 0.5 < sum(probs) <= 1 + 1e-6
    matcher = completer.documents.matcher("github")
    assert any(not token.fault for token in outlook.tokens) and any(token.fault for token in outlook.tokens)
    assert [sentence.split(":")[0] for sentence in outlook.owed] == ["jobs.a.runs-on"]
    assert "matrix" in outlook.ending.text
    assert matcher.owed() == []


def test_the_outlook_after_a_whole_token_is_what_follows_it(completer):
    tokens = [token.text for token in completer.outlook(JOB + "      - uses: ").tokens]
    assert any(text.startswith("actions/setup-") for text in tokens)


def test_the_shortest_ending_is_clean(completer):
    for text in "", JOB, "on:\n  workflow_call:\n    outputs:\n      x:\n        value: ${{ jobs.a.outputs.b }}\n":
        assert lint(completer.outlook(text).ending.apply(text)) == []


def test_the_tokens_of_a_text_are_spelled_with_their_probabilities(completer):
    spelled = completer.spell(JOB)
    tokens = list(completer.documents.encode_prefix(JOB))
    assert [token.text for token in spelled] == [completer.documents.id_to_token(token) for token in tokens]
    assert all(0 <= token.probability <= 1 for token in spelled)
    assert {token.kind for token in spelled} >= {"keys", "enum values", "action references"}


@pytest.mark.parametrize("method", ["candidates", "outlook", "spell", "stream"])
@pytest.mark.parametrize("text", ["on: [push", "jobs:\n  a: [", "nonsense: ", "on: {{", "\t"])
def test_a_text_with_which_no_workflow_begins_is_an_error_of_one_line(completer, method, text):
    call = getattr(completer, method)
    if text == "on: [push":
        assert call(text)
        return
    with pytest.raises(ValueError) as error:
        list(call(text))
    assert len(str(error.value).splitlines()) == 1


def test_until_has_three_names(completer):
    with pytest.raises(ValueError, match="until must be value, entry or document, not 'line'"):
        completer.candidates(JOB, until="line")


def test_a_model_of_bpe_tokens_is_refused():
    model = GPT(GPTConfig(sequence_len=8, vocab_size=16, n_layer=1, n_head=1, n_kv_head=1, n_embd=16))
    generator = WorkflowGenerator(model, 4, BpeLanguage.__new__(BpeLanguage))
    with pytest.raises(ValueError, match="a model of BPE tokens cannot complete"):
        Completer(generator)


@pytest.mark.parametrize(
    "text, at, is_value, end",
    [
        ("steps:\n- run: a\n  id: b\n- run: c\n", 0, False, None),
        ("steps:\n- run: a\n  id: b\n- run: c\n", 10, False, "- run: c"),
        ("steps:\n- run: a\n  id: b\n- run: c\n", 10, True, "  id: b"),
        ("a:\n  run: |\n    x\n\n    y\n\n  b: 1\n", 4, False, "  b: 1"),
        ("a: 1", 0, False, None),
        ("\n\na: 1\nb: 2", 0, False, "b: 2"),
    ],
)
def test_an_entry_ends_with_the_next_line_that_is_not_indented_more(text, at, is_value, end):
    assert text[end_of_entry(text, at, is_value) :] == (text[text.index(end) :] if end else "")


def test_offsets_count_characters(completer):
    text = "name: 😀 é\non: push\njobs:\n  a:\n    runs-on: ubuntu-la"
    [candidate] = completer.candidates(text, count=1, until="value", temperature=0)
    assert candidate.edit.start == len(text)
    assert candidate.edit.apply(text) == text + candidate.edit.text

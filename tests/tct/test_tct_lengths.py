"""A long maxLength is counted apart from the automaton of a string: verdicts, masks and endings stay exact."""

import jsonschema_rs
import pytest
from helpers import allowed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_tct_schema import check_verdicts, check_walk

from tct import Tokenizer, UnsupportedSchemaError
from tct.symbols import END_STRING

PARTS = st.fixed_dictionaries({}, optional={
    "type": st.just("string"), "maxLength": st.integers(2, 6), "minLength": st.integers(1, 3),
    "pattern": st.sampled_from(["^a*$", "b$", "^(ab)*$", "é", "^[^b]+$", "^.{3}", "^aaaa$"]),
    "enum": st.lists(st.sampled_from(["a", "ab", "aaaa", "abababab"]), min_size=1, max_size=3, unique=True),
})  # fmt: skip
SCHEMAS = st.builds(
    lambda part, more, contains: {"items": part | more} | contains,
    PARTS,
    st.fixed_dictionaries({}, optional={k: st.lists(PARTS, min_size=1, max_size=2) for k in ("anyOf", "oneOf")}),
    st.fixed_dictionaries({}, optional={"contains": PARTS}),
)
TEXTS = st.text("ab😀é", max_size=9)


@pytest.fixture
def counted_apart(monkeypatch):
    """Every maxLength that can be."""
    monkeypatch.setattr("tct.text.MAX_COUNTED", 0)


@pytest.mark.slow
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(SCHEMAS, st.lists(st.lists(TEXTS, max_size=2), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_length_that_is_counted_apart_is_exact(counted_apart, schema, values, random):
    schema = {"type": "array", **schema}
    judge = jsonschema_rs.Draft7Validator(schema)
    check_verdicts(schema, values, judge)
    check_walk(schema, random, judge)
    try:
        tokenizer = Tokenizer(schema)
    except UnsupportedSchemaError:
        return
    for value in filter(judge.is_valid, values):
        matcher = tokenizer.matcher()
        for token in tokenizer.encode_value(value):
            assert allowed(matcher) == [t for t in range(tokenizer.vocab_size()) if matcher.validate_tokens([t])]
            assert matcher.accept_token(token)


def test_a_string_may_have_as_many_characters_as_a_long_limit_says():
    schema = {"properties": {"a": {"type": "string", "maxLength": 65_535}}}
    tokenizer = Tokenizer(schema)
    check_verdicts(schema, [{"a": "é" * n} for n in (65_535, 65_536)], jsonschema_rs.Draft7Validator(schema))
    matcher = tokenizer.matcher()
    tokens = tokenizer.encode_value({"a": "é" * 65_535})
    matcher.accept_tokens(tokens[: tokens.index(END_STRING)])
    assert allowed(matcher) == [END_STRING]


@pytest.mark.parametrize("other", [{"format": "ipv4"}, {"pattern": "^(ab)*$"}, {"enum": ["a", "b" * 300]}])
def test_a_long_limit_in_one_branch_leaves_the_others_as_they_are(other):
    schema = {"type": "string", "anyOf": [{"maxLength": 5000, "pattern": "^a"}, other]}
    values = ["a" * 5000, "a" * 5001, "1.2.3.4", "ab" * 2600, "ab" * 20, "b" * 300, "b"]
    check_verdicts(schema, values, jsonschema_rs.Draft7Validator(schema))

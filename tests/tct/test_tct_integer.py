"""Integers and limits of numbers: the verdict is that of jsonschema-rs, and a spelling begins only if it can end well.

Draft-04 does not take 1.0 for an integer; later drafts do.
"""

import json
from random import Random

import jsonschema_rs
import pytest
from helpers import allowed
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tct import SchemaValidationError, Tokenizer, UnsupportedSchemaError
from tct.numbers import CHARACTERS, exact
from tct.symbols import END_NUMBER, FIRST_BYTE, NUMBER

INTEGERS = st.integers(-20, 20) | st.integers() | st.sampled_from([2**53 + 1, 10**16, 10**23, -(10**400)])
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([-0.0, 1.0, 1e16, 1e23, 1e308, 5e-324])
NUMBERS = INTEGERS | FLOATS | st.integers(-20, 20).map(lambda n: n / 2)
LONG = 3.602879701896397e16  # 2**55, which is 36028797018963968: its repr has other digits
FRACTION = {"type": "number", "not": {"type": "integer"}}
VALUES = NUMBERS | st.booleans() | st.none() | st.sampled_from(["", "1", "1.5"])
ENUMS = st.lists(VALUES, min_size=1, max_size=4, unique_by=lambda value: (type(value) is bool, value))
TYPES = st.sampled_from(["integer", "number", "string", "boolean", "null"])
DRAFT_04, DRAFT_07 = (f"http://json-schema.org/draft-{number}/schema#" for number in ("04", "07"))
PARTS = st.recursive(
    st.one_of(
        st.fixed_dictionaries({"type": TYPES | st.lists(TYPES, min_size=1, unique=True)}),
        st.fixed_dictionaries({"enum": ENUMS}, optional={"type": TYPES}),
        st.fixed_dictionaries({"const": NUMBERS}),
        st.fixed_dictionaries({}, optional={"type": TYPES, "minimum": NUMBERS, "maximum": NUMBERS}),
    ),
    lambda inner: (
        st.fixed_dictionaries({"not": inner}, optional={"type": st.sampled_from(["integer", "number"])})
        | st.sampled_from(["allOf", "anyOf", "oneOf"]).flatmap(
            lambda keyword: st.fixed_dictionaries({keyword: st.lists(inner, min_size=1, max_size=3)})
        )
    ),
    max_leaves=5,
)
SCHEMAS = st.builds(lambda draft, part: {"$schema": draft, **part}, st.sampled_from([DRAFT_04, DRAFT_07]), PARTS)


def compiled(schema) -> Tokenizer | None:
    """Its tokenizer without merges; None where no document is valid."""
    try:
        return Tokenizer(schema)
    except UnsupportedSchemaError as error:
        assert error.keyword == "false"
        return None


def is_same(one, other) -> bool:
    """Is it the same JSON value? A number that the schema names may come back as 1 where it was 1.0."""
    if isinstance(one, bool) or not isinstance(one, (int, float)):
        return type(one) is type(other) and one == other
    return not isinstance(other, bool) and exact(one) == exact(other)


@pytest.mark.slow
@settings(max_examples=300)
@given(SCHEMAS, st.lists(VALUES, min_size=1, max_size=8))
@example({"enum": [LONG]}, [LONG, 2**55, 2**55 + 2])
@example({"$schema": DRAFT_04, "enum": [3, "3"], "type": ["integer", "string"]}, [3, 3.0, "3"])
@example({"$schema": DRAFT_04, "enum": [3, 4.5], "not": {"type": "integer"}}, [3, 3.0, 4.5])
@example({"enum": [2**55, 2**55 + 2]}, [LONG, 2**55, 2**55 + 2])
@example({"not": {"enum": [LONG, 10**23]}}, [LONG, 2**55, 2**55 + 2, 1e23, 10**23, int(1e23)])
def test_the_verdict_is_that_of_jsonschema_and_the_matcher_takes_what_is_valid(schema, values):
    tokenizer, judge = compiled(schema), jsonschema_rs.validator_for(schema)
    for value in values:
        if tokenizer is None:
            assert not judge.is_valid(value)
            continue
        try:
            tokens = tokenizer.encode_value(value)
        except SchemaValidationError:
            assert not judge.is_valid(value)
        else:
            assert judge.is_valid(value)
            assert is_same(json.loads(tokenizer.decode(tokens)[0]), value)
            matcher = tokenizer.matcher()
            assert matcher.accept_tokens(tokens) and matcher.is_terminated()


@pytest.mark.slow
@settings(max_examples=150)
@given(SCHEMAS, st.randoms(use_true_random=False))
@example({"enum": [LONG]}, Random(0))
@example({"$schema": DRAFT_04, "enum": [3, 2**55], "not": {"type": "integer"}}, Random(0))
@example({"anyOf": [FRACTION, {"enum": [LONG, 1e23, 10**23]}]}, Random(0))
def test_every_walk_can_be_finished_and_is_then_valid(schema, random):
    tokenizer, judge = compiled(schema), jsonschema_rs.validator_for(schema)
    if tokenizer is None:
        return
    matcher, tokens = tokenizer.matcher(), []
    while not matcher.is_terminated() and len(tokens) < 25:
        options = allowed(matcher)
        assert options, "a dead end"
        if len(options) > 1 and random.random() < 0.8:  # seldom end a number: long ones are harder
            options = [token for token in options if token != END_NUMBER]
        tokens.append(random.choice(options))
        assert matcher.accept_token(tokens[-1])
    ending = matcher.closing_tokens()
    assert matcher.accept_tokens(ending) and matcher.is_terminated()
    text, _, _ = tokenizer.decode(tokens + ending)
    assert judge.is_valid(json.loads(text)), text
    assert tokenizer.encode(text) == tokens + ending


@pytest.mark.parametrize(
    "schema, text, characters",
    [
        ({"type": "integer"}, "12.", "0"),
        ({"type": "integer"}, "12.0", ""),
        ({"type": "integer"}, "1.5", "0123456789e"),
        ({"type": "integer", "$schema": DRAFT_04}, "12", "0123456789"),
        ({"type": "integer", "$schema": DRAFT_04}, "0", ""),
        (FRACTION | {"$schema": DRAFT_04}, "900719925474099", "012468."),  # 2**53 is 9007199254740992
        (FRACTION | {"$schema": DRAFT_04}, "12.", "0123456789"),
        ({"type": "integer"}, "1.5e", "+"),
        ({"type": "integer", "not": {"const": 0}}, "", "123456789-"),
        ({"type": "integer", "not": {"const": 0}}, "-", "123456789"),
        ({"type": "integer", "not": {"enum": [10, 100]}}, "10", "0123456789"),
        ({"type": "number", "not": {"type": "integer"}}, "5", "0123456789.e"),
        ({"type": "number", "not": {"type": "integer"}}, "5e", "-"),
        ({"type": "number", "not": {"const": 0.30000000000000004}}, "0.300000000000000", "123456789"),
        ({"anyOf": [{"type": "number", "not": {"type": "integer"}}, {"enum": [7, 10**16]}]}, "1e+", "1"),
        (
            {"anyOf": [{"type": "number", "not": {"type": "integer"}}, {"enum": [7, 10**16]}]},
            "1000000000000000",
            "0.",
        ),
    ],
)
def test_the_characters_that_may_follow_in_a_number(schema, text, characters):
    matcher = Tokenizer(schema).matcher()
    matcher.accept_token(NUMBER)
    assert matcher.accept_tokens([FIRST_BYTE + ord(char) for char in text])
    follow = {chr(token - FIRST_BYTE) for token in allowed(matcher) if token != END_NUMBER}
    assert follow == set(characters) and follow <= set(CHARACTERS)


def test_a_number_that_is_no_integer_is_refused_as_such():
    with pytest.raises(SchemaValidationError, match=r"^\$: expected an integer, found 1.5$"):
        Tokenizer({"type": "integer"}).encode("1.5")

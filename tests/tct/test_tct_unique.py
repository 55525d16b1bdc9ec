"""Arrays whose items must differ: same verdicts as jsonschema-rs, exact masks, and no dead ends."""

import json

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tct import SchemaValidationError, Tokenizer
from tct.symbols import END_STRING
from tests.helpers import allowed

FLAGS = {"a": {"type": "boolean"}, "b": {"enum": ["x", "y"]}}
CLOSED = {"type": "object", "properties": FLAGS, "additionalProperties": False}
ITEMS = [
    True,
    {"enum": [1, "a", None, "b"]},
    {"type": "string"},
    {"type": "string", "pattern": "^[ab]?$"},
    {"type": ["boolean", "null", "string"]},
    {"type": "number"},
    CLOSED,
    {"type": "object", "additionalProperties": {"type": "boolean"}},
    {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True},
    {"oneOf": [{"type": "string"}, {"type": "number"}, {"type": "object", "properties": {"a": {"type": "string"}}}]},
]
UNIQUE = [{"type": "array", "items": items, "uniqueItems": True} for items in ITEMS]
SCHEMAS = [
    *UNIQUE,
    UNIQUE[4] | {"minItems": 2},
    UNIQUE[6] | {"minItems": 2},
    {"anyOf": [UNIQUE[2], {"type": "array", "maxItems": 2}]},
    {"oneOf": [UNIQUE[2], {"type": "array", "items": {"type": "string"}, "maxItems": 3}]},
    {"not": {"uniqueItems": True}, "type": "array", "items": {"type": "string"}},
    {"type": "object", "properties": {"x": UNIQUE[2] | {"minItems": 3}}, "required": ["x"]},
]
TOKENIZERS = [Tokenizer(schema) for schema in SCHEMAS]
SCALARS = st.sampled_from([0, 1, 1.0, 1.5, True, False, None, "", "a", "b", "ab"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from(range(len(SCHEMAS))), st.lists(VALUES, max_size=4), st.data())
def test_verdicts_are_those_of_jsonschema_rs(number, value, data):
    if value and data.draw(st.booleans()):
        value.append(data.draw(st.sampled_from(value)))
    value = {"x": value} if "properties" in SCHEMAS[number] else value
    try:
        tokens = TOKENIZERS[number].encode_value(value)
    except SchemaValidationError:
        tokens = None
    assert (tokens is not None) == jsonschema_rs.is_valid(SCHEMAS[number], value)
    if tokens:
        assert json.loads(TOKENIZERS[number].decode(tokens)[0]) == value
        assert TOKENIZERS[number].matcher().accept_tokens(tokens)


@given(st.sampled_from(range(len(SCHEMAS))), st.integers(0, 25), st.data())
@settings(deadline=None)
def test_a_walk_has_no_dead_end_and_ends_validly(number, length, data):
    tokenizer, tokens = TOKENIZERS[number], []
    matcher = tokenizer.matcher()
    while len(tokens) < length and not matcher.is_terminated():
        may_come = allowed(matcher)
        structure = [token for token in may_come if token >= END_STRING]
        tokens.append(data.draw(st.sampled_from(structure if structure and data.draw(st.booleans()) else may_come)))
        assert matcher.accept_token(tokens[-1])
    document = json.loads(tokenizer.decode(tokens + matcher.closing_tokens())[0])
    assert jsonschema_rs.is_valid(SCHEMAS[number], document)


def test_the_error_names_the_item_that_occurs_twice():
    with pytest.raises(SchemaValidationError, match=r'\$\[2\]: items must differ, and "a" occurs twice'):
        TOKENIZERS[2].encode_value(["a", "b", "a"])


def test_a_choice_that_is_used_is_not_offered_again_and_the_last_one_ends_the_array():
    tokenizer = TOKENIZERS[1]
    matcher, seen = tokenizer.matcher(), []
    while choices := [token for token in allowed(matcher) if tokenizer.id_to_token(token) != "<END_ARRAY>"]:
        assert not set(choices) & set(seen)
        seen.append(choices[0])
        assert matcher.accept_token(choices[0])
    assert len(seen) == 4


def test_more_different_items_than_there_are_make_the_schema_unsatisfiable():
    with pytest.raises(ValueError, match="no document"):
        Tokenizer({"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True, "minItems": 3})

"""The compiled schema against jsonschema-rs, on generated schemas."""

import json
import re

import jsonschema_rs
import pytest
from helpers import allowed
from hypothesis import given, settings
from hypothesis import strategies as st

from tct import SchemaValidationError, Tokenizer, UnsupportedSchemaError, compile_json_schema
from tct.symbols import FIRST_BYTE

KEYS = st.sampled_from(["a", "b", "ab", "c-1"])
TEXTS = st.sampled_from(["", "a", "b", "ab", "a\n", "é"])
SCALARS = st.none() | st.booleans() | st.sampled_from([0, 1, -2, 1.5]) | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
LIMITS = st.sampled_from([0, 1, -2, 1.5, 2])
NAMES = st.sampled_from([{"pattern": "^a"}, {"maxLength": 1}, {"enum": ["a", "b"]}, {"pattern": "b$", "minLength": 2}])


def schemas_over(inner):
    def of(**keywords):
        return st.fixed_dictionaries({}, optional=keywords)

    names = st.lists(KEYS, unique=True, min_size=1, max_size=2)
    return st.one_of(
        of(type=TYPES | st.lists(TYPES, unique=True, min_size=1, max_size=3),
           enum=st.lists(VALUES, min_size=1, max_size=3)),
        of(type=TYPES, pattern=st.sampled_from(["^a", "b$", "^(a|b)$", "é"]), minLength=st.integers(0, 2),
           maxLength=st.integers(0, 2)),
        of(properties=st.dictionaries(KEYS, inner, max_size=2), required=names, additionalProperties=inner,
           patternProperties=st.dictionaries(st.sampled_from(["^a", "^(a|b)$", "1"]), inner, max_size=2),
           minProperties=st.integers(0, 2), maxProperties=st.integers(0, 2),
           propertyNames=st.booleans() | NAMES, dependencies=st.dictionaries(KEYS, names | inner, max_size=1)),
        of(items=inner | st.lists(inner, min_size=1, max_size=2), additionalItems=inner, minItems=st.integers(0, 2),
           maxItems=st.integers(0, 2), contains=inner),
        of(type=TYPES, minimum=LIMITS, maximum=LIMITS, exclusiveMinimum=LIMITS, exclusiveMaximum=LIMITS,
           multipleOf=st.sampled_from([1, 2, 0.5, 0.75])),
        st.sampled_from(["allOf", "anyOf", "oneOf"]).flatmap(
            lambda keyword: st.fixed_dictionaries({keyword: st.lists(inner, min_size=1, max_size=3)})),
        of(**{"not": inner, "const": VALUES}),
        st.fixed_dictionaries({"if": inner}, optional={"then": inner, "else": inner}),
    )  # fmt: skip


SCHEMAS = st.recursive(st.booleans() | st.builds(lambda t: {"type": t}, TYPES), schemas_over, max_leaves=6)


@pytest.mark.slow
@settings(max_examples=250)
@given(SCHEMAS, st.lists(VALUES, min_size=1, max_size=6))
def test_the_verdict_is_that_of_jsonschema_and_valid_documents_come_back(schema, values):
    check_verdicts(schema, values, jsonschema_rs.Draft7Validator(schema))


@pytest.mark.slow
@settings(max_examples=120)
@given(SCHEMAS, st.randoms(use_true_random=False))
def test_what_the_matcher_lets_through_is_valid_and_written_in_one_way(schema, random):
    check_walk(schema, random, jsonschema_rs.Draft7Validator(schema))


def check_verdicts(schema, values, judge, resources=None) -> None:
    """The verdicts on some values are those of the judge, and the valid ones come back from their symbols."""
    try:
        tokenizer = Tokenizer(schema, resources=resources)
    except UnsupportedSchemaError as error:
        assert error.keyword == "false" and not any(map(judge.is_valid, values))
        return
    for value in values:
        try:
            tokens = tokenizer.encode_value(value)
        except SchemaValidationError:
            assert not judge.is_valid(value)
        else:
            assert judge.is_valid(value)
            decoded = json.loads(tokenizer.decode(tokens)[0])
            assert decoded == value and json.dumps(decoded) == json.dumps(value)  # in the same order too
            assert max(tokenizer.states_of(tokens)) < tokenizer.n_states()


def check_walk(schema, random, judge) -> None:
    """A random walk over what the matcher allows can be finished, is then valid, and is the one way to write it."""
    try:
        tokenizer = Tokenizer(schema)
    except UnsupportedSchemaError as error:
        assert error.keyword == "false"
        return
    matcher, symbols = tokenizer.matcher(), []
    mask = matcher.allocate_token_bitmask()
    while matcher.fill_next_token_bitmask(mask) and len(symbols) < 12:
        allowed = [token for token in range(tokenizer.vocab_size()) if mask[0, token // 32] >> (token % 32) & 1]
        assert allowed, "a dead end"
        structure = [token for token in allowed if token > 256]
        symbols.append(random.choice(structure if structure and random.random() < 0.7 else allowed))
        assert matcher.accept_token(symbols[-1])
    ending = matcher.closing_tokens()
    assert matcher.accept_tokens(ending) and matcher.is_terminated()
    text, _, _ = tokenizer.decode(symbols + ending)
    assert judge.is_valid(json.loads(text))
    tokens = tokenizer.encode(text)
    assert tokens == symbols + ending and max(tokenizer.states_of(tokens)) < tokenizer.n_states()


@pytest.mark.parametrize("items", [{"type": "integer"}, {"type": "number", "minimum": 3}])
@pytest.mark.parametrize("least", [0, 2])
def test_an_array_of_numbers_allows_the_characters_that_it_accepts(items, least):
    tokenizer = Tokenizer({"type": "array", "items": items, "minItems": least})
    matcher = tokenizer.matcher()
    for spelled in b"", b"4":
        assert matcher.accept_tokens([FIRST_BYTE + byte for byte in spelled])
        accepted = [token for token in range(tokenizer.vocab_size()) if matcher.validate_tokens([token])]
        assert allowed(matcher) == accepted and FIRST_BYTE + ord("5") in accepted


@pytest.mark.parametrize(
    "minimum, maximum, valid",
    [(None, None, [1, 2, 3]), (2, None, [2, 3]), (0, 1, [0, 1]), (None, 2, [1, 2])],
)
def test_the_items_that_an_array_contains_are_counted_since_2019(minimum, maximum, valid):
    counts = {"minContains": minimum, "maxContains": maximum}
    counts = {keyword: count for keyword, count in counts.items() if count is not None}
    schema = {"$schema": "https://json-schema.org/draft/2019-09/schema", "contains": {"type": "string"}} | counts
    values = [["a"] * n + [1, None] for n in range(4)]
    assert [n for n, value in enumerate(values) if jsonschema_rs.is_valid(schema, value)] == valid
    check_verdicts(schema, values, jsonschema_rs.validator_for(schema))
    in_draft_07 = {"contains": schema["contains"]} | counts
    check_verdicts(in_draft_07, values, jsonschema_rs.Draft7Validator(in_draft_07))


@pytest.mark.parametrize(
    "schema, keyword, place",
    [
        ({"properties": {"a": {"multipleOf": 0}}}, "multipleOf", "#/properties/a"),
        ({"type": "any"}, "type", "#/type"),
        ({"required": True}, "required", "#"),
        ({"items": {"minLength": 5000}}, "minLength", "#/items/minLength"),
        ({"minItems": 1.5}, "minItems", "#/minItems"),
        ({"propertyNames": {"maxLength": 5000}}, "propertyNames", "#/propertyNames"),
        (False, "false", "#"),
        ({"required": ["a"], "type": "object", "additionalProperties": {"$ref": "#"}}, "false", "#"),
        ({"items": {"pattern": "(?=a)"}}, "pattern", "#/items/pattern"),
        ({"$ref": "other.json#/a"}, "$ref", "#"),
        ({"$ref": "#/definitions/none"}, "$ref", "#/definitions/none"),
        ({"definitions": {"unused": {"contentEncoding": "base64"}}}, "contentEncoding", "#/definitions/unused"),
    ],
)
def test_a_keyword_that_cannot_be_enforced_is_refused_with_its_place(schema, keyword, place):
    with pytest.raises(UnsupportedSchemaError) as error:
        compile_json_schema(schema)
    assert error.value.keyword == keyword and error.value.pointer == place
    assert keyword in str(error.value) and place in str(error.value)


MANY = [f"m{i:02d}" for i in range(19)]


@pytest.mark.parametrize(
    "schema, keyword, reason",
    [
        (
            {"oneOf": [{"required": [MANY[i], MANY[i * n % 19]]} for i in range(1, 19) for n in (3, 8)]},
            "properties",
            "m01, m02",
        ),
        ({"items": {"allOf": [{"pattern": f"^(.{{{n}}})*$"} for n in (5, 6, 7)]}}, "pattern", "(.{5})"),
    ],
)
def test_a_schema_that_needs_too_many_states_is_refused_when_it_is_compiled(schema, keyword, reason, monkeypatch):
    monkeypatch.setattr("tct.reachability.MAX_STATES", 50)
    monkeypatch.setattr("tct.automata.MAX_STATES", 100)
    with pytest.raises(UnsupportedSchemaError, match=re.escape(reason)) as error:
        compile_json_schema(schema)
    assert error.value.keyword == keyword

"""Keywords of 2019-09 and 2020-12, above all unevaluatedProperties and unevaluatedItems."""

import jsonschema_rs
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_tct_schema import KEYS, TYPES, VALUES, check_verdicts, check_walk

from tct import UnsupportedSchemaError, compile_json_schema
from tct.dialects import DIALECTS

DRAFT_2019, DRAFT_2020 = list(DIALECTS)[3:]
LEAVES = st.booleans() | st.builds(lambda t: {"type": t}, TYPES)


def schemas_over(draft, inner):
    """Schemas with keywords that evaluate members or items, always or only if a sub-schema holds."""
    several, some = st.lists(inner, min_size=1, max_size=2), st.dictionaries(KEYS, inner, max_size=2)
    first, others = ("prefixItems", "items") if draft == DRAFT_2020 else ("items", "additionalItems")
    return st.fixed_dictionaries({}, optional={
        "properties": some,
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "b"]), inner, max_size=1),
        "additionalProperties": inner,
        "dependentRequired": st.dictionaries(KEYS, st.lists(KEYS, max_size=1), max_size=1),
        "dependentSchemas": st.dictionaries(KEYS, inner, max_size=1),
        first: several, others: inner, "contains": inner, "minContains": st.integers(0, 2),
        "allOf": several, "anyOf": several, "oneOf": several, "not": inner, "if": inner, "then": inner, "else": inner,
        "$ref": st.just("#/$defs/x"), "unevaluatedProperties": inner, "unevaluatedItems": inner,
    })  # fmt: skip


def schemas(draft):
    inner = st.recursive(LEAVES, lambda inner: schemas_over(draft, inner), max_leaves=4)
    unevaluated = {"unevaluatedProperties": LEAVES} | {"unevaluatedItems": LEAVES}
    roots = st.builds(lambda a, b: a | b, schemas_over(draft, inner), st.fixed_dictionaries({}, optional=unevaluated))
    return st.builds(lambda root, x: {"$schema": draft, **root, "$defs": {"x": x}}, roots, inner)


@pytest.mark.slow
@settings(max_examples=300)
@given(
    st.sampled_from([DRAFT_2019, DRAFT_2020]).flatmap(schemas),
    st.lists(VALUES, min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_verdicts_and_walks_agree_with_jsonschema(schema, values, random):
    try:
        compile_json_schema(schema)
    except UnsupportedSchemaError as error:
        assume(error.keyword != "$ref" and "combinations" not in str(error))  # #/$defs/x may refer to itself
    judge = jsonschema_rs.validator_for(schema)
    check_verdicts(schema, values, judge)
    check_walk(schema, random, judge)


OBJECTS = [{}, {"a": 1}, {"b": 1}, {"a": 1, "b": 1}, {"a": "s"}, {"c": 1}, {"a": 1, "c": "s"}, {"b": "s", "c": 1}]
A, B = {"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"type": "integer"}}}


@pytest.mark.parametrize("draft", [DRAFT_2019, DRAFT_2020])
@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [A, B]},
        {"anyOf": [A, {**B, "required": ["b"]}]},
        {"oneOf": [{**A, "required": ["a"]}, {**B, "required": ["b"]}]},
        {"if": {**A, "required": ["a"]}, "then": B, "else": {"properties": {"c": True}}},
        {"dependentSchemas": {"a": B}, **A},
        {"$ref": "#/$defs/x", "$defs": {"x": {"allOf": [A], "anyOf": [B, True]}}},
        {"not": {"not": A}},
        {"patternProperties": {"^[ab]$": True}},
        {"allOf": [{"unevaluatedProperties": {"type": "integer"}}]},
    ],
)
def test_members_that_nothing_evaluated(draft, schema):
    for formula in (False, {"type": "string"}):
        whole = {"$schema": draft, **schema, "unevaluatedProperties": formula}
        check_verdicts(whole, OBJECTS, jsonschema_rs.validator_for(whole))


@pytest.mark.parametrize(
    "schema",
    [
        {"prefixItems": [{"type": "integer"}], "items": {"type": "string"}},
        {"prefixItems": [True, True], "items": False},
        {"prefixItems": [True], "contains": {"type": "string"}, "unevaluatedItems": False},
        {"anyOf": [{"prefixItems": [{"type": "integer"}, True]}, {"prefixItems": [True]}], "unevaluatedItems": False},
    ],
)
def test_items_in_2020(schema):
    values = [[], [1], ["a"], [1, "a"], [1, 2], [1, 2, 3], [1, "a", "b"], [None, None]]
    schema = {"$schema": DRAFT_2020, **schema}
    check_verdicts(schema, values, jsonschema_rs.validator_for(schema))


def test_too_many_combinations_are_refused():
    branches = [{"properties": {f"k{i}": True}, "required": [f"k{i}"]} for i in range(7)]
    schema = {"$schema": DRAFT_2020, "anyOf": branches, "unevaluatedProperties": False}
    with pytest.raises(UnsupportedSchemaError, match="more than 64 combinations") as error:
        compile_json_schema(schema)
    assert error.value.keyword == "unevaluatedProperties"


def test_earlier_drafts_do_not_know_these_keywords():
    schema = {"prefixItems": [False], "unevaluatedItems": False, "dependentRequired": {"a": ["b"]}}
    assert compile_json_schema(schema).ignored_keywords == [f"#/{keyword}" for keyword in schema]
    check_verdicts(schema, [[1], {"a": 1}], jsonschema_rs.Draft7Validator(schema))

"""`$schema` chooses the draft: each has the verdicts of jsonschema-rs for that draft, or is refused."""

import re

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tct_references import judge_of, referring
from test_tct_schema import TYPES, VALUES, check_verdicts, check_walk

from tct import UnsupportedSchemaError, compile_json_schema
from tct.dialects import DIALECTS

DRAFT_04, DRAFT_06, DRAFT_07, DRAFT_2019, DRAFT_2020 = DRAFTS = list(DIALECTS)
LEAVES = st.just({}) | st.builds(lambda t: {"type": t}, TYPES)  # no booleans: draft-04 does not take them


@pytest.mark.slow
@settings(max_examples=150)
@given(
    st.builds(lambda draft, schema: {"$schema": draft, **schema}, st.sampled_from(DRAFTS), referring(LEAVES)),
    st.lists(VALUES, min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_each_draft_has_the_verdicts_of_jsonschema(schema, values, random):
    judge = judge_of(schema)
    check_verdicts(schema, values, judge)
    check_walk(schema, random, judge)


X = {"definitions": {"x": {"type": "string"}}}
INNER = X | {"properties": {"b": {"$ref": "#/definitions/x"}}}
IDENTIFIED = {
    "properties": {"a": {"$id": "http://example.com/a", **INNER}},
    "definitions": {"x": {"type": "null"}},
}


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize(
    "schema, values",
    [
        (
            X | {"properties": {"a": {"$ref": "#/definitions/x", "minLength": 3}}},
            [{"a": "ab"}, {"a": "abc"}, {"a": 1}],
        ),
        ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, [{"a": 1}, {"a": 1, "b": 1}]),
        ({"const": 1}, [1, 2]),
        ({"propertyNames": {"maxLength": 1}}, [{"a": 1}, {"ab": 1}]),
        ({"type": "integer"}, [1, 1.0, 1.5]),
        ({"items": {"type": "integer"}, "additionalItems": {"type": "string"}}, [[1], [1, "a"], ["a"]]),
        ({"additionalItems": {"type": "string"}}, [[1]]),
        ({"dependencies": {"a": ["b"]}}, [{"a": 1}, {"a": 1, "b": 1}]),
        (
            {"$defs": {"x": {"type": "null"}}, "properties": {"a": {"$ref": "#/$defs/x"}}},
            [{"a": 1}, {"a": None}],
        ),
        (IDENTIFIED, [{"a": {"b": "s"}}, {"a": {"b": None}}]),
        (
            X | {"properties": {"a": {"$id": "http://example.com/a", "$ref": "#/definitions/x"}}},
            [{"a": "s"}, {"a": 1}],
        ),
    ],
)
def test_keywords_mean_what_the_draft_says(draft, schema, values):
    schema = {"$schema": draft, **schema}
    try:
        judge = jsonschema_rs.validator_for(schema)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError):  # a reference points nowhere
        with pytest.raises(UnsupportedSchemaError, match="points nowhere"):
            compile_json_schema(schema)
    else:
        check_verdicts(schema, values, judge)


@pytest.mark.parametrize("identifier", ["http://example.com/a", "a", "#a"])
def test_references_of_draft_04_start_from_the_schema_with_an_id(identifier):
    schema = {
        "$schema": DRAFT_04,
        "id": "http://example.com/",
        "properties": {"a": {"id": identifier, **INNER}},
    }
    schema["definitions"] = {"x": {"type": "null"}}
    check_verdicts(schema, [{"a": {"b": "s"}}, {"a": {"b": None}}], jsonschema_rs.validator_for(schema))


@pytest.mark.parametrize(
    "uri",
    [
        "http://json-schema.org/draft-07/schema#",
        "https://json-schema.org/draft-07/schema#",
        "http://json-schema.org/draft-07/schema",
        "http://json-schema.org/draft/2020-12/schema#",
        "http://json-schema.org/schema#",
        "http://json-schema.org/draft-04/schema",
    ],
)
def test_a_draft_may_be_written_in_several_ways(uri):
    schema = {"$schema": uri, "properties": {"a": {"$ref": "#/definitions/x", "minLength": 2}}} | X
    check_verdicts(schema, [{"a": "a"}, {"a": "ab"}, {"a": 1}], jsonschema_rs.validator_for(schema))


@pytest.mark.parametrize(
    "uri",
    [
        "http://json-schema.org/draft-03/schema#",
        "http://json-schema.org/draft-04/hyper-schema#",
        "draft-07",
        "",
        7,
    ],
)
def test_a_draft_that_is_not_known_is_refused_with_those_that_are(uri):
    reason = f"{uri!r} is not a supported draft: write http://json-schema.org/draft-04/schema# or "
    with pytest.raises(UnsupportedSchemaError, match=re.escape(reason)) as error:
        compile_json_schema({"$schema": uri})
    assert (error.value.keyword, error.value.pointer) == ("$schema", "#")


@pytest.mark.parametrize(
    "schema, keyword, place",
    [
        ({"$schema": DRAFT_04, "properties": {"a": {"not": True}}}, "bool", "#/properties/a/not"),
        ({"$schema": DRAFT_04, "id": {"type": "string"}}, "id", "#"),
        ({"$schema": DRAFT_04, "minimum": 3, "exclusiveMinimum": 2}, "exclusiveMinimum", "#"),
        ({"minimum": 3, "exclusiveMinimum": True}, "exclusiveMinimum", "#"),
        ({"minimum": "3"}, "minimum", "#"),
        ({"$schema": DRAFT_2020, "items": [{"type": "string"}]}, "items", "#"),
        ({"$schema": DRAFT_2020, "prefixItems": {"type": "string"}}, "prefixItems", "#"),
        ({"$schema": DRAFT_2020, "dependentRequired": ["a"]}, "dependentRequired", "#"),
    ],
)
def test_what_a_draft_reads_in_a_way_that_is_not_supported_is_refused(schema, keyword, place):
    with pytest.raises(UnsupportedSchemaError) as error:
        compile_json_schema(schema)
    assert (error.value.keyword, error.value.pointer) == (keyword, place)


@pytest.mark.parametrize(
    "schema, ignored",
    [
        ({"properties": {"a": {"minlength": 3}}}, ["#/properties/a/minlength"]),
        ({"additonalProperties": False, "title": "t", "$comment": "c"}, ["#/additonalProperties"]),
        ({"definitions": {"x": {"x/y": 1}}, "items": {"$ref": "#/definitions/x"}}, ["#/definitions/x/x~1y"]),
        ({"$schema": DRAFT_06, "id": "http://example.com"}, ["#/id"]),
        ({"$schema": DRAFT_04, "dependentRequired": {"a": ["b"]}}, ["#/dependentRequired"]),
        ({"format": "color"}, []),
        ({"items": {"format": "iri"}}, ["#/items/format"]),
        ({"$schema": DRAFT_2020, "format": "date", "contentMediaType": "text/css", "$anchor": "a"}, []),
    ],
)
def test_unknown_keywords_assert_nothing_and_are_listed(schema, ignored):
    assert compile_json_schema(schema).ignored_keywords == ignored
    check_verdicts(schema, ["a", "ab", {"a": "a"}, {"a": 1}, [1], 3], jsonschema_rs.validator_for(schema))


@pytest.mark.parametrize(
    "schema",
    [
        {"minimum": 2, "exclusiveMinimum": 3.5, "maximum": 7},
        {"minimum": 2, "exclusiveMaximum": 2},
        {"$schema": DRAFT_04, "minimum": 2, "exclusiveMinimum": True, "maximum": 4, "exclusiveMaximum": False},
        {"$schema": DRAFT_04, "type": "integer", "maximum": 2, "exclusiveMaximum": True},
        {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 3},
    ],
)
def test_limits_are_exclusive_as_the_draft_says(schema):
    values = [1, 2, 2.0, 2.5, 3, 3.5, 4, 7, 8, "3", None]
    check_verdicts(schema, values, jsonschema_rs.validator_for(schema))


def test_parts_that_are_not_schemas_can_be_referred_to():
    schema = {"parts": {"a": {"type": "string"}}, "items": {"$ref": "#/parts/a"}}
    assert compile_json_schema(schema).ignored_keywords == ["#/parts"]
    check_verdicts(schema, [["a"], [1], []], jsonschema_rs.validator_for(schema))


INTEGERS = [{"a": 1}, {"a": 1.0}, {"a": 1.5}]  # in draft-04 1.0 is not an integer
OLD = {"$schema": DRAFT_04, "type": "integer"}


@pytest.mark.parametrize("draft", [DRAFT_07, DRAFT_2020])
@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": OLD}},
        {"properties": {"a": {"$schema": DRAFT_04, "allOf": [{"type": "integer"}]}}},
        {"properties": {"a": {"$ref": "#/definitions/x"}}, "definitions": {"x": OLD}},
        {"properties": {"a": {"$ref": "http://a.b/x"}}, "definitions": {"x": {"id": "http://a.b/x", **OLD}}},
        {"properties": {"a": {"$ref": "#/definitions/x"}}, "definitions": {"x": {"id": "http://a.b/x", **OLD}}},
        {
            "properties": {"a": {"$ref": "#/definitions/x"}},
            "definitions": {"x": {"id": "b", "items": {"$ref": "#"}, **OLD}},
        },
        {"properties": {"a": {"$schema": DRAFT_06, "type": "integer"}}},
    ],
)
def test_a_part_may_follow_another_draft(draft, schema):
    schema = {"$schema": draft, **schema}
    check_verdicts(schema, INTEGERS, jsonschema_rs.validator_for(schema))


def test_a_part_of_another_draft_with_an_identifier_is_refused():
    with pytest.raises(UnsupportedSchemaError, match="only if references lead to it") as error:
        compile_json_schema({"properties": {"a": {"id": "http://a.b/x", **OLD}}})
    assert (error.value.keyword, error.value.pointer) == ("$schema", "#/properties/a")


def test_a_part_of_an_unknown_draft_is_refused():
    with pytest.raises(UnsupportedSchemaError, match="not a supported draft") as error:
        compile_json_schema({"properties": {"a": {"$schema": "http://a.b/draft"}}})
    assert error.value.pointer == "#/properties/a"


def test_a_property_may_be_called_schema():
    compile_json_schema({"properties": {"$schema": {"enum": ["http://example.com"]}}})

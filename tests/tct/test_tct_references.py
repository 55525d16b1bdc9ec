"""References: wherever they stand and wherever they point, the verdict is that of jsonschema-rs."""

import copy
from urllib.parse import quote

import jsonschema_rs
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_tct_schema import TYPES, VALUES, check_verdicts, check_walk, schemas_over

from tct import Tokenizer, UnsupportedSchemaError, compile_json_schema
from tct.dialects import DIALECTS
from tct.symbols import END_STRING

DEFINITION_NAMES = st.sampled_from(["a", "b/c", "~1", "50%", ""])
WITH_SCHEMAS = ("properties", "patternProperties", "dependencies", "definitions")  # name -> schema
WITH_A_LIST = ("items", "allOf", "anyOf", "oneOf")
WITH_A_SCHEMA = (
    "items", "additionalItems", "additionalProperties", "propertyNames", "not", "if", "then", "else",
)  # fmt: skip

REFERENCES = st.builds(lambda target: {"$ref": target}, st.integers(0, 99))  # with_targets() sets the target


def referring(leaves):
    """Schemas with nested definitions, and with references next to `leaves` and to other keywords."""
    small = st.recursive(leaves | REFERENCES, schemas_over, max_leaves=3)
    with_siblings = st.builds(lambda siblings, reference: siblings | reference, schemas_over(small), REFERENCES)
    definitions = st.dictionaries(DEFINITION_NAMES, small, min_size=1, max_size=2)
    nested = st.builds(
        lambda outer, inner: {**outer, "definitions": inner}, schemas_over(small) | with_siblings, definitions
    )
    roots = schemas_over(REFERENCES | REFERENCES | small) | with_siblings
    return st.builds(
        lambda root, name, nested: with_targets({**root, "definitions": {name: nested}}),
        roots, DEFINITION_NAMES, nested,
    )  # fmt: skip


def places(schema, pointer="#"):
    """(JSON pointer, schema) of a schema and of all those within it."""
    yield pointer, schema
    if isinstance(schema, bool):
        return
    for keyword, value in schema.items():
        at = f"{pointer}/{keyword}"
        if keyword in WITH_SCHEMAS:
            for name, inner in value.items():
                if not isinstance(inner, list):
                    yield from places(inner, f"{at}/{escaped(name)}")
        elif keyword in WITH_A_LIST and isinstance(value, list):
            for index, inner in enumerate(value):
                yield from places(inner, f"{at}/{index}")
        elif keyword in WITH_A_SCHEMA:
            yield from places(value, at)


def escaped(name: str) -> str:
    return quote(name.replace("~", "~0").replace("/", "~1"), safe="")


def with_targets(schema):
    """A copy of a schema in which each reference, so far a number, is to one of the schemas within it: with an
    even number to one in nested definitions, if there are any."""
    schema = copy.deepcopy(schema)
    found = list(places(schema))
    pointers = [pointer for pointer, _ in found]
    nested = [pointer for pointer in pointers if pointer.count("/definitions/") > 1] or pointers
    for _, inner in found:
        if isinstance(inner, dict) and "$ref" in inner:
            targets = pointers if inner["$ref"] % 2 else nested
            inner["$ref"] = targets[inner["$ref"] // 2 % len(targets)]
    return schema


SCHEMAS = referring(st.booleans() | st.builds(lambda t: {"type": t}, TYPES))


def judge_of(schema):
    """jsonschema-rs on a schema. Schemas that their draft does not allow are not tried, nor are those with
    references in a circle, which we refuse."""
    try:
        judge = jsonschema_rs.validator_for({"$schema": "http://json-schema.org/draft-07/schema#", **schema})
        compile_json_schema(schema)
    except jsonschema_rs.ValidationError:
        assume(False)
    except UnsupportedSchemaError as error:
        assume(error.keyword not in ("$ref", "propertyNames"))
    return judge


@pytest.mark.slow
@settings(max_examples=150)
@given(SCHEMAS, st.lists(VALUES, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_references_mean_what_they_point_to(schema, values, random):
    judge = judge_of(schema)
    check_verdicts(schema, values, judge)
    check_walk(schema, random, judge)


LEAF = {"type": "object", "properties": {"n": {"enum": ["s", 7]}}, "required": ["n"]}


@pytest.mark.parametrize(
    "schema, reference",
    [
        ({"definitions": {"M": {"definitions": {"N": LEAF}}}}, "#/definitions/M/definitions/N"),
        ({"definitions": {"M": {"$ref": "#", "definitions": {"N": LEAF}}}}, "#/definitions/M/definitions/N"),
        ({"definitions": {"50% a/b~": LEAF}}, "#/definitions/50%25%20a~1b~0"),
        ({"patternProperties": {"^x$": LEAF}}, "#/patternProperties/%5Ex$"),
        ({"dependencies": {"x": {"items": [True, LEAF]}}}, "#/dependencies/x/items/1"),
        ({"then": LEAF}, "#/then"),
    ],
)
def test_what_only_a_reference_reaches_has_symbols_of_its_own(schema, reference):
    schema = {**schema, "properties": {"C": {"$ref": reference}}}
    assert min(compile_json_schema(schema).encode({"C": {"n": 7}})) >= END_STRING  # no bytes
    documents = [{"C": {"n": 7}}, {"C": {"n": "s"}}, {"C": {"n": 8}}, {"C": {}}]
    check_verdicts(schema, documents, jsonschema_rs.Draft7Validator(schema))


@pytest.mark.parametrize("reference", ["#/anyOf/-1", "#/anyOf/00", "#/anyOf/2", "#/anyOf/x", "#/type/0"])
def test_a_reference_that_points_nowhere_is_refused(reference):
    schema = {"type": "object", "anyOf": [True, True], "properties": {"a": {"$ref": reference}}}
    with pytest.raises(UnsupportedSchemaError, match="points nowhere") as error:
        compile_json_schema(schema)
    assert error.value.pointer == reference


def test_keys_may_be_those_of_a_reference():
    schema = {"propertyNames": {"$ref": "#/definitions/key"}, "definitions": {"key": {"pattern": "^[ab]+$"}}}
    check_verdicts(schema, [{"ab": 1}, {"c": 1}, {}, "c"], jsonschema_rs.Draft7Validator(schema))


def test_the_schema_position_of_a_member_does_not_depend_on_what_was_read_before():
    branches = [
        {
            "properties": {"a": {"const": 1}, "b": {"type": "string"}},
            "patternProperties": {"^x?": {"type": "string"}},
        },
        {"required": ["a"], "patternProperties": {"^y": {"type": "string"}}},
    ]
    tokenizer = Tokenizer({"type": "object", "anyOf": branches})
    for key in ("b", "x", "y", "z"):
        whole = [tokenizer.states_of(tokenizer.encode_value({"a": a, key: "t"})) for a in (1, 2)]
        assert whole[0][-4:] == whole[1][-4:], key  # the value, its byte, its end, the object's end


DRAFTS = list(DIALECTS)
NAMED = {"type": "object", "properties": {"n": {"$ref": "#/definitions/inner"}}, "definitions": {"inner": LEAF}}
VALUES_OF_A = [{"a": value} for value in (1, "s", None, {"n": 7}, {"n": "s"}, {"n": {"n": 7}}, {"n": {"n": 8}}, {})]


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("reference", ["http://a.b/c/types.json", "types.json", "/c/types.json", "#t", "types.json#t"])
@pytest.mark.parametrize("place", ["definitions", "properties", "allOf"])
def test_identifiers_and_names_lead_to_where_jsonschema_finds_them(draft, reference, place):
    identifier = "id" if draft == DRAFTS[0] else "$id"
    name = {"$anchor": "t"} if draft in DRAFTS[3:] else {identifier: "#t"}
    named = {**name, "type": "string"}
    target = {identifier: "types.json", **NAMED, "patternProperties": {"^x": named}}
    others = [target] if place == "allOf" else {"t": target, "u": named}
    schema = {"$schema": draft, identifier: "http://a.b/c/root.json", "properties": {"a": {"$ref": reference}}}
    schema[place] = {**schema.get(place, {}), **others} if isinstance(others, dict) else others
    try:
        judge = jsonschema_rs.validator_for(schema)
    except jsonschema_rs.ValidationError:  # from a name that nothing has
        with pytest.raises(UnsupportedSchemaError, match="nothing has this name"):
            compile_json_schema(schema)
    else:
        check_verdicts(schema, VALUES_OF_A, judge)


@pytest.mark.parametrize(
    "schema, resources",
    [
        ({"$ref": "http://a.b/t#/definitions/inner"}, {"http://a.b/t": NAMED}),
        ({"$ref": "t.json"}, {"t.json": NAMED}),
        ({"$id": "http://a.b/c/s.json", "items": {"$ref": "t.json"}}, {"http://a.b/c/t.json": NAMED}),
        ({"$ref": "t.json"}, {"t.json": {"$ref": "u.json#/x"}, "u.json": {"x": LEAF}}),
        ({"$ref": "http://a.b/t"}, {"http://a.b/t": {"$schema": DRAFTS[0], "type": "integer"}}),
        (
            {"$ref": "http://a.b/t"},
            {"http://a.b/t": {"$id": "http://a.b/d/t", "items": {"$ref": "u"}}, "http://a.b/d/u": LEAF},
        ),
        ({"$ref": "urn:x:t#/definitions/inner"}, {"urn:x:t": NAMED}),
    ],
)
def test_other_schemas_are_those_that_the_caller_names(schema, resources):
    registry = jsonschema_rs.Registry([*resources.items()])
    schema = {"$schema": DRAFTS[2], **schema}
    judge = jsonschema_rs.validator_for(schema, registry=registry)
    values = [1, 1.0, [], [1], {"n": 7}, {"n": 8}, [{"n": 7}], [{"n": {"n": 7}}], {"n": {"n": 7}}]
    check_verdicts(schema, values, judge, resources)
    assert {judge.is_valid(value) for value in values} == {True, False}


def test_another_schema_that_is_not_named_is_asked_for():
    with pytest.raises(UnsupportedSchemaError, match="--resource http://a.b/t=FILE") as error:
        compile_json_schema({"$id": "http://a.b/s", "items": {"$ref": "t#/x"}})
    assert (error.value.keyword, error.value.pointer) == ("$ref", "#/items")


def test_a_tokenizer_keeps_the_schemas_that_it_was_built_with(tmp_path):
    tokenizer = Tokenizer({"$ref": "t.json"}, resources={"t.json": LEAF})
    tokenizer.save(tmp_path / "artifact.json")
    again = Tokenizer.load(tmp_path / "artifact.json")
    assert again.fingerprint == tokenizer.fingerprint != Tokenizer(LEAF).fingerprint
    assert again.decode(again.encode('{"n":7}'))[0] == '{"n":7}'


@pytest.mark.parametrize("draft, keyword", [(DRAFTS[3], "$recursiveRef"), (DRAFTS[4], "$dynamicRef")])
def test_a_dynamic_reference_is_followed_if_it_leads_to_one_place(draft, keyword):
    anchor = {"$recursiveAnchor": True} if keyword == "$recursiveRef" else {"$dynamicAnchor": "node"}
    reference = {keyword: "#" if keyword == "$recursiveRef" else "#node"}
    tree = {"$schema": draft, "$id": "http://a.b/tree", **anchor, "type": "object", "additionalProperties": reference}
    documents = [{}, {"a": {}}, {"a": {"b": {}}}, {"a": {"b": 1}}, {"a": 1}]
    check_verdicts(tree, documents, jsonschema_rs.validator_for(tree))
    strict = {"$schema": draft, "$id": "http://a.b/strict", **anchor, "$ref": "tree", "maxProperties": 1}
    with pytest.raises(UnsupportedSchemaError, match="several schemas") as error:
        compile_json_schema(strict, {"http://a.b/tree": tree})
    assert error.value.keyword == keyword


def test_the_schemas_of_drafts_are_known():
    schema = {"$ref": "http://json-schema.org/draft-07/schema#/definitions/nonNegativeInteger"}
    check_verdicts(schema, [1, 0, -1, "1"], jsonschema_rs.Draft7Validator(schema))

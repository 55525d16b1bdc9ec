"""The JSON Schema Test Suite for draft-07, run whole: a schema is followed on every instance, or refused.

json_schema_suite_refused.json is a ratchet: it lists the schemas that the compiler refuses, by file and by index
in the file, each with the keyword. If a change of what is supported makes the test fail,
`python tests/tct/test_tct_suite.py` writes the list again.
"""

import json
from pathlib import Path

import pytest

from tct import SchemaValidationError, Tokenizer, UnsupportedSchemaError, compile_json_schema

SUITE = Path(__file__).parents[3] / "shared/schema/json-schema-test-suite-draft7"
RATCHET = Path(__file__).with_name("json_schema_suite_refused.json")
REFUSED = json.loads(RATCHET.read_text()) if RATCHET.is_file() else {}
INTEGER, REFERRING = {"type": "integer"}, {"$ref": "#/definitions/integer"}
STRING = {"$ref": "#/definitions/s", "definitions": {"s": {"type": "string"}}}
# The schemas that the suite expects at http://localhost:1234, which is not here, written again from its tests.
RESOURCES = {
    "integer.json": INTEGER,
    "baseUriChange/folderInteger.json": INTEGER,
    "baseUriChangeFolder/folderInteger.json": INTEGER,
    "baseUriChangeFolderInSubschema/folderInteger.json": INTEGER,
    "draft7/subSchemas.json": {"definitions": {"integer": INTEGER, "refToInteger": REFERRING}},
    "draft7/name.json": {"type": "string", "definitions": {"orNull": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}},
    "draft7/ref-and-definitions.json": {
        "$id": "http://localhost:1234/draft7/ref-and-definitions.json",
        "definitions": {"inner": {"properties": {"bar": {"type": "string"}}}},
        "allOf": [{"$ref": "#/definitions/inner"}],
    },
    "draft7/locationIndependentIdentifier.json": {
        "definitions": {"refToInteger": {"$ref": "#foo"}, "A": {"$id": "#foo", **INTEGER}}
    },
    "draft7/detached-ref.json": {
        "definitions": {"foo": {"$ref": "#detached"}, "detached": {"$id": "#detached", **INTEGER}}
    },
    "nested/foo-ref-string.json": {"properties": {"foo": {"$ref": "string.json"}}},
    "nested/string.json": STRING,
}
RESOURCES = {f"http://localhost:1234/{name}": schema for name, schema in RESOURCES.items()}
GROUPS = {
    (path.stem, index): group
    for path in sorted(SUITE.glob("*.json"))
    for index, group in enumerate(json.loads(path.read_text("utf-8")))
}

if not GROUPS:
    pytest.skip("the JSON Schema Test Suite is not here", allow_module_level=True)


def refused_keyword(schema) -> str | None:
    """The keyword for which the compiler refuses a schema; None if it does not."""
    try:
        compile_json_schema(schema, RESOURCES)
    except UnsupportedSchemaError as error:
        return error.keyword
    return None


def canonical(text: str) -> str:
    """JSON text in which equal values are spelled alike: 1.0, which may come back as 1, is 1."""
    return json.dumps(json.loads(text, parse_float=lambda n: int(float(n)) if float(n).is_integer() else float(n)))


@pytest.mark.slow
@pytest.mark.parametrize("file, index", GROUPS, ids=lambda part: str(part))
def test_each_schema_is_refused_or_followed_on_every_instance(file, index):
    group = GROUPS[file, index]
    keyword = refused_keyword(group["schema"])
    assert keyword == REFUSED.get(file, {}).get(str(index)), f"{group['description']}: {RATCHET.name} says otherwise"
    if keyword:
        return
    tokenizer = Tokenizer(group["schema"], resources=RESOURCES)
    for test in group["tests"]:
        try:
            tokens = tokenizer.encode_value(test["data"])
        except SchemaValidationError as error:
            assert not test["valid"], (test["description"], str(error))
            continue
        assert test["valid"], test["description"]
        text, consumed, total = tokenizer.decode(tokens)
        assert consumed == total and canonical(text) == canonical(json.dumps(test["data"]))
        matcher = tokenizer.matcher()
        assert matcher.accept_tokens(tokens) and matcher.is_terminated(), test["description"]


def test_the_ratchet_lists_nothing_that_the_suite_does_not_have():
    listed = {(file, int(index)) for file, refused in REFUSED.items() for index in refused}
    assert listed <= GROUPS.keys()


def write_ratchet() -> None:
    """Lists what is refused now."""
    refused: dict[str, dict[str, str]] = {}
    for (file, index), group in GROUPS.items():
        if keyword := refused_keyword(group["schema"]):
            refused.setdefault(file, {})[str(index)] = keyword
    RATCHET.write_text(json.dumps(refused, indent=1) + "\n")
    print(f"{sum(map(len, refused.values()))} of {len(GROUPS)} schemas are refused")


if __name__ == "__main__":
    write_ratchet()

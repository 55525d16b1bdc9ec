"""JSON Schema (draft-07) -> formulas over assertions: one keyword, one small function, in a table.

A keyword that is not enforced exactly is refused with its name and JSON pointer; only annotations, which
assert nothing, are passed over.
"""

from collections.abc import Callable
from typing import Any

from tct.assertions import (
    TYPES,
    Items,
    Members,
    MinItems,
    MinProperties,
    Number,
    Pattern,
    Present,
    Ref,
    Text,
    Truth,
    TypeIs,
)
from tct.errors import UnsupportedSchemaError
from tct.formula import FALSE, TRUE, Formula, all_of, any_of, atom, constant, negation, one_of
from tct.regex import PatternError, compile_pattern, finite_language

ANNOTATIONS = frozenset(
    ["$schema", "$id", "$comment", "title", "description", "default", "examples", "readOnly", "writeOnly", "deprecated", "markdownDescription", "x-intellij-html-description", "definitions"]
)
MAX_PATTERN_NAMES = 64  # a key pattern that matches no more keys than this is written out as named keys

Schema = dict[str, Any] | bool


class SchemaCompiler:
    """Compiles each sub-schema once; `formulas` maps JSON pointers to what the schema there asserts."""

    def __init__(self, document: Schema):
        self.document = document
        self.formulas: dict[str, Formula] = {}
        self.root = self.at("#")
        if isinstance(document, dict):
            for name in document.get("definitions", {}):  # also those that nothing refers to
                self.at(f"#/definitions/{_escape_pointer(name)}")

    def at(self, pointer: str) -> Formula:
        """The formula of the schema at a JSON pointer within the document, such as #/definitions/env."""
        if pointer not in self.formulas:
            self.formulas[pointer] = TRUE  # recursion goes through Ref atoms: this placeholder is never read
            self.formulas[pointer] = self.compile(self.find(pointer), pointer)
        return self.formulas[pointer]

    def find(self, pointer: str) -> Schema:
        node: Any = self.document
        for part in pointer.split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            try:
                node = node[int(part)] if isinstance(node, list) else node[part]
            except (KeyError, IndexError, ValueError, TypeError):
                raise UnsupportedSchemaError("$ref", pointer, "points nowhere in this schema") from None
        return node

    def compile(self, schema: Schema, pointer: str) -> Formula:
        if isinstance(schema, bool):
            return constant(schema)
        if not isinstance(schema, dict):
            raise UnsupportedSchemaError(type(schema).__name__, pointer, "a schema is an object or a boolean")
        if "$ref" in schema:  # draft-07: its siblings are ignored
            return self.reference(schema["$ref"], pointer)
        for keyword in schema:
            if keyword not in KEYWORDS and keyword not in ANNOTATIONS:
                raise UnsupportedSchemaError(keyword, pointer, "this keyword is not supported")
        return all_of(KEYWORDS[k](self, schema, f"{pointer}/{k}") for k in schema if k in KEYWORDS)

    def reference(self, target: str, pointer: str) -> Formula:
        if not isinstance(target, str) or not (target == "#" or target.startswith("#/")):
            raise UnsupportedSchemaError(
                "$ref", pointer, f"only references within the schema, not {target!r}"
            )
        self.find(target)
        return atom(Ref(target))

    def children(self, schemas: list[Schema], pointer: str) -> list[Formula]:
        if not isinstance(schemas, list) or not schemas:
            raise UnsupportedSchemaError(pointer.rsplit("/", 1)[1], pointer, "expected a list of schemas")
        return [self.compile(schema, f"{pointer}/{i}") for i, schema in enumerate(schemas)]


# ---------------------------------------------------------------------------------------------------------
# keywords: (compiler, the schema that holds the keyword, pointer of the keyword) -> Formula


def _type(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    for name in types:
        if name not in TYPES:
            raise UnsupportedSchemaError("type", pointer, f"type {name!r} is not supported")
    return any_of(atom(TypeIs(name)) for name in types)


def _enum(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    strings = frozenset(value for value in schema["enum"] if isinstance(value, str))
    others = [_equals(value) for value in schema["enum"] if not isinstance(value, str)]
    return any_of([_one_text(strings), *others])


def _const(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    return _equals(schema["const"])


def _equals(value: Any) -> Formula:
    """The formula that only `value` satisfies."""
    if value is None:
        return atom(TypeIs("null"))
    if isinstance(value, bool):
        return all_of([atom(TypeIs("boolean")), atom(Truth(value))])
    if isinstance(value, (int, float)):
        return all_of([atom(TypeIs("number")), atom(Number(value))])
    if isinstance(value, str):
        return _one_text(frozenset([value]))
    if isinstance(value, list):
        items = tuple(_equals(item) for item in value)
        return all_of([atom(TypeIs("array")), atom(Items(items, FALSE)), _at_least(MinItems, len(items))])
    members = tuple((key, _equals(member)) for key, member in value.items())
    return all_of([atom(TypeIs("object")), atom(Members(members, (), FALSE)), *map(_present, value)])


def _one_text(values: frozenset[str]) -> Formula:
    return all_of([atom(TypeIs("string")), atom(Text(values))]) if values else FALSE


def _pattern(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    return atom(Pattern(_checked_regex("pattern", schema["pattern"], pointer)))


def _min_length(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    count = int(schema["minLength"])
    return atom(Pattern(_checked_regex("minLength", rf"^[\s\S]{{{count},}}$", pointer))) if count else TRUE


def _checked_regex(keyword: str, regex: str, pointer: str) -> str:
    try:
        compile_pattern(regex)
    except PatternError as error:
        raise UnsupportedSchemaError(keyword, pointer, str(error)) from None
    return regex


def _min_items(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    return _at_least(MinItems, int(schema["minItems"]))


def _min_properties(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    return _at_least(MinProperties, int(schema["minProperties"]))


def _at_least(assertion: Callable, count: int) -> Formula:
    return atom(assertion(count)) if count > 0 else TRUE


def _items(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    """items and additionalItems: the latter only counts where items is a list."""
    items, parent = schema.get("items", True), pointer.rsplit("/", 1)[0]
    if not isinstance(items, list):
        return _all_items((), compiler.compile(items, f"{parent}/items"))
    prefix = tuple(compiler.compile(item, f"{parent}/items/{i}") for i, item in enumerate(items))
    return _all_items(
        prefix, compiler.compile(schema.get("additionalItems", True), f"{parent}/additionalItems")
    )


def _all_items(prefix: tuple[Formula, ...], rest: Formula) -> Formula:
    return TRUE if rest is TRUE and all(f is TRUE for f in prefix) else atom(Items(prefix, rest))


def _required(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    return all_of(map(_present, schema["required"]))


def _present(key: str) -> Formula:
    return atom(Present(key))


def _members(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    """properties, patternProperties and additionalProperties, which only mean something together."""
    parent = pointer.rsplit("/", 1)[0]
    rest = compiler.compile(schema.get("additionalProperties", True), f"{parent}/additionalProperties")
    named: dict[str, list[Formula]] = {
        name: [compiler.compile(child, f"{parent}/properties/{_escape_pointer(name)}")]
        for name, child in schema.get("properties", {}).items()
    }
    patterns = []
    for regex, child in schema.get("patternProperties", {}).items():
        _checked_regex("patternProperties", regex, pointer)
        formula = compiler.compile(child, f"{parent}/patternProperties/{_escape_pointer(regex)}")
        patterns.append((regex, formula))
    written_out = {regex: finite_language(compile_pattern(regex), MAX_PATTERN_NAMES) for regex, _ in patterns}
    for names in written_out.values():
        for name in names or ():
            named.setdefault(name, [])
    for name, formulas in named.items():
        formulas += [formula for regex, formula in patterns if compile_pattern(regex).matches(name)]
    complete = tuple((name, all_of(formulas)) for name, formulas in named.items())
    open_patterns = tuple((regex, formula) for regex, formula in patterns if written_out[regex] is None)
    if rest is TRUE and all(f is TRUE for _, f in (*complete, *open_patterns)):
        return TRUE
    return atom(Members(complete, open_patterns, rest))


def _dependencies(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    dependent = {
        all_of([atom(TypeIs("object")), _present(key)]): _needs(
            compiler, needed, f"{pointer}/{_escape_pointer(key)}"
        )
        for key, needed in schema["dependencies"].items()
    }
    return all_of(any_of([negation(has_key), needed]) for has_key, needed in dependent.items())


def _needs(compiler: SchemaCompiler, needed: list[str] | Schema, pointer: str) -> Formula:
    return all_of(map(_present, needed)) if isinstance(needed, list) else compiler.compile(needed, pointer)


def _all_of(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    return all_of(compiler.children(schema["allOf"], pointer))


def _any_of(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    return any_of(compiler.children(schema["anyOf"], pointer))


def _one_of(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    return one_of(compiler.children(schema["oneOf"], pointer))


def _not(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    return negation(compiler.compile(schema["not"], pointer))


def _if(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    """if, then and else."""
    parent = pointer.rsplit("/", 1)[0]
    condition = compiler.compile(schema["if"], pointer)
    then = compiler.compile(schema.get("then", True), f"{parent}/then")
    otherwise = compiler.compile(schema.get("else", True), f"{parent}/else")
    return all_of([any_of([negation(condition), then]), any_of([condition, otherwise])])


def _branch(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    """then or else: both belong to `if`, and say nothing where there is none."""
    compiler.compile(schema[pointer.rsplit("/", 1)[1]], pointer)
    return TRUE


KEYWORDS: dict[str, Callable[[SchemaCompiler, dict, str], Formula]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "pattern": _pattern,
    "minLength": _min_length,
    "items": _items,
    "additionalItems": _items,
    "minItems": _min_items,
    "properties": _members,
    "patternProperties": _members,
    "additionalProperties": _members,
    "required": _required,
    "minProperties": _min_properties,
    "dependencies": _dependencies,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "if": _if,
    "then": _branch,
    "else": _branch,
}


def _escape_pointer(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")

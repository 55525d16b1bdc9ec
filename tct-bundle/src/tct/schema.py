"""JSON Schema -> formulas over assertions. A table holds one small function for each keyword.

A keyword that asserts something and is not enforced exactly is refused with its name and JSON pointer. Annotations and
keywords that no draft defines assert nothing; the latter are listed, because they may be typos. The functions implement
draft-07; dialects.py lists how other drafts differ.
"""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

from tct.assertions import (
    TYPES,
    Above,
    AtLeast,
    AtMost,
    Below,
    ContainsAtLeast,
    ContainsAtMost,
    Items,
    Members,
    Number,
    OfKind,
    Pattern,
    Present,
    Ref,
    Text,
    Truth,
    TypeIs,
    Unique,
)
from tct.automata import finite_language
from tct.dialects import DRAFT_07, dialect_of
from tct.errors import UnsupportedSchemaError
from tct.formats import NOT_ENFORCED, PATTERNS
from tct.formula import ALL, CONSTANT, FALSE, TRUE, Formula, all_of, any_of, atom, constant, negation, one_of
from tct.json_text import comparable
from tct.numbers import exact
from tct.regex import PatternError, compile_pattern
from tct.time_limit import check_time

ANNOTATIONS = frozenset([
    "$id", "$comment", "title", "description", "default", "examples", "readOnly", "writeOnly", "deprecated",
    "definitions", "$defs", "contentEncoding", "contentMediaType", "contentSchema", "$vocabulary", "$anchor",
    "$dynamicAnchor", "$recursiveAnchor", "minContains", "maxContains",
])  # fmt: skip
MAX_COUNT = 1000  # of minItems and the like: each number of items or members is a state
MAX_LENGTH = 2000  # of minLength and maxLength: each character takes several states
MAX_PATTERN_NAMES = 64  # a key pattern that matches at most so many keys is replaced by named keys

Schema = dict[str, Any] | bool


class SchemaCompiler:
    """Compile a schema. `formulas` maps JSON pointers to the formulas of the schemas there: the root, its definitions
    and the targets of references. `ignored` are the pointers of keywords that assert nothing here although they may be
    meant to: those that no draft has, and formats that are not enforced."""

    def __init__(self, document: Schema):
        self.document = document
        self.dialect = DRAFT_07
        if isinstance(document, dict) and "$schema" in document:
            self.dialect = dialect_of(document["$schema"], "#")
        self.formulas: dict[str, Formula] = {}
        self.ignored: dict[str, None] = {}  # an ordered set
        self._targets = ["#", *_definitions_of(document)]  # includes definitions that nothing refers to
        try:
            for pointer in self._targets:  # compile() appends the targets of references
                if pointer not in self.formulas:
                    self.formulas[pointer] = self.compile(self.find(pointer), pointer)
        except RecursionError:
            raise UnsupportedSchemaError("schema", "#", "its parts are nested too deeply") from None

    def find(self, pointer: str) -> Schema:
        """Return the part of the document at a JSON pointer such as #/definitions/env."""
        for at, node in self.path(pointer):
            if isinstance(node, dict) and isinstance(node.get("$schema"), str):
                self.check_dialect(node["$schema"], at)
        return node

    def path(self, pointer: str) -> Iterator[tuple[str, Any]]:
        """Yield (JSON pointer, part of the document) from the root down to `pointer`."""
        at, node = "#", self.document
        yield at, node
        for part in pointer.split("/")[1:]:
            at += f"/{part}"
            key = part.replace("~1", "/").replace("~0", "~")
            inner = {str(i): item for i, item in enumerate(node)} if isinstance(node, list) else node
            if not isinstance(inner, dict) or key not in inner:
                raise UnsupportedSchemaError("$ref", pointer, "points nowhere in this schema")
            node = inner[key]
            yield at, node

    def base(self, pointer: str) -> str:
        """Return the pointer that references in the schema at `pointer` are relative to.

        It is that of the innermost schema around them that has an identifier, or the root.
        """
        return [at for at, node in self.path(pointer) if at == "#" or self.dialect.identifies(node)][-1]

    def check_dialect(self, uri: str, pointer: str) -> None:
        if dialect_of(uri, pointer) is not self.dialect:
            raise UnsupportedSchemaError("$schema", pointer, "it names another draft than the root")

    def compile(self, schema: Schema, pointer: str) -> Formula:
        check_time()
        if isinstance(schema, bool) and self.dialect.has_boolean(pointer):
            return constant(schema)
        if not isinstance(schema, dict):
            reason = "a schema is an object or a boolean (in draft-04 only as additionalProperties or -Items)"
            raise UnsupportedSchemaError(type(schema).__name__, pointer, reason)
        if "$ref" in schema and not self.dialect.ref_has_siblings:
            return _ref(self, schema, f"{pointer}/$ref")
        schema = {keyword: schema[keyword] for keyword in schema if keyword not in self.dialect.skipped}
        for keyword, value in schema.items():
            if keyword in self.dialect.refused:
                raise UnsupportedSchemaError(keyword, pointer, "this keyword is not supported")
            if keyword not in KEYWORDS and keyword not in ANNOTATIONS and keyword != self.dialect.identifier:
                self.ignored[f"{pointer}/{_escape_pointer(keyword)}"] = None
                continue
            if not isinstance(value, self.dialect.value_types.get(keyword, VALUE_TYPES.get(keyword, object))):
                raise UnsupportedSchemaError(keyword, pointer, f"it may not be {value!r:.60} in this draft")
        return all_of(KEYWORDS[k](self, schema, f"{pointer}/{k}") for k in schema if k in KEYWORDS)

    def refer(self, target: str) -> Formula:
        """Return the formula of a reference to a pointer. The schema there is compiled later."""
        self._targets.append(target)
        return atom(Ref(target))

    def children(self, schemas: list[Schema], pointer: str) -> list[Formula]:
        if not isinstance(schemas, list) or not schemas:
            raise UnsupportedSchemaError(pointer.rsplit("/", 1)[1], pointer, "expected a list of schemas")
        return [self.compile(schema, f"{pointer}/{i}") for i, schema in enumerate(schemas)]


# -- keywords: (compiler, the schema that holds the keyword, pointer of the keyword) -> Formula


def _schema(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    """Compile $schema. It selects the draft at the root; a part may only repeat it."""
    compiler.check_dialect(schema["$schema"], pointer.rsplit("/", 1)[0])
    return TRUE


def _ref(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    target, parent = schema["$ref"], pointer.rsplit("/", 1)[0]
    if not isinstance(target, str) or not (target == "#" or target.startswith("#/")):
        raise UnsupportedSchemaError("$ref", parent, f"only references within the schema, not {target!r}")
    return compiler.refer(compiler.base(parent) + unquote(target[1:]))


def _type(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    for name in types:
        if name not in (*TYPES, "integer"):
            raise UnsupportedSchemaError("type", pointer, f"type {name!r} is not supported")
    return any_of(_type_atom(compiler, name) for name in types)


def _type_atom(compiler: SchemaCompiler, name: str) -> Formula:
    if name == "integer":
        return all_of([atom(TypeIs("number")), atom(OfKind(compiler.dialect.integers))])
    return atom(TypeIs(name))


def _enum(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    strings = frozenset(value for value in schema["enum"] if isinstance(value, str))
    equals = [_equals(value) for value in schema["enum"] if not isinstance(value, str)]
    return any_of([_one_text(strings), *equals])


def _equals(value: Any) -> Formula:
    """Return the formula that only `value` satisfies."""
    if value is None:
        return atom(TypeIs("null"))
    if isinstance(value, bool):
        return all_of([atom(TypeIs("boolean")), atom(Truth(value))])
    if isinstance(value, (int, float)):
        return all_of([atom(TypeIs("number")), atom(Number(exact(value)))])
    if isinstance(value, str):
        return _one_text(frozenset([value]))
    if isinstance(value, list):
        items = tuple(_equals(item) for item in value)
        return all_of([atom(TypeIs("array")), atom(Items(items, FALSE)), _at_least("array", len(items))])
    members = tuple((key, _equals(member)) for key, member in value.items())
    return all_of([atom(TypeIs("object")), atom(Members(members, (), FALSE)), *map(_present, value)])


def _one_text(values: frozenset[str]) -> Formula:
    return all_of([atom(TypeIs("string")), atom(Text(values))]) if values else FALSE


def _length(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    """Compile minLength or maxLength."""
    count = _count(schema, pointer, MAX_LENGTH)
    return atom(AtMost("string", count)) if pointer.endswith("/maxLength") else _at_least("string", count)


def _bound(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    """Compile minimum, maximum, or one that is exclusive. In draft-04 that is a boolean next to the other."""
    parent, keyword = pointer.rsplit("/", 1)
    limit, is_exclusive = schema[keyword], keyword.startswith("exclusive")
    types = compiler.dialect.exclusive if is_exclusive else (int, float)
    if not isinstance(limit, types) or isinstance(limit, bool) and bool not in types or limit != limit:
        raise UnsupportedSchemaError(keyword, parent, f"it may not be {limit!r:.60} in this draft")
    if isinstance(limit, bool):
        return TRUE
    excludes = is_exclusive or schema.get(f"exclusiveM{keyword[1:]}") is True
    return atom((Above if keyword.endswith("inimum") else Below)(exact(limit), not excludes))


def _checked_regex(keyword: str, regex: str, pointer: str) -> str:
    try:
        compile_pattern(regex)
    except PatternError as error:
        raise UnsupportedSchemaError(keyword, pointer, str(error)) from None
    return regex


def _at_least(about: str, count: int) -> Formula:
    return atom(AtLeast(about, count)) if count > 0 else TRUE


def _count(schema: dict, pointer: str, limit: int = MAX_COUNT) -> int:
    keyword = pointer.rsplit("/", 1)[1]
    if schema[keyword] not in range(limit + 1):
        raise UnsupportedSchemaError(keyword, pointer, f"only whole numbers up to {limit} are supported")
    return int(schema[keyword])


def _items(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    """Compile items and additionalItems. The latter only matters if items is a list."""
    items, parent = schema.get("items", {}), pointer.rsplit("/", 1)[0]
    if not isinstance(items, list):
        return _all_items((), compiler.compile(items, f"{parent}/items"))
    prefix = tuple(compiler.compile(item, f"{parent}/items/{i}") for i, item in enumerate(items))
    return _all_items(prefix, compiler.compile(schema.get("additionalItems", True), f"{parent}/additionalItems"))


def _all_items(prefix: tuple[Formula, ...], rest: Formula) -> Formula:
    return TRUE if rest is TRUE and all(f is TRUE for f in prefix) else atom(Items(prefix, rest))


def _contains(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    """Compile contains, minContains and maxContains."""
    formula, parent = compiler.compile(schema["contains"], pointer), pointer.rsplit("/", 1)[0]
    counts = compiler.dialect.counts_contained
    least = _count(schema, f"{parent}/minContains") if counts and "minContains" in schema else 1
    parts = [atom(ContainsAtLeast(formula, least))] if least else []
    if counts and "maxContains" in schema:
        parts.append(atom(ContainsAtMost(formula, _count(schema, f"{parent}/maxContains"))))
    return all_of(parts)


def _unique(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    """Compile uniqueItems. An array of different items is no longer than the enum that lists them."""
    if not schema["uniqueItems"]:
        return TRUE
    listed = _listed(compiler, schema.get("items"))
    return all_of([atom(Unique())] if listed is None else [atom(Unique()), atom(AtMost("array", len(listed)))])


def _listed(compiler: SchemaCompiler, schema: Schema) -> set | None:
    """Return the values that a schema lists in an enum. It follows references. None if the schema has none."""
    if not isinstance(schema, dict):
        return None
    if isinstance(target := schema.get("$ref"), str) and target.startswith("#/"):
        return _listed(compiler, compiler.find(target))
    return set(map(comparable, schema["enum"])) if isinstance(schema.get("enum"), list) else None


def _present(key: str) -> Formula:
    return atom(Present(key))


def _members(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    """Compile properties, patternProperties and additionalProperties, because each depends on the others."""
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


def _keys(compiler: SchemaCompiler, formula: Formula, pointer: str) -> Formula:
    """Return the formula about an object whose keys must satisfy a formula about strings."""
    if formula.kind == ALL:
        return all_of(_keys(compiler, part, pointer) for part in formula.parts)
    allowed = {"additionalProperties": False}
    if formula.kind == CONSTANT:
        return TRUE if formula is TRUE else compiler.compile(allowed, pointer)
    assertion = formula.parts[0]
    if assertion == TypeIs("string"):
        return TRUE
    if isinstance(assertion, Pattern):
        return compiler.compile(allowed | {"patternProperties": {assertion.regex: True}}, pointer)
    if isinstance(assertion, (AtLeast, AtMost)):
        bounds = f"{assertion.count}," if isinstance(assertion, AtLeast) else f"0,{assertion.count}"
        return _keys(compiler, atom(Pattern(rf"^[\s\S]{{{bounds}}}$")), pointer)
    if isinstance(assertion, Ref):
        target = assertion.pointer
        return _keys(compiler, compiler.compile(compiler.find(target), target), pointer)
    if isinstance(assertion, Text):
        return compiler.compile(allowed | {"properties": dict.fromkeys(sorted(assertion.values), True)}, pointer)
    raise UnsupportedSchemaError("propertyNames", pointer, "only pattern, lengths, enum and const are supported")


def _format(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    """Compile format. One that is not enforced is listed."""
    name = schema["format"]
    if name not in compiler.dialect.formats:
        return TRUE
    if name in PATTERNS:
        return atom(Pattern(PATTERNS[name]))
    if name not in NOT_ENFORCED:
        raise UnsupportedSchemaError("format", pointer.rsplit("/", 1)[0], f"{name!r} is not supported")
    compiler.ignored[pointer] = None
    return TRUE


def _dependencies(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    implications = []
    for key, needed in schema["dependencies"].items():
        has_key = all_of([atom(TypeIs("object")), _present(key)])
        if isinstance(needed, list):
            consequence = all_of(map(_present, needed))
        else:
            consequence = compiler.compile(needed, f"{pointer}/{_escape_pointer(key)}")
        implications.append(any_of([negation(has_key), consequence]))
    return all_of(implications)


def _if(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    """Compile if, then and else."""
    parent = pointer.rsplit("/", 1)[0]
    condition = compiler.compile(schema["if"], pointer)
    then = compiler.compile(schema.get("then", True), f"{parent}/then")
    otherwise = compiler.compile(schema.get("else", True), f"{parent}/else")
    return all_of([any_of([negation(condition), then]), any_of([condition, otherwise])])


def _branch(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    """Check the schema of then or else. Both are enforced by `if`, and assert nothing without it."""
    compiler.compile(schema[pointer.rsplit("/", 1)[1]], pointer)
    return TRUE


KEYWORDS: dict[str, Callable[[SchemaCompiler, dict, str], Formula]] = {
    "$schema": _schema,
    "$ref": _ref,
    "type": _type,
    "enum": _enum,
    "const": lambda compiler, schema, pointer: _equals(schema["const"]),
    "pattern": lambda compiler, schema, pointer: atom(Pattern(_checked_regex("pattern", schema["pattern"], pointer))),
    "format": _format,
    "minimum": _bound,
    "maximum": _bound,
    "exclusiveMinimum": _bound,
    "exclusiveMaximum": _bound,
    "minLength": _length,
    "maxLength": _length,
    "items": _items,
    "additionalItems": _items,
    "contains": _contains,
    "uniqueItems": _unique,
    "minItems": lambda compiler, schema, pointer: _at_least("array", _count(schema, pointer)),
    "maxItems": lambda compiler, schema, pointer: atom(AtMost("array", _count(schema, pointer))),
    "properties": _members,
    "patternProperties": _members,
    "additionalProperties": _members,
    "propertyNames": lambda compiler, schema, pointer: _keys(
        compiler, compiler.compile(schema["propertyNames"], pointer), pointer
    ),
    "required": lambda compiler, schema, pointer: all_of(map(_present, schema["required"])),
    "minProperties": lambda compiler, schema, pointer: _at_least("object", _count(schema, pointer)),
    "maxProperties": lambda compiler, schema, pointer: atom(AtMost("object", _count(schema, pointer))),
    "dependencies": _dependencies,
    "allOf": lambda compiler, schema, pointer: all_of(compiler.children(schema["allOf"], pointer)),
    "anyOf": lambda compiler, schema, pointer: any_of(compiler.children(schema["anyOf"], pointer)),
    "oneOf": lambda compiler, schema, pointer: one_of(compiler.children(schema["oneOf"], pointer)),
    "not": lambda compiler, schema, pointer: negation(compiler.compile(schema["not"], pointer)),
    "if": _if,
    "then": _branch,
    "else": _branch,
}

# The Python type of a keyword's value, if another type would be misread.
VALUE_TYPES = dict.fromkeys(("$id", "id", "pattern", "format"), str) | dict.fromkeys(("enum", "required"), list)
VALUE_TYPES |= dict.fromkeys(("definitions", "$defs", "properties", "patternProperties", "dependencies"), dict)


def _definitions_of(document: Schema) -> list[str]:
    """Return the pointers of the definitions at the root."""
    root = document if isinstance(document, dict) else {}
    keywords = [keyword for keyword in ("definitions", "$defs") if isinstance(root.get(keyword), dict)]
    return [f"#/{keyword}/{_escape_pointer(name)}" for keyword in keywords for name in root[keyword]]


def _escape_pointer(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")

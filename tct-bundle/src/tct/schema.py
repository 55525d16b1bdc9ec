"""JSON Schema -> formulas over assertions. A table holds one small function for each keyword.

A keyword that asserts something and is not enforced exactly is refused with its name and JSON pointer. Annotations and
keywords that no draft defines assert nothing; the latter are listed, because they may be typos. The functions implement
draft-07; dialects.py lists how other drafts differ.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import Any

from tct.assertions import (
    TYPES,
    Above,
    AtLeast,
    AtMost,
    Below,
    ContainsAtLeast,
    ContainsAtMost,
    Items,
    Keys,
    Members,
    MultipleOf,
    Number,
    OfKind,
    Pattern,
    Present,
    Ref,
    Text,
    Truth,
    TypeIs,
    Unique,
    items_of,
    members_of,
)
from tct.dialects import CONTENT, DRAFT_07, LATER, Dialect
from tct.errors import UnsupportedSchemaError
from tct.formats import FURTHER_PATTERNS, MAX_LENGTHS, NOT_ENFORCED, PATTERNS
from tct.formula import (
    CONSTANT,
    FALSE,
    TRUE,
    Formula,
    all_of,
    any_of,
    atom,
    constant,
    negation,
    one_of,
    substitute,
    truth,
)
from tct.multiples import decimal
from tct.numbers import exact
from tct.references import Documents, Schema, escape_pointer, named_dialect
from tct.regex import PatternError, compile_pattern
from tct.time_limit import check_time
from tct.unevaluated import unevaluated

ANNOTATIONS = frozenset([
    "$id", "$schema", "$comment", "title", "description", "default", "examples", "readOnly", "writeOnly", "deprecated",
    "definitions", "$defs", "contentEncoding", "contentMediaType", "contentSchema", "$vocabulary", "$anchor",
    "$dynamicAnchor", "$recursiveAnchor", "minContains", "maxContains",
])  # fmt: skip
MAX_COUNT = 1000  # of minItems and the like: each number of items or members is a state
MAX_LENGTH = 2000  # of minLength: each character takes several states
MAX_MOST = 2**53  # of maxLength


class SchemaCompiler:
    """Compile a schema. `formulas` maps JSON pointers to the formulas of the schemas there: the root, its definitions
    and the targets of references. `ignored` are the pointers of keywords that assert nothing here although they may be
    meant to: those that no draft has, and formats that are not enforced."""

    def __init__(self, document: Schema, resources: Mapping[str, Schema]):
        self.documents = Documents(document, resources)
        self.dialect = DRAFT_07  # of the part that is being compiled
        self.formulas: dict[str, Formula] = {}
        self._compiled: dict[tuple[str, int], Formula] = {}  # by pointer and draft: some keywords read others, too
        self.ignored: dict[str, None] = {}  # an ordered set
        self._targets = ["#", *_definitions_of(document)]  # includes definitions that nothing refers to
        try:
            for pointer in self._targets:  # compile() appends the targets of references
                if pointer not in self.formulas:
                    self.formulas[pointer] = self.compile_target(pointer)
        except RecursionError:
            raise UnsupportedSchemaError("schema", "#", "its parts are nested too deeply") from None

    def compile_target(self, pointer: str) -> Formula:
        """Compile the schema at a JSON pointer. Its draft is that of the document around it, or of the innermost
        schema with an identifier; `$schema` in any other place does not matter for a reference."""
        with self.using(self.documents.scope(pointer).dialect):
            return self._compile(self.documents.find(pointer), pointer)

    @contextmanager
    def using(self, dialect: Dialect) -> Iterator[None]:
        """Compile the parts of a schema that follow another draft."""
        outer, self.dialect = self.dialect, dialect
        try:
            yield
        finally:
            self.dialect = outer

    def compile(self, schema: Schema, pointer: str) -> Formula:
        """Compile a schema that is a part of another. It may name its own draft."""
        dialect = named_dialect(schema, pointer)
        if dialect is None:
            return self._compile(schema, pointer)
        if self.documents.scope(pointer.rpartition("/")[0]).has_foreign(schema, pointer):
            reason = "a part of another draft may have an identifier only if references lead to it"
            raise UnsupportedSchemaError("$schema", pointer, reason)
        with self.using(dialect):
            return self._compile(schema, pointer)

    def _compile(self, schema: Schema, pointer: str) -> Formula:
        here = pointer, id(self.dialect)
        if here not in self._compiled:
            self._compiled[here] = self._compile_keywords(schema, pointer)
        return self._compiled[here]

    def _compile_keywords(self, schema: Schema, pointer: str) -> Formula:
        check_time()
        if isinstance(schema, bool) and self.dialect.has_boolean(pointer):
            return constant(schema)
        if not isinstance(schema, dict):
            reason = "a schema is an object or a boolean (in draft-04 only as additionalProperties or -Items)"
            raise UnsupportedSchemaError(type(schema).__name__, pointer, reason)
        if "$ref" in schema and not self.dialect.ref_has_siblings:
            return _ref(self, schema, f"{pointer}/$ref")
        schema = {keyword: schema[keyword] for keyword in schema if keyword not in self.dialect.skipped}
        unknown = self.unknown()
        for keyword, value in schema.items():
            if keyword in self.dialect.refused and value == CONTENT.get(keyword, value):
                raise UnsupportedSchemaError(keyword, pointer, "this keyword is not supported")
            known = keyword in KEYWORDS or keyword in ANNOTATIONS or keyword == self.dialect.identifier
            if not known or keyword in unknown:
                self.ignored[f"{pointer}/{escape_pointer(keyword)}"] = None
                continue
            if not isinstance(value, self.dialect.value_types.get(keyword, VALUE_TYPES.get(keyword, object))):
                raise UnsupportedSchemaError(keyword, pointer, f"it may not be {value!r:.60} in this draft")
        return all_of(KEYWORDS[k](self, schema, f"{pointer}/{k}") for k in schema if k in KEYWORDS and k not in unknown)

    def unknown(self) -> frozenset[str]:
        """Return the keywords of later drafts that mean nothing here."""
        return LATER - self.dialect.later

    def target(self, schema: dict, pointer: str) -> str:
        """Return what the reference with this JSON pointer leads to. A dynamic one must always lead to the same."""
        parent, keyword = pointer.rsplit("/", 1)
        if not isinstance(schema[keyword], str):
            raise UnsupportedSchemaError(keyword, parent, f"it may not be {schema[keyword]!r:.60}")
        target = self.documents.resolve(schema[keyword], parent)
        name = "" if keyword == "$recursiveRef" else schema[keyword].partition("#")[2]
        if keyword != "$ref" and not self.documents.is_static(name, target):
            raise UnsupportedSchemaError(keyword, parent, "several schemas have the anchor that it leads to")
        return target

    def refer(self, target: str) -> Formula:
        """Return the formula of a reference to a pointer. The schema there is compiled later."""
        self._targets.append(target)
        return atom(Ref(target))

    def children(self, schemas: list[Schema], pointer: str) -> list[Formula]:
        if not isinstance(schemas, list) or not schemas:
            raise UnsupportedSchemaError(pointer.rsplit("/", 1)[1], pointer, "expected a list of schemas")
        return [self.compile(schema, f"{pointer}/{i}") for i, schema in enumerate(schemas)]


# -- keywords: (compiler, the schema that holds the keyword, pointer of the keyword) -> Formula


def _ref(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    return compiler.refer(compiler.target(schema, pointer))


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
    is_most = pointer.endswith("/maxLength")
    count = _count(schema, pointer, MAX_MOST if is_most else MAX_LENGTH)
    return atom(AtMost("string", count)) if is_most else _at_least("string", count)


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


def _multiple_of(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    divisor = schema["multipleOf"]
    if not isinstance(divisor, (int, float)) or isinstance(divisor, bool) or not 0 < divisor < inf:
        raise UnsupportedSchemaError("multipleOf", pointer.rsplit("/", 1)[0], f"it may not be {divisor!r:.60}")
    return atom(MultipleOf(decimal(divisor)))


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
    """Compile items, additionalItems and prefixItems, because each depends on the others."""
    parent = pointer.rsplit("/", 1)[0]
    first, others = compiler.dialect.items_keywords(schema)
    prefix = [compiler.compile(item, f"{parent}/{first}/{i}") for i, item in enumerate(schema[first] if first else ())]
    return items_of(prefix, compiler.compile(schema.get(others, {}), f"{parent}/{others}"))


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
    """Compile uniqueItems. An array of different items is no longer than there are values for an item."""
    if not schema["uniqueItems"]:
        return TRUE
    items = schema.get("items", True)
    is_one = not isinstance(items, list) and "prefixItems" not in schema
    most = _n_values(compiler, compiler.compile(items, pointer.rsplit("/", 1)[0] + "/items")) if is_one else None
    return atom(Unique()) if most is None else all_of([atom(Unique()), atom(AtMost("array", most))])


def _n_values(compiler: SchemaCompiler, formula: Formula) -> int | None:
    """Return how many values satisfy a formula, or None if these are not only a few scalars that it names."""
    n_values = 0
    for type in TYPES:
        of_type = _of_type(compiler, formula, type)
        named = {None} if type == "null" else {False, True} if type == "boolean" else set()
        for assertion in of_type.atoms:
            if isinstance(assertion, (Text, Number)):
                named |= assertion.values if isinstance(assertion, Text) else {assertion.value}
            elif not isinstance(assertion, Truth):
                return None
        if type not in ("null", "boolean") and _equal_to(of_type, object()):  # any other value
            return None
        n_values += sum(_equal_to(of_type, value) for value in named)
    return n_values


def _equal_to(formula: Formula, value: Any) -> bool:
    """Is a formula of Text, Number and Truth true for a value?"""
    return truth(formula, lambda a: value in a.values if isinstance(a, Text) else value == a.value)


def _of_type(compiler: SchemaCompiler, formula: Formula, type: str) -> Formula:
    """Return what a formula says about values of one type."""

    def meaning(assertion: Any) -> Formula:
        if isinstance(assertion, TypeIs):
            return constant(assertion.type == type)
        if isinstance(assertion, Ref):
            return _of_type(compiler, compiler.compile_target(assertion.pointer), type)
        return atom(assertion) if assertion.about == type else TRUE

    return substitute(formula, meaning)


def _present(key: str) -> Formula:
    return atom(Present(key))


def _members(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    """Compile properties, patternProperties and additionalProperties, because each depends on the others."""
    parent = pointer.rsplit("/", 1)[0]
    rest = compiler.compile(schema.get("additionalProperties", True), f"{parent}/additionalProperties")
    named = {
        name: compiler.compile(child, f"{parent}/properties/{escape_pointer(name)}")
        for name, child in schema.get("properties", {}).items()
    }
    patterns = []
    for regex, child in schema.get("patternProperties", {}).items():
        _checked_regex("patternProperties", regex, pointer)
        formula = compiler.compile(child, f"{parent}/patternProperties/{escape_pointer(regex)}")
        patterns.append((regex, formula))
    return members_of(named, patterns, rest)


def _keys(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    """Compile propertyNames: a formula about strings, about each key of an object."""
    formula = _about_strings(compiler, compiler.compile(schema["propertyNames"], pointer), pointer)
    if formula.kind == CONSTANT:
        return members_of({}, [], formula)
    assertion = formula.parts[0]  # of one pattern: if it matches few keys, each has a symbol
    if isinstance(assertion, Pattern):
        return members_of({}, [(assertion.regex, TRUE)], FALSE)
    return atom(Keys(formula))


def _about_strings(compiler: SchemaCompiler, formula: Formula, pointer: str) -> Formula:
    """Return what a formula says about strings, of Text and Pattern only."""

    def meaning(assertion: Any) -> Formula:
        if not isinstance(assertion, (AtLeast, AtMost)):
            return atom(assertion)
        bounds = f"{assertion.count}," if isinstance(assertion, AtLeast) else f"0,{assertion.count}"
        return atom(Pattern(_checked_regex("propertyNames", rf"^[\s\S]{{{bounds}}}$", pointer)))

    return substitute(_of_type(compiler, formula, "string"), meaning)


def _format(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    """Compile format. One that is not enforced is listed."""
    name = schema["format"]
    if name not in compiler.dialect.formats:
        return TRUE
    if name in PATTERNS:
        parts = [Pattern(PATTERNS[name])]
        parts += [Pattern(FURTHER_PATTERNS[name])] if name in FURTHER_PATTERNS else []
        parts += [AtMost("string", MAX_LENGTHS[name])] if name in MAX_LENGTHS else []
        return all_of(map(atom, parts))
    if name not in NOT_ENFORCED:
        raise UnsupportedSchemaError("format", pointer.rsplit("/", 1)[0], f"{name!r} is not supported")
    compiler.ignored[pointer] = None
    return TRUE


def _dependencies(compiler: SchemaCompiler, schema: dict, pointer: str) -> Formula:
    """Compile dependencies, dependentRequired or dependentSchemas."""
    implications = []
    for key, needed in schema[pointer.rsplit("/", 1)[1]].items():
        has_key = all_of([atom(TypeIs("object")), _present(key)])
        if isinstance(needed, list):
            consequence = all_of(map(_present, needed))
        else:
            consequence = compiler.compile(needed, f"{pointer}/{escape_pointer(key)}")
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
    "$ref": _ref,
    "$recursiveRef": _ref,
    "$dynamicRef": _ref,
    "type": _type,
    "enum": _enum,
    "const": lambda compiler, schema, pointer: _equals(schema["const"]),
    "pattern": lambda compiler, schema, pointer: atom(Pattern(_checked_regex("pattern", schema["pattern"], pointer))),
    "format": _format,
    "minimum": _bound,
    "maximum": _bound,
    "exclusiveMinimum": _bound,
    "exclusiveMaximum": _bound,
    "multipleOf": _multiple_of,
    "minLength": _length,
    "maxLength": _length,
    "items": _items,
    "additionalItems": _items,
    "prefixItems": _items,
    "contains": _contains,
    "uniqueItems": _unique,
    "minItems": lambda compiler, schema, pointer: _at_least("array", _count(schema, pointer)),
    "maxItems": lambda compiler, schema, pointer: atom(AtMost("array", _count(schema, pointer))),
    "properties": _members,
    "patternProperties": _members,
    "additionalProperties": _members,
    "propertyNames": _keys,
    "required": lambda compiler, schema, pointer: all_of(map(_present, schema["required"])),
    "minProperties": lambda compiler, schema, pointer: _at_least("object", _count(schema, pointer)),
    "maxProperties": lambda compiler, schema, pointer: atom(AtMost("object", _count(schema, pointer))),
    "dependencies": _dependencies,
    "dependentRequired": _dependencies,
    "dependentSchemas": _dependencies,
    "unevaluatedProperties": unevaluated,
    "unevaluatedItems": unevaluated,
    "allOf": lambda compiler, schema, pointer: all_of(compiler.children(schema["allOf"], pointer)),
    "anyOf": lambda compiler, schema, pointer: any_of(compiler.children(schema["anyOf"], pointer)),
    "oneOf": lambda compiler, schema, pointer: one_of(compiler.children(schema["oneOf"], pointer)),
    "not": lambda compiler, schema, pointer: negation(compiler.compile(schema["not"], pointer)),
    "if": _if,
    "then": _branch,
    "else": _branch,
}

# The Python type of a keyword's value, if another type would be misread.
VALUE_TYPES = dict.fromkeys(("$id", "id", "$schema", "pattern", "format"), str)
VALUE_TYPES |= dict.fromkeys(("enum", "required", "prefixItems"), list)
VALUE_TYPES |= dict.fromkeys(("definitions", "$defs", "properties", "patternProperties", "dependencies"), dict)
VALUE_TYPES |= dict.fromkeys(("dependentRequired", "dependentSchemas"), dict)


def _definitions_of(document: Schema) -> list[str]:
    """Return the pointers of the definitions at the root."""
    root = document if isinstance(document, dict) else {}
    keywords = [keyword for keyword in ("definitions", "$defs") if isinstance(root.get(keyword), dict)]
    return [f"#/{keyword}/{escape_pointer(name)}" for keyword in keywords for name in root[keyword]]

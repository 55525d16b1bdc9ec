"""Where references lead: the schema, the other schemas that the caller names, and the identifiers and anchors in them.

Nothing is read from the network. The JSON pointer of a place in another schema starts with the URI of that schema, such
as `http://example.com/types.json#/definitions/name`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urljoin

import jsonschema_specifications

from tct.dialects import DRAFT_07, Dialect, dialect_of
from tct.errors import UnsupportedSchemaError

Schema = dict[str, Any] | bool

# Keywords with sub-schemas: one; a list of them; some by name. `items` and `dependencies` may hold other things too.
ONE = frozenset([
    "items", "additionalItems", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else",
    "unevaluatedItems", "unevaluatedProperties", "contentSchema",
])  # fmt: skip
LIST = frozenset(["items", "prefixItems", "allOf", "anyOf", "oneOf"])
NAMED = frozenset([
    "definitions", "$defs", "properties", "patternProperties", "dependencies", "dependentSchemas",
])  # fmt: skip


@dataclass(frozen=True)
class Scope:
    """What holds in a part of a schema: the URI that references are relative to, and the draft."""

    uri: str
    dialect: Dialect

    def within(self, node: Any, pointer: str) -> "Scope":
        """Return the scope in the part `node`, which may have a URI of its own and then a draft of its own."""
        dialect = named_dialect(node, pointer) or self.dialect
        if not self.dialect.identifies(node) or not dialect.identifies(node):
            return self
        return Scope(_join(self.uri, node[dialect.identifier]), dialect)

    def has_foreign(self, node: Any, pointer: str) -> bool:
        """Has the part `node` a URI by the rules of the draft that it names, and none by the rules of this draft?"""
        dialect = named_dialect(node, pointer)
        return dialect is not None and dialect.identifies(node) and not self.dialect.identifies(node)


def named_dialect(node: Any, pointer: str) -> Dialect | None:
    """Return the draft that a part of a schema names, or None."""
    named = isinstance(node, dict) and isinstance(node.get("$schema"), str)
    return dialect_of(node["$schema"], pointer) if named else None


class Documents:
    """The schema and the other schemas that its references may lead to."""

    def __init__(self, schema: Schema, resources: Mapping[str, Schema]):
        dialect = dialect_of(schema["$schema"], "#") if isinstance(schema, dict) and "$schema" in schema else DRAFT_07
        self._documents: dict[str, tuple[Schema, Scope]] = {}
        self._places: dict[str, str] = {}  # the URI of a schema, with #name if that is an anchor -> JSON pointer
        self._dynamic: dict[str, set[str]] = {}  # name of a dynamic anchor -> JSON pointers
        self.add("", schema, dialect)
        for uri, resource in resources.items():
            self.add(_join(self.scope("#").uri, uri), resource, dialect)

    def add(self, uri: str, schema: Schema, dialect: Dialect) -> None:
        """Add a schema that references may lead to. `dialect` is its draft unless it names one."""
        pointer = f"{uri}#"
        dialect = named_dialect(schema, pointer) or dialect
        self._documents[uri] = schema, Scope(uri, dialect)
        self._places.setdefault(uri, pointer)
        todo = [(pointer, schema, Scope(uri, dialect))]
        for pointer, node, scope in todo:
            if scope.has_foreign(node, pointer):  # a reference to its URI leads to a schema of that draft
                other = named_dialect(node, pointer)
                inner = _join(scope.uri, node[other.identifier])
                if inner not in self._documents:
                    self.add(inner, node, other)
            elif isinstance(node, dict):
                scope = scope.within(node, pointer)
                self._register(pointer, node, scope)
                todo += [(f"{pointer}/{at}", inner, scope) for at, inner in subschemas(node)]

    def _register(self, pointer: str, node: dict, scope: Scope) -> None:
        if scope.dialect.identifies(node):
            self._places.setdefault(scope.uri, pointer)
        for name in scope.dialect.anchors(node):
            self._places.setdefault(f"{scope.uri}#{name}", pointer)
        for name in scope.dialect.dynamic_anchors(node):
            self._dynamic.setdefault(name, set()).add(pointer)

    def find(self, pointer: str) -> Schema:
        """Return the part of a schema at a JSON pointer such as #/definitions/env."""
        return list(self._path(pointer))[-1][1]

    def scope(self, pointer: str) -> Scope:
        """Return the scope of the part at a JSON pointer."""
        scope = self._documents[_without_fragment(pointer)][1]
        for at, node in self._path(pointer):
            scope = scope.within(node, at)
        return scope

    def _path(self, pointer: str) -> Iterator[tuple[str, Any]]:
        """Yield (JSON pointer, part of the document) from the root down to `pointer`."""
        uri, _, path = pointer.partition("#")
        at, node = f"{uri}#", self._documents[uri][0]
        yield at, node
        for part in path.split("/")[1:]:
            at += f"/{part}"
            key = part.replace("~1", "/").replace("~0", "~")
            inner = {str(i): item for i, item in enumerate(node)} if isinstance(node, list) else node
            if not isinstance(inner, dict) or key not in inner:
                raise UnsupportedSchemaError("$ref", pointer, "points nowhere in this schema")
            node = inner[key]
            yield at, node

    def resolve(self, reference: str, pointer: str) -> str:
        """Return the JSON pointer that a reference in the schema at `pointer` leads to."""
        uri, fragment = _join(self.scope(pointer).uri, reference), unquote(reference.partition("#")[2])
        if uri not in self._places:
            self._add_draft(uri, pointer)
        if not fragment or fragment.startswith("/"):
            return self._places[uri] + fragment
        if f"{uri}#{fragment}" not in self._places:
            raise UnsupportedSchemaError("$ref", pointer, f"{reference!r} points nowhere: nothing has this name")
        return self._places[f"{uri}#{fragment}"]

    def _add_draft(self, uri: str, pointer: str) -> None:
        """Add the schema of a draft of JSON Schema. Raises UnsupportedSchemaError if the URI is not that of a draft."""
        try:
            schema = jsonschema_specifications.REGISTRY.contents(uri)
        except LookupError:
            reason = f"{uri!r} is another schema: pass it in `resources`, or with --resource {uri}=FILE"
            raise UnsupportedSchemaError("$ref", pointer, reason) from None
        self.add(uri, schema, DRAFT_07)

    def is_static(self, name: str, pointer: str) -> bool:
        """Is `pointer` what a dynamic reference to a name leads to, wherever it comes from?"""
        return self._dynamic.get(name, set()) <= {pointer} or pointer not in self._dynamic[name]


def subschemas(schema: dict) -> Iterator[tuple[str, Schema]]:
    """Yield (place within a schema, sub-schema) for each sub-schema that a keyword of some draft holds."""
    for keyword, value in schema.items():
        if keyword in ONE and isinstance(value, dict):
            yield keyword, value
        elif keyword in LIST and isinstance(value, list):
            yield from ((f"{keyword}/{index}", inner) for index, inner in enumerate(value))
        elif keyword in NAMED and isinstance(value, dict):
            yield from ((f"{keyword}/{escape_pointer(name)}", inner) for name, inner in value.items())


def escape_pointer(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _join(base: str, reference: str) -> str:
    """Return the absolute URI of a reference, without its fragment."""
    uri = _without_fragment(reference)
    return urljoin(base, uri) if uri else base


def _without_fragment(uri: str) -> str:
    return uri.partition("#")[0]

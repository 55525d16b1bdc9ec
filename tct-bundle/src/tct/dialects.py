"""The drafts of JSON Schema that `$schema` can name, and how each differs from draft-07.

A keyword that a draft does not define asserts nothing, as the draft requires. A keyword that it defines, and that the
compiler cannot enforce yet, is among the `refused` ones.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from tct.errors import UnsupportedSchemaError
from tct.numbers import POINTED, WHOLE

# Asserted in draft-06 and draft-07 if they have these values. All other values are annotations.
CONTENT = {"contentEncoding": "base64", "contentMediaType": "application/json"}
# Keywords that draft-07 does not define.
SINCE_2019 = frozenset(["dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties"])
LATER = SINCE_2019 | {"$recursiveRef", "$dynamicRef", "prefixItems"}
# Values of `format` that jsonschema-rs asserts. All others are annotations, and all are since 2019-09.
FORMATS_04 = frozenset([
    "date", "date-time", "email", "hostname", "idn-email", "ipv4", "ipv6", "regex", "time", "uri",
])  # fmt: skip
FORMATS_06 = FORMATS_04 | {"json-pointer", "uri-reference", "uri-template"}
FORMATS_07 = FORMATS_06 | {"idn-hostname", "iri", "iri-reference", "relative-json-pointer"}


@dataclass(frozen=True)
class Dialect:
    """A draft. The defaults are those of draft-07."""

    identifier: str = "$id"  # the keyword that gives a schema a URI
    skipped: frozenset[str] = frozenset()  # keywords of draft-07 that the draft does not define
    refused: frozenset[str] = frozenset(CONTENT)
    later: frozenset[str] = frozenset()  # keywords among LATER that the draft defines
    formats: frozenset[str] = FORMATS_07  # those that assert something
    value_types: dict[str, tuple[type, ...]] = field(default_factory=dict)  # the Python types of a keyword's value
    ref_has_siblings: bool = False  # are keywords next to $ref enforced?
    may_be_boolean: frozenset[str] | None = None  # keywords whose schema may be true or false; None: all
    exclusive: tuple[type, ...] = (int, float)  # the Python types of exclusiveMinimum and exclusiveMaximum
    counts_contained: bool = False  # do minContains and maxContains assert something?
    integers: tuple[int, ...] = (WHOLE, POINTED)  # the kinds of numbers (numbers.py) that are an "integer"

    def identifies(self, node: Any) -> bool:
        """Does this part of a schema have a URI of its own? References within it are relative to that URI."""
        if not isinstance(node, dict) or ("$ref" in node and not self.ref_has_siblings):
            return False
        identifier = node.get(self.identifier)  # "#name" does not change the URI
        return isinstance(identifier, str) and not identifier.startswith("#")

    def anchors(self, node: dict) -> list[str]:
        """Return the names by which a reference may call this part of a schema."""
        if not self.later:
            identifier = node.get(self.identifier)
            return [identifier[1:]] if isinstance(identifier, str) and identifier.startswith("#") else []
        names = [node.get("$anchor"), *self.dynamic_anchors(node)]
        return [name for name in names if isinstance(name, str) and name]

    def dynamic_anchors(self, node: dict) -> list[str]:
        """Return the names for which a dynamic reference may lead to this part of a schema; "" is that of
        `$recursiveRef`."""
        if "$recursiveRef" in self.later:
            return [""] if node.get("$recursiveAnchor") is True else []
        name = node.get("$dynamicAnchor") if "$dynamicRef" in self.later else None
        return [name] if isinstance(name, str) else []

    def items_keywords(self, schema: dict) -> tuple[str | None, str]:
        """Return the keyword with a schema for each of the first items, if there is one, and that for all others."""
        if "prefixItems" in self.later:
            return ("prefixItems" if "prefixItems" in schema else None), "items"
        return ("items", "additionalItems") if isinstance(schema.get("items"), list) else (None, "items")

    def has_boolean(self, pointer: str) -> bool:
        """May the schema at a pointer be true or false?"""
        return self.may_be_boolean is None or pointer.rsplit("/", 1)[-1] in self.may_be_boolean


DRAFT_07 = Dialect()
DRAFT_06 = Dialect(skipped=frozenset(["if", "then", "else"]), formats=FORMATS_06)
DRAFT_04 = Dialect(
    identifier="id",
    skipped=frozenset(["if", "then", "else", "const", "contains", "propertyNames", "$id"]),
    refused=frozenset(),
    formats=FORMATS_04,
    may_be_boolean=frozenset(["additionalProperties", "additionalItems"]),
    exclusive=(bool,),
    integers=(WHOLE,),
)
DRAFT_2019 = Dialect(
    refused=frozenset(),
    later=SINCE_2019 | {"$recursiveRef"},
    formats=frozenset(),
    ref_has_siblings=True,
    counts_contained=True,
)
DRAFT_2020 = Dialect(
    skipped=frozenset(["additionalItems"]),
    refused=frozenset(),
    later=SINCE_2019 | {"$dynamicRef", "prefixItems"},
    formats=frozenset(),
    value_types={"items": (dict, bool)},
    ref_has_siblings=True,
    counts_contained=True,
)

DIALECTS = {
    "http://json-schema.org/draft-04/schema#": DRAFT_04,
    "http://json-schema.org/draft-06/schema#": DRAFT_06,
    "http://json-schema.org/draft-07/schema#": DRAFT_07,
    "https://json-schema.org/draft/2019-09/schema": DRAFT_2019,
    "https://json-schema.org/draft/2020-12/schema": DRAFT_2020,
}
LATEST = "http://json-schema.org/schema#"  # this URL serves 2020-12, and jsonschema-rs reads it as that


def dialect_of(uri: Any, pointer: str) -> Dialect:
    """Return the draft that a `$schema` names. The scheme may be http or https; an empty fragment may follow.

    Raises UnsupportedSchemaError if it names none of DIALECTS. `pointer` is the JSON pointer of the `$schema`.
    """
    named = {_bare(known): dialect for known, dialect in {**DIALECTS, LATEST: DRAFT_2020}.items()}
    if not isinstance(uri, str) or _bare(uri) not in named:
        drafts = " or ".join(DIALECTS)
        reason = f"{uri!r:.100} is not a supported draft: write {drafts}, or leave it out for draft-07"
        raise UnsupportedSchemaError("$schema", pointer, reason)
    return named[_bare(uri)]


def _bare(uri: str) -> str:
    return re.sub(r"^https?://|#$", "", uri)

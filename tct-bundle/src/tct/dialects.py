"""Drafts of JSON Schema, as the keyword `$schema` names them: what each reads otherwise than draft-07 does."""

import re
from dataclasses import dataclass, field
from typing import Any

from tct.errors import UnsupportedSchemaError
from tct.numbers import POINTED, WHOLE


@dataclass(frozen=True)
class Dialect:
    """One draft. The defaults are those of draft-07."""

    identifier: str = "$id"
    skipped: frozenset[str] = frozenset()  # keywords of draft-07 that it does not have: they assert nothing
    forms: dict[str, type | tuple[type, ...]] = field(default_factory=dict)  # see schema.FORMS
    ref_has_siblings: bool = False  # do keywords next to $ref assert something?
    may_be_boolean: frozenset[str] | None = None  # keywords whose schema may be true or false; None: all
    integers: tuple[int, ...] = (WHOLE, POINTED)  # the kinds of numbers (numbers.py) that are an "integer"

    def identifies(self, node: Any) -> bool:
        """Is a part of a document a schema with a URI of its own, from which the references in it start?"""
        if not isinstance(node, dict) or ("$ref" in node and not self.ref_has_siblings):
            return False
        identifier = node.get(self.identifier)
        return isinstance(identifier, str) and not identifier.startswith("#")  # "#name" does not change the URI

    def has_boolean(self, pointer: str) -> bool:
        """May the schema at a pointer be true or false?"""
        return self.may_be_boolean is None or pointer.rsplit("/", 1)[-1] in self.may_be_boolean


DRAFT_07 = Dialect()
DRAFT_06 = Dialect(skipped=frozenset(["if", "then", "else"]))
DRAFT_04 = Dialect(
    identifier="id",
    skipped=frozenset(["if", "then", "else", "const", "contains", "propertyNames", "$id"]),
    may_be_boolean=frozenset(["additionalProperties", "additionalItems"]),
    integers=(WHOLE,),
)
DRAFT_2019 = Dialect(ref_has_siblings=True)
DRAFT_2020 = Dialect(ref_has_siblings=True, skipped=frozenset(["additionalItems"]), forms={"items": (dict, bool)})

DIALECTS = {
    "json-schema.org/draft-04/schema": DRAFT_04,
    "json-schema.org/draft-06/schema": DRAFT_06,
    "json-schema.org/draft-07/schema": DRAFT_07,
    "json-schema.org/draft/2019-09/schema": DRAFT_2019,
    "json-schema.org/draft/2020-12/schema": DRAFT_2020,
    "json-schema.org/schema": DRAFT_2020,  # the latest, as it is served there and as jsonschema-rs reads it
}


def dialect_of(uri: object, pointer: str) -> Dialect:
    """The draft that a `$schema` names, with http or https and with or without an empty fragment."""
    found = DIALECTS.get(re.sub(r"^https?://|#$", "", uri)) if isinstance(uri, str) else None
    if found is None:
        known = ", ".join(f"https://{name}" for name in DIALECTS)
        reason = f"{uri!r:.100} names no draft that is supported: write one of {known}, or leave it out for draft-07"
        raise UnsupportedSchemaError("$schema", pointer, reason)
    return found

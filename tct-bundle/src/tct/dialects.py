"""The drafts of JSON Schema that `$schema` can name, and how each differs from draft-07.

A keyword that a draft does not define is skipped, as the draft requires. All other differences between the drafts
concern keywords that the compiler rejects in any draft.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from tct.errors import UnsupportedSchemaError
from tct.numbers import POINTED, WHOLE


@dataclass(frozen=True)
class Dialect:
    """A draft. The defaults are those of draft-07."""

    identifier: str = "$id"  # the keyword that gives a schema a URI
    skipped: frozenset[str] = frozenset()  # keywords of draft-07 that the draft does not define
    value_types: dict[str, tuple[type, ...]] = field(default_factory=dict)  # the Python types of a keyword's value
    ref_has_siblings: bool = False  # are keywords next to $ref enforced?
    may_be_boolean: frozenset[str] | None = None  # keywords whose schema may be true or false; None: all
    integers: tuple[int, ...] = (WHOLE, POINTED)  # the kinds of numbers (numbers.py) that are an "integer"

    def identifies(self, node: Any) -> bool:
        """Does this part of a schema have a URI of its own? References within it are relative to that URI."""
        if not isinstance(node, dict) or ("$ref" in node and not self.ref_has_siblings):
            return False
        identifier = node.get(self.identifier)  # "#name" does not change the URI
        return isinstance(identifier, str) and not identifier.startswith("#")

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
DRAFT_2020 = Dialect(skipped=frozenset(["additionalItems"]), value_types={"items": (dict, bool)}, ref_has_siblings=True)

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

"""Describe the places of a workflow in Markdown, with the words of its JSON schema.

>>> print(describe(("jobs", "build", "runs-on")).splitlines()[0])
**runs-on**: text, list or mapping
"""

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

from . import workflow_schema
from .rules.known import known_actions
from .rules.scope import Path

KINDS = {
    "string": "text",
    "number": "number",
    "integer": "number",
    "boolean": "true or false",
    "null": "nothing",
    "array": "list",
    "object": "mapping",
}


def describe(path: Path) -> str:
    """Return what the schema says about the value at a path: its kinds, description, words and page.

    The text is empty if the schema knows no such place, or says nothing about it.
    """
    schemas = _schemas_at(path)
    says = next((schema["description"].strip() for schema in schemas if "description" in schema), "")
    pages = [page for schema in schemas if (page := schema.get("$comment", "")).startswith("https://")]
    words = ", ".join(f"`{word}`" for word in words_at(path))
    paragraphs = [
        re.sub(r"\n(?!- )", "\n\n", says),  # Markdown joins lines, except those of a list
        words and f"Words: {words}",
        pages and f"[Documentation]({pages[0]})",
    ]
    if not any(paragraphs):
        return ""
    title = f"**{path[-1]}**" if path and isinstance(path[-1], str) else "item"
    return "\n\n".join(filter(None, [f"{title}: {_kinds(schemas)}".removesuffix(": "), *paragraphs]))


def describe_word(path: Path, word: str) -> str:
    """Return what the schema says about a word that could also be a key: `push` in `on: push` and `on: [push]`."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    return describe((*path, word)) if word in keys_at(path) else ""


def describe_action(uses: str) -> str:
    """Return the refs and inputs of an action that several owners use; an empty text for other actions."""
    action, known = uses.split("@")[0], known_actions()
    if action not in known.refs:
        return ""
    repository = "/".join(action.split("/")[:2])
    lists = {"Refs": named_refs(action), "Inputs": known.inputs.get(action, [])}
    lines = [f"{name} that several owners use: " + ", ".join(f"`{x}`" for x in of) for name, of in lists.items() if of]
    return "\n\n".join([f"[{action}](https://github.com/{repository})", *lines])


def named_refs(action: str) -> list[str]:
    """Return the tags and branches of an action that several owners use, the most frequent first."""
    return [ref for ref in known_actions().refs[action] if not re.fullmatch("[0-9a-f]{40}", ref)]  # hash of a commit


def keys_at(path: Path) -> list[str]:
    """Return the keys that the schema names for the object at a path, in its order."""
    return list(dict.fromkeys(key for schema in _schemas_at(path) for key in schema.get("properties", ())))


def words_at(path: Path) -> list[str]:
    """Return the texts that the schema names for a path, in its order."""
    words = (word for schema in _schemas_at(path) for word in [*schema.get("enum", ()), schema.get("const")])
    return list(dict.fromkeys(word for word in words if isinstance(word, str)))


def _kinds(schemas: tuple[dict[str, Any], ...]) -> str:
    kinds = list(dict.fromkeys(KINDS[kind] for schema in schemas for kind in _listed(schema.get("type", ()))))
    return " or ".join(filter(None, [", ".join(kinds[:-1]), *kinds[-1:]]))


@cache
def _schema() -> dict[str, Any]:
    return workflow_schema()


@lru_cache(maxsize=1024)
def _schemas_at(path: Path) -> tuple[dict[str, Any], ...]:
    """Return the schemas that say something about the value at a path, the nearest first."""
    if not path:
        return tuple(_parts(_schema()))
    children = (child for schema in _schemas_at(path[:-1]) for child in _children(schema, path[-1]))
    return tuple(part for child in children for part in _parts(child))


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema, and those that it refers to or combines. Keywords next to $ref describe, too."""
    if not isinstance(schema, dict):  # true, or no schema
        return
    yield schema
    if "$ref" in schema:
        target = _schema()
        for key in schema["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        yield from _parts(target)
    for keyword in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(keyword, ()):
            yield from _parts(part)
    for keyword in ("then", "else"):
        yield from _parts(schema.get(keyword))


def _children(schema: dict[str, Any], key: str | int) -> list[Any]:
    """Return the schemas that one schema has for a member or item."""
    if isinstance(key, int):
        return _listed(schema.get("items", ()))
    found = [child for pattern, child in schema.get("patternProperties", {}).items() if re.search(pattern, key)]
    if key in schema.get("properties", ()):
        found.insert(0, schema["properties"][key])
    return found or [schema.get("additionalProperties")]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]

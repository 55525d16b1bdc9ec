"""Compare completed workflows with the originals: is the next key, action and step after the cut the same?"""

import json
from collections.abc import Iterator

from tct.json_text import compact
from workflow_eval.samples import parse

PARTS = ("key", "action", "step")  # documents of another schema have keys only


def compare_continuations(text: str, completed: str, cut: int) -> dict:
    """Return for each of PARTS whether the next one after the cut is the same in a completion and in the workflow.

    The two texts share their first `cut` characters. The answer is None if the workflow has no such part after the cut.
    """
    value = parse(completed)
    expected = first_after(json.loads(text), cut)
    found = {} if value is None else first_after(value, cut)
    same = {name: found.get(name) == part for name, part in expected.items()}
    return same | {name: None for name in PARTS if name not in expected}


def first_after(value, cut: int) -> dict:
    """Return the first key and the first action that end after `cut` characters of a value's compact JSON text, and
    the first step that begins after them."""
    found = {}
    for kind, offset, part in locate_parts(value):
        if offset >= cut:
            found.setdefault(kind, part)
    return found


def locate_parts(value, path: tuple = (), offset: int = 0) -> Iterator[tuple[str, int, object]]:
    """Yield ("key", end, path), ("action", end, reference) and ("step", start, step) of all such parts of a value.

    Start and end are offsets in the value's compact JSON text, plus `offset`.
    """
    if path[-2:-1] == ("steps",) and isinstance(path[-1], int):
        yield "step", offset, value
    if isinstance(value, dict):
        for key, child in value.items():
            offset += 1 + len(compact(key))  # after a brace or comma
            yield "key", offset, (*path, key)
            offset += 1  # the colon
            yield from locate_parts(child, (*path, key), offset)
            offset += len(compact(child))
    elif isinstance(value, list):
        for i, child in enumerate(value):
            offset += 1
            yield from locate_parts(child, (*path, i), offset)
            offset += len(compact(child))
    elif path[-1:] == ("uses",):
        yield "action", offset + len(compact(value)), value


def summarize_completions(compared: list[dict], parts=PARTS) -> dict:
    """Return the figures of eval.json: for each part how many there were to predict, and how many are right."""
    results = {"workflows": len(compared)}
    for name in parts:
        answers = [answer[name] for answer in compared if answer[name] is not None]
        share = sum(answers) / len(answers) if answers else None
        results[name] = {"asked": len(answers), "right": sum(answers), "share": share}
    return results

"""Compare completed workflows with the originals."""

import json

from tct.json_text import compact
from workflow_eval.samples import parse

# -----------------------------------------------------------------------------
# completions: what comes first after the cut


def compare_continuations(text: str, completed: str, cut: int) -> dict:
    """Whether a completion has the same next key, action and step as the workflow, whose first `cut` characters it
    shares; None where the workflow has no further one."""
    real, value = json.loads(text), parse(completed)
    expected = first_after(real, cut)
    found = first_after(value, cut) if isinstance(value, dict) else {}
    return {name: found.get(name) == thing for name, thing in expected.items()} | {
        name: None for name in ("key", "action", "step") if name not in expected
    }


def first_after(value: dict, cut: int) -> dict:
    """The first key and the first action that end after so many characters of the compact JSON text of a value, and
    the first step that begins after them."""
    found = {}
    for kind, place, thing in parts(value):
        if place >= cut:
            found.setdefault(kind, thing)
    return found


def parts(value, path: tuple = (), at: int = 0):
    """The ("key", place, path) of each key of a value, ("action", place, reference) and ("step", place, step): places
    in its compact JSON text, of steps where they begin, of others where they end."""
    if path[-2:-1] == ("steps",) and isinstance(path[-1], int):
        yield "step", at, value
    if isinstance(value, dict):
        for key, child in value.items():
            at += 1 + len(compact(key))  # after a brace or comma
            yield "key", at, (*path, key)
            at += 1  # the colon
            yield from parts(child, (*path, key), at)
            at += len(compact(child))
    elif isinstance(value, list):
        for i, child in enumerate(value):
            at += 1
            yield from parts(child, (*path, i), at)
            at += len(compact(child))
    elif path[-1:] == ("uses",):
        yield "action", at + len(compact(value)), value


def summarize_completions(found: list[dict]) -> dict:
    results = {"workflows": len(found)}
    for name in ("key", "action", "step"):
        answers = [answer[name] for answer in found if answer[name] is not None]
        results[name] = {
            "asked": len(answers),
            "right": sum(answers),
            "share": sum(answers) / len(answers) if answers else None,
        }
    return results

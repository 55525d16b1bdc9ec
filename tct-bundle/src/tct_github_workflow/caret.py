"""What an editor shows at the caret without a model: a description of what is there, and the words that fit.

>>> found = suggest("on: push\\njobs:\\n  test:\\n    runs-on: win", 40)
>>> found.start, found.words[0].text
(37, 'ubuntu-latest')
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tct.partial_document import unused_marker

from .descriptions import describe, describe_action, describe_word, named_refs, words_at
from .rules.checks import Spot, check_container
from .rules.known import RUNNERS, known_actions
from .rules.places import Place, place_of
from .rules.scope import PENDING, OpenObject, Path, Workflow
from .rules.types import Fault
from .scalars import Scalar, scalars

_WORD = r"[\w./@-]*"
_BEFORE, _AFTER = re.compile(_WORD + r"\Z"), re.compile(_WORD)
_CLOSINGS = (": ", "", '"', "'")  # what may stand between the word at the caret and the rest of the text


@dataclass(frozen=True)
class Word:
    """A key or value that fits, with its description in Markdown."""

    text: str
    insert: str  # the text, after a key with its colon
    says: str


@dataclass(frozen=True)
class Suggestions:
    """The words that can replace the text from `start` to `end`, which is at the caret."""

    start: int
    end: int
    words: list[Word]
    is_value: bool  # the caret is at a value that stands after its key


def describe_at(text: str, offset: int) -> tuple[Scalar, str] | None:
    """Return the key or value at a place of a text, and its description. None if there is none."""
    for scalar in scalars(text):
        if scalar.start <= offset <= scalar.end and "\n" not in text[scalar.start : scalar.end]:
            if says := _describe(scalar):
                return scalar, says
    return None


def _describe(scalar: Scalar) -> str:
    if scalar.is_key:
        return describe(scalar.path)
    return describe_action(scalar.text) if scalar.path[-1:] == ("uses",) else describe_word(scalar.path, scalar.text)


def suggest(text: str, offset: int) -> Suggestions | None:
    """Return the keys and values that schema and rules allow at a place of a text. None in a comment.

    These are the keys that schema and rules name, the inputs of known actions, and values of which there are few.
    """
    start, end = _BEFORE.search(text, 0, offset).start(), _AFTER.match(text, offset).end()
    marker = unused_marker(text)
    readings = []
    for rest in (text[end:], ""):
        for closing in _CLOSINGS:
            found = list(scalars(text[:start] + marker + closing + rest))
            readings += [(scalar, found) for scalar in found if marker in scalar.text]
    if not readings:
        return None
    here, around = max(readings, key=lambda reading: (reading[0].text == marker, len(reading[1])))
    words = list(_words(here, around, has_colon=text.startswith(":", end))) if here.text == marker else []
    return Suggestions(start, end, words, is_value=not here.is_key and isinstance(here.path[-1], str))


def _words(here: Scalar, around: list[Scalar], has_colon: bool) -> Iterator[Word]:
    """Yield the words that fit at a scalar, given all scalars of its text."""
    if here.is_key:
        parent = here.path[:-1]
        keys = [scalar.text for scalar in around if scalar.is_key and scalar.path[:-1] == parent and scalar != here]
        for key in _keys(parent, keys, around):
            yield Word(key, key + ("" if has_colon else _colon(place_of((*parent, key)))), describe((*parent, key)))
        if keys or not (parent and isinstance(parent[-1], int)):
            return
        here = Scalar(parent, False, here.text, here.start, here.end)  # an item may also be a value
    for value in _values(here.path, around):
        yield Word(value, value, describe_word(here.path, value))


def _colon(place: Place | None) -> str:
    """Return a colon, and a blank if a value may follow in the same line."""
    return ": " if place and (place.template or place.literals - {"null"}) else ":"


def _keys(path: Path, present: list[str], around: list[Scalar]) -> list[str]:
    """Return the keys that the object at a path can get."""
    place = place_of(path)
    if not (place and place.takes("object")):
        return []
    names = list(place.members or ())
    if place.name == "jobs.*.steps.*.with":
        uses = next((scalar.text for scalar in around if scalar.path == (*path[:-1], "uses") and not scalar.is_key), "")
        names = known_actions().inputs.get(uses.split("@")[0], [])
    return [key for key in names if key not in present and _is_allowed(path, place, [*present, key])]


def _is_allowed(path: Path, place: Place, keys: list[str]) -> bool:
    """Can an object with these keys, and perhaps more, fulfil the rules?"""
    try:
        check_container(Spot(Workflow({}), path, place), OpenObject(dict.fromkeys(keys, PENDING)))
    except Fault:
        return False
    return True


def _values(path: Path, around: list[Scalar]) -> list[str]:
    """Return the values that may stand at a path, if they are few."""
    place = place_of(path)
    if not place:
        return []
    match place.name.split(".*"):
        case ["jobs", ".needs", *_]:
            jobs = [scalar.text for scalar in around if scalar.is_key and scalar.path[:-1] == ("jobs",)]
            return [job for job in jobs if job != path[1]]
        case ["jobs", ".runs-on" | ".runs-on.labels", *_]:
            return RUNNERS
        case ["jobs", ".uses"]:
            return known_actions().workflows
        case ["jobs", ".steps", ".uses"]:
            return [f"{action}@{ref}" for action in known_actions().refs for ref in named_refs(action)]
    booleans = ["true", "false"] if place.literals == {"boolean"} else []
    fault = place.format.fault if place.format else lambda word: ""
    return [word for word in words_at(path) if place.takes("string") and not fault(word)] + booleans

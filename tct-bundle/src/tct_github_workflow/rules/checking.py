"""Check a whole workflow: what breaks the rules, and where."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .checks import Spot, check_container, check_key, check_kind, check_scalar, kind_of
from .places import ROOT, Place, known_root
from .scope import Path, Workflow
from .types import Fault


@dataclass(frozen=True)
class Finding:
    """A rule that a workflow breaks."""

    path: Path  # of the value: keys and indices
    rule: str
    message: str  # one line

    @property
    def place(self) -> str:
        """The path in one line, such as jobs.build.steps.0.run."""
        return _one_line(".".join(map(str, self.path))) or "workflow"

    def __str__(self) -> str:
        return f"{self.place}: {self.message} [{self.rule}]"


def check(workflow: Any, known_actions: bool = False) -> list[Finding]:
    """Return what breaks the rules in a workflow that has been read. It need not be schema-valid.

    With `known_actions`, also what is not in the table of known.py.
    """
    root = known_root() if known_actions else ROOT
    return list(_value(Workflow(workflow), workflow, root, ()))


def _value(workflow: Workflow, value: Any, place: Place, path: Path) -> Iterator[Finding]:
    spot = Spot(workflow, path, place)
    if not isinstance(value, (dict, list)):
        yield from _faults(path, check_scalar, spot, value)
        return
    kind = kind_of(value)
    if not place.takes(kind):
        yield from _faults(path, check_kind, place, kind)
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _value(workflow, item, place.item, (*path, index))
    else:
        yield from _members(spot, value)
    yield from _faults(path, check_container, spot, value)


def _members(spot: Spot, value: dict[str, Any]) -> Iterator[Finding]:
    keys: list[str] = []
    for key, member in value.items():
        faults = list(_faults((*spot.path, key), check_key, spot, key, keys))
        yield from faults
        keys.append(key)
        if (below := spot.place.child(key)) is not None:
            yield from _value(spot.workflow, member, below, (*spot.path, key))


def _faults(path: Path, run, *arguments) -> Iterator[Finding]:
    try:
        run(*arguments)
    except Fault as fault:
        yield Finding(path, fault.rule, _one_line(str(fault)))


def _one_line(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines())

"""Find the keys and scalar values of a YAML text up to its first fault, for editors: their texts are seldom complete.

>>> for scalar in scalars("on: push\\njobs: {a: [}"):
...     print(scalar.path, scalar.is_key, scalar.text)
('on',) True on
('on',) False push
('jobs',) True jobs
('jobs', 'a') True a
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import yaml

from .rules.scope import Path


@dataclass(frozen=True)
class Scalar:
    """A key or a scalar value. `start` and `end` count characters."""

    path: Path  # of the value; a key has the path of its value
    is_key: bool
    text: str
    start: int
    end: int


def scalars(text: str) -> Iterator[Scalar]:
    """Yield the keys and scalar values in their order. Those after a fault of YAML are missing."""
    path: list[str | int | None] = []  # for each open container the key or index; None before a key
    with suppress(yaml.YAMLError):
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                path.append(None if isinstance(event, yaml.MappingStartEvent) else 0)
                continue
            if isinstance(event, yaml.CollectionEndEvent):
                path.pop()
            elif not isinstance(event, (yaml.ScalarEvent, yaml.AliasEvent)):
                continue
            is_key = bool(path) and path[-1] is None
            if isinstance(event, yaml.ScalarEvent):
                place = (*path[:-1], event.value) if is_key else tuple(path)
                yield Scalar(place, is_key, event.value, event.start_mark.index, event.end_mark.index)
            if path and isinstance(path[-1], int):
                path[-1] += 1
            elif path:
                path[-1] = getattr(event, "value", "") if is_key else None

"""JSON text: the one reader and the one writer of this project."""

import json
from collections.abc import Callable, Hashable
from typing import Any


class DuplicateKeys(dict):
    """What `read_json` returns in place of an object that has the key `repeated` more than once."""

    def __init__(self, members: list[tuple[str, Any]], repeated: str):
        super().__init__(members)
        self.repeated = repeated


def read_json(text: str, on_repeated: Callable = DuplicateKeys, parse_float: Callable | None = None) -> Any:
    """Parse JSON text. Reject NaN and infinities.

    An object that repeats a key becomes on_repeated(members, key), which may raise. By default it is marked, so that
    the encoder can report its JSON path. `parse_float` also reads NaN and infinities. Raises ValueError.
    """

    def to_object(members: list[tuple[str, Any]]) -> dict:
        value = dict(members)
        if len(value) == len(members):
            return value
        seen: set[str] = set()
        return on_repeated(members, next(key for key, _ in members if key in seen or seen.add(key)))

    constants = parse_float or _reject_constant
    try:
        return json.loads(text, object_pairs_hook=to_object, parse_float=parse_float, parse_constant=constants)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def compact(value: Any, sort_keys: bool = False) -> str:
    """Return compact JSON text. Keys keep their order unless sorted; no character is escaped without need.

    >>> compact({"b": "é", "a": [1, None]})
    '{"b":"é","a":[1,null]}'
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)


def canonical(value: Any) -> str:
    """Return compact JSON text with sorted keys: equal values have equal texts.

    >>> canonical({"run": "make", "name": "Build"})
    '{"name":"Build","run":"make"}'
    """
    return compact(value, sort_keys=True)


def comparable(value: Any) -> Hashable:
    """Return a Python value that equals that of another JSON value if JSON Schema calls the two equal.

    >>> comparable([1, {"a": None}]) == comparable([1.0, {"a": None}]), comparable(1) == comparable(True)
    (True, False)
    """
    if isinstance(value, dict):
        return frozenset((key, comparable(member)) for key, member in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(map(comparable, value))
    return (bool, value) if isinstance(value, bool) else value  # in Python True == 1


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")

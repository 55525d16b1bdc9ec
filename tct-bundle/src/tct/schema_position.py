"""Schema positions: numbers for where in the schema a state is, as an input for models.

A position combines the *path* of the innermost value with what is being read of the value. The path is the key of the
value, if the schema names the key, and the residuals of the value. Items have the key of their array.
"""

from functools import lru_cache

from tct.machine import TypeMachine
from tct.reachability import Residuals
from tct.regex import compile_pattern
from tct.state import (
    DONE,
    ArrayFrame,
    ComparedItemFrame,
    Frame,
    KeyFrame,
    MemberFrame,
    NumberFrame,
    ObjectFrame,
    State,
    TextFrame,
    ValueFrame,
)  # fmt: skip

READING: dict[type[Frame], str] = {
    ValueFrame: "value",
    TextFrame: "text",
    NumberFrame: "number",
    ArrayFrame: "array",
    ObjectFrame: "object",
    KeyFrame: "key",
}
_INDEX = {frame: index for index, frame in enumerate(READING)}

SchemaPath = tuple[str | None, Residuals]


class SchemaPositions:
    """The positions of one schema. Paths are numbered from the root outwards."""

    def __init__(self, machine: TypeMachine):
        self._reach = machine.reach
        self._paths: list[SchemaPath] = [(None, machine.root.residuals)]
        self._numbers: dict[SchemaPath, int] = {self._paths[0]: 0}
        # path -> a member's key, or the patterns that match it if the schema does not name it -> the member's path
        self._members: list[dict[str | frozenset[str], int]] = []
        self._patterns: list[tuple[str, ...]] = []  # path -> the patterns that a member's key may match
        self._items: list[list[int]] = []  # path -> paths of the items; the last is that of all items after it, too
        for key, residuals in self._paths:  # grows meanwhile
            of_object = machine.reach.specialise(residuals, "object")
            self._members.append(self._members_of(of_object))
            self._patterns.append(machine.reach.patterns(of_object))
            self._items.append(self._items_of(key, machine.reach.specialise(residuals, "array")))

    @property
    def n_positions(self) -> int:
        """The number of positions. All positions are below it."""
        return 1 + len(READING) * len(self._paths)

    def position(self, state: State, root: int = 0) -> int:
        """Return the position of a state. It is 0 after a document. `root` is the path of the outermost value."""
        if state is DONE:
            return 0
        outer = state.outer.outer if isinstance(state.frame, KeyFrame) else state.outer
        if isinstance(state.frame, ComparedItemFrame):
            return self.position(state.frame.inner, self._path_within(outer, root))
        return 1 + len(READING) * self._path_within(outer, root) + _INDEX[type(state.frame)]

    def describe(self, position: int) -> tuple[str | None, str]:
        """Return (key of the value if the schema names it, what is being read: a value of READING or "end")."""
        if not 0 <= position < self.n_positions:
            raise ValueError(f"schema position {position} does not exist: positions are below {self.n_positions}")
        if position == 0:
            return None, "end"
        path, reading = divmod(position - 1, len(READING))
        return self._paths[path][0], list(READING.values())[reading]

    def _path_within(self, outer: State | None, root: int) -> int:
        """Return the path of a value, given the state around it."""
        if outer is None:
            return root
        around, frame = self._path_within(outer.outer, root), outer.frame
        if isinstance(frame, MemberFrame):
            members, key = self._members[around], frame.key
            return members[key if key in members else _matching(self._patterns[around], key)]
        items = self._items[around]
        return items[min(frame.index, len(items) - 1)]

    def _members_of(self, residuals: Residuals) -> dict[str | frozenset[str], int]:
        reach = self._reach
        paths: dict[str | frozenset[str], int] = {
            name: self._number(name, reach.named_member(residuals, name).child) for name in reach.names(residuals)
        }
        for matching in reach.open_key_matches(residuals):
            paths[matching] = self._number(None, reach.member(residuals, None, matching).child)
        return paths

    def _items_of(self, key: str | None, residuals: Residuals) -> list[int]:
        seen, paths = set(), []
        while residuals not in seen:
            seen.add(residuals)
            transition = self._reach.item(residuals)
            paths.append(self._number(key, transition.child))
            residuals = transition.residuals_after((True,) * len(transition.child))
        return paths

    def _number(self, key: str | None, residuals: Residuals) -> int:
        if (key, residuals) not in self._numbers:
            self._numbers[key, residuals] = len(self._paths)
            self._paths.append((key, residuals))
        return self._numbers[key, residuals]


@lru_cache(maxsize=10_000)
def _matching(patterns: tuple[str, ...], key: str) -> frozenset[str]:
    return frozenset(regex for regex in patterns if compile_pattern(regex).matches(key))

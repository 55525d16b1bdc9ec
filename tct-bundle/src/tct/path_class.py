"""Numbers for the places of a document, for models that are told where they are.

The class of a place is its key, if the schema names it, and the goals of its value. Items have the key of their
array. A state's number combines the class of its innermost value with what is being read of it.
"""

from functools import lru_cache

from tct.machine import TypeMachine
from tct.reach import Goals
from tct.regex import compile_pattern
from tct.state import (
    DONE,
    ArrayFrame,
    Frame,
    KeyFrame,
    MemberFrame,
    NumberFrame,
    ObjectFrame,
    State,
    TextFrame,
    ValueFrame,
)  # fmt: skip

KINDS: tuple[type[Frame], ...] = (ValueFrame, TextFrame, NumberFrame, ArrayFrame, ObjectFrame, KeyFrame)
KIND_NAMES = ("value", "text", "number", "array", "object", "key")

PathClass = tuple[str | None, Goals]


class PathClasses:
    """The classes of all places that documents have, numbered from the root outwards."""

    def __init__(self, machine: TypeMachine):
        self._reach = machine.reach
        self._classes: list[PathClass] = [(None, machine.root.goals)]
        self._numbers: dict[PathClass, int] = {self._classes[0]: 0}
        # class -> a member's key, or the patterns that match it if the schema does not name it -> its class
        self._members: list[dict[str | frozenset[str], int]] = []
        self._patterns: list[tuple[str, ...]] = []  # class -> the patterns that a member's key may match
        self._items: list[list[int]] = []  # class -> classes of the items; the last stands for all after it
        for key, goals in self._classes:  # grows meanwhile
            typed = machine.reach.typed(goals, "object")
            self._members.append(self._members_of(typed))
            self._patterns.append(machine.reach.patterns(typed))
            self._items.append(self._items_of(key, goals))

    @property
    def n_states(self) -> int:
        """The numbers of states are below this."""
        return 1 + len(KINDS) * len(self._classes)

    def state_id(self, state: State) -> int:
        """The number of a state; 0 is that of a complete document."""
        if state is DONE:
            return 0
        outer = state.outer.outer if isinstance(state.frame, KeyFrame) else state.outer
        return 1 + len(KINDS) * self._class_of(outer) + KINDS.index(type(state.frame))

    def describe(self, state_id: int) -> tuple[str | None, str]:
        """(the key that the schema names the place by, or None; what is being read there, one of KIND_NAMES or "end")
        of a state's number."""
        if not 0 <= state_id < self.n_states:
            raise ValueError(f"there is no state {state_id}: they are below {self.n_states}")
        if state_id == 0:
            return None, "end"
        number, kind = divmod(state_id - 1, len(KINDS))
        return self._classes[number][0], KIND_NAMES[kind]

    def _class_of(self, outer: State | None) -> int:
        """The class of a value, given the state around it."""
        if outer is None:
            return 0
        around, frame = self._class_of(outer.outer), outer.frame
        if isinstance(frame, MemberFrame):
            members, key = self._members[around], frame.key
            return members[key if key in members else _matching(self._patterns[around], key)]
        items = self._items[around]
        return items[min(frame.index, len(items) - 1)]

    def _members_of(self, typed: Goals) -> dict[str | frozenset[str], int]:
        reach = self._reach
        classes: dict[str | frozenset[str], int] = {
            name: self._number(name, reach.named_member(typed, name).child) for name in reach.names(typed)
        }
        for matching in reach.open_key_vectors(typed):
            classes[matching] = self._number(None, reach.member(typed, None, matching).child)
        return classes

    def _items_of(self, key: str | None, goals: Goals) -> list[int]:
        typed, seen, classes = self._reach.typed(goals, "array"), set(), []
        while typed not in seen:
            seen.add(typed)
            step = self._reach.item(typed)
            classes.append(self._number(key, step.child))
            typed = step.after((True,) * len(step.child))
        return classes

    def _number(self, key: str | None, goals: Goals) -> int:
        if (key, goals) not in self._numbers:
            self._numbers[key, goals] = len(self._classes)
            self._classes.append((key, goals))
        return self._numbers[key, goals]


@lru_cache(maxsize=10_000)
def _matching(patterns: tuple[str, ...], key: str) -> frozenset[str]:
    return frozenset(regex for regex in patterns if compile_pattern(regex).matches(key))

"""Half-read documents as immutable states: what may come next, symbol by symbol.

A state is a stack of frames, linked from the innermost container outwards. A frame takes a symbol (`step`) or
refuses it; the frame around it goes on (`resume`) once the value within is complete. States share their outer
frames, so keeping, copying and going back cost nothing. A frame's `view` is what its next symbols depend on:
all of it but the keys that its object has, of which no two need have the same.
"""

from collections.abc import Hashable, Set
from dataclasses import dataclass
from typing import Optional

from tct.machine import MAX_DEPTH, ArrayState, Member, ObjectState, Place, TypeMachine
from tct.numbers import parse
from tct.symbols import (
    ARRAY,
    BYTE,
    END_ARRAY,
    END_NUMBER,
    END_OBJECT,
    END_STRING,
    FALSE,
    NULL,
    NUMBER,
    OBJECT,
    TRUE,
)  # fmt: skip
from tct.text import DEAD, TextMachine, Vector

NUMBER_SYMBOLS = frozenset(BYTE + byte for byte in b"0123456789+-.e")


class State:
    """The innermost frame, and the state of what surrounds it; `outer` is None around the root value."""

    __slots__ = ("frame", "outer", "view")

    def __init__(self, frame: "Frame", outer: Optional["State"]):
        self.frame, self.outer = frame, outer
        self.view = None  # put here by masks.py, once it has looked it up

    def step(self, symbol: int) -> Optional["State"]:
        """The state after one more symbol; None where the symbol is not allowed."""
        return self.frame.step(symbol, self.outer)

    def run(self, text: bytes) -> Optional["State"]:
        """The state after the bytes of a text; None where they are not allowed."""
        return self.frame.run(text, self.outer)


class Frame:
    """What all frames have in common. None is ever changed; to freeze them would double what they cost."""

    __slots__ = ()
    text: tuple[TextMachine, int] | None = None  # of the strings that may come next: automaton and its state
    view: Hashable = None

    def step(self, symbol: int, outer: State | None) -> State | None:
        """The state after `symbol`, within `outer`; None where the symbol is not allowed."""
        raise NotImplementedError

    def run(self, text: bytes, outer: State | None) -> State | None:
        """The state after the bytes of a text, within `outer`; None where they are not allowed."""
        state: State | None = State(self, outer)
        for byte in text:
            state = state.frame.step(BYTE + byte, state.outer)
            if state is None:
                return None
        return state


def start(machine: TypeMachine) -> State:
    """The state before the first symbol of a document."""
    return enter(machine.root, MAX_DEPTH, None)


def enter(place: Place, room: int, outer: State | None, in_array: bool = False) -> State:
    """The state in which a value at a place is about to be read."""
    if place.is_object:
        return State(ObjectFrame(place.object, frozenset(), frozenset(), room), outer)
    if place.is_array and not in_array:
        return State(ArrayFrame(place.array, 0, room), outer)
    if place.is_number:
        return State(NumberFrame(place, ""), outer)
    return State(ValueFrame(place, room), outer)


def finish(vector: Vector, outer: State | None) -> State:
    """The state after a value that is complete."""
    return DONE if outer is None else State(outer.frame.resume(vector), outer.outer)


class DoneFrame(Frame):
    """Around a complete document: nothing may follow."""

    def step(self, symbol: int, outer: State | None) -> None:
        return None


DONE = State(DoneFrame(), None)


@dataclass(slots=True, eq=False)
class ValueFrame(Frame):
    """Before a value of which the type is open."""

    place: Place
    room: int

    @property
    def view(self) -> Hashable:
        return self.place, self.room

    @property
    def text(self) -> tuple[TextMachine, int] | None:
        return (self.place.text, 0) if self.place.has_free_text else None

    def step(self, symbol: int, outer: State | None) -> State | None:
        place = self.place
        if symbol <= END_STRING:
            return TextFrame(place.text, 0).step(symbol, outer) if place.has_free_text else None
        if symbol in place.choice_vectors:
            return finish(place.choice_vectors[symbol], outer)
        if symbol in (TRUE, FALSE):
            vector = place.booleans.get(symbol == TRUE)
            return finish(vector, outer) if vector is not None else None
        if symbol == NULL and "null" in place.types:
            return finish(place.null, outer)
        if symbol == NUMBER and place.has_free_numbers:
            return State(NumberFrame(place, ""), outer)
        if symbol == OBJECT and "object" in place.types_within(self.room):
            return State(ObjectFrame(place.object, frozenset(), frozenset(), self.room), outer)
        if symbol == ARRAY and "array" in place.types_within(self.room):
            return State(ArrayFrame(place.array, 0, self.room), outer)
        return None

    def run(self, text: bytes, outer: State | None) -> State | None:
        return TextFrame(self.place.text, 0).run(text, outer) if self.place.has_free_text else None


@dataclass(slots=True, eq=False)
class TextFrame(Frame):
    """Within a string."""

    machine: TextMachine
    at: int

    @property
    def view(self) -> Hashable:
        return self.machine, self.at

    text = view

    def step(self, symbol: int, outer: State | None) -> State | None:
        if symbol == END_STRING:
            vector = self.machine.ends[self.at]
            return finish(vector, outer) if vector is not None else None
        at = self.machine.next[self.at][symbol - BYTE] if BYTE <= symbol < END_STRING else DEAD
        return State(TextFrame(self.machine, at), outer) if at != DEAD else None

    def run(self, text: bytes, outer: State | None) -> State | None:
        at = self.machine.run(text, self.at)
        return State(TextFrame(self.machine, at), outer) if at != DEAD else None


@dataclass(slots=True, eq=False)
class NumberFrame(Frame):
    """Within a number; `spelled` is what there is of it."""

    place: Place
    spelled: str

    @property
    def view(self) -> Hashable:
        return self.place, self.spelled

    def step(self, symbol: int, outer: State | None) -> State | None:
        if symbol == END_NUMBER:
            number = parse(self.spelled)
            vector = self.place.number(number) if number is not None else None
            return finish(vector, outer) if vector is not None else None
        if symbol not in NUMBER_SYMBOLS:
            return None
        spelled = self.spelled + chr(symbol - BYTE)
        fits = self.place.number_may_continue(spelled)
        return State(NumberFrame(self.place, spelled), outer) if fits else None


@dataclass(slots=True, eq=False)
class ObjectFrame(Frame):
    """Within an object, before a key or the end."""

    state: ObjectState
    used: Set[str]  # the keys that were written by a symbol of their own
    keys: Set[bytes]  # all keys
    room: int

    @property
    def view(self) -> Hashable:
        return self.state, self.used, self.room

    @property
    def text(self) -> tuple[TextMachine, int] | None:
        keys = self.state.open_keys(self.room)
        return (keys, 0) if keys else None

    def step(self, symbol: int, outer: State | None) -> State | None:
        if symbol == END_OBJECT:
            return finish(self.state.end, outer) if self.state.end is not None else None
        if symbol <= END_STRING:
            return self.begin_key(outer).step(symbol) if self.text else None
        key = self.state.machine.symbols.name_of(symbol)
        if key not in self.state.names or key in self.used:
            return None
        return self._enter(key, self.used | {key}, outer)

    def run(self, text: bytes, outer: State | None) -> State | None:
        return self.begin_key(outer).run(text) if self.text else None

    def begin_key(self, outer: State | None) -> State:
        """The state before the first byte of a key that is spelled out."""
        return State(KeyFrame(*self.text, b""), State(self, outer))

    def end_key(self, key: bytes, outer: State | None) -> State | None:
        """The state before the value of a key that has been spelled out."""
        return self._enter(key.decode(), self.used, outer)

    def _enter(self, key: str, used: Set[str], outer: State | None) -> State | None:
        member = self.state.member(key, self.room)
        if member is None:
            return None
        frame = MemberFrame(member, key, used, self.keys | {key.encode()}, self.room)
        return enter(member.place, self.room - 1, State(frame, outer))


@dataclass(slots=True, eq=False)
class KeyFrame(Frame):
    """Within a key that is spelled out, its object around it; `spelled` is what there is of it."""

    machine: TextMachine
    at: int
    spelled: bytes

    @property
    def view(self) -> Hashable:
        return self.machine, self.at

    text = view

    def step(self, symbol: int, outer: State) -> State | None:
        object: ObjectFrame = outer.frame
        if symbol == END_STRING:
            fits = self.machine.ends[self.at] is not None and self.spelled not in object.keys
            return object.end_key(self.spelled, outer.outer) if fits else None
        return self.run(bytes([symbol - BYTE]), outer) if BYTE <= symbol < END_STRING else None

    def run(self, text: bytes, outer: State) -> State | None:
        at, spelled = self.machine.run(text, self.at), self.spelled + text
        if at == DEAD:
            return None
        if not self.machine.endless[at]:  # are all keys that begin so taken?
            taken = outer.frame.keys
            if all(spelled + end in taken for end in self.machine.language(at)):
                return None
        return State(KeyFrame(self.machine, at, spelled), outer)


@dataclass(slots=True, eq=False)
class MemberFrame(Frame):
    """An object while the value of a member is being read; the member's key is among the used ones already."""

    member: Member
    key: str
    used: Set[str]
    keys: Set[bytes]
    room: int

    @property
    def view(self) -> Hashable:
        return self.member, self.used, self.room

    def resume(self, vector: Vector) -> ObjectFrame:
        return ObjectFrame(self.member.after[vector], self.used, self.keys, self.room)


@dataclass(slots=True, eq=False)
class ArrayFrame(Frame):
    """Within an array, before an item or the end."""

    state: ArrayState
    index: int  # of the next item
    room: int

    @property
    def view(self) -> Hashable:
        return self.state, self.room

    @property
    def text(self) -> tuple[TextMachine, int] | None:
        item = self._enter(None)
        return item.frame.text if item else None

    def step(self, symbol: int, outer: State | None) -> State | None:
        if symbol == END_ARRAY:
            return finish(self.state.end, outer) if self.state.end is not None else None
        item = self._enter(outer)
        return item.step(symbol) if item else None

    def run(self, text: bytes, outer: State | None) -> State | None:
        item = self._enter(outer)
        return item.run(text) if item else None

    def _enter(self, outer: State | None) -> State | None:
        """The state before the next item."""
        member = self.state.item(self.room)
        if member is None:
            return None
        around = State(ItemFrame(member, self.index, self.room), outer)
        return enter(member.place, self.room - 1, around, in_array=True)


@dataclass(slots=True, eq=False)
class ItemFrame(Frame):
    """An array while an item is being read."""

    member: Member
    index: int
    room: int

    @property
    def view(self) -> Hashable:
        return self.member, self.room

    def resume(self, vector: Vector) -> ArrayFrame:
        return ArrayFrame(self.member.after[vector], self.index + 1, self.room)

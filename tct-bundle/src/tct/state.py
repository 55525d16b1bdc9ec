"""Half-read documents as immutable states: what may come next, symbol by symbol.

A state is a stack of frames, linked from the innermost container outwards. A frame takes a symbol (`step`) or
refuses it; the frame around it goes on (`resume`) once the value within is complete. States share their outer
frames, and frames compare by value: keeping, copying and going back cost nothing, and what is computed for a
frame holds wherever an equal one comes up.
"""

from dataclasses import dataclass
from typing import NamedTuple, Optional, Protocol

from tct.machine import MAX_DEPTH, ArrayState, Member, ObjectState, Place, TypeMachine
from tct.numbers import may_continue, parse
from tct.symbols import (
    ARRAY, BYTE, END_ARRAY, END_NUMBER, END_OBJECT, END_STRING, FALSE, NULL, NUMBER, OBJECT, TRUE,
)  # fmt: skip
from tct.text import DEAD, TextMachine, Vector

NUMBER_SYMBOLS = frozenset(BYTE + byte for byte in b"0123456789+-.e")


class Frame(Protocol):
    def step(self, symbol: int, outer: Optional["State"]) -> Optional["State"]:
        """The state after `symbol`, within `outer`; None where the symbol is not allowed."""


class State(NamedTuple):
    """The innermost frame, and the state of what surrounds it; `outer` is None around the root value."""

    frame: Frame
    outer: Optional["State"]

    def step(self, symbol: int) -> Optional["State"]:
        """The state after one more symbol; None where the symbol is not allowed."""
        return self.frame.step(symbol, self.outer)


def start(machine: TypeMachine) -> State:
    """The state before the first symbol of a document."""
    return enter(machine.root, MAX_DEPTH, None)


def enter(place: Place, room: int, outer: State | None, in_array: bool = False) -> State:
    """The state in which a value at a place is about to be read."""
    if place.is_object:
        return State(ObjectFrame(place.object, frozenset(), room), outer)
    if place.is_array and not in_array:
        return State(ArrayFrame(place.array, room), outer)
    if place.is_number:
        return State(NumberFrame(place, ""), outer)
    return State(ValueFrame(place, room), outer)


def finish(vector: Vector, outer: State | None) -> State:
    """The state after a value that is complete."""
    return DONE if outer is None else State(outer.frame.resume(vector), outer.outer)


class DoneFrame:
    """Around a complete document: nothing may follow."""

    def step(self, symbol: int, outer: State | None) -> None:
        return None


DONE = State(DoneFrame(), None)


@dataclass(frozen=True, slots=True)
class ValueFrame:
    """Before a value of which the type is open."""

    place: Place
    room: int

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
            return State(ObjectFrame(place.object, frozenset(), self.room), outer)
        if symbol == ARRAY and "array" in place.types_within(self.room):
            return State(ArrayFrame(place.array, self.room), outer)
        return None


@dataclass(frozen=True, slots=True)
class TextFrame:
    """Within a string."""

    machine: TextMachine
    at: int

    def step(self, symbol: int, outer: State | None) -> State | None:
        if symbol == END_STRING:
            vector = self.machine.ends[self.at]
            return finish(vector, outer) if vector is not None else None
        at = self.machine.next[self.at][symbol - BYTE] if BYTE <= symbol < END_STRING else DEAD
        return State(TextFrame(self.machine, at), outer) if at != DEAD else None


@dataclass(frozen=True, slots=True)
class NumberFrame:
    """Within a number; `text` is its spelling so far."""

    place: Place
    text: str

    def step(self, symbol: int, outer: State | None) -> State | None:
        if symbol == END_NUMBER:
            number = parse(self.text)
            vector = self.place.number(number) if number is not None else None
            return finish(vector, outer) if vector is not None else None
        if symbol not in NUMBER_SYMBOLS:
            return None
        text = self.text + chr(symbol - BYTE)
        return State(NumberFrame(self.place, text), outer) if may_continue(text) else None


@dataclass(frozen=True, slots=True)
class ObjectFrame:
    """Within an object, before a key or the end."""

    state: ObjectState
    used: frozenset[str]
    room: int

    def step(self, symbol: int, outer: State | None) -> State | None:
        if symbol == END_OBJECT:
            return finish(self.state.end, outer) if self.state.end is not None else None
        if symbol <= END_STRING:
            machine = self.state.open_keys(self.used, self.room)
            return KeyFrame(machine, 0, b"").step(symbol, State(self, outer)) if machine else None
        key = self.state.machine.symbols.name_of(symbol)
        return self.enter_member(key, outer) if key in self.state.names else None

    def enter_member(self, key: str, outer: State | None) -> State | None:
        member = self.state.member(key, self.used, self.room) if key not in self.used else None
        if member is None:
            return None
        return enter(member.place, self.room - 1, State(MemberFrame(self, member, key), outer))

    def is_taken(self, key: bytes) -> bool:
        """Is this no key to be spelled: has the object one like it, or does a symbol stand for it?"""
        return key.decode() in self.used or key.decode() in self.state.names


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """Within a key that is spelled out, its object around it; `text` is its spelling so far."""

    machine: TextMachine
    at: int
    text: bytes

    def step(self, symbol: int, outer: State) -> State | None:
        object: ObjectFrame = outer.frame
        if symbol == END_STRING:
            if self.machine.ends[self.at] is None or object.is_taken(self.text):
                return None
            return object.enter_member(self.text.decode(), outer.outer)
        at = self.machine.next[self.at][symbol - BYTE] if BYTE <= symbol < END_STRING else DEAD
        if at == DEAD:
            return None
        text = self.text + bytes([symbol - BYTE])
        if not self.machine.endless[at] and all(
            object.is_taken(text + end) for end in self.machine.language(at)
        ):
            return None
        return State(KeyFrame(self.machine, at, text), outer)


@dataclass(frozen=True, slots=True)
class MemberFrame:
    """An object while the value of `key` is being read."""

    object: ObjectFrame
    member: Member
    key: str

    def resume(self, vector: Vector) -> ObjectFrame:
        return ObjectFrame(self.member.after[vector], self.object.used | {self.key}, self.object.room)


@dataclass(frozen=True, slots=True)
class ArrayFrame:
    """Within an array, before an item or the end."""

    state: ArrayState
    room: int

    def step(self, symbol: int, outer: State | None) -> State | None:
        if symbol == END_ARRAY:
            return finish(self.state.end, outer) if self.state.end is not None else None
        member = self.state.item(self.room)
        if member is None:
            return None
        return enter(member.place, self.room - 1, State(ItemFrame(member, self.room), outer), True).step(
            symbol
        )


@dataclass(frozen=True, slots=True)
class ItemFrame:
    """An array while an item is being read."""

    member: Member
    room: int

    def resume(self, vector: Vector) -> ArrayFrame:
        return ArrayFrame(self.member.after[vector], self.room)

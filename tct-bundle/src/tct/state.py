"""Half-read documents as immutable states: which symbol may come next.

A state is a stack of frames, linked from the innermost container outwards. `step` of a frame accepts or rejects a
symbol. `resume` of the frame around it continues once the inner value is complete. States share their outer frames,
so it costs nothing to keep, copy or restore a state. The `view` of a frame is all that its next symbols depend on,
except the keys that its object has.
"""

from collections.abc import Hashable, Set
from dataclasses import dataclass
from typing import Optional

from tct.codec import Decoder
from tct.machine import MAX_DEPTH, ArrayNode, Member, ObjectNode, TypeMachine, ValueNode
from tct.numbers import parse
from tct.symbols import END_ARRAY, END_NUMBER, END_OBJECT, END_STRING, FIRST_BYTE, text_symbols, to_chars
from tct.text import DEAD, Outcome, TextMachine

NUMBER_SYMBOLS = frozenset(FIRST_BYTE + byte for byte in b"0123456789+-.e")
_NO_KEYS = frozenset()


class State:
    """The innermost frame, and the state around it. `outer` is None for the root value."""

    __slots__ = ("frame", "mask_cache", "outer")

    def __init__(self, frame: "Frame", outer: Optional["State"]):
        self.frame, self.outer = frame, outer
        self.mask_cache = None  # set by masks.py

    def step(self, symbol: int) -> Optional["State"]:
        """Return the state after one more symbol, or None if it is not allowed."""
        return self.frame.step(symbol, self.outer)

    def run(self, text: bytes) -> Optional["State"]:
        """Return the state after the bytes of a text, or None if they are not allowed."""
        return self.frame.run(text, self.outer)


class Frame:
    """The base of all frames. Frames never change. They are not frozen because that would double their cost."""

    __slots__ = ()
    text: tuple[TextMachine, int] | None = None  # of the strings that may come next: automaton and its state
    is_number = False  # may the characters of a number come next, without an opening symbol?
    view: Hashable = None

    def step(self, symbol: int, outer: State | None) -> State | None:
        """Return the state after `symbol`, within `outer`, or None if the symbol is not allowed."""
        raise NotImplementedError

    def run(self, text: bytes, outer: State | None) -> State | None:
        """Return the state after the bytes of a text, within `outer`, or None if they are not allowed."""
        state: State | None = State(self, outer)
        for byte in text:
            state = state.frame.step(FIRST_BYTE + byte, state.outer)
            if state is None:
                return None
        return state


def start(machine: TypeMachine) -> State:
    """Return the state before the first symbol of a document."""
    return enter(machine.root, MAX_DEPTH, None)


def enter(node: ValueNode, depth_left: int, outer: State | None) -> State:
    """Return the state before the first symbol of a value."""
    type = node.implied_type
    return State(ValueFrame(node, depth_left), outer) if type is None else _open(node, type, depth_left, outer)


def finish(outcome: Outcome, outer: State | None) -> State:
    """Return the state after a complete value."""
    return DONE if outer is None else State(outer.frame.resume(outcome), outer.outer)


def _open(node: ValueNode, type: str, depth_left: int, outer: State | None) -> State:
    """Return the state at the start of an object, array or number."""
    if type == "object":
        return State(ObjectFrame(node.object, _NO_KEYS, _NO_KEYS, depth_left), outer)
    return State(ArrayFrame(node.array, 0, depth_left) if type == "array" else NumberFrame(node, ""), outer)


class DoneFrame(Frame):
    """After a complete document. No symbol may follow."""

    def step(self, symbol: int, outer: State | None) -> None:
        return None


DONE = State(DoneFrame(), None)


class FinishedFrame(DoneFrame):
    """After a complete value that is read on its own. `outcome` is that of the value."""

    def __init__(self, outcome: Outcome):
        self.outcome = outcome


class OutsideFrame(Frame):
    """What surrounds a value that is read on its own."""

    def resume(self, outcome: Outcome) -> FinishedFrame:
        return FinishedFrame(outcome)


OUTSIDE = State(OutsideFrame(), None)


@dataclass(slots=True, eq=False)
class ValueFrame(Frame):
    """Before a value whose type is open."""

    node: ValueNode
    depth_left: int

    @property
    def view(self) -> Hashable:
        return self.node, self.depth_left

    @property
    def text(self) -> tuple[TextMachine, int] | None:
        return (self.node.text, 0) if self.node.has_free_text else None

    def step(self, symbol: int, outer: State | None) -> State | None:
        node = self.node
        if symbol <= END_STRING:
            return begin_text(node.text).step(symbol, outer) if node.has_free_text else None
        opening = node.openings.get(symbol)
        if opening is None:
            return None
        type = opening.follows
        if type is None:
            return finish(opening.outcome, outer)
        return _open(node, type, self.depth_left, outer) if type in node.types_within(self.depth_left) else None

    def run(self, text: bytes, outer: State | None) -> State | None:
        return begin_text(self.node.text).run(text, outer) if self.node.has_free_text else None


@dataclass(slots=True, eq=False)
class TextFrame(Frame):
    """Within a string. `left` is how many characters may follow if the machine has a limit."""

    machine: TextMachine
    at: int
    left: int | None

    @property
    def view(self) -> Hashable:
        return self.machine, self.at

    text = view

    def step(self, symbol: int, outer: State | None) -> State | None:
        if symbol == END_STRING:
            outcome = self.machine.ends[self.at]
            return finish(outcome, outer) if outcome is not None else None
        if not FIRST_BYTE <= symbol < END_STRING:
            return None
        byte, left = symbol - FIRST_BYTE, self.left
        is_first = not 0x80 <= byte < 0xC0  # of a character
        at = self.machine.next[self.at][byte]
        if at != DEAD and left == 0 and is_first:
            return TextFrame(self.machine.beyond, 0, None).step(symbol, outer) if self.machine.beyond else None
        return self._moved(at, None if left is None else left - is_first, outer)

    def run(self, text: bytes, outer: State | None) -> State | None:
        if self.left is None:
            return self._moved(self.machine.run(text, self.at), None, outer)
        if self.left > len(text):
            n_characters = sum(not 0x80 <= byte < 0xC0 for byte in text)
            return self._moved(self.machine.run(text, self.at), self.left - n_characters, outer)
        return Frame.run(self, text, outer)

    def _moved(self, at: int, left: int | None, outer: State | None) -> State | None:
        fits = at != DEAD and (left is None or left >= self.machine.n_needed[at] or self.machine.beyond is not None)
        return State(TextFrame(self.machine, at, left), outer) if fits else None


def begin_text(machine: TextMachine) -> TextFrame:
    """Return the frame of a string that begins."""
    return TextFrame(machine, 0, machine.limit)


@dataclass(slots=True, eq=False)
class NumberFrame(Frame):
    """Within a number. `spelled` is its text so far."""

    node: ValueNode
    spelled: str
    is_number = True

    @property
    def view(self) -> Hashable:
        return self.node, self.spelled

    def step(self, symbol: int, outer: State | None) -> State | None:
        if symbol == END_NUMBER:
            number = parse(self.spelled)
            outcome = self.node.number(number) if number is not None else None
            return finish(outcome, outer) if outcome is not None else None
        if symbol not in NUMBER_SYMBOLS:
            return None
        spelled = self.spelled + chr(symbol - FIRST_BYTE)
        fits = self.node.number_may_continue(spelled)
        return State(NumberFrame(self.node, spelled), outer) if fits else None


@dataclass(slots=True, eq=False)
class ObjectFrame(Frame):
    """Within an object, before a key or the end."""

    node: ObjectNode
    used: Set[str]  # the keys that were given by a symbol of their own
    keys: Set[bytes]  # all keys
    depth_left: int

    @property
    def view(self) -> Hashable:
        return self.node, self.used, self.depth_left

    @property
    def text(self) -> tuple[TextMachine, int] | None:
        keys = self.node.open_keys(self.depth_left)
        return (keys, 0) if keys else None

    def step(self, symbol: int, outer: State | None) -> State | None:
        if symbol == END_OBJECT:
            return finish(self.node.end, outer) if self.node.end is not None else None
        if symbol <= END_STRING:
            return self.begin_key(outer).step(symbol) if self.text else None
        key = self.node.machine.symbols.name_of(symbol)
        if key not in self.node.names or key in self.used:
            return None
        return self._enter(key, self.used | {key}, outer)

    def run(self, text: bytes, outer: State | None) -> State | None:
        return self.begin_key(outer).run(text) if self.text else None

    def begin_key(self, outer: State | None) -> State:
        """Return the state before the first byte of a key that is spelled out."""
        return State(KeyFrame(*self.text, b""), State(self, outer))

    def end_key(self, key: bytes, outer: State | None) -> State | None:
        """Return the state before the value of a key that has been spelled out."""
        return self._enter(key.decode(), self.used, outer)

    def _enter(self, key: str, used: Set[str], outer: State | None) -> State | None:
        member = self.node.member(key, self.depth_left)
        if member is None:
            return None
        frame = MemberFrame(member, key, used, self.keys | {key.encode()}, self.depth_left)
        return enter(member.node, self.depth_left - 1, State(frame, outer))


@dataclass(slots=True, eq=False)
class KeyFrame(Frame):
    """Within a key that is spelled out. Its object is the frame around it. `spelled` is the key so far."""

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
        return self.run(bytes([symbol - FIRST_BYTE]), outer) if FIRST_BYTE <= symbol < END_STRING else None

    def run(self, text: bytes, outer: State) -> State | None:
        at, spelled = self.machine.run(text, self.at), self.spelled + text
        if at == DEAD:
            return None
        if not self.machine.is_infinite[at]:  # does the object have all keys that start so?
            taken = outer.frame.keys
            if all(spelled + end in taken for end in self.machine.language(at)):
                return None
        return State(KeyFrame(self.machine, at, spelled), outer)


@dataclass(slots=True, eq=False)
class MemberFrame(Frame):
    """An object while the value of a member is read. The key of the member is among the used ones already."""

    member: Member
    key: str
    used: Set[str]
    keys: Set[bytes]
    depth_left: int

    @property
    def view(self) -> Hashable:
        return self.member, self.used, self.depth_left

    def resume(self, outcome: Outcome) -> ObjectFrame:
        return ObjectFrame(self.member.after[outcome], self.used, self.keys, self.depth_left)


@dataclass(slots=True, eq=False)
class ArrayFrame(Frame):
    """Within an array, before an item or the end.

    If its items are compared, `earlier` are those that it has (see `comparable`), and `spelled` their symbols.
    """

    node: ArrayNode
    index: int  # of the next item
    depth_left: int
    earlier: Set[Hashable] = frozenset()
    spelled: Set[tuple[int, ...]] = frozenset()

    @property
    def view(self) -> Hashable:
        return self.node, self.depth_left, self.earlier

    @property
    def text(self) -> tuple[TextMachine, int] | None:
        item = self.enter_item(None)
        return item.frame.text if item else None

    @property
    def is_number(self) -> bool:
        item = self.enter_item(None)
        return item is not None and item.frame.is_number

    def step(self, symbol: int, outer: State | None) -> State | None:
        if symbol == END_ARRAY:
            return finish(self.node.end, outer) if self.node.end is not None else None
        item = self.enter_item(outer)
        return item.step(symbol) if item else None

    def run(self, text: bytes, outer: State | None) -> State | None:
        item = self.enter_item(outer)
        return item.run(text) if item else None

    def enter_item(self, outer: State | None) -> State | None:
        """Return the state before the next item."""
        member = self.node.item(self.depth_left)
        if member is None:
            return None
        if self.node.compares_items:
            around = State(ComparedItemStart(member, self.index, self.depth_left), None)
            return State(ComparedItemFrame(self, member, enter(member.node, self.depth_left - 1, around), ()), outer)
        return enter(member.node, self.depth_left - 1, State(ItemFrame(member, self.index, self.depth_left), outer))


@dataclass(slots=True, eq=False)
class ItemFrame(Frame):
    """An array while an item is read."""

    member: Member
    index: int
    depth_left: int

    @property
    def view(self) -> Hashable:
        return self.member, self.depth_left

    def resume(self, outcome: Outcome) -> ArrayFrame:
        return ArrayFrame(self.member.after[outcome], self.index + 1, self.depth_left)


class ComparedItemStart(ItemFrame):
    """What surrounds an item that is read on its own."""

    def resume(self, outcome: Outcome) -> FinishedFrame:
        return FinishedFrame(outcome)


@dataclass(eq=False)
class ComparedItemFrame(Frame):
    """An array while an item is read that is compared with earlier ones. It may differ from them only at its end.

    So it may have begun in a way that leads to earlier items only: see completion.py. `inner` is the state within the
    item, and `symbols` are those of the item so far.
    """

    array: ArrayFrame
    member: Member
    inner: State
    symbols: tuple[int, ...]

    @property
    def view(self) -> Hashable:
        return self.array.view, self.symbols

    @property
    def text(self) -> tuple[TextMachine, int] | None:
        return self.inner.frame.text

    @property
    def is_number(self) -> bool:
        return self.inner.frame.is_number

    def step(self, symbol: int, outer: State | None) -> State | None:
        return self._then(self.inner.step(symbol), (symbol,), outer)

    def run(self, text: bytes, outer: State | None) -> State | None:
        return self._then(self.inner.run(text), tuple(text_symbols(text)), outer)

    def _then(self, inner: State | None, symbols: tuple[int, ...], outer: State | None) -> State | None:
        if inner is None:
            return None
        symbols = self.symbols + symbols
        if not isinstance(inner.frame, FinishedFrame):
            return State(ComparedItemFrame(self.array, self.member, inner, symbols), outer)
        array = self.array_after(symbols, inner.frame.outcome)
        return State(array, outer) if array else None

    def array_after(self, symbols: tuple[int, ...], outcome: Outcome) -> ArrayFrame | None:
        """Return the array after an item with these symbols, or None if the item may not be one of the array."""
        array, earlier = self.array, set(self.array.earlier)
        value, _ = Decoder(array.node.machine, to_chars(symbols)).value(self.member.node, array.depth_left - 1)
        node = array.node.after_item(self.member, outcome, value, earlier)
        spelled = array.spelled | {symbols}
        return ArrayFrame(node, array.index + 1, array.depth_left, frozenset(earlier), spelled) if node else None

"""The way to finish: symbols that complete a half-read document with little more than the schema asks for.

Values are taken from those of the least depth, so that the search goes down a level of containers at each
call and ends for recursive schemas too. Endings are remembered, and so never changed once made.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import chain

from tct.machine import ArrayState, Member, ObjectState, Place
from tct.state import DONE, ArrayFrame, KeyFrame, NumberFrame, ObjectFrame, State, TextFrame
from tct.symbols import (
    ARRAY,
    END_ARRAY,
    END_NUMBER,
    END_OBJECT,
    END_STRING,
    FALSE,
    NULL,
    NUMBER,
    OBJECT,
    TRUE,
    text_symbols,
)  # fmt: skip
from tct.text import DEAD, TextMachine

PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ${}"
BYTES = PLAIN + bytes(sorted(set(range(256)) - set(PLAIN)))  # in the order of preference

Ending = list[int]
_remember = lru_cache(maxsize=50_000)


def closing_symbols(state: State) -> Ending:
    """Symbols that complete the document from here; empty where it is complete."""
    symbols: Ending = []
    while state is not DONE:
        ending = _of_frame(state)
        symbols += ending
        for symbol in ending:
            state = state.step(symbol)
    return symbols


def _of_frame(state: State) -> Ending:
    """Symbols that bring the innermost frame to its end, or from a key to its value."""
    frame = state.frame
    if isinstance(frame, TextFrame):
        return _spelled(_text(frame.machine, frame.at))
    if isinstance(frame, KeyFrame):
        return _spelled(_key(frame.machine, frame.at, lambda end: frame.spelled + end in state.outer.frame.keys))
    if isinstance(frame, NumberFrame):
        return _number(frame.place, frame.spelled)
    if isinstance(frame, ObjectFrame):
        return _members(frame.state, frozenset(map(bytes.decode, frame.keys)), frame.room)
    if isinstance(frame, ArrayFrame):
        return _items(frame.state, frame.room)
    return _value(frame.place)


@_remember
def _value(place: Place, in_array: bool = False) -> Ending:
    """A short one of the flattest values for a place."""
    room = place.least_depth
    types = place.types_within(room)
    options: list[Ending] = [[symbol] for symbol in place.choice_vectors]
    if "null" in types:
        options.append([NULL])
    if "boolean" in types:
        options += [[TRUE if value else FALSE] for value in place.booleans]
    if "string" in types and place.has_free_text:
        options.append(_spelled(_text(place.text)))
    if "number" in types and place.has_free_numbers:
        options.append([] if place.is_number else [NUMBER])
        options[-1] += _number(place, "")
    if "object" in types:
        options.append([] if place.is_object else [OBJECT])
        options[-1] += _members(place.object, frozenset(), room)
    if "array" in types:
        options.append([] if place.is_array and not in_array else [ARRAY])
        options[-1] += _items(place.array, room)
    return min(options, key=len)


@_remember
def _members(state: ObjectState, used: frozenset[str], room: int) -> Ending:
    """What completes an object, its end included."""
    if state.end is not None:
        return [END_OBJECT]
    options = []
    for name in sorted(state.names - used):
        if member := state.member(name, room):
            first = [state.machine.symbols.key[name]]
            options += _continued(first, member, state, lambda then: _members(then, used | {name}, room))
    if not options:
        keys = state.open_keys(room)
        key = _key(keys, 0, lambda key: key.decode() in used | state.names)
        member, then_used = state.member(key.decode(), room), used | {key.decode()}
        options += _continued(_spelled(key), member, state, lambda then: _members(then, then_used, room))
    return min(options, key=len)


@_remember
def _items(state: ArrayState, room: int) -> Ending:
    """What completes an array, its end included."""
    if state.end is not None:
        return [END_ARRAY]
    return min(_continued([], state.item(room), state, lambda then: _items(then, room), True), key=len)


def _continued(
    first: Ending,
    member: Member,
    state: ObjectState | ArrayState,
    rest: Callable[[ObjectState | ArrayState], Ending],
    in_array: bool = False,
) -> Iterable[Ending]:
    """For each way in which a member brings its container forward: the member, then the rest."""
    for vector, then in member.after.items():
        if then.goals != state.goals:
            place = state.machine.place(member.place.goals, frozenset([vector]))
            yield first + _value(place, in_array) + rest(then)


@_remember
def _text(machine: TextMachine, at: int = 0) -> bytes:
    """The nearest end of a text."""
    seen, paths = {at}, [(at, b"")]
    for state, path in paths:
        if machine.ends[state] is not None:
            return path
        for byte in BYTES:
            then = machine.next[state][byte]
            if then != DEAD and then not in seen:
                seen.add(then)
                paths.append((then, path + bytes([byte])))
    raise AssertionError("a live text has an end")


def _key(machine: TextMachine, at: int, is_taken: Callable[[bytes], bool]) -> bytes:
    """A near end of a key that is not taken."""
    if not machine.endless[at]:
        return next(end for end in chain([_text(machine, at)], machine.language(at)) if not is_taken(end))
    path = b""
    while is_taken(end := path + _text(machine, at)):
        byte, at = next((b, then) for b in BYTES if (then := machine.next[at][b]) != DEAD and machine.endless[then])
        path += bytes([byte])
    return end


def _number(place: Place, text: str) -> Ending:
    """A near end of a number."""
    return [*text_symbols(place.number_ending(text)), END_NUMBER]


def _spelled(text: bytes) -> Ending:
    return [*text_symbols(text), END_STRING]

"""How to finish a half-read document: a short sequence of symbols that completes it.

Only values of the least depth are considered. So each call goes down one level of containers, and the search ends for
recursive schemas, too. Completions are cached, so no function here may change one.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache, reduce
from itertools import accumulate, chain

from tct.machine import ArrayNode, Member, ObjectNode, ValueNode
from tct.reachability import Residuals
from tct.state import (
    OUTSIDE,
    ArrayFrame,
    ComparedItemFrame,
    DoneFrame,
    Frame,
    KeyFrame,
    NumberFrame,
    ObjectFrame,
    State,
    TextFrame,
    begin_text,
)
from tct.symbols import END_ARRAY, END_NUMBER, END_OBJECT, END_STRING, FIRST_BYTE, text_symbols
from tct.text import DEAD, Outcome, TextMachine

PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ${}"
BYTES = PLAIN + bytes(sorted(set(range(256)) - set(PLAIN)))  # in the order of preference

Completion = list[int]
Container = ObjectNode | ArrayNode
Ending = tuple[Completion, Outcome]  # symbols that end an item, and the outcome that it then has
MUCH = 16  # characters that may be added to a text: there are more ways than an array has items
MAX_WAYS = 32  # to complete an object, kept for each number of members
MAX_ENDINGS = 1000  # tried for one item, besides one for each earlier item
_cached = lru_cache(maxsize=50_000)


def complete(state: State) -> Completion | None:
    """Return symbols that complete the document, or the item that is read on its own; [] if it is complete.

    None if an array needs one more item that differs from all others, and none is found.
    """
    symbols: Completion = []
    while not isinstance(state.frame, DoneFrame):
        completion = _complete_frame(state)
        if completion is None:
            return None
        symbols += completion
        for symbol in completion:
            state = state.step(symbol)
    return symbols


def _complete_frame(state: State) -> Completion | None:
    """Complete the innermost frame, or a key up to its value."""
    frame = state.frame
    if isinstance(frame, TextFrame):
        return _spelled(_end(frame))
    if isinstance(frame, KeyFrame):
        return _spelled(_key(frame.machine, frame.at, lambda end: frame.spelled + end in state.outer.frame.keys))
    if isinstance(frame, NumberFrame):
        return _number(frame.node, frame.spelled)
    if isinstance(frame, ObjectFrame):
        return _members(frame.node, frozenset(map(bytes.decode, frame.keys)), frame.depth_left)
    if isinstance(frame, ArrayFrame):
        return _next_item(frame) if frame.node.compares_items else _items(frame.node, frame.depth_left)
    if isinstance(frame, ComparedItemFrame):
        return _item_ending(frame)
    return _value(frame.node, frame.node)


@_cached
def _value(node: ValueNode, wanted: ValueNode) -> Completion:
    """Return a short value of least depth among those that `wanted` accepts.

    `wanted` is `node` with fewer accepted outcomes. The value is encoded as `node` requires.
    """
    depth = wanted.least_depth
    if node.implied_type is not None:
        return _after_opening(wanted, node.implied_type, depth)
    openings = node.openings.items()
    options = [[symbol] for symbol, opening in openings if opening.outcome in wanted.accepted]
    types = wanted.types_within(depth)
    if "string" in types and node.has_free_text:
        options.append(_spelled(_end(begin_text(wanted.text))))
    composed = ((symbol, opening.follows) for symbol, opening in openings if opening.follows in types)
    options += ([symbol, *_after_opening(wanted, type, depth)] for symbol, type in composed)
    return min(options, key=len)


def _after_opening(node: ValueNode, type: str, depth_left: int) -> Completion:
    if type == "object":
        return _members(node.object, frozenset(), depth_left)
    return _items(node.array, depth_left) if type == "array" else _number(node, "")


@_cached
def _members(node: ObjectNode, used: frozenset[str], depth_left: int) -> Completion:
    """Complete an object, its end included, with few and short members."""
    ways: dict[tuple[ObjectNode, frozenset[str]], Completion] = {(node, used): []}
    while not (ended := [symbols for (then, _), symbols in ways.items() if then.end is not None]):
        ways = _one_more_member(ways, depth_left)
    return [*min(ended, key=len), END_OBJECT]


def _one_more_member(ways: dict, depth_left: int) -> dict:
    """Return ways to bring objects closer to their ends by one member, those that bring them closest.

    A way has the symbols so far, by what they lead to: the rest of an object, and all its keys.
    """
    found: dict[tuple[ObjectNode, frozenset[str]], Completion] = {}
    for (node, used), symbols in ways.items():
        for key, first, member in _next_members(node, used, depth_left):
            for value, then in _closer(member, node):
                way, end = [*symbols, *first, *value], (then, used | {key})
                if end not in found or len(way) < len(found[end]):
                    found[end] = way
    return dict(sorted(found.items(), key=_distance)[:MAX_WAYS])


def _distance(way: tuple[tuple[ObjectNode, frozenset[str]], Completion]) -> tuple[int, int]:
    """Return how many assertions are still to be decided after a way, and its length."""
    (node, _), symbols = way
    return sum(len(formula.atoms) for formula in node.residuals), len(symbols)


def _next_members(node: ObjectNode, used: frozenset[str], depth_left: int) -> Iterator[tuple[str, Completion, Member]]:
    """Yield keys that may come next, their symbols and their members: named ones, or others if no name brings the
    object closer to its end."""
    has_found = False
    for name in sorted(node.names - used):
        if member := node.member(name, depth_left):
            has_found |= any(then.residuals != node.residuals for then in member.after.values())
            yield name, [member.symbol], member
    for keys in node.open_keys_by_pattern(depth_left) if not has_found else ():
        key = _key(keys, 0, lambda key: key.decode() in used | node.names)
        if key is not None:
            yield key.decode(), _spelled(key), node.member(key.decode(), depth_left)


@_cached
def _items(node: ArrayNode, depth_left: int) -> Completion:
    """Complete an array, its end included."""
    if node.end is not None:
        return [END_ARRAY]
    if node.compares_items:
        return complete(State(ArrayFrame(node, 0, depth_left), OUTSIDE))
    return min((value + _items(then, depth_left) for value, then in _closer(node.item(depth_left), node)), key=len)


# -- arrays whose items are compared


def can_end(state: State) -> bool:
    """Can an item that is compared with earlier ones, if one is being read, still end as it must?"""
    frame = state.frame
    if not isinstance(frame, ComparedItemFrame):
        return True
    return can_end(frame.inner) if _may_differ(frame) else _item_ending(frame) is not None


def _may_differ(frame: ComparedItemFrame) -> bool:
    """Is it plain that the item may be another one than all before, because there are none, or a text has many ends?"""
    is_plain = not frame.array.earlier or _has_many_ends(frame.inner.frame)
    return is_plain and frame.member.repeated.keys() <= frame.member.after.keys()


def _has_many_ends(frame: Frame) -> bool:
    """Is a text being read that has more ends than an array has items?"""
    if isinstance(frame, TextFrame) and frame.left is not None and frame.left < MUCH:
        return False
    return isinstance(frame, (TextFrame, KeyFrame)) and frame.machine.is_infinite[frame.at]


@_cached
def _item_ending(frame: ComparedItemFrame, before: Residuals | None = None) -> Completion | None:
    """Return symbols that end an item as it must, or None if none are found.

    With `before`, the residuals of the array must then be others.
    """
    for symbols, outcome in chain(_repetitions(frame), _endings(frame)):
        array = frame.array_after((*frame.symbols, *symbols), outcome)
        if array and array.node.residuals != before:
            return symbols
    return None


def _repetitions(frame: ComparedItemFrame) -> Iterator[Ending]:
    """Yield the endings that repeat an earlier item, if one may be repeated."""
    read = len(frame.symbols)
    for symbols in sorted(frame.array.spelled) if frame.member.repeated else ():
        if symbols[:read] == frame.symbols:
            end = reduce(lambda state, symbol: state and state.step(symbol), symbols[read:], frame.inner)
            if end and isinstance(end.frame, DoneFrame):
                yield list(symbols[read:]), end.frame.outcome


def _endings(frame: ComparedItemFrame) -> Iterator[Ending]:
    """Yield endings, if the item may be a new one: first a short one, then those with one other symbol, and so on."""
    todo = deque([([], frame.inner)] if frame.member.after else [])
    for _ in range(MAX_ENDINGS + len(frame.array.earlier)):
        if not todo:
            return
        start, state = todo.popleft()
        rest = complete(state)
        if rest is None:
            continue
        states = list(accumulate(rest, State.step, initial=state))
        yield start + rest, states[-1].frame.outcome
        for index, symbol in enumerate(rest):
            others = (other for other in range(FIRST_BYTE, frame.array.node.machine.symbols.size) if other != symbol)
            tried = ((other, states[index].step(other)) for other in others)
            todo += (([*start, *rest[:index], other], then) for other, then in tried if then)


def _next_item(frame: ArrayFrame) -> Completion | None:
    """End an array whose items are compared, or add an item that brings it closer to its end."""
    node = frame.node
    if node.end is not None:
        return [END_ARRAY]
    return _item_ending(frame.enter_item(None).frame, node.residuals)


def _closer(member: Member, node: Container) -> Iterator[tuple[Completion, Container]]:
    """Yield a value for each way in which a next member or item brings a container closer to its end, and what is then
    left of the container."""
    for outcome, then in member.after.items():
        if then.residuals != node.residuals:
            wanted = node.machine.value_node(member.node.residuals, frozenset([outcome]), member.node.is_item)
            yield _value(member.node, wanted), then


@_cached
def _text(machine: TextMachine, at: int = 0) -> bytes:
    """Return the shortest end of a text."""
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


def _end(frame: TextFrame) -> bytes:
    """Return a short end of a text. If it has a limit, that is the end with the fewest characters, or one beyond it."""
    machine, at, path = frame.machine, frame.at, b""
    if frame.left is None:
        return _text(machine, at)
    if machine.n_needed[at] > frame.left:
        state = frame.run(path, None)
        while state.frame.machine is machine:
            byte = next(byte for byte in BYTES if state.step(FIRST_BYTE + byte))
            state, path = state.step(FIRST_BYTE + byte), path + bytes([byte])
        return path + _text(state.frame.machine, state.frame.at)
    while machine.ends[at] is None:
        needed = {
            byte: machine.n_needed[then] + (not 0x80 <= byte < 0xC0)
            for byte, then in enumerate(machine.next[at])
            if then != DEAD
        }
        byte = min((byte for byte in BYTES if byte in needed), key=needed.__getitem__)
        at, path = machine.next[at][byte], path + bytes([byte])
    return path


def _key(machine: TextMachine, at: int, is_taken: Callable[[bytes], bool]) -> bytes | None:
    """Return a short end of a key that the object does not have, or None if it has all of them."""
    if not machine.is_infinite[at]:
        return next((end for end in chain([_text(machine, at)], machine.language(at)) if not is_taken(end)), None)
    path = b""
    while is_taken(end := path + _text(machine, at)):
        byte, at = next((b, then) for b in BYTES if (then := machine.next[at][b]) != DEAD and machine.is_infinite[then])
        path += bytes([byte])
    return end


def _number(node: ValueNode, text: str) -> Completion:
    """Return a short end of a number."""
    return [*text_symbols(node.number_ending(text)), END_NUMBER]


def _spelled(text: bytes) -> Completion:
    return [*text_symbols(text), END_STRING]

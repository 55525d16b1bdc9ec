"""Arrays whose items must differ: follow an item symbol by symbol, and keep a way to end it that fits.

Whether an item equals an earlier one is known at its end. Before that, the item must have an ending with which it does
not. Most endings do, so they are tried one by one, those that differ least from a short one first.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from functools import cached_property, reduce
from itertools import accumulate, chain, islice

from tct.codec import Decoder
from tct.completion import complete
from tct.machine import ArrayNode, Member
from tct.state import ArrayFrame, DoneFrame, Frame, ItemFrame, KeyFrame, State, TextFrame, enter
from tct.symbols import FIRST_BYTE, text_symbols, to_chars
from tct.text import Outcome, TextMachine

Ending = tuple[list[int], Outcome]  # symbols that end an item, and the outcome that it then has
MUCH = 16  # characters that may be added to a text: there are more ways than an array has items
MAX_ENDINGS = 1000  # tried for one item, besides one for each earlier item


class ItemEnd(DoneFrame):
    """After a complete item, which has this outcome."""

    def __init__(self, outcome: Outcome):
        self.outcome = outcome


class ItemStart(ItemFrame):
    """The outermost frame of an item that is read on its own."""

    __slots__ = ()

    def resume(self, outcome: Outcome) -> ItemEnd:
        return ItemEnd(outcome)


class UniqueItemFrame(Frame):
    """An array while an item is read that is compared with earlier ones.

    `inner` is the state within the item, and `symbols` are those of the item so far.
    """

    def __init__(self, array: ArrayFrame, member: Member, inner: State, symbols: tuple[int, ...] = ()):
        self.array, self.member, self.inner, self.symbols = array, member, inner, symbols

    @classmethod
    def start(cls, array: ArrayFrame, member: Member) -> "UniqueItemFrame":
        """Return the frame before the first symbol of the next item of an array."""
        around = State(ItemStart(member, array.index, array.depth_left), None)
        return cls(array, member, enter(member.node, array.depth_left - 1, around))

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
        if isinstance(inner.frame, ItemEnd):
            array = self._array_after([*self.symbols, *symbols], inner.frame.outcome)
            return State(array, outer) if array else None
        frame = UniqueItemFrame(self.array, self.member, inner, self.symbols + symbols)
        return State(frame, outer) if frame._may_differ() or frame.ending is not None else None

    def _may_differ(self) -> bool:
        """Is it plain that the item can be another one than all before? An endless text has infinitely many ends."""
        is_plain = not self.array.earlier or is_endless(self.inner.frame)
        return is_plain and self.member.repeated.keys() <= self.member.after.keys()

    def _array_after(self, symbols: list[int], outcome: Outcome) -> ArrayFrame | None:
        """Return the array after the item with these symbols, or None if it equals an earlier one."""
        array, earlier = self.array, set(self.array.earlier)
        value, _ = Decoder(array.node.machine, to_chars(symbols)).value(self.member.node, array.depth_left - 1)
        node = array.node.after_item(self.member, outcome, value, earlier)
        spelled = array.spelled | {tuple(symbols)}
        return ArrayFrame(node, array.index + 1, array.depth_left, frozenset(earlier), spelled) if node else None

    @cached_property
    def ending(self) -> list[int] | None:
        """Symbols that end the item so that it fits, or None if none have been found."""
        return self.find_ending(lambda then: True)

    def find_ending(self, fits: Callable[[ArrayNode], bool]) -> list[int] | None:
        """Return symbols that end the item so that the array after it fits, or None if none have been found."""
        for symbols, outcome in chain(self._repetitions(), self._different_endings()):
            array = self._array_after([*self.symbols, *symbols], outcome)
            if array and fits(array.node):
                return symbols
        return None

    def _repetitions(self) -> Iterator[Ending]:
        """Yield the endings that repeat an earlier item, if that may fit."""
        read = len(self.symbols)
        if not self.member.repeated:
            return
        for symbols in sorted(self.array.spelled):
            if symbols[:read] == self.symbols:
                end = reduce(lambda state, symbol: state and state.step(symbol), symbols[read:], self.inner)
                if end and isinstance(end.frame, ItemEnd):
                    yield list(symbols[read:]), end.frame.outcome

    def _different_endings(self) -> Iterator[Ending]:
        """Yield endings that may differ from all earlier items, if that may fit."""
        if not self.member.after:
            return iter(())
        n_symbols = self.array.node.machine.symbols.size
        return islice(endings(self.inner, n_symbols), MAX_ENDINGS + len(self.array.earlier))


def is_endless(frame: Frame) -> bool:
    """Is a text being read that has more ends than an array has items?"""
    if isinstance(frame, TextFrame) and frame.left is not None and frame.left < MUCH:
        return False
    return isinstance(frame, (TextFrame, KeyFrame)) and frame.machine.is_infinite[frame.at]


def endings(state: State, n_symbols: int) -> Iterator[Ending]:
    """Yield endings of an item: first a short one, then those with one other symbol in it, and so on."""
    todo = deque([([], state)])
    while todo:
        start, state = todo.popleft()
        rest = complete(state)
        states = list(accumulate(rest, State.step, initial=state))
        yield start + rest, states[-1].frame.outcome
        for index, symbol in enumerate(rest):
            others = ((other, states[index].step(other)) for other in range(FIRST_BYTE, n_symbols) if other != symbol)
            todo += (([*start, *rest[:index], other], then) for other, then in others if then)

"""Bit masks: which tokens does a state allow?

The tokens form a trie over their symbols. What a frame makes of the trie does not depend on what is around it,
up to where its value ends: so masks are put together from parts that hold for a frame wherever it comes up, and
whole ones are kept for every state that looks the same. Strings run through their automaton all at once.

The keys that an object has are no part of what a state looks like; the few tokens that would
spell one again are struck out last. That is exact where each token is either structure or text (with the mark
of its end), as `learn_merges` makes them; for any other vocabulary the trie is walked anew for each state.
"""

from collections.abc import Hashable, Iterator

import numpy as np

from tct.bpe import Symbols
from tct.state import NUMBER_SYMBOLS, Frame, KeyFrame, NumberFrame, ObjectFrame, State, finish
from tct.symbols import BYTE, END_NUMBER, END_STRING, PAD
from tct.text import DEAD, TextMachine, Vector

MAX_KEPT = 50_000  # masks, each of 1 KiB for 8,192 tokens
_BITS = (np.uint32(1) << np.arange(32, dtype=np.uint32)).view(np.int32)

Node = dict  # of the trie: symbol -> Node; under None, the id of the token that ends here
Mask = np.ndarray  # (words,) int32
Part = tuple[Mask, list[tuple[Node, Vector]]]  # a frame's own mask; where its value ends within tokens


class View:
    """Stands for all states whose frames look the same: their masks by node, and the views of what is within."""

    __slots__ = ("inner", "masks")

    def __init__(self):
        self.masks: dict[int, Mask] = {}
        self.inner: dict[Hashable, View] = {}


class Masks:
    """The bit masks of one vocabulary, kept once they are known."""

    def __init__(self, symbols_of: list[Symbols]):
        self.words = (len(symbols_of) + 31) // 32
        self.root: Node = {}
        for token, symbols in enumerate(symbols_of):
            node = self.root
            for symbol in symbols:
                node = node.setdefault(symbol, {})
            node[None] = token
        del self.root[PAD]
        self._structure = {symbol: node for symbol, node in self.root.items() if symbol > END_STRING}
        self._numbers = {symbol: node for symbol, node in self.root.items() if symbol in NUMBER_SYMBOLS}
        self._texts = TextTokens(self.root)
        self._is_plain = all(map(_is_plain, symbols_of))
        self._forget()

    def _forget(self) -> None:
        self._outermost, self._kept = View(), 0
        self._parts: dict[Hashable, Part] = {}
        self._text_masks: dict[tuple[TextMachine, int], Mask] = {}

    def fill(self, state: State, ways: tuple[Symbols, ...], row: Mask) -> None:
        """Writes the mask of a state over row. With `ways`, the symbols to come must start with one of them."""
        if ways:
            row[:] = self._bits([token for way in ways for token in self._along(state, way)])
            return
        frame = state.frame
        keys = frame.text if isinstance(frame, (ObjectFrame, KeyFrame)) else None
        if not self._is_plain or keys and not keys[0].is_endless:
            row[:] = self._bits(self._walk(state, self.root))
            return
        row[:] = self._mask(state, self.root)
        for key in _taken(state) if keys else ():
            if token := self._texts.whole.get(key):
                row[token >> 5] &= ~_BITS[token & 31]

    def _mask(self, state: State, node: Node) -> Mask:
        """The mask of the tokens below a node, whatever keys are taken."""
        masks = self._view(state).masks
        mask = masks.get(id(node))
        if mask is None:
            mask, exits = self._part(state.frame, node)
            if exits and state.outer is not None:
                mask = mask.copy()
                for then, vector in exits:
                    mask |= self._mask(finish(vector, state.outer), then)
            masks[id(node)] = mask
        return mask

    def _view(self, state: State) -> View:
        if state.view is None:
            around = self._outermost if state.outer is None else self._view(state.outer)
            key = state.frame.view
            state.view = around.inner.get(key)
            if state.view is None:
                self._kept += 1
                state.view = around.inner[key] = View()
        return state.view

    def _part(self, frame: Frame, node: Node) -> Part:
        """What holds for a frame whatever is around it."""
        key = frame.view, id(node)
        part = self._parts.get(key)
        if part is None:
            if self._kept > MAX_KEPT:
                self._forget()
            self._kept += 1
            part = self._parts[key] = self._new_part(frame, node)
        return part

    def _new_part(self, frame: Frame, node: Node) -> Part:
        mask, tokens, exits = np.zeros(self.words, np.int32), [], []
        children = self._structure if node is self.root else node
        if node is self.root and isinstance(frame, NumberFrame):
            tokens = self._walk(State(frame, _OUTSIDE), self._numbers)
        elif node is self.root and frame.text:
            mask |= self._text_mask(*frame.text)
        for symbol, child in children.items():
            then = frame.step(symbol, _OUTSIDE) if symbol is not None else None
            if then is None:
                continue
            if None in child:
                tokens.append(child[None])
            if len(child) > (None in child):
                self._go_on(then, child, mask, exits)
        mask |= self._bits(tokens)
        return mask, exits

    def _go_on(self, state: State, node: Node, mask: Mask, exits: list[tuple[Node, Vector]]) -> None:
        """Adds the tokens that lead on from a node, in a state within _OUTSIDE, to mask and exits."""
        if isinstance(state.frame, _Finished):
            exits.append((node, state.frame.vector))
            return
        part, ends = self._part(state.frame, node)
        mask |= part
        for then, vector in ends:
            self._go_on(finish(vector, state.outer), then, mask, exits)

    def _text_mask(self, machine: TextMachine, at: int) -> Mask:
        mask = self._text_masks.get((machine, at))
        if mask is None:
            mask = self._text_masks[machine, at] = self._bits(self._texts.allowed(machine, at))
        return mask

    def _along(self, state: State, way: Symbols) -> Iterator[int]:
        """The tokens that an allowed way starts with, and the allowed ones that start with it."""
        node = self.root
        for symbol in way:
            if symbol not in node:
                return
            node, state = node[symbol], state.step(symbol)
            if None in node:
                yield node[None]
        yield from self._walk(state, node)

    def _walk(self, state: State, node: Node) -> list[int]:
        """The tokens below a node that are allowed in a state, found by trying each symbol of each."""
        tokens, todo = [], [(node, state)]
        while todo:
            node, state = todo.pop()
            for symbol, child in node.items():
                then = state.step(symbol) if symbol is not None else None
                if then is not None:
                    todo.append((child, then))
                    if None in child:
                        tokens.append(child[None])
        return tokens

    def _bits(self, tokens: list[int] | np.ndarray) -> Mask:
        bits = np.zeros(self.words * 32, bool)
        bits[tokens] = True
        return np.packbits(bits, bitorder="little").view(np.int32)


class TextTokens:
    """The tokens that are text, as a trie in arrays, level by level, so that numpy can run an automaton on all.

    `whole` gives the token of a text together with END_STRING, where there is one.
    """

    def __init__(self, root: Node):
        tokens, ends, self.whole, self._levels = [], [], {}, []
        level = [(root, b"")]
        while level:
            first, below, parents, bytes_ = len(tokens), [], [], []
            for number, (node, text) in enumerate(level, first):
                tokens.append(node.get(None, PAD))
                ends.append(node.get(END_STRING, {}).get(None, PAD))
                self.whole[text] = ends[-1]
                for symbol, child in node.items():
                    if symbol is not None and symbol < END_STRING:
                        below.append((child, text + bytes([symbol - BYTE])))
                        parents.append(number)
                        bytes_.append(symbol - BYTE)
            level = below
            self._levels.append((len(tokens), np.array(parents, int), np.array(bytes_, int)))
        self._tokens, self._ends = np.array(tokens), np.array(ends)  # (N,), (N,): PAD where there is none

    def allowed(self, machine: TextMachine, at: int) -> np.ndarray:
        """The tokens that may come in a state of an automaton."""
        states = np.full(len(self._tokens), at)  # (N,)
        for first, parents, bytes_ in self._levels:
            states[first : first + len(parents)] = machine.table[states[parents], bytes_]
        allowed = np.r_[self._tokens[states != DEAD], self._ends[machine.may_end[states]]]
        return allowed[allowed != PAD]


class _Finished(Frame):
    """A frame has been finished with this vector."""

    def __init__(self, vector: Vector):
        self.vector = vector


class _Outside(Frame):
    """Stands for whatever surrounds a frame."""

    def resume(self, vector: Vector) -> _Finished:
        return _Finished(vector)


_OUTSIDE = State(_Outside(), None)


def _taken(state: State) -> Iterator[bytes]:
    """What must not follow, before or within a key, with the end of the string: it is a key already."""
    if isinstance(state.frame, ObjectFrame):
        yield from state.frame.keys
    else:
        spelled = state.frame.spelled
        yield from (k[len(spelled) :] for k in state.outer.frame.keys if k.startswith(spelled))


def _is_plain(symbols: Symbols) -> bool:
    """Is a token all structure, or all text but for the mark of its end?

    >>> _is_plain((98, 99, END_STRING)), _is_plain((END_STRING, 266))
    (True, False)
    """
    *text, end = symbols
    is_text = all(symbol < END_STRING for symbol in text) and (end <= END_STRING or end == END_NUMBER)
    return is_text or min(symbols) > END_STRING

"""Bit masks: which tokens does a state allow?

The tokens form a trie over their symbols. Which branches a frame allows does not depend on what is around it, up to
the point where its value ends. So a mask is composed of parts that are cached for each frame view, and whole masks are
cached for all states whose frames have the same views. All tokens of text run through an automaton at once.

The keys that an object has are not part of a view. The few tokens that would repeat one of them are removed last. That
is exact if each token is either structure, or text with or without its end, as `learn_merges` makes them. For any
other vocabulary the trie is walked again for each state.
"""

from collections.abc import Hashable, Iterator

import numpy as np

from tct.bpe import Symbols
from tct.completion import can_end
from tct.state import (
    NUMBER_SYMBOLS,
    OUTSIDE,
    ArrayFrame,
    ComparedItemFrame,
    FinishedFrame,
    Frame,
    KeyFrame,
    ObjectFrame,
    State,
    TextFrame,
    finish,
)
from tct.symbols import END_NUMBER, END_STRING, FIRST_BYTE, PAD
from tct.text import DEAD, Outcome, TextMachine

MAX_CACHED = 50_000  # masks, each of 1 KiB for 8,192 tokens
_BITS = (np.uint32(1) << np.arange(32, dtype=np.uint32)).view(np.int32)

Node = dict  # of the trie: symbol -> Node; under None, the id of the token that ends here
Mask = np.ndarray  # (words,) int32
Part = tuple[Mask, list[tuple[Node, Outcome]]]  # a frame's own mask; the nodes within tokens where its value ends


class MaskCacheNode:
    """The masks of all states whose frames have the same views: by trie node. `inner` are the states within them."""

    __slots__ = ("inner", "masks")

    def __init__(self):
        self.masks: dict[int, Mask] = {}
        self.inner: dict[Hashable, MaskCacheNode] = {}


class Masks:
    """The bit masks of one vocabulary, cached."""

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
        self._below: dict[int, np.ndarray] = {}
        self._clear()

    def _clear(self) -> None:
        self._cache, self._n_cached = MaskCacheNode(), 0
        self._parts: dict[Hashable, Part] = {}
        self._text_masks: dict[tuple[TextMachine, int], Mask] = {}

    def tokens_below(self, node: Node) -> np.ndarray:
        """Return the tokens, int64 (n,), that start with the symbols of a node of the trie."""
        if id(node) not in self._below:
            inner = [self.tokens_below(child) for symbol, child in node.items() if symbol is not None]
            self._below[id(node)] = np.concatenate([*inner, np.array([node[None]] if None in node else [], np.int64)])
        return self._below[id(node)]

    def fill(self, state: State, pending: tuple[Symbols, ...], row: Mask) -> None:
        """Write the mask of a state to a row. If `pending` is not empty, the next symbols must start with one of its
        sequences."""
        if pending:
            row[:] = self._bits([token for symbols in pending for token in self._along(state, symbols)])
            return
        frame = state.frame
        keys = frame.text if isinstance(frame, (ObjectFrame, KeyFrame)) else None
        is_plain = self._is_plain and not (self._may_be_too_long(frame) or _compares_items(frame))
        if not is_plain or keys and not keys[0].always_infinite:
            row[:] = self._bits(self._walk(state, self.root))
            return
        row[:] = self._mask(state, self.root)
        for key in _taken(state) if keys else ():
            if token := self._texts.whole.get(key):
                row[token >> 5] &= ~_BITS[token & 31]

    def _may_be_too_long(self, frame: Frame) -> bool:
        """May a token have more characters than the text that comes next?"""
        if not frame.text:
            return False
        machine = frame.text[0]
        left = frame.left if isinstance(frame, TextFrame) else machine.limit
        return left is not None and left < self._texts.longest + machine.most_needed

    def _mask(self, state: State, node: Node) -> Mask:
        """Return the mask of the tokens below a trie node, whatever keys the object has."""
        masks = self._cache_of(state).masks
        mask = masks.get(id(node))
        if mask is None:
            mask, ends = self._part(state.frame, node)
            if ends and state.outer is not None:
                mask = mask.copy()
                for then, outcome in ends:
                    mask |= self._mask(finish(outcome, state.outer), then)
            masks[id(node)] = mask
        return mask

    def _cache_of(self, state: State) -> MaskCacheNode:
        if state.mask_cache is None:
            around = self._cache if state.outer is None else self._cache_of(state.outer)
            key = state.frame.view
            state.mask_cache = around.inner.get(key)
            if state.mask_cache is None:
                self._n_cached += 1
                state.mask_cache = around.inner[key] = MaskCacheNode()
        return state.mask_cache

    def _part(self, frame: Frame, node: Node) -> Part:
        """Return the part of a mask that depends on the innermost frame only."""
        key = frame.view, id(node)
        part = self._parts.get(key)
        if part is None:
            if self._n_cached > MAX_CACHED:
                self._clear()
            self._n_cached += 1
            part = self._parts[key] = self._new_part(frame, node)
        return part

    def _new_part(self, frame: Frame, node: Node) -> Part:
        mask, tokens, ends = np.zeros(self.words, np.int32), [], []
        children = self._structure if node is self.root else node
        if node is self.root and frame.is_number:
            tokens = self._walk(State(frame, OUTSIDE), self._numbers)
        elif node is self.root and frame.text:
            mask |= self._text_mask(*frame.text)
        for symbol, child in children.items():
            then = frame.step(symbol, OUTSIDE) if symbol is not None else None
            if then is None:
                continue
            if None in child and can_end(then):
                tokens.append(child[None])
            if len(child) > (None in child):
                self._extend(then, child, mask, ends)
        mask |= self._bits(tokens)
        return mask, ends

    def _extend(self, state: State, node: Node, mask: Mask, ends: list[tuple[Node, Outcome]]) -> None:
        """Add the tokens below a trie node, for a state within OUTSIDE, to `mask` and `ends`."""
        if isinstance(state.frame, FinishedFrame):
            ends.append((node, state.frame.outcome))
            return
        part, inner_ends = self._part(state.frame, node)
        mask |= part
        for then, outcome in inner_ends:
            self._extend(finish(outcome, state.outer), then, mask, ends)

    def _text_mask(self, machine: TextMachine, at: int) -> Mask:
        mask = self._text_masks.get((machine, at))
        if mask is None:
            mask = self._text_masks[machine, at] = self._bits(self._texts.allowed(machine, at))
        return mask

    def _along(self, state: State, symbols: Symbols) -> Iterator[int]:
        """Yield the tokens that some allowed symbols start with, and the allowed tokens that start with all of them."""
        node = self.root
        for symbol in symbols:
            if symbol not in node:
                return
            node, state = node[symbol], state.step(symbol)
            if None in node:
                yield node[None]
        yield from self._walk(state, node)

    def _walk(self, state: State, node: Node) -> list[int]:
        """Return the tokens below a trie node that are allowed in a state, by trying each symbol of each token."""
        tokens, todo = [], [(node, state)]
        while todo:
            node, state = todo.pop()
            for symbol, child in node.items():
                then = state.step(symbol) if symbol is not None else None
                if then is not None:
                    todo.append((child, then))
                    if None in child and can_end(then):
                        tokens.append(child[None])
        return tokens

    def _bits(self, tokens: list[int] | np.ndarray) -> Mask:
        bits = np.zeros(self.words * 32, bool)
        bits[tokens] = True
        return np.packbits(bits, bitorder="little").view(np.int32)


class TextTokens:
    """The tokens that are text: a trie in arrays, level by level, so that numpy can run an automaton on all at once.

    `whole` maps a text to the token that is this text with END_STRING, or to PAD.
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
                        below.append((child, text + bytes([symbol - FIRST_BYTE])))
                        parents.append(number)
                        bytes_.append(symbol - FIRST_BYTE)
            level = below
            self._levels.append((len(tokens), np.array(parents, int), np.array(bytes_, int)))
        self._tokens, self._ends = np.array(tokens), np.array(ends)  # (N,), (N,): PAD if there is none
        self.longest = len(self._levels)  # bytes of the longest token, at least

    def allowed(self, machine: TextMachine, at: int) -> np.ndarray:
        """Return the tokens that may follow in a state of an automaton."""
        states = np.full(len(self._tokens), at)  # (N,)
        for first, parents, bytes_ in self._levels:
            states[first : first + len(parents)] = machine.step(states[parents], bytes_)
        allowed = np.r_[self._tokens[states != DEAD], self._ends[machine.may_end[states]]]
        return allowed[allowed != PAD]


def _taken(state: State) -> Iterator[bytes]:
    """Yield the texts that may not follow as the whole rest of a key, because the object has that key already."""
    if isinstance(state.frame, ObjectFrame):
        yield from state.frame.keys
    else:
        spelled = state.frame.spelled
        yield from (k[len(spelled) :] for k in state.outer.frame.keys if k.startswith(spelled))


def _compares_items(frame: Frame) -> bool:
    return isinstance(frame, ComparedItemFrame) or isinstance(frame, ArrayFrame) and frame.node.compares_items


def _is_plain(symbols: Symbols) -> bool:
    """Is a token only structure, or only text with or without its end?

    >>> _is_plain((98, 99, END_STRING)), _is_plain((END_STRING, 266))
    (True, False)
    """
    *text, end = symbols
    is_text = all(symbol < END_STRING for symbol in text) and (end <= END_STRING or end == END_NUMBER)
    return is_text or min(symbols) > END_STRING

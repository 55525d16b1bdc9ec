"""Which tokens may come next: the type machine held against the vocabulary.

A token is allowed if and only if the document so far, followed by the token's symbols, can still become a
schema-valid document. Names of methods are those that the field uses; bit masks have a bit per token in
int32 words, lowest bit first, 1 for allowed.
"""

from collections.abc import Callable, Hashable, Iterable

import numpy as np

from tct.bpe import Merges, Symbols
from tct.closing import closing_symbols
from tct.machine import TypeMachine
from tct.state import DONE, Frame, KeyFrame, ObjectFrame, State, finish, start
from tct.symbols import BYTE, END_STRING, PAD
from tct.text import DEAD, TextMachine

MAX_CACHED = 20_000

Node = dict  # of the trie: symbol -> Node; under None, the id of the token that ends here


class TokenTrie:
    """All tokens by their symbols, and for each frame what it makes of them, once known."""

    def __init__(self, symbols_of: list[Symbols]):
        self.root: Node = {}
        self.words = (len(symbols_of) + 31) // 32
        for token, symbols in enumerate(symbols_of):
            node = self.root
            for symbol in symbols:
                node = node.setdefault(symbol, {})
            node[None] = token
        del self.root[PAD]
        self._cache: dict[tuple, tuple] = {}

    def mask(self, state: State, node: Node | None = None) -> np.ndarray:
        """The bit mask (words,) of the tokens below a node that are allowed in a state."""
        node = self.root if node is None else node
        frame, outer = state
        if isinstance(frame, KeyFrame):
            return self._key_mask(frame, outer, node)
        mask, exits = self._cached(self._within, frame, node)
        if exits and outer is not None:
            mask = mask.copy()
            for then, vector in exits:
                mask |= self.mask(finish(vector, outer), then)
        if isinstance(frame, ObjectFrame) and (keys := frame.state.open_keys(frame.used, frame.room)):
            mask = mask | self._key_mask(KeyFrame(keys, 0, b""), state, node)
        return mask

    def _cached(self, compute: Callable, key: Hashable, node: Node) -> tuple:
        if len(self._cache) >= MAX_CACHED:
            self._cache.clear()
        found = self._cache.get((compute, key, id(node)))
        if found is None:
            found = self._cache[compute, key, id(node)] = compute(key, node)
        return found

    def _within(self, frame: Frame, node: Node) -> tuple[np.ndarray, list]:
        """What holds for a frame whatever is around it: the mask of the tokens that it allows by itself, and the
        nodes at which it is finished while tokens go on, each with the vector of its value. The keys that an
        object spells out are left to `_key_mask`."""
        if isinstance(frame, ObjectFrame):
            node = {
                symbol: then for symbol, then in node.items() if symbol is not None and symbol > END_STRING
            }
        return self._walk(State(frame, State(_Outside(), None)), node)

    def _walk(self, state: State, node: Node) -> tuple[np.ndarray, list]:
        tokens, exits, todo = [], [], [(node, state)]
        while todo:
            node, state = todo.pop()
            for symbol, child in node.items():
                then = state.step(symbol) if symbol is not None else None
                if then is None:
                    continue
                if None in child:
                    tokens.append(child[None])
                if not isinstance(then.frame, _Finished):
                    todo.append((child, then))
                elif len(child) > (None in child):
                    exits.append((child, then.frame.vector))
        return self._bits(tokens), exits

    def _key_mask(self, frame: KeyFrame, outer: State, node: Node) -> np.ndarray:
        """The mask within a key. Which keys are taken changes from object to object, and is put in last."""
        if not all(frame.machine.endless):
            return self._walk(State(frame, outer), node)[0]
        mask, ends = self._cached(self._within_key, (frame.machine, frame.at), node)
        mask = mask.copy()
        for key in outer.frame.used | outer.frame.state.names:
            key = key.encode()
            if key.startswith(frame.text) and (end := ends.get(key[len(frame.text) :])) is not None:
                mask &= ~self._bits([end[None]] if None in end else [])
        for text, end in ends.items():
            if len(end) > (None in end) and not outer.frame.is_taken(frame.text + text):
                mask |= self.mask(outer.frame.enter_member((frame.text + text).decode(), outer.outer), end)
        return mask

    def _within_key(self, place: tuple[TextMachine, int], node: Node) -> tuple[np.ndarray, dict[bytes, Node]]:
        """What holds for a key whatever its object: the mask if no key were taken, and the nodes at which the
        key ends, by the text that leads to them."""
        machine, at = place
        tokens, ends, todo = [], {}, [(node, at, b"")]
        while todo:
            node, at, text = todo.pop()
            for symbol, child in node.items():
                if symbol is None or symbol > END_STRING:
                    continue
                if symbol == END_STRING:
                    if machine.ends[at] is None:
                        continue
                    ends[text] = child
                elif (then := machine.next[at][symbol - BYTE]) != DEAD:
                    todo.append((child, then, text + bytes([symbol - BYTE])))
                else:
                    continue
                if None in child:
                    tokens.append(child[None])
        return self._bits(tokens), ends

    def _bits(self, tokens: list[int]) -> np.ndarray:
        bits = np.zeros(self.words * 32, bool)
        bits[tokens] = True
        return np.packbits(bits, bitorder="little").view(np.int32)


class _Outside:
    """Stands for whatever surrounds a frame."""

    def resume(self, vector) -> "_Finished":
        return _Finished(vector)


class _Finished:
    """A frame has been finished with this vector."""

    def __init__(self, vector):
        self.vector = vector


class Matcher:
    """Follows one document token by token. Not shared between threads; `fork` is free."""

    def __init__(self, machine: TypeMachine, merges: Merges, trie: TokenTrie):
        self._machine, self._merges, self._trie = machine, merges, trie
        self._states = [start(machine)]  # after 0, 1, 2 ... tokens

    def accept_token(self, token: int) -> bool:
        """Goes one token further; False, and nothing changes, where the token is not allowed."""
        state = self._after(self._states[-1], token)
        if state is None:
            return False
        self._states.append(state)
        return True

    def accept_tokens(self, tokens: Iterable[int]) -> bool:
        """Goes all tokens further; False, and nothing changes, where one is not allowed."""
        tokens = list(tokens)
        if self.validate_tokens(tokens) < len(tokens):
            return False
        return all(self.accept_token(token) for token in tokens)

    def validate_tokens(self, tokens: Iterable[int]) -> int:
        """How many of the tokens could be accepted, one after the other; nothing changes."""
        state, count = self._states[-1], 0
        for token in tokens:
            state = self._after(state, token)
            if state is None:
                break
            count += 1
        return count

    def _after(self, state: State, token: int) -> State | None:
        if not 0 < token < self._merges.vocab_size:
            return None
        for symbol in self._merges.symbols_of[token]:
            state = state.step(symbol)
            if state is None:
                return None
        return state

    def allocate_token_bitmask(self, batch: int = 1) -> np.ndarray:
        """An empty bit mask (batch, words) int32."""
        return np.zeros((batch, self._trie.words), np.int32)

    def fill_next_token_bitmask(self, bitmask: np.ndarray, index: int = 0) -> bool:
        """Writes row `index` of a mask (batch, words): the tokens allowed next. False once terminated: then the
        row is empty."""
        bitmask[index] = 0 if self.is_terminated() else self._trie.mask(self._states[-1])
        return not self.is_terminated()

    def is_terminated(self) -> bool:
        """Is the document complete? Nothing may follow then."""
        return self._states[-1] is DONE

    def is_completed(self) -> bool:
        """The same: a document ends when its root closes, and never earlier or later."""
        return self.is_terminated()

    def compute_ff_tokens(self) -> list[int]:
        """The tokens that are forced next, up to the first choice; nothing changes."""
        forced: list[int] = []
        state = self._states[-1]
        while state is not DONE:
            allowed = np.flatnonzero(np.unpackbits(self._trie.mask(state).view(np.uint8), bitorder="little"))
            if len(allowed) != 1:
                break
            forced.append(int(allowed[0]))
            state = self._after(state, forced[-1])
        return forced

    def closing_tokens(self) -> list[int]:
        """Tokens that complete the document from here with little more than the schema asks for."""
        return self._merges.tokens_of_symbols(closing_symbols(self._states[-1]))

    def rollback(self, count: int) -> None:
        """Takes back the last `count` tokens; ValueError where there are not so many."""
        if not 0 <= count < len(self._states):
            raise ValueError(f"cannot take back {count} of {len(self._states) - 1} tokens")
        del self._states[len(self._states) - count :]

    def fork(self) -> "Matcher":
        """An independent matcher at the same place."""
        copy = Matcher(self._machine, self._merges, self._trie)
        copy._states = list(self._states)
        return copy

    def reset(self) -> None:
        """Back to the start of a document."""
        del self._states[1:]

"""ECMA-262 regular expressions -> deterministic automata over UTF-8 bytes.

JSON Schema patterns search anywhere in a string unless anchored, and `$` matches only at the very end. Supported:
literals, classes, `.`, \\d \\w \\s and their negations, escapes, groups, alternation, quantifiers, `^` and `$`
anywhere. Lookaround, backreferences and word boundaries are rejected.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

Ranges = tuple[tuple[int, int], ...]  # inclusive code point ranges, sorted and disjoint
Fragment = tuple[int, int]  # the first and the last state of a part of an NFA

MAX_CODE_POINT = 0x10FFFF
MAX_REPEAT = 1000
MAX_STATES = 20_000
SPECIAL = r"\^$.*+?()[]{}|/"


class PatternError(ValueError):
    """The pattern is malformed or uses a feature that is not supported."""


@dataclass(frozen=True, eq=False)
class DFA:
    """A deterministic automaton. `table[state, byte]` is the next state; state 0 is the start."""

    table: np.ndarray  # (S, 256) int32
    accepts: np.ndarray  # (S,) bool

    def matches(self, text: str) -> bool:
        state = 0
        for byte in text.encode():
            state = self.table[state, byte]
        return bool(self.accepts[state])


@cache
def compile_pattern(pattern: str) -> DFA:
    """Return the automaton of all UTF-8 strings in which `pattern` finds a match. May raise PatternError."""
    nfa = _NFA()
    start, end = _Parser(pattern).parse()(nfa)
    before, after = nfa.loop(_ALL), nfa.loop(_ALL)  # a search: any text may surround the match
    nfa.link(before, start)
    nfa.link(end, after)
    return nfa.determinise(before, after)


def finite_language(dfa: DFA, limit: int) -> list[str] | None:
    """Return all strings that `dfa` accepts, sorted, or None if there are more than `limit`."""
    live = co_reachable(dfa.table, dfa.accepts)
    found, paths = [], [(0, b"")]
    for state, path in paths:
        if len(paths) > limit * 64 or len(found) > limit or len(path) > len(dfa.table):
            return None
        if dfa.accepts[state]:
            found.append(path.decode())
        paths += [(n, path + bytes([b])) for b, n in enumerate(dfa.table[state].tolist()) if live[n]]
    return sorted(found)


def co_reachable(table: np.ndarray, final: np.ndarray) -> np.ndarray:
    """Return the states, bool (S,), from which a `final` state, bool (S,), can be reached."""
    leading, reached = predecessors(table), final.tolist()
    todo = np.flatnonzero(final).tolist()
    for state in todo:
        for source in leading[state]:
            if not reached[source]:
                reached[source] = True
                todo.append(source)
    return np.array(reached)


def predecessors(table: np.ndarray) -> list[list[int]]:
    """Return for each state of a table (S, 256) the states that lead to it, once for each of the bytes that differ."""
    columns = np.unique(table, axis=1)  # (S, C): bytes that every state treats alike count once
    order = np.argsort(columns, axis=None, kind="stable")
    ends = np.searchsorted(columns.ravel()[order], np.arange(1, len(table)))
    return [part.tolist() for part in np.split(order // columns.shape[1], ends)]


def escape(text: str) -> str:
    """Return a pattern that matches exactly `text` if put between anchors."""
    return "".join("\\" + c if c in SPECIAL else c for c in text)


# -- code points


def _normalise(ranges) -> Ranges:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return tuple(merged)


def _complement(ranges: Ranges) -> Ranges:
    gaps, low = [], 0
    for first, last in ranges:
        if low < first:
            gaps.append((low, first - 1))
        low = last + 1
    return tuple(gaps) + (((low, MAX_CODE_POINT),) if low <= MAX_CODE_POINT else ())


def _chars(*characters: str) -> Ranges:
    return _normalise((ord(c[0]), ord(c[-1])) for c in characters)


_ALL: Ranges = ((0, MAX_CODE_POINT),)
_DIGIT = _chars("09")
_WORD = _chars("09", "AZ", "az", "_")
# ECMA-262 WhiteSpace and LineTerminator
_SPACE = _chars("\t\r", " ", "\u00a0", "\u1680", "\u2000\u200a", "\u2028\u2029", "\u202f", "\u205f", "\u3000", "\ufeff")
_DOT = _complement(_chars("\n", "\r", "\u2028\u2029"))
_CLASSES = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_CLASSES |= {name.upper(): _complement(ranges) for name, ranges in _CLASSES.items()}
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}


def utf8_ranges(low: int, high: int) -> list[list[tuple[int, int]]]:
    """Return sequences of byte ranges that encode exactly the code points low..high, without surrogates.

    >>> utf8_ranges(0x41, 0x100)
    [[(65, 127)], [(194, 195), (128, 191)], [(196, 196), (128, 128)]]
    """
    for first, last in ((0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, MAX_CODE_POINT)):
        if low < first <= high:
            return utf8_ranges(low, first - 1) + utf8_ranges(first, high)
        if 0xD800 <= low <= 0xDFFF:
            return utf8_ranges(0xE000, high) if high > 0xDFFF else []
        if low <= last < high:
            return utf8_ranges(low, last) + utf8_ranges(last + 1, high)
    for bits in (6, 12, 18):  # split until each continuation byte runs through its whole range
        tail = (1 << bits) - 1
        if low | tail != high | tail:
            if low & tail:
                return utf8_ranges(low, low | tail) + utf8_ranges((low | tail) + 1, high)
            if high & tail != tail:
                return utf8_ranges(low, (high & ~tail) - 1) + utf8_ranges(high & ~tail, high)
    return [list(zip(chr(low).encode(), chr(high).encode()))]


# -- pattern -> parts: functions that add the states of a part of the pattern to an NFA


Part = Callable[["_NFA"], Fragment]


class _Parser:
    """Recursive descent over a pattern. Each method consumes what it parses."""

    def __init__(self, pattern: str):
        self.pattern, self.position = pattern, 0

    def parse(self) -> Part:
        part = self.alternatives()
        if self.position < len(self.pattern):
            raise self.error("unbalanced ')'")
        return part

    def alternatives(self) -> Part:
        parts = [self.sequence()]
        while self.take("|"):
            parts.append(self.sequence())
        return lambda nfa: nfa.alternatives(parts)

    def sequence(self) -> Part:
        parts = []
        while self.peek() not in ("", "|", ")"):
            part, bounds = self.single(), self.quantifier()
            parts.append(part if bounds == (1, 1) else partial(_NFA.repeat, part=part, low=bounds[0], high=bounds[1]))
        return lambda nfa: nfa.sequence(parts)

    def quantifier(self) -> tuple[int, int | None]:
        simple = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if self.peek() in simple and self.peek():
            bounds = simple[self.next()]
        elif self.peek() == "{":
            text = self.pattern[self.position + 1 : self.pattern.find("}", self.position)]
            low, comma, high = text.partition(",")
            if not low.isdigit() or (high and not high.isdigit()):
                raise self.error("malformed {}")
            self.position += len(text) + 2
            bounds = int(low), (int(high) if high else None if comma else int(low))
            if max(bounds[0], bounds[1] or 0) > MAX_REPEAT or (bounds[1] is not None and bounds[1] < bounds[0]):
                raise self.error(f"a repeat beyond {MAX_REPEAT} or upside down")
        else:
            return 1, 1
        self.take("?")  # lazy: the same language
        return bounds

    def single(self) -> Part:
        char = self.next()
        if char == "(":
            if self.take("?") and not self.take(":"):
                raise self.error("only plain and (?:) groups are supported")
            group = self.alternatives()
            if not self.take(")"):
                raise self.error("missing ')'")
            return group
        if char in "^$":
            return partial(_NFA.anchor, char=char)
        if char in "*+?{":
            raise self.error(f"nothing to repeat before {char!r}")
        if char == "[":
            ranges = self.char_class()
        elif char == "\\":
            ranges = self.escaped()
        else:
            ranges = _DOT if char == "." else _chars(char)
        return partial(_NFA.code_points, ranges=ranges)

    def char_class(self) -> Ranges:
        negated, ranges = self.take("^"), []
        while not self.take("]"):
            low = self.class_member()
            if self.peek() == "-" and self.pattern[self.position + 1 : self.position + 2] != "]":
                self.next()
                high = self.class_member()
                if len(low) != 1 or len(high) != 1 or low[0][0] > high[0][1]:
                    raise self.error("malformed range in a class")
                low = ((low[0][0], high[0][1]),)
            ranges.extend(low)
        merged = _normalise(ranges)
        return _complement(merged) if negated else merged

    def class_member(self) -> Ranges:
        char = self.next()
        if char == "\\":
            return _chars("\b") if self.take("b") else self.escaped()
        return _chars(char)

    def escaped(self) -> Ranges:
        char = self.next()
        if char in _CLASSES:
            return _CLASSES[char]
        if char in _CONTROLS:
            return _chars(_CONTROLS[char])
        if char in "xu":
            width = 2 if char == "x" else 4
            digits = self.pattern[self.position : self.position + width]
            self.position += width
            try:
                return _chars(chr(int(digits, 16)))
            except ValueError:
                raise self.error(f"malformed \\{char}") from None
        if char == "c":
            return _chars(chr(ord(self.next()) % 32))
        if char.isalnum():
            raise self.error(f"\\{char} is not supported")
        return _chars(char)

    def peek(self) -> str:
        return self.pattern[self.position : self.position + 1]

    def take(self, char: str) -> bool:
        taken = self.peek() == char
        self.position += taken
        return taken

    def next(self) -> str:
        if self.position >= len(self.pattern):
            raise self.error("ends too early")
        self.position += 1
        return self.pattern[self.position - 1]

    def error(self, reason: str) -> PatternError:
        return PatternError(f"pattern {self.pattern!r}, character {self.position}: {reason}")


# -- parts -> NFA -> DFA


class _NFA:
    def __init__(self):
        self.edges: list[list[tuple[int, int, int]]] = []  # state -> (low byte, high byte, next state)
        self.links: list[list[tuple[int, str]]] = []  # state -> (next state, the anchor that it requires or "")

    def state(self) -> int:
        self.edges.append([])
        self.links.append([])
        return len(self.edges) - 1

    def link(self, source: int, target: int, only: str = "") -> None:
        self.links[source].append((target, only))

    def anchor(self, char: str) -> Fragment:
        """Add the start (^) or the end ($) of the string."""
        start, end = self.state(), self.state()
        self.link(start, end, only=char)
        return start, end

    def alternatives(self, parts: list[Part]) -> Fragment:
        start, end = self.state(), self.state()
        for part in parts:
            first, last = part(self)
            self.link(start, first)
            self.link(last, end)
        return start, end

    def sequence(self, parts: list[Part]) -> Fragment:
        start = end = self.state()
        for part in parts:
            first, last = part(self)
            self.link(end, first)
            end = last
        return start, end

    def repeat(self, part: Part, low: int, high: int | None) -> Fragment:
        """Add `low` to `high` copies of a part; without an upper limit if `high` is None."""
        start, end = self.sequence([part] * low)
        done = self.state()
        if high is None:
            first, last = part(self)
            self.link(end, first)
            self.link(last, end)
        for _ in range(low, high or 0):
            self.link(end, done)
            first, last = part(self)
            self.link(end, first)
            end = last
        self.link(end, done)
        return start, done

    def code_points(self, ranges: Ranges) -> Fragment:
        start, end = self.state(), self.state()
        for low, high in ranges:
            for sequence in utf8_ranges(low, high):
                here = start
                for index, (first, last) in enumerate(sequence):
                    there = end if index == len(sequence) - 1 else self.state()
                    self.edges[here].append((first, last, there))
                    here = there
        return start, end

    def loop(self, ranges: Ranges) -> int:
        start, end = self.code_points(ranges)
        self.link(end, start)
        return start

    def closure(self, states, anchors: str) -> frozenset[int]:
        seen, todo = set(states), list(states)
        while todo:
            for target, only in self.links[todo.pop()]:
                if target not in seen and (not only or only in anchors):
                    seen.add(target)
                    todo.append(target)
        return frozenset(seen)

    def determinise(self, start: int, final: int) -> DFA:
        """Build the DFA by subset construction. Bytes that no edge distinguishes are one class."""
        cuts = sorted({0, 256}.union(*({low, high + 1} for edges in self.edges for low, high, _ in edges)))
        class_of_byte = np.repeat(np.arange(len(cuts) - 1), np.diff(cuts))  # (256,)
        first = self.closure([start], "^")
        numbers, rows, accepts, todo = {first: 0}, [], [], [first]
        for states in todo:
            anchors = "^$" if states is first else "$"
            accepts.append(final in self.closure(states, anchors))
            row = []
            for low in cuts[:-1]:
                moved = {t for s in states for a, b, t in self.edges[s] if a <= low <= b}
                target = self.closure(moved, "")
                if target not in numbers:
                    numbers[target] = len(numbers)
                    todo.append(target)
                row.append(numbers[target])
            rows.append(row)
            if len(rows) > MAX_STATES:
                raise PatternError(f"needs more than {MAX_STATES} states")
        return DFA(np.array(rows, np.int32)[:, class_of_byte], np.array(accepts))

"""ECMA-262 regular expressions -> deterministic automata over characters.

JSON Schema patterns search anywhere in a string unless anchored, and `$` matches only at the very end. Supported:
literals, classes, `.`, \\d \\w \\s and their negations, escapes, groups, alternation, quantifiers, `^` and `$`
anywhere. Lookaround, backreferences and word boundaries are rejected.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import cache, partial
from itertools import groupby
from unicodedata import category

from tct.automata import DFA, MAX_CODE_POINT, Alphabet, TooManyStates, check_size, complete, smallest
from tct.time_limit import check_time

Ranges = tuple[tuple[int, int], ...]  # inclusive code point ranges, sorted and disjoint
Fragment = tuple[int, int]  # the first and the last state of a part of an NFA

MAX_REPEAT = 2000


class PatternError(ValueError):
    """The pattern is malformed or uses a feature that is not supported."""


@cache
def compile_pattern(pattern: str) -> DFA:
    """Return the smallest automaton of all strings in which `pattern` finds a match. May raise PatternError."""
    nfa = _NFA()
    start, end = _Parser(pattern).parse()(nfa)
    before, nfa.final = nfa.loop(), nfa.state()  # a search: any text may surround the match
    nfa.link(before, start)
    nfa.link(end, nfa.final)
    try:
        return nfa.determinise(before)
    except TooManyStates as error:
        raise PatternError(str(error)) from None


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
# Long names of general categories of Unicode.
CATEGORIES = {
    "Letter": "L", "Lowercase_Letter": "Ll", "Uppercase_Letter": "Lu", "Mark": "M", "Number": "N",
    "Decimal_Number": "Nd", "Punctuation": "P", "Symbol": "S", "Separator": "Z", "Other": "C", "Control": "Cc",
}  # fmt: skip
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}


@cache
def _category(name: str) -> Ranges:
    """Return the characters of a general category of Unicode, such as L or Lu. There are none if it does not exist."""
    points = groupby(range(MAX_CODE_POINT + 1), lambda point: category(chr(point)).startswith(name or "?"))
    runs = [list(run) for is_member, run in points if is_member]
    return tuple((run[0], run[-1]) for run in runs)


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
        if char in "pP" and self.take("{"):
            name, brace, _ = self.pattern[self.position :].partition("}")
            if not brace or not (ranges := _category(CATEGORIES.get(name, name))):
                raise self.error(
                    f"\\{char}{{{name}}} is not supported, only general categories of Unicode such as L or Lu"
                )
            self.position += len(name) + 1
            return ranges if char == "p" else _complement(ranges)
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
        self.edges: list[list[tuple[Ranges, int]]] = []  # state -> (code points, next state)
        self.links: list[list[tuple[int, str]]] = []  # state -> (next state, the anchor that it requires or "")
        self.final = -1

    def state(self) -> int:
        check_time()
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
        self.edges[start].append((ranges, end))
        return start, end

    def loop(self) -> int:
        state = self.state()
        self.edges[state].append((_ALL, state))
        return state

    def closure(self, states: Iterable[int], anchors: str) -> frozenset[int]:
        """Return the states that can be reached without a character, of those that matter: what follows `final` is
        accepted anyway, and a state with plain links only stands for the states behind them."""
        seen, todo = set(states), list(states)
        for state in todo:
            for target, only in self.links[state]:
                if target not in seen and (not only or only in anchors):
                    seen.add(target)
                    todo.append(target)
        if self.final in seen:
            return frozenset([self.final])
        return frozenset(s for s in seen if self.edges[s] or any(only for _, only in self.links[s]))

    def alphabet(self) -> tuple[Alphabet, dict[Ranges, list[int]]]:
        """Return the classes of code points that no edge distinguishes, and for each label of edges its classes."""
        labels = {ranges for edges in self.edges for ranges, _ in edges}
        cuts = {cut for ranges in labels for low, high in ranges for cut in (low, high + 1) if cut <= MAX_CODE_POINT}
        bounds = {ranges: [bound for low, high in ranges for bound in (low, high + 1)] for ranges in labels}
        alphabet, signatures = Alphabet.of(
            cuts, lambda start: frozenset(r for r in labels if bisect_right(bounds[r], start) % 2)
        )
        return alphabet, {r: [i for i, signature in enumerate(signatures) if r in signature] for r in labels}

    def determinise(self, start: int) -> DFA:
        """Build the DFA by subset construction."""
        alphabet, classes_of = self.alphabet()
        n_classes = max(alphabet.classes) + 1
        closures = cache(lambda state: self.closure([state], ""))
        only_final = frozenset([self.final])
        order, rows, accepts = [self.closure([start], "^")], [], []
        numbers: dict[frozenset[int], int] = {}  # without the start, to which ^ makes a difference
        for states in order:
            accepts.append(self.final in self.closure(states, "$" if rows else "^$"))
            moved: list[set[int]] = [set() for _ in range(n_classes)]
            for state in states:
                for ranges, target in self.edges[state]:
                    for number in classes_of[ranges]:
                        moved[number] |= closures(target)
            row = []
            for targets in moved if states != only_final else [only_final] * n_classes:
                key = only_final if self.final in targets else frozenset(targets)
                number = numbers.setdefault(key, len(order))
                if number == len(order):
                    order.append(key)
                row.append(number)
            rows.append(row)
            check_size(order)
        table, accepts = smallest(rows, [accepted or None for accepted in accepts])
        return complete(alphabet, table, [bool(accepted) for accepted in accepts])

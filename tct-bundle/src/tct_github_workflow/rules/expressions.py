"""The expressions in `${{ }}`: text to syntax tree.

The grammar is what both GitHub's parser and actionlint accept. From the weakest operator to the strongest:

    or       = and ("||" and)*
    and      = compare ("&&" compare)*
    compare  = not [("==" | "!=" | "<" | "<=" | ">" | ">=") compare]
    not      = "!" not | postfix
    postfix  = primary ("." NAME | ".*" | "[" or "]")*
    primary  = NAME | NAME "(" [or ("," or)*] ")" | STRING | NUMBER | "true" | "false" | "null" | "(" or ")"

https://docs.github.com/en/actions/reference/workflows-and-actions/expressions
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import count

MAX_LENGTH = 21_000  # characters of an expression
MAX_DEPTH = 48  # of nested operators, calls and brackets: GitHub's 50, less the two of `success() && (condition)`

TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]+)
    |(?P<name>[A-Za-z_][A-Za-z0-9_-]*)
    |(?P<number>0x(?:0|[1-9A-Fa-f][0-9A-Fa-f]*)|-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE]-?(?:0|[1-9][0-9]*))?))
    |(?P<string>'(?:[^'\0]|'')*'(?!'))
    |(?P<operator>&&|\|\||==|!=|<=|>=|[!<>()\[\].,*])""",
    re.VERBOSE,
)
ENDS_NAME = re.compile(r"[ \t\r\n()\[\],.!<>=&|]|\Z")  # what may follow a name or a number
COMPARISONS = frozenset(["==", "!=", "<", "<=", ">", ">="])


class ExpressionError(ValueError):
    """An expression does not parse."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, number, boolean or null."""

    value: str | float | bool | None


@dataclass(frozen=True, slots=True)
class Context:
    """A context such as `github`. The name is in lower case."""

    name: str


@dataclass(frozen=True, slots=True)
class Property:
    """`of.name`. The name is in lower case."""

    of: "Node"
    name: str


@dataclass(frozen=True, slots=True)
class Filter:
    """`of.*`"""

    of: "Node"


@dataclass(frozen=True, slots=True)
class Index:
    """`of[index]`"""

    of: "Node"
    index: "Node"


@dataclass(frozen=True, slots=True)
class Call:
    """`function(arguments)`. The name is in lower case."""

    function: str
    arguments: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """`!of`"""

    of: "Node"


@dataclass(frozen=True, slots=True)
class Compare:
    """`left operator right`"""

    operator: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Logical:
    """`left && right` or `left || right`"""

    operator: str
    left: "Node"
    right: "Node"


Node = Literal | Context | Property | Filter | Index | Call | Not | Compare | Logical
Token = tuple[str, str]  # kind, which is a group of TOKEN, and text


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of an expression without blanks. Raises ExpressionError at a character that starts none."""
    at = 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"unexpected {text[at : at + 10]!r}")
        kind, at = match.lastgroup, match.end()
        if kind in ("name", "number") and not ENDS_NAME.match(text, at):
            raise ExpressionError(f"unexpected {text[at]!r} after {match[0]!r}")
        if kind != "blank":
            yield kind, match[0]


def parse(text: str) -> Node:
    """Return the syntax tree of an expression. Raises ExpressionError."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"an expression has at most {MAX_LENGTH:,} characters, not {len(text):,}")
    parser = Parser(list(tokens(text)))
    node = parser.expression()
    if parser.text:
        raise ExpressionError(f"unexpected {parser.text!r} after the expression")
    return node


class Parser:
    """A recursive descent over the tokens of one expression. `kind` and `text` are those of the next token."""

    def __init__(self, tokens: Iterable[Token]):
        self._rest, self._depth = iter(tokens), 0
        self.within: tuple[str, Node | int] | None = None  # ("[", of) or (function, index of the argument)
        self._advance()

    def _advance(self) -> str:
        text = getattr(self, "text", "")
        self.kind, self.text = next(self._rest, ("end", ""))
        return text

    def _accept(self, *operators: str) -> str:
        return self._advance() if self.kind == "operator" and self.text in operators else ""

    def _expect(self, operator: str) -> None:
        if not self._accept(operator):
            raise ExpressionError(f"expected {operator!r}, not {self.text or 'the end'!r}")

    def expression(self) -> Node:
        self._enter()
        node = self._chain("||", self._conjunction)
        self._depth -= 1
        return node

    def _conjunction(self) -> Node:
        return self._chain("&&", self.compare)

    def _chain(self, operator: str, operand: Callable[[], Node]) -> Node:
        first = operand()
        if self.text != operator:
            return first
        self._enter()
        parts = [first]
        while self._accept(operator):
            parts.append(operand())
        self._depth -= 1
        return reduce(lambda right, left: Logical(operator, left, right), reversed(parts))

    def _enter(self, levels: int = 1) -> None:
        self._depth += levels
        if self._depth > MAX_DEPTH:
            raise ExpressionError(f"nested deeper than {MAX_DEPTH} levels")

    def compare(self) -> Node:
        left = self.negated()
        operator = self._accept(*COMPARISONS)
        return Compare(operator, left, self.compare()) if operator else left

    def negated(self) -> Node:
        if not self._accept("!"):
            return self.postfix()
        self._enter()
        node = Not(self.negated())
        self._depth -= 1
        return node

    def postfix(self) -> Node:
        node, steps = self.primary(), 0
        while operator := self._accept(".", "["):
            node = self._step(node, operator)
            self._enter()
            steps += 1
        self._depth -= steps
        return node

    def _step(self, node: Node, operator: str) -> Node:
        if operator == "[":
            self.within = "[", node
            index = self.expression()
            self._expect("]")
            return Index(node, index)
        if self._accept("*"):
            return Filter(node)
        if self.kind == "name":
            return Property(node, self._advance().lower())
        raise ExpressionError(f"expected a property after '.', not {self.text or 'the end'!r}")

    def primary(self) -> Node:
        kind, text = self.kind, self.text
        if self._accept("("):
            node = self.expression()
            self._expect(")")
            return node
        if kind in ("end", "operator"):
            raise ExpressionError(f"expected a value, not {text or 'the end'!r}")
        self._advance()
        if kind == "string":
            return Literal(text[1:-1].replace("''", "'"))
        if kind == "number":
            return Literal(number(text))
        if self._accept("("):
            return Call(text.lower(), tuple(self.arguments(text.lower())))
        if text in KEYWORDS:
            return Literal(KEYWORDS[text])
        return Context(text.lower())

    def arguments(self, function: str) -> Iterator[Node]:
        for index in count():
            if self._accept(")"):
                return
            self.within = function, index
            yield self.expression()
            if self.text != ")":
                self._expect(",")
                if self.text == ")":
                    raise ExpressionError("expected an argument after ','")


KEYWORDS = {"true": True, "false": False, "null": None}


def number(text: str) -> float:
    """Return the value of a number. Integers have 32 bits, others 64. Raises ExpressionError if it does not fit."""
    if re.search(r"^[^x]*[.eE]", text):
        if not math.isfinite(value := float(text)):
            raise ExpressionError(f"{text} is too large")
        return value
    value = int(text, 0)
    if not -(2**31) <= value < 2**31:
        raise ExpressionError(f"{text} does not fit into 32 bits")
    return value


def calls(node: Node, *functions: str) -> bool:
    """Does an expression call one of these functions?"""
    return any(isinstance(part, Call) and part.function in functions for part in walk(node))


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all nodes below it, outer ones first."""
    yield node
    match node:
        case Property(of) | Filter(of) | Not(of):
            yield from walk(of)
        case Index(left, right) | Compare(_, left, right) | Logical(_, left, right):
            yield from walk(left)
            yield from walk(right)
        case Call(_, arguments):
            for argument in arguments:
                yield from walk(argument)

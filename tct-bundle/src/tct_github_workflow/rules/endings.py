"""How a text that is cut anywhere may go on to its end.

A text can become correct if and only if one of its endings is correct. So the rules only check complete texts, and a
text that is being written is allowed if the rules accept it with one of the endings that are proposed here.

An ending of an expression has three parts: the rest of the word at the cut; something that adapts the type, such as
`&& fromJSON(...)`, which has any type; and the brackets and arguments that are missing.

Proposals come in groups. If one of a group breaks a rule of HOPELESS, all of them do.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import product

from .expressions import KEYWORDS, MAX_DEPTH, TOKEN, ExpressionError, Node, Parser, Token, tokens
from .templates import CLOSE, EMBEDDED, OPEN, Contexts, Template
from .types import ANY, CONTEXTS, FUNCTIONS, Array, Fault, Object, Type, Typing, placeholders

ANYTHING = "fromJSON(toJSON(0))"  # a value of any type, in any place
AN_ELEMENT = f"[{ANYTHING}]"
# What may follow an operand so that its type fits: nothing, a step to an element, or an operand of any type.
ADAPTERS = ["", f" && {ANYTHING}", AN_ELEMENT, f"{AN_ELEMENT}{AN_ELEMENT}", f"{AN_ELEMENT} && {ANYTHING}"]
ADAPTER_DEPTH = 3  # levels that an adapter of ADAPTERS[:2] needs: the operator and two calls
OPERANDS = ["''", ANYTHING]
ARGUMENTS = {"join": ANYTHING, "format": "'{0}', 0", "tojson": "0", "fromjson": "toJSON(0)"}
HOPELESS = frozenset(["context-availability", "expression-syntax", "undefined-property"])  # whatever the types are
PARTIAL_NUMBER = re.compile(r"0x\Z|-?(?:|(?:0|[1-9][0-9]*)(?:\.|(?:\.[0-9]+)?[eE]-?))\Z")


def text_endings(text: str, template: Template, contexts: Contexts) -> Iterator[Iterable[str]]:
    """Yield groups of proposals for how a text may continue."""
    start = open_expression(text)
    if start is not None:
        if text.endswith("}"):
            yield ["}"]
        for endings in expression_endings(text[start + len(OPEN) :], contexts):
            # No blank if the text is at its greatest length, or ends with a brace.
            yield (ending + blank + CLOSE for ending in endings for blank in (" ", ""))
        return
    if template.gives == "condition" and OPEN not in text and not (text and OPEN.startswith(text)):
        yield from expression_endings(text, contexts)
        return
    yield ["", "a"] if template.gives in ("text", "labels") else [""]
    opening = next((OPEN[len(part) :] for part in ("${", "$") if text.endswith(part)), OPEN)
    yield [f"{opening} {ANYTHING} {CLOSE}"]


def open_expression(text: str, at: int = 0) -> int | None:
    """Return where the expression starts in which a text is cut, or None. Expressions before `at` are complete.

    >>> open_expression("a ${{ b }} ${{ '}}"), open_expression("a ${{ b }}")
    (11, None)
    """
    while (start := text.find(OPEN, at)) >= 0:
        match = EMBEDDED.match(text, start)
        if match is None:
            return start
        at = match.end()
    return None


def expression_endings(source: str, contexts: Contexts) -> Iterator[Iterable[str]]:
    """Yield groups of proposals for how an expression may continue."""
    cuts = [split_at_cut(source)]
    if source.endswith("!"):  # perhaps the first half of "!="
        cuts.append((source[:-1], "!", "operator"))
    for before, word, kind in cuts:
        if (words := lex(before)) is not None and kind is not None:
            for rest in word_endings(word, kind, words, contexts):
                yield closings(words, word, rest)


@lru_cache(maxsize=64)  # the texts that a mask tries start with the same words
def lex(source: str) -> tuple[Token, ...] | None:
    """Return the tokens of a text, or None if it has others."""
    try:
        return tuple(tokens(source))
    except ExpressionError:
        return None


def closings(before: tuple[Token, ...], word: str, rest: str) -> Iterator[str]:
    """Yield the rest of a word, and what closes the expression after it, with different adapters."""
    last = lex(word + rest)
    for inner, outer in product(ADAPTERS, ADAPTERS[:2]) if last is not None else ():
        if (closing := Closing([*before, *last], inner, outer).ending) is None:
            return
        yield rest + closing


class Closing(Parser):
    """Parse an expression that ends after an operand, and close what is open there. `ending` is what is missing.

    `inner` adapts the type of the last operand, `outer` that of each bracket and call around it that is not too deep.
    """

    def __init__(self, words: list[Token], inner: str, outer: str):
        super().__init__(words)
        self._closing, self._inner, self._outer = "", inner, outer
        self._level = 0  # of the operands of "||" that are being parsed, the innermost
        try:
            self.expression()
            self.ending = None if self.text else self._closing
        except ExpressionError:
            self.ending = None

    def _conjunction(self) -> Node:
        outer, self._level = self._level, self._depth
        node = super()._conjunction()
        self._level = outer
        return node

    def postfix(self) -> Node:
        node = super().postfix()
        if self.kind == "end" and self._inner is not None:
            self._closing, self._inner = self._closing + self._inner, None
        return node

    def _expect(self, operator: str) -> None:
        if self.kind != "end":
            super()._expect(operator)
        elif operator != ",":
            self._closing += operator + self._adapter()

    def arguments(self, function: str) -> Iterator[Node]:
        given = []
        for argument in super().arguments(function):
            given.append(argument)
            yield argument
            if self.kind == "end":
                missing = n_arguments(function, given) - len(given)
                self._closing += ", 0" * missing + ")" + self._adapter()
                return

    def _adapter(self) -> str:
        return self._outer if self._level + ADAPTER_DEPTH <= MAX_DEPTH else ""


def n_arguments(function: str, given: list[Node]) -> int:
    """Return how many arguments a call needs at least."""
    first = getattr(given[0], "value", None)
    if function == "format" and isinstance(first, str):
        return 1 + len(placeholders(first) or ())
    return FUNCTIONS[function].min_arguments if function in FUNCTIONS else 0


# ---------------------------------------------------------------------------------------------------------
# the word at the cut


class Cut(Exception):
    """A parser has come to the cut. It raises this with the node whose property or index is there, if it is one."""

    def __init__(self, of: Node | None = None, within: tuple[str, Node | int] | None = None, is_operand: bool = True):
        super().__init__()
        self.of, self.within, self.is_operand = of, within, is_operand


class CutParser(Parser):
    """Parse an expression up to its cut, and raise Cut there. The last token is ("cut", ...)."""

    def _expect(self, operator: str) -> None:
        if self.kind == "cut":
            raise Cut(is_operand=False)
        super()._expect(operator)

    def _step(self, node: Node, operator: str) -> Node:
        if operator == "." and self.kind == "cut":
            raise Cut(node, self.within)
        return super()._step(node, operator)

    def primary(self) -> Node:
        if self.kind == "cut":
            raise Cut(None, self.within)
        return super().primary()


@lru_cache(maxsize=64)
def cut_after(before: tuple[Token, ...]) -> Cut | None:
    """Return what the next word of an expression is, or None if nothing can follow these."""
    try:
        CutParser([*before, ("cut", "")]).expression()
    except Cut as cut:
        return cut.with_traceback(None)
    except ExpressionError:
        return None
    return Cut(is_operand=False)


def word_endings(word: str, kind: str, before: tuple[Token, ...], contexts: Contexts) -> Iterator[str]:
    """Yield proposals for the rest of the word at the cut. With it, the expression ends after an operand."""
    if kind == "operator":
        yield from (f"{'=' if word == '!' else word} {operand}" for operand in OPERANDS)
        return
    cut = cut_after(before)
    if cut is None:
        return
    function, index = cut.within or ("", 0)
    if not cut.is_operand:  # only an operator, a bracket or the end may follow
        yield from [] if word else [""]
    elif cut.of is not None:
        yield from property_endings(cut.of, word.lower(), contexts)
    elif not word and index == 0 and function in FUNCTIONS and FUNCTIONS[function].min_arguments == 0:
        yield ")"
    elif function in FUNCTIONS and index >= FUNCTIONS[function].max_arguments:
        return
    elif kind == "string":
        if word.endswith("'") and len(word) > 1 and word.count("'") % 2 == 0:
            yield ""
        yield from string_endings(word, cut.within, contexts)
    elif kind == "number":
        yield "1" if PARTIAL_NUMBER.match(word) else ""
        yield ".1"  # an integer that is too large
    elif word:
        yield from name_endings(word)
    else:
        yield from OPERANDS
        if index == 0 and function in ARGUMENTS:
            yield ARGUMENTS[function]


def split_at_cut(source: str) -> tuple[str, str, str | None]:
    """Return what precedes the word at the cut, the word, and its kind. The kind is None if no word starts so.

    The word is empty if a new one starts, or an operator. An operator that is cut stands for its second half.
    """
    at = 0
    while at < len(source):
        match = TOKEN.match(source, at)
        if match is None:
            rest = source[at:]
            if rest[0] == "'":
                return source[:at], rest, "string"
            if rest in ("&", "|", "="):
                return source[:at], rest, "operator"
            return source[:at], rest, "number" if PARTIAL_NUMBER.match(rest) else None
        if match.end() == len(source) and match.lastgroup in ("name", "number", "string"):
            return source[:at], match[0], match.lastgroup
        if rest := PARTIAL_NUMBER.match(source, at):
            return source[:at], rest[0], "number"
        at = match.end()
    return source, "", ""


WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_'"
STARTS = frozenset(WORD + "&|=!<>()[].,*- \t\r\n}")  # what may stand in an expression outside of its strings


def is_refused_like(source: str, char: str) -> Callable[[str], bool]:
    """Return which characters an expression refuses for the same reason as `char`, which it refuses."""
    before, word, kind = split_at_cut(source)
    if kind != "string" and char not in STARTS:
        return lambda other: other not in STARTS
    words = lex(before) if not word and char in WORD else None
    cut = words is not None and cut_after(words)
    if cut and not cut.is_operand:
        return lambda other: other in WORD
    return lambda other: other == char


def name_endings(word: str) -> Iterator[str]:
    """Yield the rests of contexts, calls and keywords that start with a word."""
    for name in sorted(CONTEXTS):
        if name.startswith(word.lower()):
            yield name[len(word) :]
    for name, function in FUNCTIONS.items():
        if name.startswith(word.lower()):
            arguments = ARGUMENTS.get(name, ", ".join(["''"] * function.min_arguments))
            yield f"{function.name[len(word) :]}({arguments})"
    yield from (keyword[len(word) :] for keyword in KEYWORDS if keyword.startswith(word))


def property_endings(of: Node, word: str, contexts: Contexts) -> Iterator[str]:
    """Yield the rests of properties that start with a word."""
    type = _type_of(of, contexts)
    if isinstance(type, Array):
        type = type.element
    if isinstance(type, Object):
        yield from _member_endings(type, word)
    elif type is ANY:
        yield "" if word else "a"
    if not word:
        yield "*"


def _member_endings(type: Object, word: str) -> Iterator[str]:
    if word in type.properties:
        yield ""
    yield from (name[len(word) :] for name in type.properties if name.startswith(word) and name != word)
    if type.others is not None or type.grows:
        yield from [""] if word else []
        yield from ("a", "b", "_a")


def string_endings(word: str, within: tuple[str, Node | int] | None, contexts: Contexts) -> Iterator[str]:
    """Yield the rests of a string that starts with a quote. A quote at its end may be the first of two."""
    quote = "'" * (word.count("'") % 2 == 0)  # completes a pair of quotes
    text = word[1:].replace("''", "'") if not quote else word[1:-1].replace("''", "'") + "'"
    for ending in _content_endings(text, within, contexts):
        yield quote + ending.replace("'", "''") + "'"


def _content_endings(text: str, within: tuple[str, Node | int] | None, contexts: Contexts) -> Iterator[str]:
    holder, index = within or ("", 0)
    if holder == "[":
        type = _type_of(index, contexts)
        yield from _member_endings(type, text) if isinstance(type, Object) else ()
    elif holder == "fromjson":
        yield from json_endings(text)
    elif holder == "format" and index == 0:
        yield from format_endings(text)
    yield ""


def _type_of(node: Node, contexts: Contexts) -> Type | None:
    """Return the type of the operand before a cut, or None if it breaks a rule."""
    special = frozenset(FUNCTIONS)
    try:
        return Typing(contexts, CONTEXTS, special).type_of(node)
    except (Fault, TypeError):
        return None


def format_endings(text: str) -> Iterator[str]:
    """Yield texts that add the placeholders that are missing before the greatest one."""
    for end in ("", "}", "0}"):
        numbers = placeholders(text + end)
        if numbers is not None and max(numbers, default=0) < 255:
            yield end + "".join(f"{{{n}}}" for n in range(max(numbers, default=0) + 1) if n not in numbers)


JSON_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s"{}\[\],:]+|\s+|"(?:[^"\\]|\\.)*\\?\Z', re.DOTALL)


def json_endings(text: str) -> Iterator[str]:
    """Yield proposals for how a JSON text may go on."""
    closing, last = [], ""
    for word in JSON_WORD.findall(text):
        if word in "{[":
            closing.append("}" if word == "{" else "]")
        elif word in "}]" and closing:
            closing.pop()
        last = word if word.strip() else last
    end = "".join(reversed(closing))
    for rest in (
        "",
        "0",
        '"',
        '""',
        '\\"',
        '":0',
        '"":0',
        '0":0',
        '000"',
        '000":0',
        ":0",
        "rue",
        "ue",
        "e",
        "alse",
        "lse",
        "se",
        "ull",
        "ll",
        "l",
    ):
        yield rest + end
    for digits in ("0", "00", "000", "0000"):
        yield f'{digits}"{end}'
        yield f'{digits}":0{end}'

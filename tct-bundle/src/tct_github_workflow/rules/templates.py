"""Texts with expressions, such as `name: Test on ${{ matrix.os }}`, and conditions."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .expressions import Call, ExpressionError, Index, Literal, Node, Property, parse, walk
from .types import (
    ANY,
    BOOL,
    NULL,
    NUMBER,
    STRING,
    Array,
    Fault,
    Object,
    Promise,
    Type,
    Typing,
)

OPEN, CLOSE = "${{", "}}"
# An expression in a text ends at the first `}}` outside of its strings.
EMBEDDED = re.compile(r"\$\{\{((?:[^'}]|'[^']*'|\}(?!\}))*)\}\}")
BLANKS = " \t\r\n"
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))  # of Go

Contexts = Callable[[str], Type]


@dataclass(frozen=True)
class Template:
    """What the expressions of a text may use, and what they must give.

    `gives` is "text", or, if the whole value must be one expression, "boolean", "number", "object", "array" or
    "secret". A "condition" may omit the `${{ }}`. "labels" may be one expression that gives a string or an array.
    "any" is a value of a matrix, whose expressions may give anything.
    """

    contexts: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()
    gives: str = "text"
    may_be_empty: bool = True

    @property
    def wanted(self) -> str:
        """What the place takes, in words."""
        words = {"object": "an object", "array": "an array", "labels": "a string or an array"}
        return words.get(self.gives, f"a {self.gives}")


def has_expression(text: str) -> bool:
    """Return whether actionlint sees an expression in a text. It does not if there is a `}}` before."""
    return 0 <= text.find(OPEN) < text.find(CLOSE)


EXPECTED = {
    "boolean": (BOOL,),
    "number": (NUMBER,),
    "object": (),
    "array": (),
    "labels": (STRING,),
}


def check_text(text: str, template: Template, contexts: Contexts, is_script: bool = False) -> set[Promise]:
    """Return what a text promises (see `Typing.promises`). Raises Fault with the first rule that it breaks."""
    if not template.may_be_empty and not text:
        raise Fault("empty-value", "the text is empty")
    if template.gives == "condition" and OPEN not in text:
        return _check_expression(text, template, contexts)[0]
    if OPEN not in text:
        if template.gives in ("text", "labels", "any"):
            return set()
        raise Fault("expression-place", f"expected {template.wanted} or one expression, not a text")
    promises, types, sources = set(), [], []
    at = 0
    while (start := text.find(OPEN, at)) >= 0:
        match = EMBEDDED.match(text, start)
        if match is None:
            raise Fault("expression-syntax", "'${{' is not closed by '}}'")
        promised, type = _check_expression(match[1], template, contexts, is_script)
        promises |= promised
        types.append(type)
        sources.append(match[1].strip(BLANKS))
        at = match.end()
    _check_whole(text, template, types, sources)
    return promises


def _check_whole(text: str, template: Template, types: list[Type], sources: list[str]) -> None:
    """Raise Fault if the text around its expressions, or their types, do not fit the place."""
    whole = text.strip(SPACES)
    is_one = EMBEDDED.fullmatch(whole) is not None and text.count(OPEN) == 1
    if template.gives == "condition":
        if not is_one or whole != text or text.index(CLOSE) + len(CLOSE) < len(text):
            raise Fault("constant-condition", "text around `${{ }}` makes the condition always true")
        if sources[0].startswith("'") and types[0] is STRING and "'" not in sources[0][1:-1].replace("''", ""):
            raise Fault("constant-condition", f"the condition is the text {sources[0]}, not an expression")
        _check_is_text(types[0])
    elif template.gives == "any":
        pass
    elif template.gives == "text" or template.gives == "labels" and not is_one:
        for type in types:
            _check_is_text(type)
        if not template.may_be_empty and text.startswith(OPEN) and sources == ["''"]:
            raise Fault("empty-value", "the text is empty")
    elif not is_one:
        raise Fault("expression-place", f"expected {template.wanted} or one expression")
    elif template.gives == "secret":
        pass
    elif not _fits(types[0], template.gives):
        raise Fault("expression-type", f"expected {template.wanted}, not {types[0]}")


def _check_is_text(type: Type) -> None:
    """Raise Fault if `${{ }}` cannot make a text of a type. It does so in conditions, too."""
    if type is NULL or isinstance(type, (Object, Array)):
        raise Fault("expression-type", f"{type} in a text")


def _fits(type: Type, gives: str) -> bool:
    if gives in ("array", "labels") and isinstance(type, Array) or gives == "object" and isinstance(type, Object):
        return True
    return type is ANY or type in EXPECTED[gives]


def _check_expression(
    source: str, template: Template, contexts: Contexts, is_script: bool = False
) -> tuple[set[Promise], Type]:
    if not (template.contexts or template.functions):
        raise Fault("expression-place", "expressions are not evaluated here")
    try:
        node = parse(source)
    except ExpressionError as error:
        raise Fault("expression-syntax", f"{error} in `{source.strip()}`") from None
    typing = Typing(contexts, template.contexts, template.functions)
    try:
        type = typing.type_of(node)
    except Fault as fault:
        raise Fault(fault.rule, f"{fault} in `{source.strip()}`") from None
    if is_script and (name := untrusted(node)):
        raise Fault("script-injection", f"`{name}` is written by strangers: pass it through `env`")
    return typing.promises, type


# ---------------------------------------------------------------------------------------------------------
# untrusted input

# https://docs.github.com/en/actions/reference/security/secure-use#understanding-the-risk-of-script-injections
PEOPLE = {"email": {}, "name": {}}
UNTRUSTED = {
    "github": {
        "event": {
            "issue": {"title": {}, "body": {}},
            "pull_request": {
                "title": {},
                "body": {},
                "head": {"ref": {}, "label": {}, "repo": {"default_branch": {}}},
            },
            "comment": {"body": {}},
            "review": {"body": {}},
            "review_comment": {"body": {}},
            "pages": {"*": {"page_name": {}}},
            "commits": {"*": {"message": {}, "author": PEOPLE}},
            "head_commit": {"message": {}, "author": PEOPLE},
            "discussion": {"title": {}, "body": {}},
        },
        "head_ref": {},
    }
}
SAFE_FUNCTIONS = frozenset(["contains", "startswith", "endswith"])  # they tell little about their arguments


def untrusted(node: Node) -> str:
    """Return a part of an expression that gives a text of strangers to a script, or an empty string."""
    if isinstance(node, Call) and node.function in SAFE_FUNCTIONS:
        return ""
    if any(not branch for branch, _ in _branches(node)):
        return source_of(node)
    return next(filter(None, map(untrusted, _below(node))), "")


def _below(node: Node) -> Iterator[Node]:
    """Yield the operands of a node."""
    for name in node.__dataclass_fields__:
        part = getattr(node, name)
        yield from part if isinstance(part, tuple) else [part] if hasattr(part, "__dataclass_fields__") else []


def _branches(node: Node) -> list[tuple[dict, bool]]:
    """Return the branches of UNTRUSTED that a chain of properties selects. The flag is true after `.*` of an object."""
    kind = type(node).__name__
    if kind == "Context":
        return [(UNTRUSTED[node.name], False)] if node.name in UNTRUSTED else []
    if kind not in ("Property", "Index", "Filter"):
        return []
    found = []
    for branch, is_filtered in _branches(node.of):
        if kind == "Filter":
            found += [(branch["*"], True)] if "*" in branch else [(part, True) for part in branch.values()]
            continue
        name = node.name if kind == "Property" else node.index.value if isinstance(node.index, Literal) else None
        if isinstance(name, str):
            found += [(branch[name], is_filtered)] if name in branch else []
        elif is_filtered:
            found.append((branch, False))
        elif "*" in branch:
            found.append((branch["*"], False))
    return found


def source_of(node: Node) -> str:
    """Return the text of a chain of properties."""
    match node:
        case Property(of, name):
            return f"{source_of(of)}.{name}"
        case Index(of, Literal(value)):
            return f"{source_of(of)}[{json.dumps(value)}]"
        case _:
            parts = [part for part in walk(node) if part is not node]
            return f"{source_of(parts[0])}.*" if parts else getattr(node, "name", "...")

"""YAML text cut anywhere: what it may say, found by PyYAML with a mark at the cut (see tct/prefix.py).

Three things are taken for certain that YAML leaves open: a plain scalar ends with its line, a cut number is
decimal, and an alias that may be whole is whole, unless another anchor starts with its name.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from tct.codec import CUT
from tct.partial_json import word_hints
from tct.prefix import Beginning, Found, Key, NotEnd, String, find_mark, last_of, left_open, new_mark
from tct.symbols import END_ARRAY

from .workflow_yaml import MAX_DEPTH, WorkflowSyntaxError, load_workflow

_CUT_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*(\\(?:x.?|u.{0,3}|U.{0,7})?)\Z")
_NOTHING_YET = re.compile(r"(?:(?:[ \t]*(?:#.*)?|%.*)\n)*(?:--?|%.*)?")  # comments, directives, part of ---
_BLANKS = " \t\r\n"
_TYPES = ("str", "int", "float", "bool", "null", "map", "seq")
_CUT_TYPE = "|".join(name[:end] for name in _TYPES for end in range(len(name), -1, -1))
# How a text ends whose last node has not begun: in an alias, in or after an anchor or tag, in `? ` or `...`
_NOT_BEGUN = re.compile(
    r"(?:\*(?P<alias>[\w-]*)|&[\w-]*|&[\w-]+\s+|!(?:!(?:%s))?|!!(?:map|seq)\s+|\?|(?<=\n)\.\.?)\Z" % _CUT_TYPE,
    re.ASCII,
)
# A cut scalar after its tag, plain or not begun.
_TAGGED = re.compile(
    r"!!(str|int|float|bool|null)[ \t]+(?:&[\w-]+[ \t]+)?((?![\s&!*'\"|>])[^\n\[\]{},#:]*)\Z", re.ASCII
)


def yaml_beginnings(text: str) -> list[Beginning]:
    """What a YAML text may say that is cut anywhere; WorkflowSyntaxError where it is not YAML up to there."""
    if _NOTHING_YET.fullmatch(text):
        text = ""
    if (cut := _NOT_BEGUN.search(text)) and _is_node_ahead(text[: cut.start()], cut["alias"]):
        return yaml_beginnings(text[: cut.start()] + cut[0][len(cut[0].rstrip()) :])
    if (tagged := _TAGGED.search(text)) and _is_node_ahead(before := text[: tagged.start()]):
        if beginnings := _after_tag(before, *tagged.groups()):
            return beginnings
    if _ends_in_comment(text):
        text += "\n"
    try:
        value, fault = load_workflow(text), None
    except WorkflowSyntaxError as error:
        beginnings, fault = [], error
    else:
        levels, last = _last_node(text)
        if isinstance(last, yaml.ScalarEvent) and last.style in ("|", ">"):
            return [left_open(value, levels), *_in_block_scalar(text, last)]
        if isinstance(last, yaml.ScalarEvent) and not last.value and not last.style:
            beginnings = [_not_begun(value)]
        else:
            beginnings = [left_open(value, levels)]
    for colon in ("", ": "):  # without it a value or item, with it a key
        beginnings += _plain(text, "M" + colon)
        beginnings += _quoted(_without_cut_escape(text), 'M"' + colon)
        beginnings += _quoted(text, "M'" + colon)
        beginnings += _quoted(text, "'M'" + colon)  # the quote at the end was the first of two
        beginnings += _next(text, ", M" + colon)
    beginnings += _next(text, ": M")
    if text.endswith(":"):
        beginnings += _next(text, " M")
    if not beginnings:
        raise fault
    return beginnings


def _last_node(text: str) -> tuple[int, yaml.Event]:
    """How many containers a whole YAML text leaves open for more, and the event that ends its last node."""
    in_flow, levels, last = [], 0, None
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            in_flow.append(event.flow_style)
        elif isinstance(event, yaml.CollectionEndEvent):
            if not in_flow.pop():
                continue  # a block has no end of its own
        elif not isinstance(event, (yaml.ScalarEvent, yaml.AliasEvent)):
            continue
        levels, last = in_flow.count(False), event
    return levels, last


# ---------------------------------------------------------------------------------------------------------
# ways to read the end of a text: each gives the beginning for it, or none where the text cannot end so


def _after_tag(text: str, name: str, content: str) -> list[Beginning]:
    """Cut within a plain scalar that has a tag of this name, or before it; none if it has to be whole."""
    if name == "str":
        return yaml_beginnings(f"{text}'" + content.replace("'", "''"))
    beginnings = []
    for document, hints in yaml_beginnings(text + content):
        hints = tuple(hint for hint in hints if not isinstance(hint, String))
        if hints or not content:
            beginnings.append(Beginning(document, hints))
    return beginnings


def _not_begun(value: Any) -> Beginning:
    """Cut before the last value or item, which a reader takes for null."""
    root = {"": value}
    holder, at = root, ""
    while isinstance(holder[at], (dict, list)):
        holder, at = holder[at], last_of(holder[at])
    holder[at] = CUT
    return Beginning(root[""], (NotEnd(END_ARRAY),) if isinstance(holder, list) else ())


def _plain(text: str, ending: str) -> Iterator[Beginning]:
    """Cut within a plain scalar, or before a scalar of any kind."""
    if not (found := _marked(text, ending)):
        return
    hints = ()
    if found.role == "key" and found.text:
        hints = (Key(found.text),)
    elif found.text:
        hints = (String(found.text), *word_hints(found.text.lower()))
    elif text.rstrip(_BLANKS).endswith("-"):
        hints = (NotEnd(END_ARRAY),)
    yield Beginning(found.document, hints)


def _quoted(text: str, ending: str) -> Iterator[Beginning]:
    """Cut within a quoted scalar."""
    if found := _marked(text, ending):
        hints = (Key(found.text),) if found.role == "key" else _folded(text, ending, found)
        yield Beginning(found.document, hints)


def _next(text: str, ending: str) -> Iterator[Beginning]:
    """Cut after a scalar that is whole."""
    if (found := _marked(text, ending)) and not found.text:
        yield Beginning(found.document)


def _in_block_scalar(text: str, scalar: yaml.ScalarEvent) -> Iterator[Beginning]:
    """Cut within a literal or folded block, or after it: then no indent leads into it any more."""
    if "\n" not in text[scalar.start_mark.index :]:
        text += "\n"
    indents = (len(line) - len(line.lstrip(" ")) for line in text.split("\n"))
    for indent in range(2 + max(scalar.start_mark.column, *indents)):
        if found := _marked(text + " " * indent, "M"):
            is_folded = scalar.style == ">" and text.rstrip(" ").endswith("\n")
            hints = _folded(text, "M", found) if is_folded else (String(found.text),)
            yield Beginning(found.document, hints)
            return


def _folded(text: str, ending: str, found: Found) -> tuple[String, ...]:
    """A string of which the blanks at the end may still become one blank, or line ends."""
    blanks = text[len(text.rstrip(_BLANKS)) :]
    before = _marked(text.rstrip(_BLANKS), ending) if blanks and blanks.count("\n") < 2 else None
    if not before:
        return (String(found.text),)
    return String(found.text), String(before.text + " "), String(before.text + "\n")


def _is_node_ahead(text: str, alias: str | None = None) -> bool:
    """May a key or value follow a text at once, and if it is this alias, has it not been written whole?"""
    found = [_marked(text, '"M"' + colon) for colon in ("", ": ")]
    if not any(marked and not marked.text for marked in found):
        return False
    if alias is None:
        return True
    tokens = yaml.scan(text, Loader=yaml.CSafeLoader)
    anchors = {token.value for token in tokens if isinstance(token, yaml.AnchorToken)}
    return alias not in anchors or any(name.startswith(alias) for name in anchors - {alias})


def _marked(text: str, ending: str) -> Found | None:
    """The document with CUT, made whole by an ending in which M stands for the mark; None where it is not YAML."""
    mark = new_mark(text)
    text += ending.replace("M", mark)
    try:
        return find_mark(load_workflow(text + _closing(text)), mark)
    except (yaml.YAMLError, ValueError):
        return None


def _closing(text: str) -> str:
    """The brackets that close what a YAML text leaves open; YAMLError where they are too many to be read."""
    closing = []
    for token in yaml.scan(text, Loader=yaml.CSafeLoader):
        if isinstance(token, yaml.FlowSequenceStartToken):
            closing.append("]")
        elif isinstance(token, yaml.FlowMappingStartToken):
            closing.append("}")
        elif isinstance(token, (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken)):
            del closing[-1:]
        if len(closing) > MAX_DEPTH:
            raise yaml.YAMLError
    return "".join(reversed(closing))


def _ends_in_comment(text: str) -> bool:
    """Is the cut within a comment? A mark there is in no token."""
    if "#" not in text[text.rfind("\n") + 1 :]:
        return False
    mark = new_mark(text)
    try:
        tokens = yaml.scan(text + mark, Loader=yaml.CSafeLoader)
        return not any(mark in str(getattr(token, "value", "")) for token in tokens)
    except (yaml.YAMLError, ValueError):
        return False


def _without_cut_escape(text: str) -> str:
    escape = _CUT_ESCAPE.search(text)
    return text.removesuffix(escape[1]) if escape else text

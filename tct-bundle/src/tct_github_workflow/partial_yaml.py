"""YAML text cut anywhere: what it may say, found by PyYAML with a mark at the cut (see tct/prefix.py).

Two things are taken for certain that YAML leaves open: a plain scalar ends with its line, and a number that is
cut goes on as a decimal. The name of an anchor, alias or tag has to be whole.
"""

import re
from collections.abc import Iterator

import yaml
from tct.partial_json import word_hints
from tct.prefix import Beginning, Found, Key, NotEnd, String, find_mark, left_open, new_mark
from tct.symbols import END_ARRAY

from .workflow_yaml import MAX_DEPTH, WorkflowSyntaxError, load_workflow

_CUT_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*(\\(?:x.?|u.{0,3}|U.{0,7})?)\Z")
_CUT_DOCUMENT_START = re.compile(r"((?:[ \t]*(?:#.*)?\n)*)--?")
_BLANKS = " \t\r\n"


def yaml_beginnings(text: str) -> list[Beginning]:
    """What a YAML text may say that is cut anywhere; WorkflowSyntaxError where it is not YAML up to there."""
    if start := _CUT_DOCUMENT_START.fullmatch(text):
        text = start[1]
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
            beginnings = [*_plain(text[: last.start_mark.index], " M")]  # a value or item that has not begun
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

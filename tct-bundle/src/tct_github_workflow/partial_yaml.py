"""Read YAML text that is cut anywhere, with a marker at the cut (see tct/partial_document.py).

Three assumptions are made that YAML does not guarantee: a plain scalar ends with its line, a cut number is decimal, and
an alias that may be complete is complete, unless another anchor starts with its name.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from tct.codec import CUT
from tct.matcher import Prefix
from tct.partial_document import (
    Key,
    MarkerHit,
    NotFinished,
    PartialDocument,
    String,
    last_key,
    locate_marker,
    reopen_tail,
    unused_marker,
)
from tct.partial_json import word_hints
from tct.prefix import prefix_of
from tct.symbols import END_ARRAY
from tct.tokenizer import Tokenizer

from .workflow_yaml import MAX_DEPTH, WorkflowSyntaxError, load_workflow

_CUT_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*(\\(?:x.?|u.{0,3}|U.{0,7})?)\Z")
_NOTHING_YET = re.compile(r"(?:(?:[ \t]*(?:#.*)?|%.*)\n)*(?:--?|%.*)?")  # comments, directives, part of ---
_BLANKS = " \t\r\n"
_TYPES = ("str", "int", "float", "bool", "null", "map", "seq")
_CUT_TYPE = "|".join(name[:end] for name in _TYPES for end in range(len(name), -1, -1))
# The end of a text whose last node has not begun: in an alias, in or after an anchor or tag, in `? ` or `...`
_NOT_BEGUN = re.compile(
    r"(?:\*(?P<alias>[\w-]*)|&[\w-]*|&[\w-]+\s+|!(?:!(?:%s))?|!!(?:map|seq)\s+|\?|(?<=\n)\.\.?)\Z" % _CUT_TYPE,
    re.ASCII,
)
# A cut scalar after its tag: plain, or not begun.
_TAGGED = re.compile(
    r"!!(str|int|float|bool|null)[ \t]+(?:&[\w-]+[ \t]+)?((?![\s&!*'\"|>])[^\n\[\]{},#:]*)\Z", re.ASCII
)


def encode_prefix(tokenizer: Tokenizer, partial: str | Any) -> Prefix:
    """Encode a partial document for completion: text that is cut anywhere, or a value that may continue at its end.

    Text that starts with `{` is JSON, other text is YAML. Raises ValueError if no document starts so.
    """
    if isinstance(partial, str):
        partial = partial.removeprefix("\ufeff")
        if not partial.lstrip(" \t\r\n").startswith("{"):
            return prefix_of(tokenizer.vocabulary, read_partial_yaml(partial))
    return tokenizer.encode_prefix(partial)


def read_partial_yaml(text: str) -> list[PartialDocument]:
    """Return the readings of a YAML text that is cut anywhere. Raises WorkflowSyntaxError if it is not YAML."""
    if _NOTHING_YET.fullmatch(text):
        text = ""
    if (cut := _NOT_BEGUN.search(text)) and _is_node_ahead(text[: cut.start()], cut["alias"]):
        return read_partial_yaml(text[: cut.start()] + cut[0][len(cut[0].rstrip()) :])
    if (tagged := _TAGGED.search(text)) and _is_node_ahead(before := text[: tagged.start()]):
        if readings := _after_tag(before, *tagged.groups()):
            return readings
    if _ends_in_comment(text):
        text += "\n"
    try:
        value, fault = load_workflow(text), None
    except WorkflowSyntaxError as error:
        readings, fault = [], error
    else:
        levels, last = _last_node(text)
        if isinstance(last, yaml.ScalarEvent) and last.style in ("|", ">"):
            return [reopen_tail(value, levels), *_in_block_scalar(text, last)]
        if isinstance(last, yaml.ScalarEvent) and not last.value and not last.style:
            readings = [_not_begun(value)]
        else:
            readings = [reopen_tail(value, levels)]
    escape = _CUT_ESCAPE.search(text)
    for colon in ("", ": "):  # a value or item; a key
        readings += _plain(text, "M" + colon)
        readings += _quoted(text.removesuffix(escape[1] if escape else ""), 'M"' + colon)
        readings += _quoted(text, "M'" + colon)
        readings += _quoted(text, "'M'" + colon)  # the quote at the end was the first of two
        readings += _next(text, ", M" + colon)
    readings += _next(text, ": M")
    if text.endswith(":"):
        readings += _next(text, " M")
    if not readings:
        raise fault
    return readings


def _last_node(text: str) -> tuple[int, yaml.Event]:
    """Return how many containers at the end of a YAML text may continue, and the event that ends its last node."""
    in_flow, levels, last = [], 0, None
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            in_flow.append(event.flow_style)
        elif isinstance(event, yaml.CollectionEndEvent):
            if not in_flow.pop():
                continue  # a block has no closing bracket
        elif not isinstance(event, (yaml.ScalarEvent, yaml.AliasEvent)):
            continue
        levels, last = in_flow.count(False), event
    return levels, last


# -- ways to read the end of a text: each yields a reading, or none if the text cannot end so


def _after_tag(text: str, name: str, content: str) -> list[PartialDocument]:
    """Read a text that is cut within a plain scalar with a tag of this name, or before the scalar."""
    if name == "str":
        return read_partial_yaml(f"{text}'" + content.replace("'", "''"))
    readings = []
    for value, hints in read_partial_yaml(text + content):
        hints = tuple(hint for hint in hints if not isinstance(hint, String))
        if hints or not content:
            readings.append(PartialDocument(value, hints))
    return readings


def _not_begun(value: Any) -> PartialDocument:
    """Read a text that is cut before the last value or item. The YAML reader returns null in its place."""
    root = {"": value}
    holder, at = root, ""
    while isinstance(holder[at], (dict, list)):
        holder, at = holder[at], last_key(holder[at])
    holder[at] = CUT
    return PartialDocument(root[""], (NotFinished(END_ARRAY),) if isinstance(holder, list) else ())


def _plain(text: str, ending: str) -> Iterator[PartialDocument]:
    """Read a text that is cut within a plain scalar, or before a scalar of any kind."""
    if not (hit := _marked(text, ending)):
        return
    hints = ()
    if hit.role == "key" and hit.text:
        hints = (Key(hit.text),)
    elif hit.text:
        hints = (String(hit.text), *word_hints(hit.text.lower()))
    elif text.rstrip(_BLANKS).endswith("-"):
        hints = (NotFinished(END_ARRAY),)
    yield PartialDocument(hit.value, hints)


def _quoted(text: str, ending: str) -> Iterator[PartialDocument]:
    """Read a text that is cut within a quoted scalar."""
    if hit := _marked(text, ending):
        hints = (Key(hit.text),) if hit.role == "key" else _folded(text, ending, hit)
        yield PartialDocument(hit.value, hints)


def _next(text: str, ending: str) -> Iterator[PartialDocument]:
    """Read a text that is cut after a whole scalar."""
    if (hit := _marked(text, ending)) and not hit.text:
        yield PartialDocument(hit.value)


def _in_block_scalar(text: str, scalar: yaml.ScalarEvent) -> Iterator[PartialDocument]:
    """Read a text that is cut within a literal or folded block. Yields nothing if every indent is after the block."""
    if "\n" not in text[scalar.start_mark.index :]:
        text += "\n"
    indents = (len(line) - len(line.lstrip(" ")) for line in text.split("\n"))
    for indent in range(2 + max(scalar.start_mark.column, *indents)):
        if hit := _marked(text + " " * indent, "M"):
            is_folded = scalar.style == ">" and text.rstrip(" ").endswith("\n")
            hints = _folded(text, "M", hit) if is_folded else (String(hit.text),)
            yield PartialDocument(hit.value, hints)
            return


def _folded(text: str, ending: str, hit: MarkerHit) -> tuple[String, ...]:
    """Return hints at a string whose blanks at the end may still become one blank, or line ends."""
    blanks = text[len(text.rstrip(_BLANKS)) :]
    before = _marked(text.rstrip(_BLANKS), ending) if blanks and blanks.count("\n") < 2 else None
    if not before:
        return (String(hit.text),)
    return String(hit.text), String(before.text + " "), String(before.text + "\n")


def _is_node_ahead(text: str, alias: str | None = None) -> bool:
    """May a key or value follow a text at once? If it is this alias, is it still incomplete?"""
    hits = [_marked(text, '"M"' + colon) for colon in ("", ": ")]
    if not any(hit and not hit.text for hit in hits):
        return False
    if alias is None:
        return True
    tokens = yaml.scan(text, Loader=yaml.CSafeLoader)
    anchors = {token.value for token in tokens if isinstance(token, yaml.AnchorToken)}
    return alias not in anchors or any(name.startswith(alias) for name in anchors - {alias})


def _marked(text: str, ending: str) -> MarkerHit | None:
    """Read a text with an ending in which M stands for the marker. Return None if that is not YAML."""
    marker = unused_marker(text)
    text += ending.replace("M", marker)
    try:
        return locate_marker(load_workflow(text + _closing(text)), marker)
    except (yaml.YAMLError, ValueError):
        return None


def _closing(text: str) -> str:
    """Return the brackets that close what a YAML text leaves open. Raises YAMLError if they are too many to be read."""
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
    """Is the cut within a comment? A marker there is in no token."""
    if "#" not in text[text.rfind("\n") + 1 :]:
        return False
    marker = unused_marker(text)
    try:
        tokens = yaml.scan(text + marker, Loader=yaml.CSafeLoader)
        return not any(marker in str(getattr(token, "value", "")) for token in tokens)
    except (yaml.YAMLError, ValueError):
        return False

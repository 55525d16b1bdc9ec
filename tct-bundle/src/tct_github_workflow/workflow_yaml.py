"""Workflow text to JSON values and back: YAML as GitHub reads it and as people write it.

Both directions work on PyYAML's event stream. So nesting needs no recursion, and this file has all departures from
YAML 1.1, which PyYAML implements.
"""

import json
import math
import re
from dataclasses import dataclass
from itertools import chain
from typing import Any

import yaml

from tct.json_text import read_json

MAX_DEPTH = 1_000  # nested collections
MAX_EXPANDED = 16 * 1024 * 1024  # nodes and their characters, with aliases copied out: a limit for alias bombs

# YAML 1.2.2, section 10.3.2 (core schema). Every other plain scalar is a string.
_CONSTANTS = dict.fromkeys(("", "~", "null", "Null", "NULL"))
_CONSTANTS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL_OR_HEX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

# Characters that every YAML reader reads as they are: not control characters except tab and newline, not the line
# breaks of YAML 1.1 only, not a byte order mark.
_PRINTABLE = re.compile("[\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*")
_TOO_DEEP = f"more than {MAX_DEPTH:,} nested collections"
_KEY_NOT_SCALAR = "a mapping key must be a scalar; quote a string that starts with { or ["
_YAML_1_1 = yaml.resolver.Resolver()
_CORE_TAG = "tag:yaml.org,2002:"  # written !!
_STRING_TAG = _CORE_TAG + "str"
_TYPES = {"int": int, "float": float, "bool": bool, "null": type(None)}  # of plain scalars with that tag
_COLLECTIONS = {yaml.MappingStartEvent: _CORE_TAG + "map", yaml.SequenceStartEvent: _CORE_TAG + "seq"}


class WorkflowSyntaxError(ValueError):
    """The text is not one YAML or JSON document. The one-line message names the place and the fault.

    `line` and `column` count from 1, and are 0 if the place is not known.
    """

    def __init__(self, problem: str, line: int = 0, column: int = 0):
        super().__init__(f"line {line}, column {column}: {problem}" if line else problem)
        self.problem, self.line, self.column = problem, line, column


class Positions:
    """Where the keys and items of a document stand in its text."""

    def __init__(self):
        self.root = None  # the document
        self.marks = {}  # id of a mapping or sequence -> mark of each of its keys or items

    def find(self, path) -> tuple[int, int]:
        """Return line and column, from 1, of the last key or item of a path.

        What is inside an alias stands where the anchor is. The document itself begins at line 1, column 1.
        """
        value, line, column = self.root, 1, 1
        for key in path:
            mark = self.marks[id(value)][key]
            value, line, column = value[key], mark.line + 1, mark.column + 1
        return line, column


# -- reading


def load_workflow(text: str | bytes):
    """Return the JSON value of one YAML document, with the core types of YAML 1.2, as GitHub reads it.

    Mapping keys are always strings: the source text of the key, the empty text for null. Nodes that are repeated by
    aliases are one shared object in the result. Raises WorkflowSyntaxError with line and column.
    """
    return _load(text, None)


def load_with_positions(text: str | bytes) -> tuple[Any, Positions]:
    """Return what load_workflow returns, and where its parts stand in the text."""
    positions = Positions()
    positions.root = _load(text, positions.marks)
    return positions.root, positions


def _load(text, marks):
    text = decode_text(text)
    try:
        return _compose(yaml.parse(text, Loader=yaml.CSafeLoader), marks)
    except yaml.MarkedYAMLError as error:
        problem = error.problem
        if problem == "exceeded maximum nesting depth":  # a limit of libyaml since 0.2.6, for blocks one less
            problem = _TOO_DEEP
        elif text.startswith("\t", error.problem_mark.index) and "cannot start any token" in problem:
            problem = "a tab cannot indent; use spaces"
        raise _error(error.problem_mark, problem) from None
    except yaml.reader.ReaderError as error:
        raise _error_at_byte(text.encode(), error.position, error.reason) from None


def load_json(text: str | bytes):
    """Return the value of one JSON document. Duplicate keys, NaN and lone surrogates are errors."""
    text = decode_text(text)
    try:
        value = read_json(text, on_repeated=_reject_repeated, parse_float=_finite)
        if "\\u" in text:  # only an escape can be a lone surrogate, because UTF-8 has none
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise WorkflowSyntaxError(error.msg, error.lineno, error.colno) from None
    except UnicodeEncodeError:
        raise WorkflowSyntaxError("a string has half of a surrogate pair (\\ud800 to \\udfff)") from None
    except WorkflowSyntaxError:
        raise
    except ValueError as error:  # nested too deeply, or an integer beyond Python's digit limit
        raise WorkflowSyntaxError(str(error).split(";")[0]) from None
    return value


@dataclass(slots=True)
class _Collection:
    """A mapping or sequence that is being read."""

    value: dict | list
    anchor: str | None
    start: int  # the size of the document before it
    mark: Any = None  # where it begins
    marks: dict | None = None  # where its keys or items begin, if that is asked for
    key: str | None = None  # of a mapping: the key that has no value yet

    def add(self, mark, value, key_text):
        """Add an item, a key or the value of a key. `key_text` is None for a collection, which cannot be a key."""
        if type(self.value) is list:
            if self.marks is not None:
                self.marks[len(self.value)] = mark
            self.value.append(value)
        elif self.key is not None:
            self.value[self.key] = value
            self.key = None
        elif key_text is None:
            raise _error(mark, _KEY_NOT_SCALAR)
        elif key_text in self.value:
            raise _error(mark, f"duplicate key {json.dumps(key_text)}")
        else:
            if self.marks is not None:
                self.marks[key_text] = mark
            self.key = key_text


def _compose(events, positions):
    """Return the value that the events of one document describe. Fill `positions` (see Positions.marks), or None."""
    stack = [_Collection([], None, 0)]  # open collections; the first holds the document
    anchors = {}  # name -> (value, key text, size), None while the collection is open
    n_documents = size = 0  # size: nodes and their characters, with aliases copied out
    for event in events:
        kind, mark = type(event), event.start_mark
        if kind is yaml.ScalarEvent:
            value = _scalar_value(event)
            key_text, start = "" if value is None else event.value, size
            size += 1 + len(event.value)
            if event.anchor:
                anchors[event.anchor] = value, key_text, size - start
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            closed = stack.pop()
            value, key_text, mark = closed.value, None, closed.mark
            if closed.anchor:
                anchors[closed.anchor] = value, None, size - closed.start
        elif kind is yaml.AliasEvent:
            value, key_text, copied = _resolve_alias(event, anchors)
            size += copied
            if size > MAX_EXPANDED:
                raise _error(mark, f"aliases expand to more than {MAX_EXPANDED:,} characters")
        else:
            if kind in _COLLECTIONS:
                stack.append(_start_collection(event, stack, size))
                size += 1
                if positions is not None:
                    positions[id(stack[-1].value)] = stack[-1].marks = {}
                if event.anchor:
                    anchors[event.anchor] = None
            elif kind is yaml.DocumentStartEvent and (n_documents := n_documents + 1) > 1:
                raise _error(mark, "a second document starts here; a workflow file holds one")
            continue
        stack[-1].add(mark, value, key_text)
    if not n_documents:
        raise WorkflowSyntaxError("the file is empty")
    return stack[0].value[0]


def _start_collection(event, stack, size):
    if event.tag not in (None, _COLLECTIONS[type(event)]):
        raise _bad_tag(event)
    parent = stack[-1]
    if type(parent.value) is dict and parent.key is None:
        raise _error(event.start_mark, _KEY_NOT_SCALAR)
    if len(stack) > MAX_DEPTH:
        raise _error(event.start_mark, _TOO_DEEP)
    return _Collection({} if type(event) is yaml.MappingStartEvent else [], event.anchor, size, event.start_mark)


def _resolve_alias(event, anchors):
    if event.anchor not in anchors:
        raise _error(event.start_mark, f"alias *{event.anchor} has no anchor before it")
    if anchors[event.anchor] is None:
        raise _error(event.start_mark, f"alias *{event.anchor} stands inside its own anchor")
    return anchors[event.anchor]


def _scalar_value(event):
    """Return the value of a scalar. Its type is that of its tag. Without a tag, only a plain scalar is not a string."""
    if event.tag is None:
        return _plain(event) if event.implicit[0] else event.value
    if event.tag == _STRING_TAG:
        return event.value
    core, _, name = event.tag.rpartition(":")
    if core + ":" != _CORE_TAG or name not in _TYPES:
        raise _bad_tag(event)
    if not event.style and type(value := _plain(event)) is _TYPES[name]:
        return value
    raise _error(event.start_mark, f"tag !!{name} does not fit {json.dumps(event.value)[:60]}; remove it")


def _plain(event):
    """Return the value of an unquoted scalar by the core schema."""
    text = event.value
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in "+-.0123456789":
        return text
    try:
        if _INT.fullmatch(text) and event.tag != _CORE_TAG + "float":
            return int(text)
        if _OCTAL_OR_HEX.fullmatch(text):
            return int(str(int(text, base=0)))  # str() enforces the limit on decimal digits
        if _FLOAT.fullmatch(text):
            return _finite(text)
        if _NOT_FINITE.fullmatch(text):
            raise ValueError(f"{text} has no JSON form; quote it if it is a string")
    except ValueError as error:
        raise _error(event.start_mark, str(error).split(";")[0]) from None
    return text


def _bad_tag(event):
    tag = event.tag.replace(_CORE_TAG, "!!")
    known = "scalars may have !!str, !!int, !!float, !!bool or !!null"
    remedy = known if tag.startswith("!!") else "quote a string that starts with !"
    return _error(event.start_mark, f"tag {tag} is not allowed here; {remedy}")


def _finite(text):
    number = float(text)
    if not math.isfinite(number):
        raise WorkflowSyntaxError(f"{text} has no JSON form")
    return number


def _reject_repeated(members, key):
    raise WorkflowSyntaxError(f"duplicate key {json.dumps(key)}")


def decode_text(text: str | bytes) -> str:
    """Return text without its byte order mark. Raises WorkflowSyntaxError for a lone surrogate or bytes that are not
    UTF-8."""
    try:
        data = text.encode() if isinstance(text, str) else text
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _error_at_byte(data, error.start, "not UTF-8") from None
    except UnicodeEncodeError as error:
        raise _error_at_byte(text[: error.start].encode(), error.start, "half of a surrogate pair") from None


def _error(mark, problem):
    return WorkflowSyntaxError(problem, mark.line + 1, mark.column + 1)


def _error_at_byte(data, position, problem):
    before = data[:position].split(b"\n")
    column = len(before[-1].decode(errors="replace"))
    return WorkflowSyntaxError(problem, len(before), column + 1)


# -- writing


def dump_workflow(value) -> str:
    """Return YAML as people write it: block literals for scripts, bare `on`, quotes only if a reader needs them.

    load_workflow(dump_workflow(value)) equals value, with the same key order and types, for every JSON value.
    """
    blocks = _blocks(value, bare_keys=("on",))
    if isinstance(value, dict) and isinstance(value.get("jobs"), dict):  # jobs, whose ids are indented by two,
        index = list(value).index("jobs")  # get a blank line between them
        blocks[index] = re.sub(r"(?<!\Ajobs:)\n(?=  [^ ])", "\n\n", blocks[index])
    return "\n".join(blocks)


def dump_document(value) -> str:
    """Return the YAML of any other kind of document. Readers of YAML 1.1 and 1.2 read the same, so a key `on` has
    quotes."""
    return "\n".join(_blocks(value))


def _blocks(value, bare_keys=()):
    """Return the YAML of each key of a mapping, or of another value."""
    parts = [{key: item} for key, item in value.items()] if isinstance(value, dict) and value else [value]
    return [_emit(part, bare_keys) for part in parts]


def _emit(value, bare_keys):
    start = yaml.StreamStartEvent(), yaml.DocumentStartEvent(explicit=False)
    end = yaml.DocumentEndEvent(explicit=False), yaml.StreamEndEvent()
    events = chain(start, _events(value, bare_keys), end)
    return yaml.emit(events, Dumper=_Emitter, allow_unicode=True, width=math.inf)


def _events(root, bare_keys):
    """Yield the events of a value. A stack of iterators replaces recursion."""
    stack = [iter([root])]
    closing = []
    while stack:
        for value in stack[-1]:
            if isinstance(value, dict):
                yield yaml.MappingStartEvent(None, None, implicit=True, flow_style=False)
                stack.append(_keys_and_values(value, bare_keys))
                closing.append(yaml.MappingEndEvent())
                break
            if isinstance(value, list):
                yield yaml.SequenceStartEvent(None, None, implicit=True, flow_style=False)
                stack.append(iter(value))
                closing.append(yaml.SequenceEndEvent())
                break
            yield value if isinstance(value, yaml.ScalarEvent) else _scalar(value)
        else:
            stack.pop()
            if closing:
                yield closing.pop()


def _keys_and_values(mapping, bare_keys):
    for key, value in mapping.items():
        yield _bare(key) if key in bare_keys else _scalar(key)
        yield _bare("") if value is None else value  # `push:`, as people write it


def _scalar(value):
    if isinstance(value, str):
        if _fits_literal(value):
            return yaml.ScalarEvent(None, None, (True, True), value, style="|")
        if "\n" in value or not _PRINTABLE.fullmatch(value):
            return yaml.ScalarEvent(None, None, (True, True), value, style='"')
        return _bare(value) if _reads_as_string(value) else yaml.ScalarEvent(None, None, (False, True), value)
    text = json.dumps(value, allow_nan=False)
    if isinstance(value, float) and "." not in text:
        text = text.replace("e", ".0e")  # in YAML 1.1 1e+20 is a string
    return _bare(text)


def _bare(text):
    return yaml.ScalarEvent(None, None, (True, True), text)


def _fits_literal(text):
    """Can a literal block (|) represent the text exactly?

    A leading tab would be read as indentation. Trailing blank lines would need the indicator that keeps all of them,
    and then those that dump_workflow puts between jobs would be kept, too.
    """
    return (
        "\n" in text
        and text[0] != "\t"
        and not text.isspace()
        and not text.endswith("\n\n")
        and _PRINTABLE.fullmatch(text) is not None
    )


def _reads_as_string(text):
    """Is the text a string for readers of YAML 1.2, and of YAML 1.1, in which yes, no, on and off are booleans?"""
    return (
        text not in _CONSTANTS
        and not any(kind.fullmatch(text) for kind in (_INT, _OCTAL_OR_HEX, _FLOAT, _NOT_FINITE))
        and _YAML_1_1.resolve(yaml.ScalarNode, text, (True, False)) == _STRING_TAG
    )


class _Emitter(yaml.emitter.Emitter):
    """PyYAML's emitter, but list items are indented under their key, and literals may contain tabs and trailing
    spaces."""

    def increase_indent(self, flow=False, indentless=False):
        super().increase_indent(flow, indentless=False)

    def analyze_scalar(self, scalar):
        analysis = super().analyze_scalar(scalar)
        analysis.allow_block = _fits_literal(scalar)
        return analysis

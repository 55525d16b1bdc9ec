"""Put what a document has grown to into the YAML text that someone has written so far.

The lines before the caret stay as they are: their comments, quotes and indentation. The document is written with our
own dumper, its new lines are moved to the indentation of the text, and the result is read again. If it says
anything else than the document, more lines are written anew.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tct.json_text import compact
from tct_github_workflow.workflow_yaml import Positions, WorkflowSyntaxError, load_with_positions, load_workflow

LAST_LINES = 3  # each of these may be the first one that is written anew, or else a line of which they are a part
_COMMENTS = re.compile(r"(?:[ \t]*(?:#.*)?\n)*")


@dataclass(frozen=True)
class Edit:
    """A change of the text before the caret: what stands from `start` to the caret is replaced by `text`.

    Usually nothing is replaced. The last line is, if the document cannot go on after it: `on: [push, ` goes on as a
    list in lines of its own.
    """

    start: int  # characters before it are kept
    text: str

    def apply(self, text: str) -> str:
        """Return the text before the caret, changed."""
        return text[: self.start] + self.text


class Level(NamedTuple):
    """A container that the last lines of a text are in."""

    size: int  # its members or items
    column: int  # of its keys or dashes
    is_list: bool


class Placement:
    """The text before a caret, and where a document that starts so goes on."""

    def __init__(self, text: str, dump: Callable[[Any], str]):
        self.text, self._dump = text, dump
        self._starts = line_starts(text)

    def edit(self, value: Any) -> Edit:
        """Return the change that makes the text say the value, whose start the text says already."""
        written = self._dump(value)
        for start in list(self._starts):
            edit = self._edit_from(start, value, written)
            if edit and says(edit.apply(self.text), value):
                return edit
            if start:  # a longer document will not fit there either
                self._starts.remove(start)
        return Edit(0, written)

    def _edit_from(self, start: int, value: Any, written: str) -> Edit | None:
        """Return the change if the lines from `start` on are written anew, or None if that is not possible."""
        kept, typed = self.text[:start], self.text[start:]
        lines = new_lines(kept, typed, value, written)
        if lines is None or not lines and typed.strip():
            return None
        new = "".join(line + "\n" for line in lines)
        if not new or new.startswith(typed):
            return Edit(len(self.text), new[len(typed) :])
        return Edit(start, new)


def line_starts(text: str) -> list[int]:
    """Return where to start writing anew, the last line first: the last lines, those that they belong to, and 0."""
    starts, least = [], math.inf
    for number, line in enumerate(reversed(list(re.finditer(r"(?m)^( *)(\S?).*$", text)))):
        if line[2] and len(line[1]) < least or number < LAST_LINES:
            starts.append(line.start())
        if line[2]:
            least = min(least, len(line[1]))
    return [*starts, 0]


def says(text: str, value: Any) -> bool:
    """Is the text YAML of exactly this value?"""
    try:
        return compact(load_workflow(text)) == compact(value)
    except WorkflowSyntaxError:
        return False


def new_lines(kept: str, typed: str, value: Any, written: str) -> list[str] | None:
    """Return the lines of `written`, the YAML of a value, that come after the lines kept, at their indentation.

    `typed` is the start of the first one. The result is None if the kept lines do not say the start of the value in
    blocks.
    """
    lines = written.removesuffix("\n").split("\n")
    if _COMMENTS.fullmatch(kept):
        return lines
    try:
        levels, leaf = spine(kept)
    except (WorkflowSyntaxError, ValueError):
        return None
    _, positions = load_with_positions(written)
    found = first_new(levels, leaf, positions)
    if found is None:
        return None
    line, places, opened = found
    if line is None:
        return []
    columns = [(ours, level.column) for ours, level in zip(places, levels)]
    if opened is not None:  # a container or a block of text that the kept lines announce, or have begun
        columns.append((opened, indentation_of_opened(kept, typed, leaf, opened, columns)))
    new = [*moved(lines[line:], columns)]
    has_gap = line > 0 and not lines[line - 1] and not kept.endswith("\n\n")
    return ["", *new] if has_gap and not typed and new else new


def spine(text: str) -> tuple[list[Level], Any]:
    """Return the containers that are open at the end of a YAML text of whole lines, and the last value in them.

    A list in brackets is a value.
    """
    value, positions = load_with_positions(text)
    lines, levels = text.split("\n"), []
    while isinstance(value, (dict, list)) and value:
        last = next(reversed(value)) if isinstance(value, dict) else len(value) - 1
        mark = positions.marks[id(value)][last]
        column = mark.column
        if isinstance(value, list):
            column = lines[mark.line].rfind("-", 0, mark.column)
            if column < 0 or lines[mark.line][column + 1 : mark.column].strip():
                break
        levels.append(Level(len(value), column, isinstance(value, list)))
        value = value[last]
    return levels, value


def first_new(levels: list[Level], leaf: Any, positions: Positions) -> tuple[int | None, list[int], int | None] | None:
    """Return the first line of a document that its start does not have, if there is one, the columns of the open
    containers, and the column of what the start announces or has begun as its last value, if that goes on there.

    `levels` and `leaf` are those of the start (see `spine`). None if the document has no such start.
    """
    value, places, begun = positions.root, [], []
    for level in levels:
        if isinstance(value, list) != level.is_list or not isinstance(value, (dict, list)) or len(value) < level.size:
            return None
        marks = positions.marks[id(value)]
        key = list(marks)[level.size - 1]
        places.append(marks[key].column - 2 * level.is_list)
        begun.append(marks)
        value = value[key]
    if isinstance(value, (dict, list)) and value and leaf in (None, {}, []):
        mark = next(iter(positions.marks[id(value)].values()))
        return mark.line, places, mark.column - 2 * isinstance(value, list)
    if isinstance(leaf, str) and isinstance(value, str) and value != leaf and value.startswith(leaf) and begun:
        mark = begun[-1][list(begun[-1])[levels[-1].size - 1]]
        return mark.line + 1 + len(leaf.splitlines()), places, places[-1] + 2
    if value != leaf:
        return None
    for level, marks in zip(reversed(levels), reversed(begun)):
        if len(marks) > level.size:
            return marks[list(marks)[level.size]].line, places, None
    return None, places, None


def indentation_of_opened(kept: str, typed: str, leaf: Any, ours: int, columns: list[tuple[int, int]]) -> int:
    """Return the column of what comes right after the kept lines: the rest of a block of text, or a first member."""
    blanks = len(typed) - len(typed.lstrip(" "))
    inner = columns[-1][1] if columns else -1
    if isinstance(leaf, str):
        lines = [line for line in kept.split("\n") if line.strip()][-len(leaf.splitlines()) or None :]
        return min(len(line) - len(line.lstrip(" ")) for line in lines)
    if typed.strip() or blanks > inner:
        return blanks
    return inner + ours - columns[-1][0] if columns else ours


def moved(lines: list[str], columns: list[tuple[int, int]]) -> Iterator[str]:
    """Yield lines with the indentation of a text. `columns` are those of the open containers, in the lines and in the
    text, the outermost first."""
    open_ones = list(columns)
    for line in lines:
        indent = len(line) - len(line.lstrip(" "))
        while line.strip() and len(open_ones) > 1 and indent < open_ones[-1][0]:
            open_ones.pop()
        ours, theirs = open_ones[-1] if open_ones else (0, 0)
        yield " " * (indent - ours + theirs) + line.lstrip(" ") if line.strip() else line

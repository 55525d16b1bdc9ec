"""Convert between the characters of a text and the positions of the Language Server Protocol."""

import re
from bisect import bisect_right
from itertools import pairwise

from lsprotocol import types
from pygls.workspace import PositionCodec

_BREAK = re.compile(r"\r\n|\r|\n")  # ends a line in the protocol
_YAML_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_LINE = re.compile(r"[^\r\n]*")


class EditorText:
    """A text in an editor. The codec knows in which units the editor counts within a line."""

    def __init__(self, text: str, codec: PositionCodec):
        self.text, self.codec = text, codec
        self.starts = _line_starts(text, _BREAK)
        self.lines = [text[start:end] for start, end in pairwise([*self.starts, len(text)])]

    def offset(self, position: types.Position) -> int:
        """Return the number of characters before a position."""
        place = self.codec.position_from_client_units(self.lines, position)
        return self.starts[place.line] + place.character

    def position(self, offset: int) -> types.Position:
        """Return the position after a number of characters."""
        line = bisect_right(self.starts, offset) - 1
        return types.Position(line, self.codec.client_num_units(self.text[self.starts[line] : offset]))

    def range(self, start: int, end: int) -> types.Range:
        return types.Range(self.position(start), self.position(end))

    def rest_of_line(self, offset: int) -> str:
        """Return what stands between a place and the end of its line."""
        return _LINE.match(self.text, offset)[0]

    def range_of_problem(self, line: int, column: int) -> types.Range:
        """Return the range from a place of the linter to the end of its line. It counts from 1, and lines as YAML."""
        starts = _line_starts(self.text, _YAML_BREAK)
        start = min(starts[min(line, len(starts)) - 1] + column - 1, len(self.text))
        return self.range(start, start + len(self.rest_of_line(start).rstrip()))


def _line_starts(text: str, line_break: re.Pattern) -> list[int]:
    return [0, *(match.end() for match in line_break.finditer(text))]

"""Format tables as Markdown and as aligned text."""

import re
from itertools import zip_longest


def table(header: tuple, rows) -> str:
    """Return a Markdown table."""
    rule = ["---"] * len(header)
    lines = [[str(cell).replace("|", r"\|") for cell in line] for line in (header, rule, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def columns(rows) -> str:
    """Return the rows as aligned text: the first column to the left, all others to the right.

    An empty row becomes an empty line.

    >>> print(columns([("", "first", "second"), ("a", 12.5, ""), (), ("longer", 1, "2 to 3")]))
            first  second
    a        12.5
    <BLANKLINE>
    longer      1  2 to 3
    """
    rows = [list(map(str, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]] if row else []).rstrip())
    return "\n".join(lines)


def fenced(text: str, language: str = "") -> str:
    """Return a Markdown code block. Its fence is longer than any run of backquotes in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"

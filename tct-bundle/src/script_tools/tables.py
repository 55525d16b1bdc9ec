"""Tables as Markdown and as aligned text."""

import re
from itertools import zip_longest


def table(header: tuple, rows) -> str:
    rule = ["---"] * len(header)
    lines = [[str(cell).replace("|", r"\|") for cell in line] for line in (header, rule, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def columns(rows) -> str:
    """The rows as plain text: columns as wide as they need with two blanks between, the first to the left and the
    others to the right. An empty row is an empty line.

    >>> print(columns([("", "first", "second"), ("a", 12.5, ""), (), ("longer", 1, "2 to 3")]))
            first  second
    a        12.5
    <BLANKLINE>
    longer      1  2 to 3
    """
    rows = [list(map(str, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    lines = (
        "  ".join(
            [cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(zip(row, widths))]
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def fenced(text: str, language: str = "") -> str:
    """A code block, its fence longer than any in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"

"""Numbers as text: each finite number has one spelling, the one that Python's repr gives it.

Integers keep all their digits, 3.0 stays apart from 3, and 1e5 is spelled 100000.0.
"""

import math
import re
from collections.abc import Iterator
from functools import lru_cache

MAX_DIGITS = 4300  # the longest integer that Python, and with it json.loads, reads
_SHAPE = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?(e[+-]\d\d+)?", re.ASCII)
_PREFIX = re.compile(r"-?((0|[1-9]\d*)(\.\d*)?(e([+-]\d*)?)?)?", re.ASCII)


def spell(number: int | float) -> str:
    """The spelling of a number; ValueError for NaN, infinities and integers beyond MAX_DIGITS.

    >>> spell(22), spell(3.10), spell(1e5), spell(1e16)
    ('22', '3.1', '100000.0', '1e+16')
    """
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError(f"{number} is not a JSON number")
    return repr(number)


def parse(text: str) -> int | float | None:
    """The number of which `text` is the spelling; None for any other text.

    >>> parse("3.1"), parse("3.10"), parse("-0")
    (3.1, None, None)
    """
    if not _SHAPE.fullmatch(text) or len(text) > MAX_DIGITS:
        return None
    number = float(text) if "." in text or "e" in text else int(text)
    return number if repr(number) == text else None  # inf has another spelling too


@lru_cache(maxsize=100_000)
def may_continue(text: str) -> bool:
    """Is there a spelling that starts with `text`?

    >>> may_continue("-0."), may_continue("00"), may_continue("1e+1"), may_continue("0.00001")
    (True, False, True, False)
    """
    return bool(_PREFIX.fullmatch(text)) and any(parse(text + end) is not None for end in endings(text))


def endings(text: str) -> Iterator[str]:
    """Endings of which one fits if any does. Up to 15 significant digits spell a double of their own, and none
    needs more than 17, so two more digits tell; then every exponent is tried."""
    yield from ("", "1", "0", ".0")
    yield from (f"{n:02d}" for n in range(1, 100))
    yield from "23456789"
    exponent = text[len(text.partition("e")[0]) :]
    for power in range(-324, 309):
        spelled = f"e{power:+03d}"
        if spelled.startswith(exponent):
            yield spelled[len(exponent) :]

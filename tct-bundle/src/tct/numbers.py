"""Numbers as text: each finite number has one spelling, the one that Python's repr gives it.

Integers keep all their digits, 3.0 stays apart from 3, and 1e5 is spelled 100000.0.
"""

import math
import re
from collections.abc import Iterator
from functools import lru_cache

MAX_DIGITS = 4300  # the longest integer that Python, and with it json.loads, reads
_SHAPE = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?(e[+-]\d\d+)?", re.ASCII)
_WHOLE = re.compile(r"-?|0|-?[1-9]\d*", re.ASCII)
_FRACTION = re.compile(r"-?((0|[1-9]\d*)(\.\d*)?|[1-9](\.\d*[1-9])?e([+-]\d{0,3})?)", re.ASCII)
_LEADING = re.compile(r"-?0?\.?0*|\.|e.*")  # what is not a significant digit
_ONE_DIGIT = re.compile(r"-?[1-9]\.")  # what comes before a point where there is an exponent
MOST_SIGNIFICANT = 17  # digits that repr needs for any double


def spell(number: float) -> str:
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
    if _WHOLE.fullmatch(text):
        return len(text) <= MAX_DIGITS
    if not _FRACTION.fullmatch(text) or len(_LEADING.sub("", text)) > MOST_SIGNIFICANT:
        return False
    return any(parse(text + end) is not None for end in endings(text))


def endings(text: str) -> Iterator[str]:
    """Endings of which one fits if any does. Up to 15 significant digits spell a double of their own, and none
    needs more than MOST_SIGNIFICANT, so two more digits tell; then these before every exponent."""
    digits = ("", "1", "0", ".0", *(f"{n:02d}" for n in range(1, 100)), *"23456789")
    yield from digits
    _, e, exponent = text.partition("e")
    powers = [f"e{power:+03d}" for power in (*range(-5, -325, -1), *range(16, 309))]
    if e:
        yield from (power[1 + len(exponent) :] for power in powers if power.startswith(e + exponent))
    elif _ONE_DIGIT.match(text):
        yield from (more + power for more in digits for power in powers)

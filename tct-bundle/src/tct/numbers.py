"""Numbers as text: each finite number has one spelling, the `repr` of Python.

Integers keep all their digits, 3.0 and 3 are spelled differently, and 1e5 is spelled 100000.0. For a schema 3.0 and 3
are the same number: `exact` returns 3 for both. A number with a point or an exponent is the double that Python reads,
to the last digit: 1e23 equals 99999999999999991611392.

There are three kinds of numbers: 3 is WHOLE, 3.0 and 1e+16 are POINTED, 3.5 is a FRACTION. In draft-04 only WHOLE
numbers are integers, in later drafts POINTED ones are, too.
"""

import math
import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from math import floor

MAX_DIGITS = 4300  # of the longest integer that Python (and so json.loads) reads
KINDS = WHOLE, POINTED, FRACTION = range(3)
CHARACTERS = "0123456789.e+-"
_SHAPE = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?(e[+-]\d\d+)?", re.ASCII)
_PREFIX = re.compile(r"-?((0|[1-9]\d*)(\.\d*)?|[1-9](\.\d*[1-9])?e([+-]\d*)?)?", re.ASCII)
_WHOLE = re.compile(r"-?([1-9]\d*)?", re.ASCII)
_ONE_DIGIT = re.compile(r"-?[1-9]\.")  # the part before the digits of a number that has a point and an exponent
_DIGITS = ("", *"0123456789", *(f"{n:02d}" for n in range(100)))
_EXPONENTS = {
    WHOLE: [],
    POINTED: [f"{n:+03d}" for n in range(16, 309)],
    FRACTION: [f"{n:+03d}" for n in range(-5, -325, -1)],
}


def spell(number: float) -> str:
    """Return the spelling of a number. Raises ValueError for NaN, infinities and integers beyond MAX_DIGITS.

    >>> spell(22), spell(3.10), spell(1e5), spell(1e16)
    ('22', '3.1', '100000.0', '1e+16')
    """
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError(f"{number} is not a JSON number")
    return repr(number)


def parse(text: str) -> int | float | None:
    """Return the number whose spelling is `text`, or None if there is none.

    >>> parse("3.1"), parse("3.10"), parse("-0")
    (3.1, None, None)
    """
    if not _SHAPE.fullmatch(text) or len(text) - text.startswith("-") > MAX_DIGITS:
        return None
    number = float(text) if "." in text or "e" in text else int(text)
    return number if repr(number) == text else None  # 1e999 is read as inf, whose spelling differs


def kind(number: float) -> int:
    """Return the kind of a number: WHOLE, POINTED or FRACTION.

    >>> kind(3), kind(3.0), kind(3.5)
    (0, 1, 2)
    """
    if isinstance(number, int):
        return WHOLE
    return POINTED if number.is_integer() else FRACTION


def exact(number: float) -> int | float:
    """Return the same number, as an int if it is integral.

    >>> exact(3.0), exact(1e23), exact(0.5)
    (3, 99999999999999991611392, 0.5)
    """
    return int(number) if isinstance(number, float) and number.is_integer() else number


def spellings(number: float) -> list[str]:
    """Return all spellings of an exact number, the shortest first.

    >>> spellings(0), spellings(12), spellings(0.5)
    (['0', '0.0', '-0.0'], ['12', '12.0'], ['0.5'])
    """
    try:
        number_as_float = float(number)
    except OverflowError:
        return [spell(number)]
    return sorted({spell(n) for n in (number, number_as_float, -number_as_float) if exact(n) == number}, key=len)


@lru_cache(maxsize=100_000)
def ending(text: str, of_kind: int) -> str | None:
    """Return a short ending that makes `text` the spelling of a number of a kind, or None if there is none.

    >>> ending("12", WHOLE), ending("12", POINTED), ending("12.", WHOLE), ending("1.5", POINTED)
    ('', '.0', None, 'e+16')
    """
    if not _PREFIX.fullmatch(text):
        return None
    return next((end for end in _candidates(text, of_kind) if _is_spelling(text + end, of_kind)), None)


@lru_cache(maxsize=100_000)
def ending_between(text: str, of_kind: int, low: float | None, high: float | None) -> str | None:
    """Return an ending that makes `text` the spelling of a number of a kind between two limits, or None if there is
    none. The limits are exclusive and exact; None is no limit.

    >>> ending_between("1", WHOLE, 10, 20), ending_between("1", WHOLE, 3, 9), ending_between("0.", FRACTION, 0.1, 0.2)
    ('1', None, '11')
    """
    if not _PREFIX.fullmatch(text):
        return None
    simple = _candidates(text, of_kind, _may_have_exponent(of_kind, low, high))
    for end in chain(simple, _candidates_between(text, of_kind, low, high)):
        number = parse(text + end)
        if number is None or kind(number) != of_kind:
            continue
        if (low is None or low < number) and (high is None or number < high):
            return end
    return None


def _may_have_exponent(of_kind: int, low: float | None, high: float | None) -> bool:
    """Has any number of a kind between two limits an exponent? These are numbers from 1e16, and those below 0.0001."""
    if of_kind == POINTED:
        return low is None or high is None or low < -1e16 or high > 1e16
    return (low is None or low < 1e-4) and (high is None or high > -1e-4)


def _candidates_between(text: str, of_kind: int, low: float | None, high: float | None) -> Iterator[str]:
    """Yield endings of which one fits if any ending does."""
    if text in ("", "-"):
        for digit in "-0123456789" if not text else "0123456789":
            yield from (digit + end for end in _candidates_between(text + digit, of_kind, low, high))
        return
    if text.startswith("-"):
        low, high = (None if limit is None else -limit for limit in (high, low))
        text = text[1:]
    if high is not None and high <= 0:
        return
    find = _whole_between if of_kind == WHOLE else _doubles_between
    spelled = find(text, of_kind, Fraction(-1 if low is None else max(-1, low)), high)
    yield from (number[len(text) :] for number in spelled if number.startswith(text))


def _whole_between(text: str, of_kind: int, low: Fraction, high: float | None) -> Iterator[str]:
    """Yield the least integer that starts with the digits of `text`, for each number of digits."""
    if not text.isdigit():
        return
    for n_more in range(MAX_DIGITS - len(text) + 1):
        first = int(text) * 10**n_more
        least = max(first, floor(low) + 1)
        if high is not None and least >= high or text == "0" and n_more:
            return
        if least < first + 10**n_more:
            yield str(least)


def _doubles_between(text: str, of_kind: int, low: Fraction, high: float | None) -> Iterator[str]:
    """Yield the first doubles above `low` that start with `text`, for each number of digits before the point and for
    each exponent. Rounding may move the first two; the next is of the interval if the interval has that many."""
    digits, has_exponent, _ = text.partition("e")
    whole, has_point, fraction = digits.partition(".")
    step, mantissa = Fraction(1, 10 ** len(fraction)), Fraction(digits.rstrip("."))
    scales = [10**n for n in range(0 if has_point or whole == "0" else 17 - len(whole))] or [1]
    for scale in () if has_exponent else scales:
        least = max(mantissa * scale, low, Fraction(1, 10_000) if of_kind == FRACTION else Fraction(0))
        if least <= (mantissa + step) * scale and (high is None or least <= high):
            starts = (floor(least), floor(least) + 1, floor(least) + 2) if of_kind == POINTED else (least,)
            yield from (repr(number) for start in starts for number in _neighbours(start))
    if len(whole) > 1 or whole == "0":
        return
    for exponent in _EXPONENTS[of_kind]:
        scale = Fraction(10) ** int(exponent)
        is_large = high is not None and mantissa * scale > high
        if is_large if of_kind == POINTED else (mantissa + step) * scale < low:
            return  # so are all with the next exponents
        least = max(mantissa * scale, low)
        if least <= (mantissa + step) * scale and (high is None or least <= high):
            yield f"{digits}e{exponent}"
            yield from (repr(number) for number in _neighbours(least))


def _neighbours(number: Fraction) -> Iterator[float]:
    """Yield the doubles around a number."""
    try:
        double = math.nextafter(float(number), -math.inf)
    except OverflowError:
        double = math.nextafter(math.inf, 0)
    for _ in range(5):
        if math.isfinite(double):
            yield double
        double = math.nextafter(double, math.inf)


def _is_spelling(text: str, of_kind: int) -> bool:
    number = parse(text)
    return number is not None and kind(number) == of_kind


_WITHOUT_POINT = {
    WHOLE: ("", "0", "1"),
    POINTED: (".0", "0.0"),
    FRACTION: (*(f".{digit}" for digit in "123456789"), "0.5"),
}


def _candidates(text: str, of_kind: int, with_exponents: bool = True) -> Iterator[str]:
    """Yield endings of which one fits if any ending does.

    Every number of up to 15 significant digits is the spelling of some double, and no double needs more than 17
    digits. So two more digits after the point are enough; then every exponent is tried.
    """
    _, has_exponent, exponent = text.partition("e")
    if has_exponent:
        yield from (e[len(exponent) :] for e in _EXPONENTS[of_kind] if e.startswith(exponent))
    elif "." not in text:
        yield from _WITHOUT_POINT[of_kind]
    elif of_kind != WHOLE:
        yield from _DIGITS
        if with_exponents and _ONE_DIGIT.match(text):
            n_free = 18 - len(text.lstrip("-"))  # of 17 digits and the point
            for digits in _DIGITS:
                if len(digits) <= n_free:
                    yield from (f"{digits}e{exponent}" for exponent in _EXPONENTS[of_kind])


def is_whole(text: str) -> bool:
    """Can `text` grow into integers of any value (up to MAX_DIGITS)?"""
    return _WHOLE.fullmatch(text) is not None and len(text) < MAX_DIGITS


def may_continue(text: str) -> bool:
    """Is there a spelling that starts with `text`?"""
    return any(ending(text, of_kind) is not None for of_kind in KINDS)

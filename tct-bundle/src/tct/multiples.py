"""Numbers that are multiples of some divisors, or are not.

What counts is the decimal that is written, as in jsonschema-rs: 0.07 is a multiple of 0.01, although its double is not.
Where a divisor matters, a number with a point has at most MAX_POINTED_DIGITS digits and no exponent. Each such decimal
is the spelling of a double, so numbers are found by counting.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor, lcm

from tct.numbers import FRACTION, MAX_DIGITS, POINTED, WHOLE, spell

MAX_POINTED_DIGITS = 15
N_ZEROS = 4  # with more zeros at its start, 0.0001 and so on, a number is written with an exponent
_PLAIN = re.compile(r"((0|[1-9]\d*)(\.\d*)?)?", re.ASCII)

Multiples = tuple[tuple[Fraction, bool], ...]  # divisors, each with whether a number is a multiple of it


def decimal(number: float) -> Fraction:
    """Return the decimal that is written for a number.

    >>> decimal(0.1), decimal(3)
    (Fraction(1, 10), Fraction(3, 1))
    """
    return Fraction(number if isinstance(number, int) else spell(number))


def is_multiple(number: float, divisor: Fraction) -> bool:
    """Is a number a multiple of a divisor?

    >>> is_multiple(0.07, decimal(0.01)), is_multiple(0.075, decimal(0.01))
    (True, False)
    """
    return decimal(number) % divisor == 0


def is_countable(number: float) -> bool:
    """Can a number be a multiple?

    >>> is_countable(10**20), is_countable(1e20), is_countable(12.5)
    (True, False, True)
    """
    if isinstance(number, int):
        return True
    spelled = spell(number)
    return "e" not in spelled and sum(map(str.isdigit, spelled)) <= MAX_POINTED_DIGITS


@lru_cache(maxsize=100_000)
def ending_of_multiple(
    text: str, of_kind: int, low: float | None, high: float | None, multiples: Multiples
) -> str | None:
    """Return an ending that makes `text` the spelling of a number of a kind, between two limits (exclusive), that is a
    multiple of some divisors and not of others; or None if there is none.

    >>> ending_of_multiple("1", WHOLE, None, None, ((Fraction(7), True),))
    '4'
    >>> ending_of_multiple("0.", FRACTION, 0.1, None, ((Fraction(1, 4), True), (Fraction(1, 2), False)))
    '25'
    """
    lower, upper = (None if limit is None else decimal(limit) for limit in (low, high))
    for sign in ("", "-") if text == "" else ("-",) if text.startswith("-") else ("",):
        if sign == "-":
            lower, upper = (None if limit is None else -limit for limit in (upper, lower))
        for n_fraction, least, most in _ranges(text.removeprefix("-"), of_kind, upper):
            unit = 10**n_fraction
            least = max(least, 1) if of_kind == WHOLE and sign == "-" else least  # -0 has a point
            least = least if lower is None else max(least, floor(lower * unit) + 1)
            most = most if upper is None else min(most, ceil(upper * unit) - 1)
            steps = _steps(n_fraction, multiples, of_kind)
            number = _first(least, most, *steps) if steps is not None else None
            if number is not None:
                return (sign + _spell(number, n_fraction, of_kind))[len(text) :]
            if steps is None and of_kind != FRACTION:
                return None
    return None


def _ranges(text: str, of_kind: int, upper: Fraction | None) -> Iterator[tuple[int, int, int]]:
    """Yield (digits after the point, least, most) for the numbers without a sign that start with `text`, for each
    number of digits, until they reach `upper`. They are counted in units of the last digit, and an integer with a point
    in ones."""
    if not _PLAIN.fullmatch(text):
        return
    whole, has_point, fraction = text.partition(".")
    if has_point and of_kind == WHOLE or of_kind == POINTED and fraction not in ("", "0"):
        return
    longest = MAX_DIGITS if of_kind == WHOLE else MAX_POINTED_DIGITS - 1
    is_whole_complete = has_point or whole == "0"
    for n_whole in range(max(1, len(whole)), min(longest, len(whole) if is_whole_complete else longest) + 1):
        least, most = _with_digits(whole, n_whole)
        if whole == "":
            least = 0 if n_whole == 1 else 10 ** (n_whole - 1)
        if upper is not None and least >= upper:
            return
        if of_kind != FRACTION:
            yield 0, least, most
            continue
        for n_fraction in range(max(1, len(fraction)), MAX_POINTED_DIGITS - n_whole + 1):
            first, last = _with_digits(fraction, n_fraction)
            smallest = 10 ** max(0, n_fraction - N_ZEROS) if whole == "0" or not whole else 0
            yield n_fraction, max(least * 10**n_fraction + first, smallest), most * 10**n_fraction + last


def _with_digits(start: str, n_digits: int) -> tuple[int, int]:
    """Return the first and the last number of that many digits that starts with `start`."""
    n_more = 10 ** (n_digits - len(start))
    return int(start or "0") * n_more, (int(start or "0") + 1) * n_more - 1


@lru_cache(maxsize=10_000)
def _steps(n_fraction: int, multiples: Multiples, of_kind: int) -> tuple[int, list[int]] | None:
    """Return what a number is a multiple of, and what it is not a multiple of, counted in units of the last digit; or
    None if there is no such number."""
    in_units = [((divisor * 10**n_fraction).numerator, holds) for divisor, holds in multiples]
    step = lcm(*(divisor for divisor, holds in in_units if holds))
    others = [divisor for divisor, holds in in_units if not holds]
    if of_kind == FRACTION:
        others.append(10)  # the last digit is not 0
    return (step, others) if all(step % divisor for divisor in others) else None


def _first(least: int, most: int, step: int, others: list[int]) -> int | None:
    """Return the first integer in a range that is a multiple of `step` and not of others, or None."""
    number = -(-least // step) * step
    for _ in range(2 ** len(others)):  # of so many multiples, one is not a multiple of the others
        if number > most:
            return None
        if all(number % divisor for divisor in others):
            return number
        number += step
    raise AssertionError("there is a number")


def _spell(number: int, n_fraction: int, of_kind: int) -> str:
    if of_kind != FRACTION:
        return f"{number}.0" if of_kind == POINTED else str(number)
    digits = str(number).zfill(n_fraction + 1)
    return f"{digits[:-n_fraction]}.{digits[-n_fraction:]}"

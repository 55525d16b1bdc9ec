"""Numbers have one spelling, and every byte of it can be foreseen, for integers and for fractions."""

import json
import math

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tct.multiples import decimal, ending_of_multiple, is_countable, is_multiple
from tct.numbers import (
    CHARACTERS,
    FRACTION,
    KINDS,
    MAX_DIGITS,
    POINTED,
    WHOLE,
    ending,
    ending_between,
    exact,
    kind,
    parse,
    spell,
    spellings,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.integers(-(10**400), 10**400)


def is_integral(number) -> bool:
    return isinstance(number, int) or number.is_integer()


@given(FINITE)
def test_a_spelling_is_json_and_stands_for_its_number(number):
    text = spell(number)
    for back in (parse(text), json.loads(text)):
        assert type(back) is type(number) and repr(back) == repr(number)  # repr: -0.0 is not 0.0


@given(FINITE)
def test_every_beginning_of_a_spelling_may_be_continued(number):
    text = spell(number)
    assert all(ending(text[:end], kind(number)) is not None for end in range(min(len(text), 40) + 1))


@given(st.text(CHARACTERS, max_size=5) | FINITE.flatmap(lambda number: st.text(CHARACTERS, max_size=2).map(
    lambda more: spell(number)[:20] + more)), st.sampled_from(KINDS))  # fmt: skip
def test_what_may_be_continued_reaches_a_spelling_of_its_kind_byte_by_byte(text, of_kind):
    end = ending(text, of_kind)
    if end is None:
        assert parse(text) is None or kind(parse(text)) != of_kind
        assert all(ending(text + char, of_kind) is None for char in CHARACTERS)
    else:
        assert kind(parse(text + end)) == of_kind
        assert all(ending(text + end[:i], of_kind) is not None for i in range(len(end)))


@given(FINITE)
def test_an_exact_number_is_an_int_if_it_can_be_and_equal_spellings_stand_for_it(number):
    assert exact(number) == number and isinstance(exact(number), int) == is_integral(number)
    assert spell(number) in spellings(exact(number)) or len(spell(exact(number))) > MAX_DIGITS
    assert all(exact(parse(text)) == exact(number) for text in spellings(exact(number)))


@pytest.mark.parametrize(
    "text, of_kind, low, high, found",
    [
        ("0", WHOLE, None, None, ""),
        ("0", POINTED, None, None, ".0"),
        ("-0", WHOLE, None, None, None),
        ("-0", POINTED, None, None, ".0"),
        ("-0", POINTED, 0, None, None),
        ("12.", WHOLE, None, None, None),
        ("12345678901234567", POINTED, None, None, None),
        ("0.3000000000000000", FRACTION, None, None, "4"),
        ("12.5", POINTED, None, None, None),
        ("0.0000", FRACTION, None, None, None),
        ("9" * MAX_DIGITS, WHOLE, None, None, ""),
        ("1", WHOLE, 1, 10, None),
        ("1", WHOLE, 65_535, None, "00000"),
        ("", WHOLE, 0, 1, None),
        ("", FRACTION, 2**53, None, None),  # doubles beyond are whole
        ("", POINTED, 2**53, 2**53 + 2, None),
        ("", POINTED, 10**22, None, "1e+23"),
        ("", FRACTION, 0, 5e-324, None),
        ("5", FRACTION, 0, 1e-323, "e-324"),
        ("-1", WHOLE, -200, -150, "51"),
    ],
)
def test_endings_are_between_the_limits(text, of_kind, low, high, found):
    ending = ending_between(text, of_kind, low, high)
    assert (ending is None) == (found is None)
    if ending is not None:
        number = parse(text + ending)
        assert kind(number) == of_kind and (low is None or number > low) and (high is None or number < high)


@st.composite
def numbers_within_limits(draw):
    """Draw a number, and limits around it that are exact: far, near, or the next doubles."""
    number = draw(st.one_of(st.integers(), st.integers(-100, 100), st.floats(allow_nan=False, allow_infinity=False),
                            st.decimals(-10, 10, places=3).map(float)))  # fmt: skip
    limits = []
    for sign in (-1, 1):
        steps = draw(st.sampled_from([None, 1, 2, 3, 0.001, 0.5, 7, 1e9]))
        try:
            near = float(number)
            for _ in range(steps if isinstance(steps, int) and not isinstance(number, int) else 0):
                near = math.nextafter(near, sign * math.inf)
            limit = None if steps is None else exact(near if near != number else number + sign * steps)
        except OverflowError:
            limit = None
        limits.append(limit if limit is not None and math.isfinite(limit) and (limit - number) * sign > 0 else None)
    return number, *limits


@settings(max_examples=150, deadline=None)
@given(numbers_within_limits())
def test_every_start_of_a_number_between_limits_has_an_ending(drawn):
    number, low, high = drawn
    spelled = spell(number)
    for length in range(len(spelled) + 1):
        ending = ending_between(spelled[:length], kind(number), low, high)
        assert ending is not None, spelled[:length]
        found = parse(spelled[:length] + ending)
        assert kind(found) == kind(number) and (low is None or found > low) and (high is None or found < high)


DIVISORS = st.sampled_from([1, 2, 3, 5, 7, 10, 60, 10**6, 10**20, 0.5, 0.25, 0.1, 0.01, 0.07, 2.5, 3.14, 1e-5])


@st.composite
def countable_within_limits(draw):
    """Draw a number that may be a multiple, limits around it, and divisors with whether it is a multiple of them."""
    number, low, high = draw(numbers_within_limits().filter(lambda drawn: is_countable(drawn[0])))
    found = draw(st.lists(DIVISORS, max_size=4, unique=True))
    if draw(st.booleans()) and isinstance(number, int):  # often a multiple
        number, low, high = number * found[0] if found and isinstance(found[0], int) else number, None, None
    return number, low, high, tuple((decimal(divisor), is_multiple(number, decimal(divisor))) for divisor in found)


@settings(max_examples=500, deadline=None)
@given(countable_within_limits())
def test_every_start_of_a_multiple_has_an_ending(drawn):
    number, low, high, multiples = drawn
    spelled = spell(number)
    for length in range(len(spelled) + 1):
        ending = ending_of_multiple(spelled[:length], kind(number), low, high, multiples)
        assert ending is not None, spelled[:length]
        found = parse(spelled[:length] + ending)
        assert kind(found) == kind(number) and (low is None or found > low) and (high is None or found < high)
        assert is_countable(found) and all(is_multiple(found, divisor) == holds for divisor, holds in multiples)


@pytest.mark.parametrize("number", [0.07, 0.075, 12.34, 10**23, 3, 3.0, -4.5, 0.0, 1e-5, 2**53 + 1])
@pytest.mark.parametrize("divisor", [0.01, 1e-5, 3, 2.0, 1.5, 1000])
def test_multiples_are_those_of_jsonschema(number, divisor):
    assert is_multiple(number, decimal(divisor)) == jsonschema_rs.is_valid({"multipleOf": divisor}, number)


@pytest.mark.parametrize("text", ["-0", "01", "1.50", "1e5", "1.", "", "+1", "1e400", "9" * (MAX_DIGITS + 1)])
def test_other_spellings_are_refused(text):
    assert parse(text) is None

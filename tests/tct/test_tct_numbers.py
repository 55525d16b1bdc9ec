"""Numbers have one spelling, and every byte of it can be foreseen, for integers and for fractions."""

import json
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tct.numbers import (
    CHARACTERS,
    FRACTION,
    KINDS,
    MAX_DIGITS,
    POINTED,
    WHOLE,
    ending,
    endings,
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
    "text, of_kind, found",
    [
        ("0", WHOLE, [""]),
        ("0", POINTED, [".0"]),
        ("-0", WHOLE, []),
        ("-0", POINTED, [".0"]),
        ("5", WHOLE, ["", "0", "1"]),
        ("5", FRACTION, [".1", ".2", ".3"]),
        ("12.", WHOLE, []),
        ("12.", POINTED, ["0"]),
        ("12345678901234567", POINTED, []),
        ("0.3000000000000000", FRACTION, ["4"]),
        ("1.5e", POINTED, [f"+{n}" for n in range(16, 309)]),
        ("1.5e-", POINTED, []),
        ("12.5", POINTED, []),
        ("0.0000", FRACTION, []),
        ("9" * MAX_DIGITS, WHOLE, [""]),
    ],
)
def test_endings_are_complete(text, of_kind, found):
    assert list(islice(endings(text, of_kind), len(found) if text == "5" else None)) == found


@pytest.mark.parametrize("text", ["-0", "01", "1.50", "1e5", "1.", "", "+1", "1e400", "9" * (MAX_DIGITS + 1)])
def test_other_spellings_are_refused(text):
    assert parse(text) is None

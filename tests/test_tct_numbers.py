"""Numbers have one spelling, and every byte of it can be foreseen."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tct.numbers import MAX_DIGITS, may_continue, parse, spell

FINITE = st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.integers(-(10**400), 10**400)


@given(FINITE)
def test_a_spelling_is_json_and_stands_for_its_number(number):
    text = spell(number)
    for back in (parse(text), json.loads(text)):
        assert type(back) is type(number) and repr(back) == repr(number)  # repr: -0.0 is not 0.0


@given(FINITE)
def test_every_beginning_of_a_spelling_may_be_continued(number):
    text = spell(number)
    assert all(may_continue(text[:end]) for end in range(min(len(text), 40) + 1))


@given(st.text("0123456789+-.e", max_size=5))
def test_what_may_be_continued_reaches_a_spelling_byte_by_byte(text):
    if not may_continue(text):
        assert parse(text) is None
    else:
        assert parse(text) is not None or any(may_continue(text + byte) for byte in "0123456789+-.e")


@pytest.mark.parametrize("text", ["-0", "01", "1.50", "1e5", "1.", "", "+1", "1e400", "9" * (MAX_DIGITS + 1)])
def test_other_spellings_are_refused(text):
    assert parse(text) is None

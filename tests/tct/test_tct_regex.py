"""Patterns as automata: the same verdicts as Python's re where both mean the same, on UTF-8 bytes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tct.regex import PatternError, compile_pattern, escape, finite_language, utf8_ranges

PATTERNS = [
    r"^\$\{\{(.|[\r\n])*\}\}\Z", r"^[_a-zA-Z][a-zA-Z0-9_-]*\Z", r"^(.+\/)+(.+)\.(ya?ml)(@.+)?\Z", r"a{2,4}b?|^c",
    r"[^a\n]x\Z", r"^(?:é|😀)+?\Z", r"^\d{3,}\Z", r"x*", r"^a|b\Z|^\Z", r"[\w.-]+@\S", r"^.$",
]  # fmt: skip
TEXT = st.text(st.sampled_from("abcxy.-_/@${}\né😀019 "), max_size=8)


@given(st.sampled_from(PATTERNS), TEXT)
def test_a_pattern_matches_what_python_matches(pattern, text):
    # Python writes the very end as \Z; and $ there also stands before a last newline, which ECMA-262 excludes
    expected = re.search(pattern.replace("$", r"\Z") if pattern.endswith("$") else pattern, text, re.ASCII)
    assert compile_pattern(pattern.replace(r"\Z", "$")).matches(text) == bool(expected)


@given(TEXT, TEXT)
def test_an_escaped_text_matches_itself_alone(text, other):
    dfa = compile_pattern(f"^{escape(text)}$")
    assert dfa.matches(text)
    assert dfa.matches(other) == (text == other)


@given(st.integers(0, 0x10FFFF), st.integers(0, 0x10FFFF), st.integers(0, 0x10FFFF))
def test_utf8_ranges_spell_exactly_the_code_points_of_the_range(low, high, code_point):
    low, high = sorted((low, high))
    spelled = [] if 0xD800 <= code_point <= 0xDFFF else [list(chr(code_point).encode())]
    hit = any(
        len(sequence) == len(data) and all(a <= byte <= b for (a, b), byte in zip(sequence, data))
        for sequence in utf8_ranges(low, high)
        for data in spelled
    )
    assert hit == (low <= code_point <= high and bool(spelled))


def test_a_finite_language_is_listed_and_an_endless_one_is_not():
    assert finite_language(compile_pattern("^(in|ex)clude$"), 64) == ["exclude", "include"]
    assert finite_language(compile_pattern("^a*$"), 64) is None
    assert finite_language(compile_pattern("^[0-9]{3}$"), 64) is None  # finite, but beyond the limit


@pytest.mark.parametrize("pattern", ["(a", "a)", "[a", "*a", "a{x}", "(?=a)", r"\bword", r"(a)\1", "a{2,1}"])
def test_what_is_malformed_or_unsupported_is_refused(pattern):
    with pytest.raises(PatternError):
        compile_pattern(pattern)

"""Patterns as automata: the same verdicts as Python's re where both mean the same, on UTF-8 bytes."""

import re
from functools import reduce
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tct.assertions import Text
from tct.automata import DEAD, Alphabet, finite_language, smallest
from tct.regex import PatternError, compile_pattern
from tct.text import automaton_of
from tct.utf8 import bytes_of

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


@given(st.lists(TEXT), TEXT)
def test_words_match_themselves_alone(words, other):
    dfa = automaton_of(Text(frozenset(words)))
    assert all(map(dfa.matches, words))
    assert dfa.matches(other) == (other in words)


@given(st.lists(st.tuples(st.integers(0, 0x10FFFF), st.integers(0, 0x10FFFF))), st.binary(min_size=1, max_size=4))
def test_bytes_of_a_character_lead_where_the_character_leads(ranges, data):
    alphabet, classes = Alphabet.of(
        (cut for low, high in ranges for cut in (low, high)), lambda c: sum(low <= c < high for low, high in ranges)
    )
    table = [list(range(1, len(classes) + 1)), *([DEAD] * len(classes) for _ in classes)]
    rows = bytes_of(alphabet, table)
    state = 0
    for byte in data:
        state = rows[state, byte] if state != DEAD else DEAD
    try:
        (char,) = data.decode()
    except ValueError:
        assert state == DEAD or state >= len(table)  # no character, or within one
    else:
        assert classes[state - 1] == sum(low <= ord(char) < high for low, high in ranges)


@given(st.characters(exclude_categories=["Cs"]))
def test_every_character_is_a_text(char):
    rows = bytes_of(Alphabet((0,), (0,)), [[0]])
    state = 0
    for byte in char.encode():
        state = rows[state, byte]
    assert state == 0


@given(st.integers(1, 6), st.integers(1, 3), st.data())
def test_the_smallest_automaton_has_the_same_labels_and_a_state_for_each_language(n_states, n_classes, data):
    states = st.integers(0, n_states - 1)
    table = data.draw(
        st.lists(st.lists(states, min_size=n_classes, max_size=n_classes), min_size=n_states, max_size=n_states)
    )
    labels = data.draw(st.lists(st.sampled_from([None, 1, 2]), min_size=n_states, max_size=n_states))
    small, small_labels = smallest(table, labels)

    def language(table, labels, state):  # two states of n in all that differ do so on a text shorter than n
        texts = [text for length in range(n_states) for text in product(range(n_classes), repeat=length)]
        return tuple(labels[at] if (at := reduce(step(table), text, state)) != DEAD else None for text in texts)

    def step(table):
        return lambda state, number: table[state][number] if state != DEAD else DEAD

    languages = [language(small, small_labels, state) for state in range(len(small))]
    assert languages[0] == language(table, labels, 0)
    assert len(set(languages)) == len(languages)
    assert all(any(each) for each in languages[1:])


def test_a_finite_language_is_listed_and_an_endless_one_is_not():
    assert finite_language(compile_pattern("^(in|ex)clude$"), 64) == ["exclude", "include"]
    assert finite_language(compile_pattern("^a*$"), 64) is None
    assert finite_language(compile_pattern("^[0-9]{3}$"), 64) is None  # finite, but beyond the limit


@pytest.mark.parametrize("pattern", ["(a", "a)", "[a", "*a", "a{x}", "(?=a)", r"\bword", r"(a)\1", "a{2,1}"])
def test_what_is_malformed_or_unsupported_is_refused(pattern):
    with pytest.raises(PatternError):
        compile_pattern(pattern)

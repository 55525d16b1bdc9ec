"""Loops of samples, found as a slow twin finds them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_eval.repetition import COPIES, LONGEST_BLOCK, SHORT, has_loop


@pytest.mark.parametrize(
    "tokens, expected",
    [
        ([], False),
        ([1] * 24, False),
        ([1] * 25, True),
        ([5, *range(1, 10), *range(1, 10), *range(1, 10), 6], True),
        ([5, *range(1, 10), *range(1, 10), *range(1, 9), 6], False),
        ([*range(1, 5)] * 5, False),  # 20 tokens
        ([*range(300)] * 3, False),  # the block is too long
    ],
)
def test_examples(tokens, expected):
    assert has_loop(np.array(tokens, np.int16)) == expected


@given(st.lists(st.integers(1, 3), max_size=12), st.integers(1, 9), st.lists(st.integers(1, 3), max_size=12))
def test_a_slow_twin_agrees(block, copies, around):
    tokens = np.array([*around, *block * copies, *around[::-1]], np.int16)
    assert has_loop(tokens) == twin(tokens.tolist())


def twin(tokens):
    for start in range(len(tokens)):
        for length in range(1, LONGEST_BLOCK + 1):
            block = tokens[start : start + length]
            end = start + length
            while end < len(tokens) and tokens[end] == tokens[end - length]:
                end += 1
            if len(block) == length and end - start >= COPIES * length and end - start > SHORT:
                return True
    return False

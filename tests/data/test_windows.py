"""Windows hold every token in order, up to the last one, and tables are never in memory as a whole."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workflow_data.table_file import new_table, open_table
from workflow_data.windows import WindowPlan, windows


@given(st.integers(1, 400), st.integers(1, 40), st.integers(1, 4), st.integers(1, 40))
def test_windows_hold_all_tokens_in_order(length, stride, steps, extra):
    plan = WindowPlan(stride * steps + extra, stride, stride * steps, 8192, 0)
    tokens = np.arange(1, length + 1, dtype=np.int16)
    rows = windows(tokens, plan)
    assert rows.dtype == np.int16 and rows.shape == (plan.count(length), plan.context_size + 1)
    starts = [i * plan.window_step for i in range(len(rows))]
    for start, row in zip(starts, rows):
        assert start % stride == 0 and row[0] == start // stride
        held = tokens[start : start + plan.context_size]
        assert len(held) and row[1:].tolist() == held.tolist() + [0] * (plan.context_size - len(held))
    assert starts[-1] + plan.context_size >= length  # the last token is a target
    assert len(rows) == 1 or starts[-2] + plan.context_size < length  # and no window comes after it
    assert set(rows[:, 1:].flat) - {0} == set(tokens)


@given(st.integers(1, 5000), st.integers(1, 8), st.integers(1, 3))
def test_the_remedy_makes_a_long_sequence_fit(length, stride, steps):
    plan = WindowPlan(32, stride, stride * steps, 100, 0)
    assert plan.fits(length) == (windows(np.ones(length, np.int16), plan)[-1, 0] < 100)
    if not plan.fits(length):
        better = int(plan.remedy(length).split("--stride ")[1].split()[0])
        assert WindowPlan(max(32, better * steps), better, better * steps, 100, 0).fits(length)


def test_a_workflow_of_170655_tokens_has_positions_up_to_5317():
    plan = WindowPlan(512, 32, 32, 8192, 0)
    rows = windows(np.ones(170_655, np.int16), plan)
    assert rows[-1, 0] == len(rows) - 1 == -(-(170_655 - 512) // 32) == 5317


@given(st.integers(1, 3000), st.integers(1, 12), st.integers(1, 40))
def test_a_limit_keeps_evenly_spread_windows(length, limit, stride):
    plan = WindowPlan(64, stride, stride, 8192, 0)
    every, kept = plan.starts(length), plan.starts(length, limit)
    assert every.tolist() == [i * stride for i in range(plan.count(length))]
    assert len(kept) == min(len(every), limit) and set(kept) <= set(every) and kept[0] == 0
    if limit > 1:
        assert kept[-1] == every[-1]
        assert np.ptp(np.diff(kept)) <= stride if len(kept) > 2 else True
    rows, thinned = (windows(np.arange(1, length + 1, dtype=np.int16), plan, most) for most in (None, limit))
    assert np.array_equal(thinned, rows[kept // stride])


@given(st.lists(st.integers(1, 2000), min_size=1))
def test_many_lengths_are_counted_like_single_ones(lengths):
    plan = WindowPlan(64, 8, 16, 100, 0)
    assert plan.count(np.array(lengths)).tolist() == [plan.count(length) for length in lengths]
    assert plan.fits(np.array(lengths)).tolist() == [plan.fits(length) for length in lengths]


# -----------------------------------------------------------------------------
# tables


@pytest.mark.parametrize("rows", [0, 1, 1000])
def test_torch_loads_a_table_written_in_pieces(tmp_path, rows):
    values = np.random.default_rng(0).integers(-(2**15), 2**15, (rows, 17)).astype(np.int16)
    with new_table(tmp_path / "train.pt", rows, 17) as table:
        for start in range(0, rows, 7):
            table.write(values[start : start + 7])
    for mmap in (False, True):
        loaded = torch.load(tmp_path / "train.pt", mmap=mmap, weights_only=True)
        assert loaded.dtype == torch.int16 and np.array_equal(loaded.numpy(), values)
    assert [path.name for path in tmp_path.iterdir()] == ["train.pt"]


def test_a_table_may_be_larger_than_memory(tmp_path):
    with new_table(tmp_path / "train.pt", 10**9, 513) as table:
        table.seek(2 * 513 * 10**9, 1)
    rows = open_table(tmp_path / "train.pt")
    assert rows.shape == (10**9, 513) and not rows[10**9 - 1].any()


def test_an_unfilled_table_is_a_bug(tmp_path):
    with pytest.raises(AssertionError, match="has 1.0 rows, not 2"):
        with new_table(tmp_path / "train.pt", 2, 3) as table:
            table.write(np.zeros(3, np.int16))

"""Duplicates and splits: stable under added files, without leaks, without repetition."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_data.dedup import Duplicates, signature, steps
from workflow_data.split import SPLITS, assign_splits, hash_fraction

TRAIN, VAL, TEST = range(3)
GROUPS = st.lists(st.binary(max_size=8), min_size=1, max_size=60, unique=True)


def splits_of(groups, train_split, test_split=0.0, seed=0):
    """Return the split of each group."""
    fractions = np.array([hash_fraction(group, seed) for group in groups])
    return dict(zip(groups, assign_splits(fractions, train_split, test_split).tolist()))


def by_hash(group, train_split, test_split=0.0, seed=0):
    fraction = hash_fraction(group, seed)
    return TRAIN if fraction < train_split else TEST if fraction >= 1 - test_split else VAL


# -----------------------------------------------------------------------------
# the split


@given(GROUPS, GROUPS, st.floats(0.05, 0.6), st.floats(0, 0.35), st.integers(0, 5))
def test_added_groups_do_not_move_a_group(groups, added, train, test, seed):
    expected = {TRAIN, VAL, TEST} if test > 1e-9 else {TRAIN, VAL}
    before = splits_of(groups, train, test, seed)
    after = splits_of(added + groups[::-1], train, test, seed)
    hashed = {group: by_hash(group, train, test, seed) for group in after}
    if set(hashed.values()) == expected:
        assert after == hashed
    if {hashed[group] for group in groups} == expected:
        assert all(after[group] == before[group] for group in groups)


@given(GROUPS, st.floats(0, 1), st.floats(0, 1))
def test_no_split_is_empty_if_groups_suffice(groups, train, rest):
    test = (1 - train) * rest
    splits = set(splits_of(groups, train, test).values())
    expected = {split for split, share in enumerate((train, 1 - test - train, test)) if share >= 1e-9}
    if len(groups) >= len(expected):
        assert expected <= splits
    if train >= 1e-9:
        assert TRAIN in splits


def test_a_test_split_takes_from_validation_only():
    groups = [b"%d" % i for i in range(10_000)]
    two, three = splits_of(groups, 0.8), splits_of(groups, 0.8, 0.1)
    assert all((two[group] == TRAIN) == (three[group] == TRAIN) for group in groups)
    shares = [list(three.values()).count(split) / len(groups) for split in range(len(SPLITS))]
    assert np.allclose(shares, [0.8, 0.1, 0.1], atol=0.015)


def test_a_moved_group_stays_together():
    fractions = np.array([0.1, 0.1, 0.3, 0.3, 0.2])
    assert assign_splits(fractions, 0.8).tolist() == [TRAIN, TRAIN, VAL, VAL, TRAIN]
    assert assign_splits(np.array([0.9, 0.9]), 0.8).tolist() == [TRAIN, TRAIN]


# -----------------------------------------------------------------------------
# duplicates


def workflow(*commands, name="CI", on="push"):
    steps = [{"name": f"step {number}", "run": command} for number, command in enumerate(commands)]
    return {"name": name, "on": on, "jobs": {"build": {"runs-on": "ubuntu-latest", "steps": steps}}}


def test_the_first_of_equal_values_is_kept(tmp_path):
    duplicates = Duplicates(tmp_path / "table")
    assert duplicates.find("a.yml", "11") is None
    assert duplicates.find("name that is no UTF-8 \udcff", "22") is None
    again = duplicates.find("b.yml", "11")
    assert (again.reason, again.detail) == ("duplicate", "same value as a.yml")
    assert duplicates.find("c.yml", "22").detail == "same value as name that is no UTF-8 \udcff"


def test_near_duplicates_share_most_steps(tmp_path):
    pytest.importorskip("datasketch")
    commands = [f"make part-{i}" for i in range(40)]
    duplicates = Duplicates(tmp_path / "table", near=0.85)

    def find(name, *commands):
        return duplicates.find(name, name, signature(workflow(*commands, name=name)))

    assert find("a", *commands) is None
    same = find("b", *commands[::-1])
    assert (same.reason, same.detail) == ("near_duplicate", "100% of the steps of a")
    assert find("c", *commands[:39], "another").reason == "near_duplicate"  # 39 of 41 in common
    assert find("d", *commands[:20], *(f"other {i}" for i in range(20))) is None
    assert find("e", "make") is None


def test_steps_do_not_depend_on_names():
    called = {"uses": "./.github/workflows/other.yml", "with": {"b": 1, "a": 2}}
    value = workflow("make", "make test", "make") | {"on": "pull_request"}
    value["jobs"]["call"] = called
    assert steps(value) == {
        '{"run":"make"}',
        '{"run":"make test"}',
        json.dumps(called, sort_keys=True, separators=(",", ":")),
    }

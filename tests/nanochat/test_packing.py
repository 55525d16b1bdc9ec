"""Packed batches: one line of targets, each once, in equal parts for any number of ranks."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_data import write_prepared

from nanochat.packing import PackedTrainLoader, count_tokens, packing_order
from tct_packing import packed_data_loader
from workflow_data.loaders import tokenizing_distributed_data_loader

C = 16
METADATA = {"pad_token": 0}


def rows_of(lengths):
    """Rows whose position and tokens tell which they are: row i has tokens 100 i + 1, 100 i + 2 ..."""
    rows = torch.zeros(len(lengths), C + 1, dtype=torch.int16)
    for i, length in enumerate(lengths):
        rows[i, 0] = i
        rows[i, 1 : length + 1] = 100 * i + torch.arange(1, length + 1)
    return rows


def loader_of(lengths, targets=2 * C, **options):
    return PackedTrainLoader(rows_of(lengths), targets, METADATA, **options)


def targets_of(batch):
    return batch[1][batch[1] != -1].tolist()


def as_tensors(batch):
    return [batch[0], batch[1], batch[2].positions, batch[2].cu_seqlens]


LENGTHS = st.lists(st.integers(1, C), min_size=1, max_size=30)


# -----------------------------------------------------------------------------
# training


@settings(max_examples=60)
@given(LENGTHS, st.integers(1, 3 * C), st.integers(0, 2**70))
def test_batches_have_equal_targets_and_epochs_every_token_once(lengths, targets, seed):
    loader = loader_of(lengths, targets, seed=seed)
    total = sum(lengths)
    seen = []
    while len(seen) < 2 * total:
        drawn = targets_of(batch := next(loader))
        assert len(drawn) == targets and batch[0].shape == batch[1].shape == (1, sum(batch[2].lengths))
        seen += drawn
    every_token = sorted(100 * i + t for i, length in enumerate(lengths) for t in range(1, length + 1))
    for epoch in range(len(seen) // total):
        assert sorted(seen[epoch * total : (epoch + 1) * total]) == every_token


@settings(max_examples=60)
@given(LENGTHS)
def test_every_document_is_the_start_of_a_window(lengths):
    loader, rows = loader_of(lengths), rows_of(lengths)
    for _ in range(4):
        x, y, documents = next(loader)
        parts = zip(x[0].split(documents.lengths), y[0].split(documents.lengths))
        for x_part, y_part in parts:
            row = rows[x_part[0]].long()  # the position says which
            assert torch.equal(x_part, row[: len(x_part)])
            counted = y_part != -1
            assert torch.equal(y_part[counted], row[1 : len(x_part) + 1][counted])
            first = int(counted.int().argmax())
            assert counted[first:].all()  # what is ignored was a target before


@settings(max_examples=60)
@given(st.lists(st.integers(1, 5 * C), min_size=1, max_size=8), st.sampled_from([1, 2, 4, 16]), st.integers(0, 2**40))
def test_random_cuts_show_every_token_once_in_every_epoch(workflows, step, seed):
    rows, metadata = overlapping_rows(workflows, step), METADATA | {"stride": 1}
    loader = PackedTrainLoader(rows, sum(workflows), metadata, random_cuts=True, seed=seed)
    assert loader.epoch_targets == sum(workflows)
    every_token = list(range(1, sum(workflows) + 1))
    cuts = set()
    for _ in range(12):
        batch = next(loader)
        assert sorted(targets_of(batch)) == every_token
        cuts.add(tuple(sorted(batch[2].lengths)))
    if max(workflows) > 2 * C and step <= 4:
        assert len(cuts) > 1


def overlapping_rows(workflows, step):
    """Rows of workflows of these lengths with a window at every step; tokens are numbered from 1 on."""
    rows, begin = [], 0
    for length in workflows:
        start = 0
        while not start or start - step + C < length:
            tokens = range(begin + start + 1, begin + min(length, start + C) + 1)
            rows.append([start, *tokens, *[0] * (C - len(tokens))])
            start += step
        begin += length
    return torch.tensor(rows, dtype=torch.int16)


def test_each_epoch_and_seed_has_its_own_order():
    lengths = [5] * 40
    orders = {tuple(targets_of(next(loader_of(lengths, 200, seed=seed)))) for seed in range(3)}
    loader = loader_of(lengths, 200)
    orders |= {tuple(targets_of(next(loader))) for _ in range(3)}
    assert len(orders) == 5  # the first epoch of seed 0 is in both


@settings(max_examples=40)
@given(LENGTHS, st.integers(1, 4), st.integers(0, 9))
def test_ranks_share_the_batches_of_one_process(lengths, world_size, skipped):
    one = loader_of(lengths)
    ranks = [loader_of(lengths, rank=rank, world_size=world_size) for rank in range(world_size)]
    for _ in range(skipped):
        [next(loader) for loader in ranks]
    one.load_state_dict(json.loads(json.dumps(ranks[0].state_dict())))
    for _ in range(3):
        for rank in ranks:
            assert all(torch.equal(a, b) for a, b in zip(as_tensors(next(one)), as_tensors(next(rank))))


def test_a_large_batch_is_several_small_ones():
    lengths = [3, 16, 9, 11, 2, 16, 7]
    large, small = loader_of(lengths, 3 * C), loader_of(lengths, C)
    for _ in range(5):
        assert targets_of(next(large)) == [token for _ in range(3) for token in targets_of(next(small))]


def test_a_resumed_loader_refuses_other_data():
    with pytest.raises(ValueError, match="12 training targets, but had 11"):
        loader_of([5, 7]).load_state_dict(loader_of([5, 6]).state_dict())


# -----------------------------------------------------------------------------
# the order


@settings(max_examples=100)
@given(LENGTHS, st.integers(0, 5))
def test_the_packing_order_has_every_window_once(lengths, seed):
    order = packing_order(np.array(lengths), C, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(lengths)))


def test_most_rows_are_filled_by_whole_windows():
    random = np.random.default_rng(0)
    lengths = np.minimum(512, random.lognormal(5.2, 0.9, 4000).astype(int) + 8)  # about like real workflows
    ends = set(lengths[packing_order(lengths, 512, random)].cumsum().tolist())
    rows = range(512, lengths.sum(), 512)
    assert sum(row in ends for row in rows) > 0.95 * len(rows)


def test_few_computed_tokens_are_repeated():
    random = np.random.default_rng(1)
    lengths = random.integers(1, C + 1, 500).tolist()
    loader = loader_of(lengths, 4 * C)
    positions = [next(loader)[0].numel() for _ in range(sum(lengths) // (4 * C))]
    assert sum(positions) < 1.02 * len(positions) * 4 * C


# -----------------------------------------------------------------------------
# validation, and folders


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=6),
    window_step=st.sampled_from([4, 8, 12, 16]),
    batch_size=st.integers(1, 5),
    world_size=st.integers(1, 3),
)
def test_validation_scores_every_token_once(tmp_path_factory, lengths, window_step, batch_size, world_size):
    folder = tmp_path_factory.mktemp("data")
    workflows = write_prepared(folder, [1], lengths, window_step=window_step)
    scored = Counter()
    for rank in range(world_size):
        loader = packed_data_loader(batch_size, C, "val", folder, rank=rank, world_size=world_size)
        assert len(loader) == len(list(loader))
        for batch in loader:
            scored.update(targets_of(batch))
    assert scored == Counter(int(token) for workflow in workflows["val"] for token in workflow)


def test_validation_visits_the_rows_of_padded_batches(tmp_path):
    write_prepared(tmp_path, [1], [40, 9, 25, 70])
    padded = tokenizing_distributed_data_loader(2, C, "val", tmp_path, max_windows=6)
    packed = packed_data_loader(2, C, "val", tmp_path, max_windows=6)
    assert [t for _, y in padded for t in y[y != -1].tolist()] == [t for batch in packed for t in targets_of(batch)]


def test_lengths_are_counted_without_position_and_padding(tmp_path):
    workflows = write_prepared(tmp_path, [5, 16, 20], [1])
    loader = packed_data_loader(1, C, "train", tmp_path)
    assert count_tokens(loader.rows, 0).tolist() == [5, 16, 16, 16 + 4 - 4]
    assert loader.epoch_targets == 53 and len(workflows["train"]) == 3


def test_a_folder_that_does_not_fit_the_model_is_refused(tmp_path):
    write_prepared(tmp_path, [5], [5])
    with pytest.raises(ValueError, match="--context-size 512"):
        packed_data_loader(1, 512, "train", tmp_path)

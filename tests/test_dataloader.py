"""The data loader: one global order of rows, and every validation token once."""

import json

import pytest
import torch
from hypothesis import given, settings, strategies as st

from prepared_data import write_prepared
from tct_dataloader import TrainLoader, create_dataloader, tokenizing_distributed_data_loader

C = 16
METADATA = {"pad_token": 0, "context_size": C, "stride": 4, "window_step": 4}


def numbered_rows(count):
    """Rows that can be told apart by their position, (count, C + 1)."""
    rows = torch.ones(count, C + 1, dtype=torch.int16)
    rows[:, 0] = torch.arange(count)
    return rows


def take(loader, batches):
    """The numbers of the rows in the next batches."""
    return [number for _ in range(batches) for number in next(loader)[0][:, 0].tolist()]


def loader_of(rows=10, batch_size=3, **options):
    return TrainLoader(numbered_rows(rows), batch_size, METADATA, **options)


# -----------------------------------------------------------------------------
# training

def test_inputs_start_with_the_position_and_targets_are_one_ahead():
    row = torch.arange(100, 100 + C + 1, dtype=torch.int16)[None]
    x, y = next(TrainLoader(row, 1, METADATA))
    assert x.dtype == y.dtype == torch.int64
    assert x[0].tolist() == list(range(100, 100 + C))
    assert y[0].tolist() == list(range(101, 101 + C))


def test_padding_is_never_a_target():
    row = torch.tensor([[3] + [7] * 5 + [0] * (C - 5)], dtype=torch.int16)
    _, y = next(TrainLoader(row, 1, METADATA))
    assert y[0].tolist() == [7] * 5 + [-1] * (C - 5)


@settings(max_examples=50)
@given(rows=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 2**70))
def test_every_row_comes_once_in_every_epoch_and_every_batch_is_full(rows, batch_size, seed):
    loader = loader_of(rows, batch_size, seed=seed)
    batches = 3 * rows // batch_size + 1
    numbers = take(loader, batches)
    assert len(numbers) == batches * batch_size
    for epoch in range(len(numbers) // rows):
        assert sorted(numbers[epoch * rows:(epoch + 1) * rows]) == list(range(rows))


def test_epochs_and_seeds_have_their_own_order():
    orders = {tuple(take(loader_of(40, 40, seed=seed), 1)) for seed in range(3)}
    loader = loader_of(40, 40, seed=0)
    orders |= {tuple(take(loader, 1)) for _ in range(3)}
    assert len(orders) == 5  # the first epoch of seed 0 is in both


def test_the_parts_of_the_ranks_make_the_batch_of_one_process():
    one = loader_of(batch_size=3)
    ranks = [loader_of(batch_size=3, rank=rank, world_size=2) for rank in range(2)]
    for _ in range(8):  # more than two epochs
        assert take(one, 2) == take(ranks[0], 1) + take(ranks[1], 1)


@settings(max_examples=50)
@given(before=st.integers(0, 20), ranks_before=st.integers(1, 3), ranks_after=st.integers(1, 3))
def test_a_resumed_loader_continues_the_order_on_any_number_of_ranks(before, ranks_before, ranks_after):
    straight = loader_of(batch_size=1, seed=5)
    take(straight, before * ranks_before)
    stopped = loader_of(batch_size=1, seed=5, world_size=ranks_before)
    take(stopped, before)
    state = json.loads(json.dumps(stopped.state_dict()))
    resumed = [loader_of(batch_size=1, rank=rank, world_size=ranks_after) for rank in range(ranks_after)]
    for loader in resumed:
        loader.load_state_dict(state)
    for _ in range(12):
        assert take(straight, ranks_after) == [number for loader in resumed for number in take(loader, 1)]


def test_a_resumed_loader_refuses_other_data():
    with pytest.raises(ValueError, match="11 training windows, but had 10"):
        loader_of(11).load_state_dict(loader_of(10).state_dict())


# -----------------------------------------------------------------------------
# validation

@settings(max_examples=50)
@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=6),
       window_step=st.sampled_from([4, 8, 12, 16]), batch_size=st.integers(1, 5),
       world_size=st.integers(1, 3))
def test_validation_scores_every_token_once(tmp_path_factory, lengths, window_step, batch_size, world_size):
    folder = tmp_path_factory.mktemp("data")
    workflows = write_prepared(folder, [1], lengths, window_step=window_step)
    scored = []
    for rank in range(world_size):
        loader = tokenizing_distributed_data_loader(batch_size, C, "val", folder, rank=rank,
                                                    world_size=world_size)
        assert len(loader) == len(list(loader))
        scored += [token for _, y in loader for token in y[y != -1].tolist()]
    assert sorted(scored) == sorted(token for workflow in workflows["val"] for token in workflow)
    if world_size == 1:  # then also in order
        assert scored == [token for workflow in workflows["val"] for token in workflow]


def test_a_scored_token_has_half_a_context_before_it_where_the_windows_allow(tmp_path):
    write_prepared(tmp_path, [1], [70])
    for x, y in tokenizing_distributed_data_loader(1, C, "val", tmp_path):
        if x[0, 0] > 0:
            assert (y[0, :C // 2] == -1).all()


def test_max_windows_keeps_whole_workflows_spread_over_the_split(tmp_path):
    workflows = write_prepared(tmp_path, [1], [10] * 100)
    loader = tokenizing_distributed_data_loader(8, C, "val", tmp_path, max_windows=10)
    scored = [token for _, y in loader for token in y[y != -1].tolist()]
    assert scored == [token for workflow in workflows["val"][::10] for token in workflow]


def test_max_windows_never_keeps_nothing(tmp_path):
    write_prepared(tmp_path, [1], [70])
    assert len(tokenizing_distributed_data_loader(8, C, "val", tmp_path, max_windows=1)) > 0


# -----------------------------------------------------------------------------
# the prepared folder

@pytest.mark.parametrize("split", ["train", "val"])
def test_max_files_keeps_the_first_workflows(tmp_path, split):
    workflows = write_prepared(tmp_path, [20, 5, 30], [20, 5, 30])
    rows = tokenizing_distributed_data_loader(1, C, split, tmp_path, max_files=2).rows
    assert len(rows) == 3  # two windows and one
    assert rows[2, 1:6].tolist() == workflows[split][1].tolist()
    assert len(tokenizing_distributed_data_loader(1, C, split, tmp_path, max_files=9).rows) == 3 + 5


def test_a_file_can_be_loaded_by_its_path(tmp_path):
    workflows = write_prepared(tmp_path, [5, 5, 5], [5, 5])
    ordered = [y[0, :5].tolist() for _, y in create_dataloader(tmp_path / "val.pt", 1, shuffle=False)]
    assert ordered == [workflow.tolist() for workflow in workflows["val"]]
    shuffled = create_dataloader(tmp_path / "train.pt", 3, shuffle=True)
    for _ in range(2):
        assert sorted(next(shuffled)[1][:, :5].tolist()) == sorted(w.tolist() for w in workflows["train"])


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_prepared(tmp_path / "prepared", [5], [5])
    next(tokenizing_distributed_data_loader(1, C, "train", "~/prepared"))


def test_torchrun_says_which_part_is_ours(tmp_path, monkeypatch):
    write_prepared(tmp_path, [5], [5])
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    loader = tokenizing_distributed_data_loader(1, C, "train", tmp_path)
    assert (loader.rank, loader.world_size) == (1, 4)


def spoil(name, content):
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize("damage, message", [
    (spoil("metadata.json", b"{"), "not a JSON object"),
    (spoil("metadata.json", b"[]"), "not a JSON object"),
    (spoil("metadata.json", b'{"stride": 32}'), "does not say context_size, pad_token"),
    (spoil("train.pt", b"no tensor"), "train.pt cannot be read"),
    (lambda folder: torch.save(torch.zeros(3, 9, dtype=torch.int16), folder / "train.pt"), "rows of 17"),
    (lambda folder: (folder / "train.pt").unlink(), "there is no .*train.pt"),
    (lambda folder: (folder / "metadata.json").unlink(), "no prepared folder"),
])
def test_a_damaged_folder_is_refused_with_the_remedy(tmp_path, damage, message):
    write_prepared(tmp_path, [5], [5])
    damage(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        tokenizing_distributed_data_loader(1, C, "train", tmp_path)
    assert "prepare" in str(error.value)


def test_a_folder_that_does_not_fit_the_model_is_refused(tmp_path):
    write_prepared(tmp_path, [5], [])
    with pytest.raises(ValueError, match="context_size 16 but the model has 512: .* --context-size 512"):
        tokenizing_distributed_data_loader(1, 512, "train", tmp_path)
    with pytest.raises(ValueError, match="64 tokens but the model has 8192"):
        tokenizing_distributed_data_loader(1, C, "train", tmp_path, vocab_size=8192)
    with pytest.raises(ValueError, match="holds no windows"):
        tokenizing_distributed_data_loader(1, C, "val", tmp_path)
    with pytest.raises(FileNotFoundError, match="no data folder"):
        tokenizing_distributed_data_loader(1, C, "train", tmp_path / "nowhere")

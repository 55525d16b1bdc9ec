"""The data loader: one global order of rows, and every validation token once."""

import json
import re
from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_data import write_prepared

from tct_packing import packed_data_loader
from workflow_data.loaders import TrainLoader, create_dataloader, tokenizing_distributed_data_loader
from workflow_data.reader import iter_workflows, read_metadata

C = 16
METADATA = {"pad_token": 0, "context_size": C, "stride": 4, "window_step": 4}


def numbered_rows(count):
    """Return rows with different positions, (count, C + 1)."""
    rows = torch.ones(count, C + 1, dtype=torch.int16)
    rows[:, 0] = torch.arange(count)
    return rows


def take(loader, batches):
    """Return the numbers of the rows in the next batches."""
    return [number for _ in range(batches) for number in next(loader)[0][:, 0].tolist()]


def loader_of(rows=10, batch_size=3, **options):
    return TrainLoader(numbered_rows(rows), batch_size, METADATA, **options)


# -----------------------------------------------------------------------------
# training


def test_targets_are_one_ahead_of_inputs():
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
def test_every_epoch_has_each_row_once(rows, batch_size, seed):
    loader = loader_of(rows, batch_size, seed=seed)
    batches = 3 * rows // batch_size + 1
    numbers = take(loader, batches)
    assert len(numbers) == batches * batch_size
    for epoch in range(len(numbers) // rows):
        assert sorted(numbers[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


def test_epochs_and_seeds_have_their_own_order():
    orders = {tuple(take(loader_of(40, 40, seed=seed), 1)) for seed in range(3)}
    loader = loader_of(40, 40, seed=0)
    orders |= {tuple(take(loader, 1)) for _ in range(3)}
    assert len(orders) == 5  # the first epoch of seed 0 is in both


def test_ranks_share_the_batch_of_one_process():
    one = loader_of(batch_size=3)
    ranks = [loader_of(batch_size=3, rank=rank, world_size=2) for rank in range(2)]
    for _ in range(8):  # more than two epochs
        assert take(one, 2) == take(ranks[0], 1) + take(ranks[1], 1)


@settings(max_examples=50)
@given(before=st.integers(0, 20), ranks_before=st.integers(1, 3), ranks_after=st.integers(1, 3))
def test_resuming_continues_the_order_on_any_ranks(before, ranks_before, ranks_after):
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
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=6),
    window_step=st.sampled_from([4, 8, 12, 16]),
    batch_size=st.integers(1, 5),
    world_size=st.integers(1, 3),
)
def test_validation_scores_every_token_once(tmp_path_factory, lengths, window_step, batch_size, world_size):
    folder = tmp_path_factory.mktemp("data")
    workflows = write_prepared(folder, [1], lengths, window_step=window_step)
    scored = []
    for rank in range(world_size):
        loader = tokenizing_distributed_data_loader(batch_size, C, "val", folder, rank=rank, world_size=world_size)
        assert len(loader) == len(list(loader))
        scored += [token for _, y in loader for token in y[y != -1].tolist()]
    assert sorted(scored) == sorted(token for workflow in workflows["val"] for token in workflow)
    if world_size == 1:  # then also in order
        assert scored == [token for workflow in workflows["val"] for token in workflow]


def test_scored_tokens_have_half_a_context_before_them(tmp_path):
    write_prepared(tmp_path, [1], [70])
    for x, y in tokenizing_distributed_data_loader(1, C, "val", tmp_path):
        if x[0, 0] > 0:
            assert (y[0, : C // 2] == -1).all()


def test_max_windows_keeps_whole_workflows(tmp_path):
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


def test_rank_comes_from_torchrun(tmp_path, monkeypatch):
    write_prepared(tmp_path, [5], [5])
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    loader = tokenizing_distributed_data_loader(1, C, "train", tmp_path)
    assert (loader.rank, loader.world_size) == (1, 4)


# -----------------------------------------------------------------------------
# damage


def spoil(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


def table(name, change):
    """Return a damage that changes the tensor in a file: in place, or to what the function returns."""

    def damage(folder):
        rows = torch.load(folder / name, weights_only=True)
        changed = change(rows)
        torch.save(rows if changed is None else changed, folder / name)

    return damage


def value(name, row, column, number):
    return table(name, lambda rows: rows[row].__setitem__(column, number))


def metadata_with(**changes):
    """Return a damage that changes values in metadata.json, or removes them if they are None."""

    def damage(folder):
        metadata = json.loads((folder / "metadata.json").read_text()) | changes
        (folder / "metadata.json").write_text(json.dumps({k: v for k, v in metadata.items() if v is not None}))

    return damage


def line(**changes):
    """Return a damage that changes values in the first line of workflows.jsonl."""

    def damage(folder):
        first, *others = (folder / "workflows.jsonl").read_text().splitlines()
        lines = [json.dumps(json.loads(first) | changes), *others]
        (folder / "workflows.jsonl").write_text("\n".join(lines))

    return damage


SPLITS = {"train": {"workflows": 2, "windows": 3, "tokens": 27, "json_bytes": 108}}
SPLITS["val"] = SPLITS["train"]
DAMAGES = {
    "not JSON": (spoil("metadata.json", b"{"), "metadata.json is not a JSON object"),
    "not UTF-8": (spoil("metadata.json", b"\xff"), "metadata.json is not a JSON object"),
    "nested without end": (spoil("metadata.json", b"[" * 100_000), "metadata.json is not a JSON object"),
    "not an object": (spoil("metadata.json", b"[]"), "metadata.json is not a JSON object"),
    "no metadata": (lambda folder: (folder / "metadata.json").unlink(), "is not a prepared data folder"),
    "missing key": (metadata_with(stride=None), "lacks stride"),
    "text for a number": (
        metadata_with(context_size="16"),
        "has context_size '16', which is not a whole number of at least 1",
    ),
    "float for a number": (metadata_with(vocab_size=64.0), "has vocab_size 64.0"),
    "boolean for a number": (metadata_with(stride=True), "has stride True"),
    "stride of 0": (metadata_with(stride=0), "has stride 0"),
    "negative padding": (metadata_with(pad_token=-1), "has pad_token -1"),
    "padding outside": (metadata_with(pad_token=64), "sizes that do not fit together"),
    "too many ids": (metadata_with(vocab_size=40_000), "sizes that do not fit together"),
    "wrong step": (metadata_with(window_step=6), "a window_step that is not a multiple of stride"),
    "wrong tokenizer": (metadata_with(tokenizer="tct"), "a tokenizer without name and fingerprint"),
    "wrong splits": (metadata_with(splits=[]), "has splits other than"),
    "unknown split": (metadata_with(splits=SPLITS | {"dev": {}}), "has splits other than"),
    "wrong counts": (metadata_with(splits=SPLITS | {"val": {"windows": 3}}), "has a split val in which workflows"),
    "bytes missing": (
        metadata_with(splits=SPLITS | {"val": SPLITS["val"] | {"json_bytes": 0}}),
        "has a split val in which",
    ),
    "wrong states": (metadata_with(n_states="many"), "has n_states 'many'"),
    "no table": (lambda folder: (folder / "train.pt").unlink(), "there is no .*train.pt"),
    "not a table": (spoil("train.pt", b"no tensor"), "train.pt cannot be read"),
    "cut table": (cut("train.pt"), "train.pt cannot be read"),
    "a dict": (table("train.pt", lambda rows: {"rows": rows}), "train.pt cannot be read"),
    "other type": (table("train.pt", lambda rows: rows.int()), "train.pt is not an int16 tensor with rows of 17"),
    "other width": (
        table("train.pt", lambda rows: rows[:, 1:].clone()),
        "train.pt is not an int16 tensor with rows of 17",
    ),
    "one dimension": (table("train.pt", lambda rows: rows.flatten()), "train.pt is not an int16 tensor"),
    "fewer rows": (
        table("val.pt", lambda rows: rows[:2].clone()),
        "val.pt has 2 rows, but metadata.json lists 3 windows",
    ),
    "id too large": (value("train.pt", 2, 3, 64), "train.pt has the token id 64, which is not from 0 to 63"),
    "negative id": (value("val.pt", 2, 3, -3), "val.pt has the token id -3, which"),
    "position too large": (value("train.pt", 1, 0, 64), "train.pt has the position 64, which is not from 0 to 63"),
    "negative position": (value("train.pt", 1, 0, -1), "train.pt has the position -1, which"),
    "other position": (value("train.pt", 1, 0, 5), "train.pt has the position 5 in row 1, which does not follow"),
    "no beginning": (value("val.pt", 0, 0, 1), "val.pt has the position 1 in row 0"),
    "only padding": (value("train.pt", 2, slice(1, None), 0), "train.pt has a window without tokens"),
    "no states": (lambda folder: (folder / "val_states.pt").unlink(), "there is no .*val_states.pt"),
    "cut states": (cut("train_states.pt"), "train_states.pt cannot be read"),
    "fewer states": (table("train_states.pt", lambda rows: rows[:2].clone()), "train_states.pt has 2 rows"),
    "state too large": (value("train_states.pt", 0, 0, 7), "train_states.pt has the schema position 7, which"),
    "negative state": (value("val_states.pt", 0, 0, -1), "val_states.pt has the schema position -1, which"),
    "no lines": (lambda folder: (folder / "workflows.jsonl").unlink(), "there is no .*workflows.jsonl"),
    "line not JSON": (spoil("workflows.jsonl", b'{"file": "a.yml"\n'), "workflows.jsonl, line 1, is not a JSON object"),
    "line without count": (
        line(tokens="20"),
        "workflows.jsonl, line 1, lacks a whole number for first_window, windows, tokens",
    ),
    "line without split": (line(split="dev"), "workflows.jsonl, line 1, lacks a text for file"),
    "too many tokens": (line(tokens=40), "lists 40 tokens, but its windows hold 20"),
    "other windows": (line(first_window=1), "has the windows 1 to 3, but not in train.pt"),
}


def use(folder):
    """Read what training and evaluation read of a prepared folder."""
    metadata = read_metadata(folder)
    for split in ("train", "val"):
        loader = packed_data_loader(1, C, split, folder, with_states="n_states" in metadata)
        for _, batch in zip(range(20), loader):
            assert batch[0].max() < 64
        list(iter_workflows(folder, split, metadata))
    create_dataloader(folder / "val.pt", 2, shuffle=True)


@pytest.fixture
def sound(tmp_path):
    write_prepared(tmp_path, [20, 7], [20, 7], n_states=7)
    return tmp_path


def test_a_sound_folder_can_be_used(sound):
    use(sound)


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_has_an_error_with_a_remedy(sound, name):
    damage, message = DAMAGES[name]
    damage(sound)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        use(sound)
    assert str(error.value).count("\n") == 0 and re.search("[Pp]repare", str(error.value))


FILES = ("metadata.json", "train.pt", "val.pt", "train_states.pt", "val_states.pt", "workflows.jsonl")


@pytest.mark.slow
@settings(max_examples=200)
@given(st.data(), st.sampled_from(FILES), st.booleans())
def test_random_damage_is_harmless_or_a_user_error(tmp_path_factory, data, name, cuts):
    folder = tmp_path_factory.mktemp("sound")
    write_prepared(folder, [20, 7], [20, 7], n_states=7)
    content = bytearray((folder / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if cuts:
        del content[place:]
    else:
        content[place] = data.draw(st.integers(0, 255))
    (folder / name).write_bytes(content)
    with suppress(ValueError, OSError):
        use(folder)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@pytest.mark.slow
@settings(max_examples=200)
@given(st.data(), JSON_VALUES)
def test_any_metadata_is_harmless_or_a_user_error(tmp_path_factory, data, value):
    folder = tmp_path_factory.mktemp("sound")
    write_prepared(folder, [20, 7], [20, 7], n_states=7)
    metadata = json.loads((folder / "metadata.json").read_text())
    place = metadata
    for _ in range(data.draw(st.integers(0, 2))):
        inner = [child for child in place.values() if isinstance(child, dict) and child]
        place = data.draw(st.sampled_from(inner)) if inner else place
    place[data.draw(st.sampled_from(sorted(place)))] = value
    (folder / "metadata.json").write_text(json.dumps(metadata))
    with suppress(ValueError, OSError):
        use(folder)


def test_thinned_windows_may_leave_gaps(sound):
    write_prepared(sound, [100], [20], n_states=7)
    rows, states = (torch.load(sound / name, weights_only=True) for name in ("train.pt", "train_states.pt"))
    kept = torch.tensor([0, 10, len(rows) - 1])
    torch.save(rows[kept], sound / "train.pt")
    torch.save(states[kept], sound / "train_states.pt")
    splits = json.loads((sound / "metadata.json").read_text())["splits"]
    splits["train"]["windows"] = 3
    metadata_with(splits=splits, max_windows_per_workflow=3)(sound)
    next(packed_data_loader(1, C, "train", sound, with_states=True))
    metadata_with(max_windows_per_workflow=None)(sound)
    with pytest.raises(ValueError, match="has the position 10 in row 1"):
        packed_data_loader(1, C, "train", sound)


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

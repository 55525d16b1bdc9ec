"""Checkpoints: complete, or not there at all."""

import json
import math
import shutil

import pytest
import torch

from nanochat.checkpoint_manager import (
    best_val_loss,
    find_last_step,
    keep_last,
    list_steps,
    load_checkpoint,
    load_model,
    save_best,
    save_checkpoint,
)
from nanochat.gpt import GPT, GPTConfig
from script_tools.files import write_atomic

CONFIG = GPTConfig(sequence_len=8, vocab_size=16, n_layer=1, n_head=2, n_kv_head=1, n_embd=8)


@pytest.fixture
def model():
    model = GPT(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


@pytest.fixture
def folder(tmp_path, model):
    """A folder with checkpoints of iterations 5 and 10."""
    for step in (5, 10):
        save(tmp_path / "run", step, model)
    return tmp_path / "run"


def save(folder, step, model):
    save_checkpoint(
        folder,
        step,
        model.state_dict(),
        {"data": {"epoch": step}, "moment": torch.ones(3)},
        {"model_config": vars(CONFIG), "val_loss": 1.5},
    )


def test_a_checkpoint_is_three_files_and_loads_as_saved(folder, model):
    assert sorted(path.name for path in folder.iterdir()) == [
        "meta_000005.json",
        "meta_000010.json",
        "model_000005.pt",
        "model_000010.pt",
        "optim_000005.pt",
        "optim_000010.pt",
    ]
    model_state, optim_state, meta = load_checkpoint(folder, 5)
    assert all(torch.equal(model_state[name], tensor) for name, tensor in model.state_dict().items())
    assert optim_state["data"] == {"epoch": 5} and torch.equal(optim_state["moment"], torch.ones(3))
    assert (meta["step"], meta["val_loss"]) == (5, 1.5)


@pytest.mark.parametrize(
    "path, step, loaded", [(".", None, 10), (".", 5, 5), ("model_000005.pt", None, 5), ("model_000010.pt", None, 10)]
)
def test_a_model_loads_from_its_file_or_its_folder(folder, model, path, step, loaded):
    copy, meta = load_model(folder / path, step=step)
    assert meta["step"] == loaded and not copy.training
    idx = torch.arange(8)[None]
    assert torch.equal(copy(idx), model(idx))


def test_a_model_loads_without_its_optimizer_file(folder):
    (folder / "optim_000010.pt").unlink()
    assert load_model(folder)[1]["step"] == 10
    with pytest.raises(FileNotFoundError, match="optim_000010.pt"):
        load_checkpoint(folder, 10)


def test_a_step_without_its_meta_file_does_not_exist(folder):
    (folder / "meta_000010.json").unlink()
    assert list_steps(folder) == [5] and find_last_step(folder) == 5
    with pytest.raises(FileNotFoundError, match="iteration 10 in .*, only of 5"):
        load_checkpoint(folder, 10)


@pytest.mark.parametrize("name", ["model_000010.pt", "optim_000010.pt"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
        lambda content: b"",
    ],
)
def test_a_damaged_file_is_refused_with_a_remedy(folder, name, damage):
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(ValueError, match=f"{name} is damaged.*such as 5"):
        load_checkpoint(folder, 10)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"step": 5}'])
def test_a_damaged_meta_file_is_refused(folder, content):
    (folder / "meta_000010.json").write_text(content)
    with pytest.raises(ValueError, match="meta_000010.json is damaged"):
        load_model(folder)


def test_missing_files_are_named(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for path, message in (
        (tmp_path / "nowhere", "neither a checkpoint folder nor"),
        (tmp_path / "empty", "no complete checkpoint in"),
        (folder / "model_000007.pt", "iteration 7 in .*, only of 5, 10"),
        (folder / "meta_000005.json", "neither a checkpoint folder nor"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            load_model(path)
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        load_checkpoint(tmp_path / "nowhere", 1)


class Refused(RuntimeError):
    pass


@pytest.mark.parametrize("at", ["model", "optim", "meta"])
def test_a_failed_save_leaves_the_other_steps(folder, model, at, monkeypatch):
    def failing_write(path, content):
        if path.name.startswith(at):
            raise OSError(28, "No space left on device", str(path))
        write_atomic(path, content)

    monkeypatch.setattr("nanochat.checkpoint_manager.write_atomic", failing_write)
    for step in (10, 15):  # over a step that exists, and a new one
        with pytest.raises(OSError):
            save(folder, step, model)
    assert list_steps(folder) == [5]
    load_checkpoint(folder, 5)
    monkeypatch.undo()
    save(folder, 15, model)
    assert load_checkpoint(folder, find_last_step(folder))[2]["step"] == 15


def test_a_full_disk_is_an_error_for_the_user(tmp_path, file_size_limit):
    with file_size_limit(1024), pytest.raises(OSError, match="could not be written|too large"):
        save_checkpoint(tmp_path, 1, {"weight": torch.ones(4096)}, {}, {})
    assert list(tmp_path.iterdir()) == []


def test_an_atomic_write_replaces_the_file_or_leaves_it(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"first")
    write_atomic(path, lambda file: file.write(b"second"))
    assert path.read_bytes() == b"second"

    def fails_in_the_middle(file):
        file.write(b"thi")
        raise Refused

    with pytest.raises(Refused):
        write_atomic(path, fails_in_the_middle)
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_was_moved_still_loads(folder, tmp_path):
    shutil.move(folder, tmp_path / "elsewhere")
    assert load_model(tmp_path / "elsewhere")[1]["step"] == 10


def edit_config(folder, **fields):
    path = folder / "meta_000010.json"
    meta = json.loads(path.read_text())
    meta["model_config"] |= fields
    path.write_text(json.dumps(meta))


def test_removed_fields_that_are_off_are_ignored(folder):
    edit_config(folder, resid_scalars=False, x0_scalars=False)
    assert load_model(folder)[0].config == CONFIG


def test_a_model_that_uses_a_removed_field_is_refused(folder):
    edit_config(folder, x0_scalars=True)
    with pytest.raises(ValueError, match="x0_scalars, which is not supported"):
        load_model(folder)


def test_the_meta_file_can_be_read_by_anyone(folder):
    meta = json.loads((folder / "meta_000010.json").read_text())
    assert meta["model_config"] == vars(CONFIG)
    assert set(meta["sha256"]) == {"model_000010.pt", "optim_000010.pt"}


# -----------------------------------------------------------------------------
# what is kept


def test_the_last_steps_are_kept_and_unfinished_saves_removed(folder, model):
    for step in (15, 20):
        save(folder, step, model)
    (folder / "model_000012.pt").write_bytes(b"half")  # a save that had no meta file yet
    (folder / ".optim_000012.pt.tmp").write_bytes(b"half")  # and one cut short
    (folder / "metrics.jsonl").write_text("")
    keep_last(folder, 2, newest=20)
    assert list_steps(folder) == [15, 20]
    assert {path.name for path in folder.iterdir()} == {"metrics.jsonl"} | {
        f"{name}_{step:06d}.{end}"
        for step in (15, 20)
        for name, end in (("model", "pt"), ("optim", "pt"), ("meta", "json"))
    }


FOREIGN = [
    "model_best_so_far.pt",
    "model_12.pt",
    "model_0000012.pt",
    "model_000012.pt.bak",
    "optim_.pt",
    "mymodel_000012.pt",
    ".model_000012.tmp",
    ".model_mine.pt.tmp",
    "meta_mine.json",
    "model_000012.txt",
]


@pytest.mark.parametrize("place", [".", "best"])
def test_files_with_other_names_stay(folder, model, place):
    (folder / "best").mkdir()
    for name in FOREIGN:
        (folder / place / name).write_bytes(b"mine")
    keep_last(folder, 1, newest=10)
    for step in (3, 9):
        save_best(folder, step, model.state_dict(), {"model_config": vars(CONFIG), "val_loss": 1.0})
    assert list_steps(folder) == [10] and list_steps(folder / "best") == [9]
    assert all((folder / place / name).read_bytes() == b"mine" for name in FOREIGN)


def test_steps_after_the_newest_stay(folder, model):
    save(folder, 7, model)
    keep_last(folder, 1, newest=7)
    assert list_steps(folder) == [7, 10]  # 10 is of a run that was continued from an earlier step
    load_checkpoint(folder, 10)


def test_the_best_model_is_kept_apart(folder, model):
    assert best_val_loss(folder) == math.inf
    for step, val_loss in ((9, 2.5), (3, 2.0)):
        save_best(folder, step, model.state_dict(), {"model_config": vars(CONFIG), "val_loss": val_loss})
    assert best_val_loss(folder) == 2.0
    assert sorted(path.name for path in (folder / "best").iterdir()) == ["meta_000003.json", "model_000003.pt"]
    best, meta = load_model(folder / "best")
    assert meta["step"] == 3 and torch.equal(best.lm_head.weight, model.lm_head.weight)
    assert list_steps(folder) == [5, 10]

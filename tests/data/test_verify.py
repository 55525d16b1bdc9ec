"""Verification: a sound folder passes, and each kind of damage is found and named."""

import json
import random
import shutil

import numpy as np
import pytest
import torch
from helpers import exit_code
from test_prepare import prepare, workflow

from workflow_data import verification
from workflow_data import verify as verify_prepared_data
from workflow_data.tokenizers import TCTTokenizer


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Prepare a folder with long workflows in both splits."""
    folder = tmp_path_factory.mktemp("verify")
    for i in range(24):
        path = folder / "in" / f"owner-{i % 6}" / f"{i}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(workflow(f"W{i}", "\n".join(f"echo {i} {j}" for j in range(i * 3)) or "x")))
    assert (
        prepare(
            folder / "in",
            folder / "out",
            "--context-size",
            64,
            "--stride",
            8,
            "--split-by",
            "folder",
            "--train-split",
            0.6,
        )
        == 0
    )
    return folder


def verify(folder, *more):
    return exit_code(verify_prepared_data.main, ["--data_dir", str(folder), "--num_workers", "1", *map(str, more)])


def test_a_sound_folder_passes_and_is_shown(sound, capsys):
    assert verify(sound / "out", "--show", 3) == 0
    report = capsys.readouterr().out
    assert report.count("ok    ") == len(verification.CHECKS) and "FAIL" not in report
    assert report.count("position ") >= 3 and "<jobs:>" in report and "of padding" in report
    assert (sound / "out" / "prepared.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ["--window-step", 32],
        ["--max-windows-per-workflow", 3],
        ["--test-split", 0.3, "--train-split", 0.4],
        ["--tokenizer", "bpe"],
        ["--tokenizer", "bpe-unsplit"],
        ["--repair", "--train-split", 1],
    ],
)
def test_every_kind_of_folder_passes(sound, tmp_path, more):
    assert prepare(sound / "in", tmp_path / "out", "--context-size", 64, "--stride", 8, *more) == 0
    assert verify(tmp_path / "out") == 0


# -----------------------------------------------------------------------------
# faults, each made in a copy of the sound set


def alter_rows(change):
    def alter(folder):
        rows = torch.load(folder / "train.pt", weights_only=True)
        torch.save(change(rows.numpy(), lines(folder)), folder / "train.pt")

    return alter


def lines(folder):
    return [json.loads(line) for line in (folder / "workflows.jsonl").read_text().splitlines()]


def longest(entries):
    return max((entry for entry in entries if entry["split"] == "train"), key=lambda entry: entry["tokens"])


def set_value(offset, column, value):
    """Return a fault: another value in a row of the longest training workflow."""

    def change(rows, entries):
        rows[longest(entries)["first_window"] + offset, column] = value
        return torch.from_numpy(rows)

    return alter_rows(change)


def alter_text(name, old, new):
    def alter(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return alter


def repeat_a_workflow(folder):
    """Replace the last training workflow by the one before it."""
    rows = torch.load(folder / "train.pt", weights_only=True)
    *others, before, last = [entry for entry in lines(folder) if entry["split"] == "train"]
    own = rows[before["first_window"] : last["first_window"]]
    copy = before | {"first_window": last["first_window"]}
    torch.save(torch.cat([rows[: last["first_window"]], own]), folder / "train.pt")
    kept = [entry if entry != last else copy for entry in lines(folder)]
    (folder / "workflows.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in kept))
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["splits"]["train"]["windows"] += len(own) - last["windows"]
    (folder / "metadata.json").write_text(json.dumps(metadata))


def leak_a_group(folder):
    entries = lines(folder)
    first = {split: next(entry for entry in entries if entry["split"] == split) for split in ("train", "val")}
    first["val"]["group"] = first["train"]["group"]
    (folder / "workflows.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


FAULTS = {
    "tables": [
        alter_rows(lambda rows, entries: torch.from_numpy(rows[:-1].copy())),
        alter_rows(lambda rows, entries: torch.from_numpy(rows.astype(np.int64))),
        lambda folder: (folder / "val.pt").write_bytes(b"no table"),
        alter_text("metadata.json", '"workflows": ', '"workflows": 1'),
    ],
    "positions": [set_value(1, 0, 7), alter_text("metadata.json", '"stride": 8', '"stride": 4')],
    "tokens": [set_value(0, 5, 0), set_value(0, 5, 8192), set_value(0, 5, -3)],
    "decoding": [
        set_value(0, 5, 300),
        set_value(1, 64, 300),
        alter_text("workflows.jsonl", '"sha256": "', '"sha256": "x'),
    ],
    "groups": [leak_a_group, repeat_a_workflow],
}


@pytest.mark.parametrize("check, fault", [(check, fault) for check, faults in FAULTS.items() for fault in faults])
def test_each_fault_is_found_by_its_check(sound, tmp_path, capsys, check, fault):
    shutil.copytree(sound / "out", tmp_path / "out")
    fault(tmp_path / "out")
    assert verify(tmp_path / "out") == 2
    report = capsys.readouterr()
    assert f"FAIL  {verification.CHECKS[check]}" in report.out
    assert "is damaged" in report.err and "Traceback" not in report.err


def test_target_counts_equal_their_definition():
    plan = verification.WindowPlan(16, 4, 8, 8192, 0)
    for length in range(1, 100):
        counts = np.zeros(length, np.int64)
        for start in plan.starts(length):
            counts[start : start + 16] += 1
        assert verification.check_counts(counts, plan, None) is None
        counts[length // 2] += 1
        assert f"token {length // 2} is in" in verification.check_counts(counts, plan, None)


@pytest.mark.parametrize("name", ["metadata.json", "workflows.jsonl"])
def test_a_missing_file_is_named(sound, tmp_path, capsys, name):
    shutil.copytree(sound / "out", tmp_path / "out")
    (tmp_path / "out" / name).unlink()
    assert verify(tmp_path / "out") == 2
    assert name in capsys.readouterr().err


@pytest.mark.slow
def test_a_workflow_of_170000_tokens_decodes_from_its_windows(tmp_path):
    chance = random.Random(0)
    value = workflow("long", " ".join(chance.choice(("make", "test", "build", "lint")) for _ in range(170_000)))
    text = json.dumps(value, separators=(",", ":"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "long.json").write_text(text)
    assert prepare(tmp_path / "in", tmp_path / "out", "--train-split", 1) == 0
    assert verify(tmp_path / "out") == 0
    rows = torch.load(tmp_path / "out" / "train.pt", mmap=True, weights_only=True)
    tokens = TCTTokenizer().encode(text)
    assert 170_000 < len(tokens) < 171_000 and len(rows) == -(-(len(tokens) - 512) // 32) + 1
    assert rows[:, 0].tolist() == list(range(len(rows))) and len(rows) - 1 <= 5_332
    stitched = np.zeros(32 * len(rows) + 512, np.int64)
    for position, *row in rows.tolist():
        stitched[32 * position :][:512] = row
    assert TCTTokenizer().decode(stitched) == text


# -----------------------------------------------------------------------------
# the real workflows


@pytest.mark.slow
def test_the_corpus_by_folder(corpus, tmp_path):
    source = corpus / "workflows"
    assert prepare(source, tmp_path / "out", "--split-by", "folder", "--window-step", 256, "--num_workers", 2) == 0
    assert verify(tmp_path / "out", "--num_workers", 2) == 0
    splits = {}
    for entry in lines(tmp_path / "out"):
        splits.setdefault(entry["split"], set()).add(entry["file"].split("/")[0])
    assert len(splits["train"]) > 200 and len(splits["val"]) > 20 and not splits["train"] & splits["val"]

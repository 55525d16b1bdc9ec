"""Long preparations write the same bytes if they are killed, resumed, sharded or merged, or if the disk is full."""

import itertools
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from helpers import exit_code
from test_prepare import SCRIPTS, contents, held, load, prepare, prepare_training_data, run, workflow, write_workflows  # noqa: F401

from workflow_data import work_folder as work_folders

SCRIPT = SCRIPTS / "prepare_training_data.py"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Write 800 workflows in folders: some are long, some duplicates, some invalid."""
    folder = tmp_path_factory.mktemp("long") / "in"
    chance = random.Random(0)
    for i in range(800):
        path = folder / f"owner-{i % 37}" / f"{i}.{'json' if i % 2 else 'yml'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        value = workflow(f"W{i % 750}", "\n".join(f"echo {chance.random()}" for _ in range(i % 60)) or "x")
        path.write_text(json.dumps(value if i % 50 else {"on": "push"}))
    return folder


@pytest.fixture(scope="module")
def straight(source):
    """Return the bytes of an undisturbed run with one worker."""
    assert prepare(source, source.parent / "straight", "--split-by", "folder") == 0
    return contents(source.parent / "straight")


def flags(source, output, *more):
    return ["--input", source, "--output", output, "--split-by", "folder", *more]


TOUCHES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "sqlite3.connect"}  # audit events


def prepare_or_die(arguments: list[str], touches: int):
    """Prepare, and kill this process when it has touched this many files of its work folder."""
    count = itertools.count(1)

    def die(event, details):
        if event in TOUCHES and ".unfinished" in str(details[0]) and next(count) == touches:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die)
    prepare_training_data.main(arguments)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_random_kills_do_not_change_the_bytes(source, straight, tmp_path, seed):
    chance, codes = random.Random(seed), []
    arguments = [str(flag) for flag in flags(source, tmp_path / "out", "--resume", "--num_workers", "1")]
    for touches in [*(chance.randint(1, 50) for _ in range(12)), 0]:
        process = multiprocessing.get_context("fork").Process(target=prepare_or_die, args=(arguments, touches))
        process.start()
        process.join()
        codes.append(process.exitcode)
        if process.exitcode == 0:
            assert contents(tmp_path / "out") == straight
            assert [path.name for path in tmp_path.iterdir()] == ["out"]
            shutil.rmtree(tmp_path / "out")
    assert set(codes) == {0, -signal.SIGKILL} and codes.count(0) < 8 and codes[-1] == 0


@pytest.mark.slow
@pytest.mark.parametrize("victims", ["all", "parent"])
def test_workers_end_with_their_parent(source, straight, tmp_path, held, victims):  # noqa: F811
    process, _ = held(source, tmp_path / "out", "--split-by", "folder")
    if victims == "all":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.communicate()  # until all its processes have closed its pipes
    assert process.returncode == -signal.SIGKILL
    assert (
        exit_code(prepare_training_data.main, [str(flag) for flag in flags(source, tmp_path / "out", "--resume")]) == 0
    )
    assert contents(tmp_path / "out") == straight


@pytest.mark.slow
def test_shards_merge_to_the_same_bytes(source, straight, tmp_path, capsys):
    shards = [tmp_path / f"shard-{i}" for i in (1, 2, 3)]
    for i, shard in enumerate(shards, 1):
        assert exit_code(prepare_training_data.main, flags(source, shard, "--shard", f"{i}/3")) == 0

    def merge(*shards):
        return exit_code(prepare_training_data.main, ["--merge", *map(str, shards), "--output", str(tmp_path / "out")])

    assert merge(shards[2], shards[0], shards[1]) == 0
    assert contents(tmp_path / "out") == straight
    capsys.readouterr()
    other = tmp_path / "other"
    assert (
        exit_code(prepare_training_data.main, [str(f) for f in flags(source, other, "--shard", "3/3", "--seed", "5")])
        == 0
    )
    for given, message in (
        (shards[:2], "shard 3/3 is missing"),
        ([*shards, shards[0]], "is shard 1/3, and so is"),
        ([*shards[:2], other], "made with other flags"),
        ([*shards[:2], source], "not a finished output of --shard"),
    ):
        assert merge(*given) == 2
        assert message in capsys.readouterr().err
    assert contents(tmp_path / "out") == straight


@pytest.mark.slow
def test_a_shard_can_be_resumed(source, straight, tmp_path, monkeypatch):
    shards = [tmp_path / f"shard-{part}" for part in (1, 2)]
    first, second = (flags(source, shard, "--shard", f"{part}/2") for part, shard in enumerate(shards, 1))
    with monkeypatch.context() as broken:
        broken.setattr(prepare_training_data, "run_in_processes", stop_after(2))
        assert exit_code(prepare_training_data.main, first) == 130
    assert exit_code(prepare_training_data.main, [*first, "--resume"]) == 0
    assert exit_code(prepare_training_data.main, second) == 0
    assert exit_code(prepare_training_data.main, ["--merge", *shards, "--output", tmp_path / "out"]) == 0
    assert contents(tmp_path / "out") == straight


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("moment", ["_replace", "rmtree"])
def test_a_kill_during_publishing_loses_nothing(source, straight, tmp_path, monkeypatch, moment, shard):
    """Kill before the renames, or after them, when some of the work is already removed."""
    more = [str(f) for f in flags(source, tmp_path / "out", *(["--shard", "1/1"] if shard else []))]

    def remove_a_chunk_and_die(folder, **_):
        next(folder.parent.glob("chunks/*.json")).unlink()
        raise KeyboardInterrupt

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        if moment == "_replace":
            broken.setattr(work_folders, "_replace", die)
        else:
            broken.setattr(work_folders.shutil, "rmtree", remove_a_chunk_and_die)
        assert exit_code(prepare_training_data.main, more) == 130
    assert exit_code(prepare_training_data.main, [*more, "--resume"]) == 0
    if shard:
        assert (
            exit_code(prepare_training_data.main, ["--merge", str(tmp_path / "out"), "--output", str(tmp_path / "all")])
            == 0
        )
    assert contents(tmp_path / ("all" if shard else "out")) == straight


def test_a_missing_chunk_is_reported(source, tmp_path, capsys):
    assert (
        exit_code(prepare_training_data.main, [str(f) for f in flags(source, tmp_path / "shard", "--shard", "1/1")])
        == 0
    )
    next((tmp_path / "shard" / "chunks").glob("*.json")).unlink()
    assert (
        exit_code(prepare_training_data.main, ["--merge", str(tmp_path / "shard"), "--output", str(tmp_path / "out")])
        == 2
    )
    assert "only 3 of 4 chunks exist" in capsys.readouterr().err


def stop_after(chunks):
    def run_some(function, calls, num_workers):
        for _, call in zip(range(chunks), calls):
            yield function(*call)
        raise KeyboardInterrupt

    return run_some


def test_resuming_with_other_flags_is_refused(source, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as broken:
        broken.setattr(prepare_training_data, "run_in_processes", stop_after(2))
        assert prepare(source, tmp_path / "out") == 130
    assert "continue with --resume" in capsys.readouterr().err
    assert prepare(source, tmp_path / "out", "--resume", "--seed", 7, "--stride", 64) == 2
    error = capsys.readouterr().err
    assert "stride was 32, is 64" in error and "seed was 0, is 7" in error
    assert len(list((tmp_path / ".out.unfinished" / "chunks").glob("*.json"))) == 2


def test_a_second_run_into_one_folder_is_refused(source, tmp_path, capsys):
    work = tmp_path / ".out.unfinished"
    work.mkdir()
    hold = """
import fcntl, sys
lock = open(sys.argv[1], "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", hold, work / "lock"]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    for more in ([], ["--resume"]):
        assert prepare(source, tmp_path / "out", *more) == 2
        assert "another run is writing" in capsys.readouterr().err
    holder.communicate()
    assert prepare(source, tmp_path / "out", "--max-files", 20) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_a_full_disk_keeps_the_work(source, straight, tmp_path):
    """Limit the size of files in a process of its own, which has the effect of a full disk."""

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    command = [sys.executable, SCRIPT, *flags(source, tmp_path / "out", "--num_workers", "2")]
    result = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited, check=False)
    assert result.returncode == 2, result.stderr
    assert "File too large" in result.stderr or "disk full" in result.stderr
    assert "Traceback" not in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert "continue with --resume" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".out.unfinished"]
    assert run(*flags(source, tmp_path / "out", "--resume")).returncode == 0
    assert contents(tmp_path / "out") == straight


# -----------------------------------------------------------------------------
# more flags


def test_a_third_split_and_a_limit_of_windows(source, tmp_path):
    assert (
        prepare(
            source,
            tmp_path / "out",
            "--test-split",
            0.2,
            "--train-split",
            0.6,
            "--context-size",
            64,
            "--stride",
            8,
            "--max-windows-per-workflow",
            5,
        )
        == 0
    )
    train, val, metadata, _ = load(tmp_path / "out")
    test = torch.load(tmp_path / "out" / "test.pt", mmap=True, weights_only=True)
    splits = metadata["splits"]
    assert [splits[split]["windows"] for split in ("train", "val", "test")] == [len(train), len(val), len(test)]
    lines = [json.loads(line) for line in (tmp_path / "out" / "workflows.jsonl").read_text().splitlines()]
    most = {split: max(line["windows"] for line in lines if line["split"] == split) for split in splits}
    assert most["train"] == 5 and most["val"] > 5 and most["test"] > 5
    assert splits["train"]["unseen_tokens"] > 0 == splits["val"]["unseen_tokens"]


def test_near_duplicates_and_repairs_are_counted(tmp_path):
    pytest.importorskip("datasketch")
    write_workflows(tmp_path / "in", ["a.json", "b.json"])  # alike but for their names
    (tmp_path / "in" / "c.json").write_text(
        json.dumps(workflow("c", "make c") | {"on": {"push": {"branches": "main"}}})
    )
    assert prepare(tmp_path / "in", tmp_path / "out", "--near-dedup", "--repair") == 0
    _, _, metadata, skipped = load(tmp_path / "out")
    assert metadata["skipped"] == {"near_duplicate": 1} and metadata["repairs"] == {"list_of_one": 1}
    assert skipped == [{"file": "b.json", "reason": "near_duplicate", "detail": "100% of the steps of a.json"}]


@pytest.mark.parametrize("name", ["bpe", "bpe-unsplit"])
def test_a_baseline_learns_from_the_training_split_only(tmp_path, name):
    from workflow_data.tokenizers import BPETokenizer

    write_workflows(tmp_path / "in", [f"{split}{i}.json" for split in "ab" for i in range(30)])
    assert prepare(tmp_path / "in", tmp_path / "tct", "--context-size", 64) == 0
    assert prepare(tmp_path / "in", tmp_path / "bpe", "--context-size", 64, "--tokenizer", name) == 0
    tct, bpe = load(tmp_path / "tct")[2], load(tmp_path / "bpe")[2]
    for split in ("train", "val"):
        assert all(tct["splits"][split][what] == bpe["splits"][split][what] for what in ("workflows", "json_bytes"))
    tokenizer = BPETokenizer.load(tmp_path / "bpe" / "tokenizer.json")
    assert bpe["tokenizer"] == {"name": name, "fingerprint": tokenizer.fingerprint}
    assert bpe["vocab_size"] == tct["vocab_size"] > tokenizer.get_vocab_size()

    texts = {"train": [], "val": []}
    rows = dict(zip(texts, load(tmp_path / "bpe")[:2]))
    for line in map(json.loads, (tmp_path / "bpe" / "workflows.jsonl").read_text().splitlines()):
        own = rows[line["split"]][line["first_window"] :][: line["windows"]]
        tokens = [0] * line["tokens"]
        for position, *row in own.tolist():
            tokens[position * 32 : position * 32 + 64] = row
        texts[line["split"]].append(tokenizer.decode(tokens))
    assert BPETokenizer.train(texts["train"], name=name).fingerprint == tokenizer.fingerprint
    assert BPETokenizer.train(texts["train"] + texts["val"], name=name).fingerprint != tokenizer.fingerprint

    again = tmp_path / "again"
    which = tmp_path / "bpe" / "tokenizer.json"
    assert prepare(tmp_path / "in", again, "--context-size", 64, "--tokenizer", which) == 0
    assert (again / "train.pt").read_bytes() == (tmp_path / "bpe" / "train.pt").read_bytes()
    metadata = load(again)[2]
    assert metadata["vocab_size"] == tokenizer.get_vocab_size() and metadata["tokenizer"] == bpe["tokenizer"]


def test_several_inputs_make_one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_workflows(tmp_path / "in", ["a.json", "same.json"])
    (tmp_path / "x.jsonl").write_text(
        "".join(
            json.dumps(row) + "\n"
            for row in (
                workflow("same.json"),
                {"content": json.dumps(workflow("b")), "path": "b.json"},
                {"content": "a: 1"},
            )
        )
    )
    assert prepare("in", "out", "--input", "x.jsonl", "--train-split", 1) == 0
    _, _, metadata, skipped = load(tmp_path / "out")
    files = [json.loads(line)["file"] for line in (tmp_path / "out" / "workflows.jsonl").read_text().splitlines()]
    assert files == ["in:a.json", "in:same.json", "x.jsonl:2:b.json"]
    assert [(item["file"], item["reason"]) for item in skipped] == [
        ("x.jsonl:1", "duplicate"),
        ("x.jsonl:3", "not_a_workflow"),
    ]
    assert metadata["total_records"] == 5


def test_a_broken_stream_is_resumed(tmp_path, monkeypatch, capsys):
    rows = [json.dumps({"content": json.dumps(workflow(f"W{i}"))}) + "\n" for i in range(700)]
    (tmp_path / "x.jsonl").write_text("".join(rows))
    whole = prepare_training_data.TableSource.__iter__

    def broken(source):
        for number, record in enumerate(whole(source)):
            if number == 600:
                raise ValueError("--dataset x: connection reset")
            yield record

    with monkeypatch.context() as context:
        context.setattr(prepare_training_data.TableSource, "__iter__", broken)
        assert prepare(tmp_path / "x.jsonl", tmp_path / "out") == 2
    assert "connection reset; finished work is kept: continue with --resume" in capsys.readouterr().err
    assert prepare(tmp_path / "x.jsonl", tmp_path / "out", "--resume") == 0
    assert prepare(tmp_path / "x.jsonl", tmp_path / "straight") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


@pytest.mark.slow
def test_a_streamed_data_set_equals_its_file(tmp_path):
    pytest.importorskip("datasets")
    import pyarrow as pa
    from pyarrow import parquet

    rows = [
        {
            "content": json.dumps(workflow(f"W{i}")),
            "repo": f"r{i % 9}",
            "path": f".github/workflows/{i}.yml" if i % 4 else f"{i}.yml",
        }
        for i in range(600)
    ]
    (tmp_path / "data").mkdir()
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "x.parquet")
    more = ["--path_glob", ".github/workflows/*", "--split-by", "repo", "--num_workers", 2]
    assert prepare(tmp_path / "data" / "x.parquet", tmp_path / "file", *more) == 0
    streamed = run("--dataset", "parquet", "--data_dir", tmp_path / "data", "--output", tmp_path / "stream", *more)
    assert streamed.returncode == 0, streamed.stderr
    assert contents(tmp_path / "file") == contents(tmp_path / "stream")
    metadata = load(tmp_path / "file")[2]
    assert (metadata["total_workflows"], metadata["left_alone"]) == (450, 150)


@pytest.mark.parametrize(
    "more, message",
    [
        (["--shard", "5/4"], "--shard must be I/N"),
        (["--tokenizer", "nowhere.json"], "No such file or directory: 'nowhere.json'"),
        (["--train-split", 0.9, "--test-split", 0.2], "is more than 1"),
        (["--near-dedup", 2], "--near-dedup must be from 0 to 1"),
        (["--max_windows_per_workflow", 0], "--max-windows-per-workflow must be at least 1"),
    ],
)
def test_wrong_flags_are_named(tmp_path, capsys, more, message):
    write_workflows(tmp_path / "in", ["a.json"])
    assert prepare(tmp_path / "in", tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_source_is_required(tmp_path, capsys):
    assert exit_code(prepare_training_data.main, ["--output", str(tmp_path / "out")]) == 2
    assert "--input or --dataset is needed" in capsys.readouterr().err

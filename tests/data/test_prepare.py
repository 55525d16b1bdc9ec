"""Preparation: every token of every valid workflow is in a window, and every skipped file is reported."""

import functools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import exit_code

import tct_github_workflow
from workflow_data import prepare as prepare_training_data
from workflow_data import verify, workers, writer

SCRIPTS = Path(__file__).parents[2] / "tct-bundle" / "scripts"


def workflow(name="CI", run="make"):
    return {"name": name, "on": "push", "jobs": {"build": {"runs-on": "ubuntu-latest", "steps": [{"run": run}]}}}


def write_workflows(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(workflow(name)))


def prepare(source, output, *flags):
    return exit_code(
        prepare_training_data.main,
        ["--input", str(source), "--output", str(output), "--num-workers", "1", *map(str, flags)],
    )


def load(output):
    metadata = json.loads((output / "metadata.json").read_text())
    rows = {split: torch.load(output / f"{split}.pt", mmap=True, weights_only=True) for split in ("train", "val")}
    skipped = [json.loads(line) for line in (output / "skipped.jsonl").read_text().splitlines()]
    return rows["train"], rows["val"], metadata, skipped


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names_in(rows):
    """Return the names of the workflows whose first window is among the rows."""
    texts = [tct_github_workflow.decode_prefix(row[1:].tolist())[0] for row in rows if row[0] == 0]
    return [json.loads(text)["name"] for text in texts]


@pytest.fixture
def bytes_as_tokens(monkeypatch):
    """Use a tokenizer with one token per byte, so that a test can choose lengths. It requires only jobs."""

    class BytesAsTokens:
        fingerprint = "bytes"

        def encode(self, text):
            if "jobs" not in json.loads(text):
                raise ValueError("$: 'jobs' is missing")
            return [byte + 1 for byte in text.encode()]

        def decode_prefix(self, tokens):
            return bytes(token - 1 for token in tokens if token).decode(), 0, False

        def vocab_size(self):
            return 8192

        def pad_token(self):
            return 0

    monkeypatch.setattr(tct_github_workflow, "tokenizer", BytesAsTokens)


# -----------------------------------------------------------------------------
# the split


def test_added_files_do_not_move_workflows(tmp_path, bytes_as_tokens):
    write_workflows(tmp_path / "in", [f"b{i}.json" for i in range(30)])
    prepare(tmp_path / "in", tmp_path / "before", "--context-size", 512)
    write_workflows(tmp_path / "in", [f"a{i}/c.json" for i in range(30)])
    prepare(tmp_path / "in", tmp_path / "after", "--context-size", 512)
    before, after = load(tmp_path / "before"), load(tmp_path / "after")
    for split in (0, 1):
        assert before[split].shape[0] and set(names_in(before[split])) < set(names_in(after[split]))


def test_split_by_folder_keeps_folders_together(tmp_path, bytes_as_tokens):
    write_workflows(tmp_path / "in", [f"owner__{i}/{name}.json" for i in range(12) for name in "abcd"])
    assert prepare(tmp_path / "in", tmp_path / "out", "--split-by", "folder") == 0
    train, val, metadata, _ = load(tmp_path / "out")
    folders = [{os.path.dirname(name) for name in names_in(rows)} for rows in (train, val)]
    assert folders[0] and folders[1] and not folders[0] & folders[1]
    assert metadata["split_by"] == "folder"


# -----------------------------------------------------------------------------
# the prepared set


def test_metadata_describes_the_tensors(tmp_path, bytes_as_tokens):
    names = [f"{i}.json" for i in range(20)]
    write_workflows(tmp_path / "in", names)
    assert (
        prepare(
            tmp_path / "in",
            tmp_path / "out",
            "--context-size",
            64,
            "--stride",
            16,
            "--window-step",
            32,
            "--train-split",
            0.6,
            "--seed",
            3,
        )
        == 0
    )
    train, val, metadata, skipped = load(tmp_path / "out")
    total = sum(len(json.dumps(workflow(name), separators=(",", ":"))) for name in names)
    assert train.dtype == val.dtype == torch.int16 and train.shape[1] == val.shape[1] == 65
    splits = metadata.pop("splits")
    assert metadata == {
        "context_size": 64,
        "stride": 16,
        "window_step": 32,
        "max_windows_per_workflow": None,
        "vocab_size": 8192,
        "pad_token": 0,
        "tokenizer": {"name": "tct_github_workflow", "fingerprint": "bytes"},
        "total_records": 20,
        "total_workflows": 20,
        "skipped": {},
        "left_alone": 0,
        "repairs": {},
        "seed": 3,
        "split_by": "file",
        "train_split": 0.6,
        "test_split": 0.0,
    }
    assert skipped == []
    for split, rows in (("train", train), ("val", val)):
        assert splits[split]["windows"] == len(rows)
        assert splits[split]["targets"] == int((rows[:, 1:] != 0).sum())
        assert splits[split]["workflows"] == int((rows[:, 0] == 0).sum()) > 0
    assert sum(split["tokens"] for split in splits.values()) == total
    assert sum(split["json_bytes"] for split in splits.values()) == total


def test_rows_are_in_the_order_of_files(tmp_path, bytes_as_tokens):
    names = [f"{i:02}.json" for i in range(8)]
    write_workflows(tmp_path / "in", names)
    prepare(tmp_path / "in", tmp_path / "out", "--context-size", 32, "--stride", 8, "--train-split", 1)
    train, val, _, _ = load(tmp_path / "out")
    assert val.shape == (0, 33)
    stitched, files = [], []
    for row in train.tolist():
        if row[0] == 0:
            stitched.append([])
        start = row[0] * 8
        stitched[-1][start:] = row[1:]
    for tokens in stitched:
        value = json.loads(bytes(token - 1 for token in tokens if token))
        files.append(value["name"])
        assert value == workflow(value["name"])
    assert files == names


def test_max_files_keeps_the_first_files(tmp_path, bytes_as_tokens):
    write_workflows(tmp_path / "in", ["c.json", "a/z.json", "b.json", "a/a.json"])
    prepare(tmp_path / "in", tmp_path / "out", "--max-files", 3, "--train-split", 1)
    assert names_in(load(tmp_path / "out")[0]) == ["a/a.json", "a/z.json", "b.json"]


def test_duplicates_in_other_formats_are_dropped(tmp_path, bytes_as_tokens):
    source = tmp_path / "in"
    write_workflows(source, ["a.json", "b.json"])
    value = workflow("a.json")
    (source / "c.json").write_text(json.dumps(dict(reversed(value.items())), indent=4))
    (source / "d.yml").write_text(
        "on: push  # again\nname: a.json\njobs: {build: {runs-on: ubuntu-latest, steps: [run: make]}}\n"
    )
    prepare(source, tmp_path / "out")
    _, _, metadata, skipped = load(tmp_path / "out")
    assert metadata["total_workflows"] == 2 and metadata["skipped"] == {"duplicate": 2}
    assert skipped == [
        {"file": name, "reason": "duplicate", "detail": "same value as a.json"} for name in ("c.json", "d.yml")
    ]


def test_clean_skips_and_counts_what_breaks_a_rule(tmp_path, capsys):
    source = tmp_path / "in"
    write_workflows(source, ["a.json", "b.json", "c.json"])
    broken = workflow()
    for name, change in {"d": {"needs": "b"}, "e": {"needs": "c"}, "f": {"name": "${{ env.X }}"}}.items():
        broken["jobs"]["build"] = workflow()["jobs"]["build"] | change
        (source / f"{name}.json").write_text(json.dumps(broken))
    assert prepare(source, tmp_path / "all") == 0 and load(tmp_path / "all")[2]["total_workflows"] == 6
    assert prepare(source, tmp_path / "out", "--clean") == 0
    train, val, metadata, skipped = load(tmp_path / "out")
    assert metadata["skipped"] == {"rule context-availability": 1, "rule needs": 2}
    assert metadata["total_workflows"] == 3 and sorted(names_in([*train, *val])) == ["a.json", "b.json", "c.json"]
    details = ["there is no job 'b'", "there is no job 'c'"]
    assert skipped[:2] == [
        {"file": name, "reason": "rule needs", "detail": f"jobs.build.needs: {detail}"}
        for name, detail in zip(("d.json", "e.json"), details)
    ]
    assert "skipped: rule needs " in capsys.readouterr().out
    assert exit_code(verify.main, ["--data_dir", tmp_path / "out"]) == 0


def test_skipped_files_are_counted_by_reason(tmp_path, bytes_as_tokens, capsys):
    source = tmp_path / "in"
    write_workflows(source, ["good.json", "sub/good.yaml", "tool/.github/workflows/ci.yml", "tool/example.yml"])
    (source / "readme.md").write_text("no workflow")
    (source / "tool" / "package.json").write_text("{}")
    (source / "action.yml").write_text("name: no workflow\nruns: {using: node20}\n")
    (source / "starter.yml").write_text("on: {push: {branches: [$default-branch]}}\njobs: {}\n")
    (source / "jinja.yml").write_text("on: push\njobs:\n  {% for job in jobs %}\n")
    (source / "empty.yml").touch()
    (source / "binary.yml").write_bytes(bytes(range(256)))
    (source / "tab.yml").write_text("on:\n\tpush:\n")
    (source / "deep.json").write_text("[" * 100_000)
    (source / "other.yml").write_text("on: push\n")
    (source / "large.yml").write_text("#" * (9 << 20))
    (source / "gone.yml").symlink_to(source / "nowhere.yml")
    (source / "new\nline.yml").symlink_to("/dev/null")
    (source / "pipe.yml").symlink_to(tmp_path / "fifo")
    os.mkfifo(tmp_path / "fifo")
    (source / "loop").symlink_to(source)
    (source / "loop.yml").symlink_to(source / "loop.yml")
    (source / "long.yml").write_text(json.dumps(workflow("long", "x" * 9000 * 4)))
    assert prepare(source, tmp_path / "out", "--context-size", 16, "--stride", 4) == 0
    _, _, metadata, skipped = load(tmp_path / "out")
    assert metadata["total_workflows"] == 3 and metadata["left_alone"] == 2
    reasons = {item["file"]: item["reason"] for item in skipped}
    assert reasons == {
        "empty.yml": "syntax",
        "binary.yml": "syntax",
        "tab.yml": "syntax",
        "deep.json": "syntax",
        "other.yml": "not_schema_valid",
        "large.yml": "too_large",
        "long.yml": "too_long",
        "gone.yml": "unreadable",
        "loop.yml": "unreadable",
        "new\nline.yml": "unreadable",
        "pipe.yml": "unreadable",
        "action.yml": "not_a_workflow",
        "starter.yml": "template",
        "jinja.yml": "template",
    }
    assert metadata["skipped"] == {
        "not_a_workflow": 1,
        "not_schema_valid": 1,
        "syntax": 4,
        "template": 2,
        "too_large": 1,
        "too_long": 1,
        "unreadable": 4,
    }
    details = {item["file"]: item["detail"] for item in skipped}
    assert "use --stride 8" in details["long.yml"]
    assert details["other.yml"] == "$: 'jobs' is missing"
    report = capsys.readouterr().out
    assert "skipped: syntax" in report and str(tmp_path / "out") in report


# -----------------------------------------------------------------------------
# refusals


@pytest.mark.parametrize(
    "flags, messages",
    [
        (["--stride", 0, "--context-size", -1], ["--stride must be at least 1, not 0", "--context-size must be"]),
        (["--stride", 32, "--window-step", 48], ["--window-step 48 must be a multiple of --stride 32"]),
        (["--stride", 64, "--context-size", 32], ["must be at most --context-size 32"]),
        (["--train-split", 1.5, "--max-files", 0], ["--train-split must be from 0 to 1, not 1.5", "--max-files"]),
    ],
)
def test_all_wrong_numbers_are_reported_together(tmp_path, capsys, flags, messages):
    write_workflows(tmp_path / "in", ["a.json"])
    assert prepare(tmp_path / "in", tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert all(message in error for message in messages) and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_input_without_workflows_is_refused(tmp_path, bytes_as_tokens, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.yml").write_text("a: 1")
    for source, message in (
        ("missing", "does not exist"),
        ("empty", "has no .json, .yml or .yaml"),
        ("bad", "no valid workflow"),
    ):
        assert prepare(tmp_path / source, tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error and "--resume" not in error
        assert {path.name for path in tmp_path.iterdir()} == {"empty", "bad"}


@pytest.mark.parametrize(
    "content, flags, message",
    [
        (b"", [], "it has no rows"),
        (b"\xef\xbb\xbf\n", [], "it has no rows"),
        (
            b'{"content": "a: 1", "path": "docs/x.yml"}\n',
            ["--path_glob", "workflows/*"],
            "--path-glob matches none of its 1 files or rows",
        ),
    ],
)
def test_a_table_without_rows_is_refused(tmp_path, capsys, content, flags, message):
    (tmp_path / "x.jsonl").write_bytes(content)
    assert prepare(tmp_path / "x.jsonl", tmp_path / "out", *flags) == 2
    assert capsys.readouterr().err == f"error: no workflow in the input: {message}\n"


def test_a_parquet_file_without_rows_is_refused(tmp_path, capsys):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"content": pa.array([], pa.string())}), tmp_path / "x.parquet")
    assert prepare(tmp_path / "x.parquet", tmp_path / "out") == 2
    assert capsys.readouterr().err == "error: no workflow in the input: it has no rows\n"


def test_only_an_earlier_result_is_replaced(tmp_path, bytes_as_tokens, capsys):
    write_workflows(tmp_path / "in", ["a.json", "b.json"])
    assert prepare(tmp_path / "in", tmp_path / "out", "--seed", 1) == 0
    assert prepare(tmp_path / "in", tmp_path / "out", "--seed", 2) == 0
    assert load(tmp_path / "out")[2]["seed"] == 2
    (tmp_path / "out" / "thesis.txt").write_text("42")
    assert prepare(tmp_path / "in", tmp_path / "out", "--seed", 3) == 2
    assert "holds other files ('thesis.txt'); nothing was overwritten" in capsys.readouterr().err
    assert load(tmp_path / "out")[2]["seed"] == 2 and (tmp_path / "out" / "thesis.txt").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


@pytest.mark.parametrize("name", sorted(prepare_training_data.OUTPUTS | prepare_training_data.SHARD_OUTPUTS))
def test_one_known_file_is_not_an_earlier_result(tmp_path, bytes_as_tokens, capsys, name):
    write_workflows(tmp_path / "in", ["a.json", "b.json"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text('{"mine": 1}')
    for more in ([], ["--shard", "1/1"]):
        assert prepare(tmp_path / "in", tmp_path / "out", *more) == 2
        assert f"holds other files ({name!r}); nothing was overwritten" in capsys.readouterr().err
    assert (tmp_path / "out" / name).read_text() == '{"mine": 1}'


def test_a_foreign_work_folder_is_left_alone(tmp_path, bytes_as_tokens, capsys):
    write_workflows(tmp_path / "in", ["a.json", "b.json"])
    (tmp_path / ".out.unfinished").mkdir()
    (tmp_path / ".out.unfinished" / "thesis.txt").write_text("42")
    assert prepare(tmp_path / "in", tmp_path / "out") == 2
    assert "holds files that do not belong to an unfinished run" in capsys.readouterr().err
    assert (tmp_path / ".out.unfinished" / "thesis.txt").read_text() == "42"


def test_an_output_inside_the_input_is_not_read(tmp_path, bytes_as_tokens):
    write_workflows(tmp_path, ["a.json", "b.json"])
    for _ in range(2):
        assert prepare(tmp_path, tmp_path / "out") == 0
    assert load(tmp_path / "out")[3] == []


@pytest.mark.parametrize("failure, code", [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 2)])
def test_a_failed_run_keeps_the_earlier_result(tmp_path, bytes_as_tokens, monkeypatch, capsys, failure, code):
    write_workflows(tmp_path / "in", ["a.json", "b.json"])
    assert prepare(tmp_path / "in", tmp_path / "out", "--seed", 1) == 0

    def fail(*_):
        raise failure

    with monkeypatch.context() as broken:
        broken.setattr(writer, "write_dataset", fail)
        for output in ("out", "fresh"):
            assert prepare(tmp_path / "in", tmp_path / output, "--seed", 2) == code
    assert "Traceback" not in capsys.readouterr().err
    assert load(tmp_path / "out")[2]["seed"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out", ".out.unfinished", ".fresh.unfinished"}
    (tmp_path / "in" / "a.json").unlink()  # what is done is not done again
    for output in ("out", "fresh"):
        assert prepare(tmp_path / "in", tmp_path / output, "--seed", 2, "--resume") == 0
        assert load(tmp_path / output)[2]["seed"] == load(tmp_path / output)[2]["total_workflows"] == 2
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out", "fresh"}


# -----------------------------------------------------------------------------
# the real tokenizer, in real processes


def run(*flags):
    return subprocess.run(
        [sys.executable, SCRIPTS / "prepare_training_data.py", *map(str, flags)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())  # which one is used depends on the system
def test_workers_do_not_change_the_bytes(tmp_path, monkeypatch, method):
    write_workflows(tmp_path / "in", [f"{i % 7}/{i}.json" for i in range(60)])
    (tmp_path / "in" / "bad.yml").write_text("on: push\njobs: 3\n")
    assert prepare(tmp_path / "in", tmp_path / "one") == 0
    executor = functools.partial(workers.ProcessPoolExecutor, mp_context=multiprocessing.get_context(method))
    monkeypatch.setattr(workers, "ProcessPoolExecutor", executor)
    assert prepare(tmp_path / "in", tmp_path / "two", "--num-workers", 2) == 0
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert set(one) == {"train.pt", "val.pt", "metadata.json", "skipped.jsonl", "workflows.jsonl"}
    assert one == two


def test_prepared_rows_decode_to_the_workflows(tmp_path):
    names = [f"{i}.json" for i in range(12)]
    write_workflows(tmp_path / "in", names)
    assert prepare(tmp_path / "in", tmp_path / "out", "--context-size", 64) == 0
    train, val, metadata, _ = load(tmp_path / "out")
    rows = [[token for token in row[1:].tolist() if token] for row in (*train, *val)]
    texts = [tct_github_workflow.decode(tokens)[0] for tokens in rows]
    assert sorted(json.loads(text)["name"] for text in texts) == sorted(names)
    assert sum(len(text.encode()) for text in texts) == sum(
        split["json_bytes"] for split in metadata["splits"].values()
    )
    assert metadata["tokenizer"]["fingerprint"] == tct_github_workflow.fingerprint()


@pytest.fixture
def held(tmp_path, spawn):
    """Start a preparation with two workers that makes only its first chunk until a file exists.

    Return the process and the path of that file.
    """
    script, released = tmp_path / "held.py", tmp_path / "released"
    script.write_text(f"""
import sys, time
from pathlib import Path
from workflow_data import chunks as workflow_chunks, prepare as prepare_training_data

def make_chunk(path, records, settings):
    while path.stem != "000000" and not Path({str(released)!r}).exists():
        time.sleep(0.01)
    return workflow_chunks.make_chunk(path, records, settings)

prepare_training_data.make_chunk = make_chunk
if __name__ == "__main__":
    prepare_training_data.main()
""")

    def start(source, output, *flags):
        process = spawn(sys.executable, script, "--input", source, "--output", output, "--num-workers", 2, *flags)
        while not (output.with_name(f".{output.name}.unfinished") / "chunks/000000.json").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        return process, released

    return start


@pytest.mark.slow
def test_a_run_resumes_after_ctrl_c(tmp_path, held):
    write_workflows(tmp_path / "in", [f"{i}.json" for i in range(600)])
    process, released = held(tmp_path / "in", tmp_path / "out")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    released.touch()
    _, error = process.communicate()
    assert process.returncode == 130, error
    assert "continue with --resume" in error and "Traceback" not in error
    assert not (tmp_path / "out").exists() and (tmp_path / ".out.unfinished/chunks/000000.json").exists()
    (tmp_path / "in" / "new.json").write_text(json.dumps(workflow("new")))  # the listing is that of the beginning
    assert prepare(tmp_path / "in", tmp_path / "out", "--resume") == 0
    assert not (tmp_path / ".out.unfinished").exists()
    (tmp_path / "in" / "new.json").unlink()
    assert prepare(tmp_path / "in", tmp_path / "straight") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def test_help_lists_the_flags():
    result = run("--help")
    assert result.returncode == 0
    for flag in ("--input", "--output", "--context-size", "--stride", "--train-split", "--max-files"):
        assert flag in result.stdout
    assert run("--input=x", "--output=y", "--strid3=1").returncode == 2

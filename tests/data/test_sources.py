"""Sources yield the same records however they are stored, and a fault for each that cannot be read."""

import json
import os

import pytest

from workflow_data.cleaning import Workflow, clean
from workflow_data.sources import FolderSource, Selection, TableSource, dataset_rows, open_source

YAML = "on: push\njobs: {a: {runs-on: ubuntu-latest}}\n"
VALUE = {"on": "push", "jobs": {"a": {"runs-on": "ubuntu-latest"}}}


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def write_files(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(YAML)


def names(source):
    return [record.name for record in source]


def read(location, **selection):
    return list(open_source(str(location), Selection(**selection)))


# -----------------------------------------------------------------------------
# folders


def test_files_are_sorted_and_grouped_by_folder(tmp_path):
    write_files(tmp_path, ["b.yml", "a/z.json", "a/b.yaml", "c.txt", "D.YML"])
    assert names(read(tmp_path)) == ["D.YML", "a/b.yaml", "a/z.json", "b.yml"]
    assert [record.group for record in read(tmp_path, split_by="folder")] == ["", "a", "a", ""]
    assert {record.group for record in read(tmp_path)} == {None}


def test_only_workflows_of_checkouts_are_read(tmp_path):
    write_files(
        tmp_path,
        [
            "o/r/.github/workflows/ci.yml",
            "o/r/.github/workflows/deep/no.yml",
            "o/r/.github/workflows/data.json",
            "o/r/.github/dependabot.yml",
            "o/r/package.json",
            "o/r/docs/example.yml",
            "o/s/.github/workflows/a.yaml",
            "loose.yml",
            "other/docker-compose.yml",
        ],
    )
    source = FolderSource(tmp_path, Selection(split_by="folder"))
    assert names(source) == [
        "loose.yml",
        "o/r/.github/workflows/ci.yml",
        "o/s/.github/workflows/a.yaml",
        "other/docker-compose.yml",
    ]
    assert source.left_alone == 5
    assert next(r for r in source if "ci.yml" in r.name).group == "o/r/.github/workflows"


def test_a_checkout_itself_may_be_the_input(tmp_path):
    write_files(tmp_path, [".github/workflows/ci.yml", "package.json"])
    assert names(read(tmp_path)) == [".github/workflows/ci.yml"]


def test_path_glob_selects_files(tmp_path):
    write_files(tmp_path, ["r/.github/workflows/ci.yml", "r/docs/a.yml", "b/docs/c.yml"])
    assert names(read(tmp_path, path_glob="docs/*.yml")) == ["b/docs/c.yml", "r/docs/a.yml"]
    assert len(read(tmp_path, path_glob="*")) == 3


def test_an_unreadable_folder_is_a_fault(tmp_path, monkeypatch):
    write_files(tmp_path, ["a.yml", "closed/b.yml"])
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    records = read(tmp_path)
    assert names(records) == ["a.yml", "closed"]
    assert records[1].fault == ("unreadable", "Permission denied")


def test_files_have_no_columns(tmp_path):
    write_files(tmp_path, ["a.yml"])
    with pytest.raises(ValueError, match="--split-by repo: files have no columns"):
        read(tmp_path, split_by="repo")


@pytest.mark.parametrize(
    "name, message", [("nowhere", "does not exist"), ("table.csv", "neither a folder nor a .jsonl or .parquet file")]
)
def test_other_inputs_are_refused(tmp_path, name, message):
    write(tmp_path, **{"table.csv": ""})
    with pytest.raises((ValueError, OSError), match=message):
        read(tmp_path / name)


# -----------------------------------------------------------------------------
# tables

ROWS = [
    {"content": YAML, "path": f".github/workflows/{i}.yml" if i % 3 else "docker-compose.yml", "repo": f"o/r{i % 4}"}
    for i in range(20)
]


def write_jsonl(path, rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))


def test_rows_are_grouped_by_a_column(tmp_path):
    write_jsonl(tmp_path / "x.jsonl", ROWS)
    records = read(tmp_path / "x.jsonl", split_by="repo", path_glob=".github/workflows/*")
    assert [record.name for record in records[:2]] == ["2:.github/workflows/1.yml", "3:.github/workflows/2.yml"]
    assert [record.group for record in records[:3]] == ["o/r1", "o/r2", "o/r0"]
    assert len(records) == 13 and all(isinstance(clean(record), Workflow) for record in records)


def test_a_bad_line_does_not_stop_reading(tmp_path):
    write_jsonl(
        tmp_path / "x.jsonl",
        [
            {"content": YAML},
            "{",
            "",
            "[1]",
            {"content": None},
            {"content": "x" * (9 << 20)},
            VALUE,
            '{"content": "' + "y" * (33 << 20) + '"}',
            {"content": json.dumps(VALUE)},
        ],
    )
    records = read(tmp_path / "x.jsonl")
    assert names(records) == list("12345678")
    assert [record.fault and record.fault[0] for record in records] == [
        None,
        "syntax",
        "syntax",
        "unreadable",
        "too_large",
        None,
        "syntax",
        None,
    ]
    assert [clean(records[i]).value for i in (0, 5, 7)] == [VALUE] * 3


def test_a_byte_order_mark_loses_no_record(tmp_path):
    line = b"\xef\xbb\xbf" + json.dumps({"content": "\ufeff" + YAML}).encode() + b"\n"
    (tmp_path / "x.jsonl").write_bytes(line + line + b"\xef\xbb\xbf")  # as of files put together
    assert [clean(record).value for record in read(tmp_path / "x.jsonl")] == [VALUE] * 2


@pytest.mark.parametrize(
    "selection, message",
    [
        ({"text_column": "code"}, "columns are missing: --text-column code; the table has content, path, repo"),
        ({"split_by": "owner"}, "--split-by owner"),
        ({"path_column": "file", "path_glob": "*"}, "--path-column file"),
        ({"path_column": "file", "split_by": "folder"}, "--path-column file"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_missing_column_is_named_with_its_flag(tmp_path, selection, message, suffix):
    path = tmp_path / f"x.{suffix}"
    write_parquet(path, ROWS) if suffix == "parquet" else write_jsonl(path, ROWS)
    with pytest.raises(ValueError, match=message):
        read(path, **selection)


def write_parquet(path, rows):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)


@pytest.mark.parametrize("split_by", ["file", "folder", "repo"])
def test_all_kinds_of_tables_have_the_same_records(tmp_path, split_by):
    pytest.importorskip("datasets")
    rows = ROWS + [{"content": None, "path": "a/.github/workflows/none.yml", "repo": None}]
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data" / "x.parquet", rows)
    write_jsonl(tmp_path / "x.jsonl", rows)
    selection = Selection(split_by, path_glob=".github/workflows/*")
    streamed = TableSource(lambda: dataset_rows("parquet", str(tmp_path / "data"), "train", selection), selection)
    sources = [
        streamed,
        open_source(str(tmp_path / "data" / "x.parquet"), selection),
        open_source(str(tmp_path / "x.jsonl"), selection),
    ]
    first, *others = [(list(source), source.left_alone) for source in sources]
    assert len(first[0]) == 14 and first[1] == 7
    assert all(other == first for other in others)


def test_a_damaged_parquet_file_is_named(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises((ValueError, OSError), match="x.parquet"):
        read(tmp_path / "x.parquet")


def test_an_unavailable_data_set_is_a_user_error(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match="--dataset parquet: ") as error:
        list(dataset_rows("parquet", str(tmp_path / "data"), "train", Selection()))
    assert "\n" not in str(error.value)

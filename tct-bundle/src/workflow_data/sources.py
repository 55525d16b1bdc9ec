"""Read workflows from folders, trees of checkouts, .jsonl and .parquet files, and data sets of `datasets`.

>>> for record in open_source("workflows/", Selection()):    # doctest: +SKIP
...     print(record.name)

A source yields one record at a time, and the same records in the same order whenever it is read.
"""

import importlib
import os
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import orjson

from tct_github_workflow.files import MAX_BYTES, SUFFIXES, find_files, owner_of

TABLES = (".jsonl", ".parquet")
CHECKOUT = ".github/workflows"
FILE_GROUPS = {"file": lambda file: None, "folder": os.path.dirname, "owner": owner_of}  # of a file, by --split-by
MAX_LINE = 4 * MAX_BYTES  # bytes of a line in a .jsonl file: JSON escapes make a text longer


@dataclass(frozen=True)
class Record:
    """A workflow as it was found: a file to read, a text, or a fault. Names are unique in a source."""

    name: str  # shown in reports
    group: str | None = None  # all records of a group go to the same split; None: a group of its own
    path: Path | None = None
    text: str | bytes | None = None
    fault: tuple[str, str] | None = None  # reason and detail, if there is nothing to read


@dataclass(frozen=True)
class Selection:
    """Which files or rows of a source are workflows, and how they are grouped."""

    split_by: str = "file"  # "file", "folder", "owner" (of files only), or the name of a column
    text_column: str = "content"
    path_column: str = "path"
    path_glob: str | None = None  # matched from the right, as pathlib does: ".github/workflows/*"
    is_workflow: bool = True  # or else any kind of document, and no file or row is special

    def matches(self, path: str | None) -> bool:
        return self.path_glob is None or path is not None and PurePosixPath(path).match(self.path_glob)


def open_source(location: str, selection: Selection, prefix: str = "", avoid: Iterable[Path] = ()):
    """Return the source at a location: a folder, or a .jsonl or .parquet file.

    `prefix` begins the names of its records. Files below the folders in `avoid` are not read. Raise FileNotFoundError
    or ValueError if the location is not a source.
    """
    path = Path(location).expanduser()
    if path.is_dir():
        return FolderSource(path, selection, prefix, avoid)
    if not path.exists():
        raise FileNotFoundError(f"--input {location} does not exist")
    if path.suffix == ".jsonl":
        return TableSource(lambda: jsonl_rows(path, selection), selection, prefix)
    if path.suffix == ".parquet":
        return TableSource(lambda: parquet_rows(path, selection), selection, prefix)
    raise ValueError(f"--input {location} is neither a folder nor a {' or '.join(TABLES)} file")


class FolderSource:
    """The .json, .yml and .yaml files below a folder, sorted.

    In a checkout, which is a folder with .github/workflows in it, only the .yml and .yaml files that GitHub runs are
    read, unless path_glob selects other files.
    """

    def __init__(self, folder: Path, selection: Selection, prefix: str = "", avoid: Iterable[Path] = ()):
        self.folder, self.selection, self.prefix, self.avoid = folder, selection, prefix, avoid
        self.left_alone = 0  # files that are not read

    def __iter__(self) -> Iterator[Record]:
        return map(self._record, self.files)

    @cached_property
    def files(self) -> list[tuple[str, str | None]]:
        """List each file once, sorted: (path below the folder, None or the error if it cannot be listed)."""
        unlistable = []
        files = find_files(self.folder, onerror=unlistable.append)
        root = self.folder.resolve()
        inside = tuple(f"{path.relative_to(root).as_posix()}/" for path in self.avoid if path.is_relative_to(root))
        files = [file for file in files if not file.startswith(inside)]
        if not files:
            remedy = f"to read a table ({', '.join(TABLES)}), name the file itself"
            raise FileNotFoundError(f"{self.folder} has no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file; {remedy}")
        selected = list(filter(self._filter_for(files), files))
        self.left_alone = len(files) - len(selected)
        faults = [(Path(error.filename).relative_to(self.folder).as_posix(), error.strerror) for error in unlistable]
        return sorted([*((file, None) for file in selected), *faults])

    def _filter_for(self, files: Iterable[str]) -> Callable[[str], bool]:
        if self.selection.path_glob is not None:
            return self.selection.matches
        checkouts = {str(PurePosixPath(file).parents[2]) for file in files if is_in_checkout(file)}
        if not checkouts or not self.selection.is_workflow:
            return lambda file: True
        return lambda file: is_in_checkout(file) or checkouts.isdisjoint(map(str, PurePosixPath(file).parents))

    def _record(self, listed: tuple[str, str | None]) -> Record:
        file, fault = listed
        if fault:
            return Record(self.prefix + file, fault=("unreadable", fault))
        if self.selection.split_by not in FILE_GROUPS:
            raise ValueError(f"--split-by {self.selection.split_by}: files have no columns; use file, folder or owner")
        return Record(self.prefix + file, FILE_GROUPS[self.selection.split_by](file), path=self.folder / file)


class TableSource:
    """The rows of a table. A row is a dict, or a str with the error if it cannot be read.

    The name of its record is number:path, or only the number if it has no path.
    """

    def __init__(self, rows: Callable[[], Iterable[dict | str]], selection: Selection, prefix: str = ""):
        self.rows, self.selection, self.prefix = rows, selection, prefix
        self.left_alone = 0  # rows that path_glob does not match

    def __iter__(self) -> Iterator[Record]:
        self.left_alone = 0
        is_checked = False
        for number, row in enumerate(self.rows(), 1):
            name = f"{self.prefix}{number}"
            if isinstance(row, str):
                yield Record(name, fault=("syntax", row))
                continue
            if not is_checked:
                check_columns(row, self.selection)
                is_checked = True
            path = row.get(self.selection.path_column)
            if self.selection.matches(path):
                yield self._record(f"{name}:{path}" if path else name, path, row)
            else:
                self.left_alone += 1

    def _record(self, name: str, path: str | None, row: dict) -> Record:
        text = row.get(self.selection.text_column)
        if not isinstance(text, (str, bytes)):
            return Record(name, fault=("unreadable", f"no text in column {self.selection.text_column!r}"))
        if len(text) > MAX_BYTES:
            return Record(name, fault=("too_large", f"{len(text):,} characters, more than {MAX_BYTES:,}"))
        column = self.selection.split_by
        if column in ("file", "folder"):
            return Record(name, FILE_GROUPS[column](path or ""), text=text)
        return Record(name, None if row.get(column) is None else str(row[column]), text=text)


# -- rows of tables


def jsonl_rows(path: Path, selection: Selection) -> Iterator[dict | str]:
    """Yield the objects of a .jsonl file. A line that is itself a document becomes the text of a row."""
    text_column = selection.text_column
    with open(path, "rb") as file:
        while line := file.readline(MAX_LINE):
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                    pass
                yield f"a line of more than {MAX_LINE:,} bytes"
                continue
            line = line.removeprefix(BOM_UTF8)  # on any line, because files may have been concatenated
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield f"column {error.colno}: {error.msg}"
                continue
            if not isinstance(row, dict):
                yield "not a JSON object"
            elif text_column not in row and ("jobs" in row or not selection.is_workflow):
                yield {text_column: line}
            else:
                yield row


def parquet_rows(path: Path, selection: Selection) -> Iterator[dict]:
    """Yield the rows of a .parquet file, with the needed columns only."""
    pq = import_extra("pyarrow.parquet", "to read .parquet files")
    try:
        with pq.ParquetFile(path) as file:
            columns = select_columns(file.schema_arrow.names, selection)
            for batch in file.iter_batches(batch_size=256, columns=columns):
                yield from batch.to_pylist()
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error}") from None
    except ValueError as error:  # includes pyarrow's ArrowInvalid, which does not name the file
        raise ValueError(f"{path}: {error}") from None


def dataset_rows(name: str, data_dir: str | None, split: str, selection: Selection) -> Iterator[dict]:
    """Stream the rows of a split of a data set. The arguments are those of datasets.load_dataset."""
    datasets = import_extra("datasets", "for --dataset")
    try:
        stream = datasets.load_dataset(name, data_dir=data_dir, split=split, streaming=True)
        if stream.column_names:
            stream = stream.select_columns(select_columns(stream.column_names, selection))
        yield from stream
    except (ValueError, OSError) as error:
        raise ValueError(f"--dataset {name}: {' '.join(str(error).split())}") from None


def select_columns(columns: list[str], selection: Selection) -> list[str]:
    """Return those of the columns that are read. Raise ValueError as check_columns does."""
    check_columns(columns, selection)
    group = [] if selection.split_by in ("file", "folder") else [selection.split_by]
    needed = dict.fromkeys([selection.text_column, selection.path_column, *group])
    return [column for column in needed if column in columns]


def check_columns(columns: Iterable[str], selection: Selection):
    """Raise ValueError if needed columns are missing: it names them, their flags, and the existing columns."""
    needed = {"--text-column": selection.text_column}
    if selection.path_glob is not None or selection.split_by == "folder":
        needed["--path-column"] = selection.path_column
    if selection.split_by not in ("file", "folder"):
        needed["--split-by"] = selection.split_by
    columns = list(columns)
    missing = [f"{flag} {column}" for flag, column in needed.items() if column not in columns]
    if missing:
        raise ValueError(f"columns are missing: {', '.join(missing)}; the table has {', '.join(map(str, columns))}")


def import_extra(module: str, purpose: str):
    """Import a module of an optional dependency. Raise ValueError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(
            f"{module.split('.')[0]} is needed {purpose}: pip install 'tct-github-workflow[data]'"
        ) from None


def is_in_checkout(file: str) -> bool:
    """Return whether a path is one that GitHub runs: */.github/workflows/NAME.yml"""
    return PurePosixPath(file).match(f"{CHECKOUT}/*.y*ml")

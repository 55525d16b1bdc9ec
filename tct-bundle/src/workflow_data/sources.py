"""Where workflows come from: folders, trees of checkouts, .jsonl and .parquet files, data sets of `datasets`.

>>> for record in open_source("workflows/", Selection()):    # doctest: +SKIP
...     print(record.name)

A source gives the same records in the same order every time it is read, one at a time.
"""

import os
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from tct_github_workflow.files import MAX_BYTES, SUFFIXES, find_files, owner_of

TABLES = (".jsonl", ".parquet")
CHECKOUT = ".github/workflows"
MAX_LINE = 4 * MAX_BYTES  # of a .jsonl file: JSON escapes make a text longer


@dataclass(frozen=True)
class Record:
    """A workflow as it was found: a file to read, a text, or a fault. No two of one source share a name."""

    name: str  # in reports
    group: str | None = None  # what stays on one side of a split; None: the workflow by itself
    path: Path | None = None
    text: str | bytes | None = None
    fault: tuple[str, str] | None = None  # reason and detail, where there is nothing to read


@dataclass(frozen=True)
class Selection:
    """Which entries of a source are workflows, and what groups them."""

    split_by: str = "file"  # "file", "folder", of files "owner", or the name of a column
    text_column: str = "content"
    path_column: str = "path"
    path_glob: str | None = None  # matched from the right, as pathlib does: ".github/workflows/*"

    def takes(self, path: str | None) -> bool:
        return self.path_glob is None or path is not None and PurePosixPath(path).match(self.path_glob)


def open_source(location: str, selection: Selection, prefix: str = "", avoid: Iterable[Path] = ()):
    """The source at a location: a folder, or a .jsonl or .parquet file. FileNotFoundError or ValueError where
    there is none. `prefix` begins the names of its records; files below the folders `avoid` are not read."""
    path = Path(location).expanduser()
    if path.is_dir():
        return FolderSource(path, selection, prefix, avoid)
    if not path.exists():
        raise FileNotFoundError(f"--input {location} does not exist")
    if path.suffix == ".jsonl":
        return TableSource(lambda: jsonl_rows(path, selection.text_column), selection, prefix)
    if path.suffix == ".parquet":
        return TableSource(lambda: parquet_rows(path, selection), selection, prefix)
    raise ValueError(f"--input {location} is neither a folder nor a {' or '.join(TABLES)} file")


class FolderSource:
    """The .json, .yml and .yaml files below a folder, sorted.

    Of a checkout, a folder with .github/workflows in it, only what GitHub runs is taken, unless path_glob says
    what to take: the .yml and .yaml files in there.
    """

    def __init__(self, folder: Path, selection: Selection, prefix: str = "", avoid: Iterable[Path] = ()):
        self.folder, self.selection, self.prefix, self.avoid = folder, selection, prefix, avoid
        self.left_alone = 0  # files that are not ours to read

    def __iter__(self) -> Iterator[Record]:
        return map(self._record, self.files)

    @cached_property
    def files(self) -> list[tuple[str, str | None]]:
        """(path below the folder, None, or why it cannot be listed) of each file, sorted. Listed once."""
        unlistable = []
        files = find_files(self.folder, onerror=unlistable.append)
        root = self.folder.resolve()
        inside = tuple(f"{path.relative_to(root).as_posix()}/" for path in self.avoid if path.is_relative_to(root))
        files = [file for file in files if not file.startswith(inside)]
        if not files:
            raise FileNotFoundError(
                f"{self.folder} has no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file; "
                f"tables ({', '.join(TABLES)}) are named by themselves"
            )
        taken = list(filter(self._choice(files), files))
        self.left_alone = len(files) - len(taken)
        faults = [(Path(error.filename).relative_to(self.folder).as_posix(), error.strerror) for error in unlistable]
        return sorted([*((file, None) for file in taken), *faults])

    def _choice(self, files: Iterable[str]) -> Callable[[str], bool]:
        if self.selection.path_glob is not None:
            return self.selection.takes
        checkouts = {str(PurePosixPath(file).parents[2]) for file in files if is_in_checkout(file)}
        if not checkouts:
            return lambda file: True
        return lambda file: is_in_checkout(file) or checkouts.isdisjoint(map(str, PurePosixPath(file).parents))

    def _record(self, listed: tuple[str, str | None]) -> Record:
        file, fault = listed
        if fault:
            return Record(self.prefix + file, fault=("unreadable", fault))
        match self.selection.split_by:
            case "file":
                group = None
            case "folder":
                group = os.path.dirname(file)
            case "owner":
                group = owner_of(file)
            case column:
                raise ValueError(f"--split-by {column}: files have no columns; give file, folder or owner")
        return Record(self.prefix + file, group, path=self.folder / file)


class TableSource:
    """The rows of a table, each a dict or, where it cannot be read, a str that says why.

    A row is named number:path, without a path by its number.
    """

    def __init__(self, rows: Callable[[], Iterable[dict | str]], selection: Selection, prefix: str = ""):
        self.rows, self.selection, self.prefix = rows, selection, prefix
        self.left_alone = 0  # rows that path_glob does not take

    def __iter__(self) -> Iterator[Record]:
        self.left_alone = 0
        checked = False
        for number, row in enumerate(self.rows(), 1):
            if isinstance(row, str):
                yield Record(f"{self.prefix}{number}", fault=("syntax", row))
                continue
            if not checked:
                check_columns(row, self.selection)
                checked = True
            path = row.get(self.selection.path_column)
            if not self.selection.takes(path):
                self.left_alone += 1
                continue
            yield self._record(f"{self.prefix}{number}:{path}" if path else f"{self.prefix}{number}", path, row)

    def _record(self, name: str, path: str | None, row: dict) -> Record:
        text = row.get(self.selection.text_column)
        if not isinstance(text, (str, bytes)):
            return Record(name, fault=("unreadable", f"no text in column {self.selection.text_column!r}"))
        if len(text) > MAX_BYTES:
            return Record(name, fault=("too_large", f"{len(text):,} characters, more than {MAX_BYTES:,}"))
        match self.selection.split_by:
            case "file":
                group = None
            case "folder":
                group = os.path.dirname(path or "")
            case column:
                group = None if row.get(column) is None else str(row[column])
        return Record(name, group, text=text)


# -----------------------------------------------------------------------------
# rows of tables


def jsonl_rows(path: Path, text_column: str) -> Iterator[dict | str]:
    """The objects of a .jsonl file; a line that is itself a workflow becomes the text of a row."""
    import orjson

    with open(path, "rb") as file:
        while line := file.readline(MAX_LINE):
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                    pass
                yield f"a line of more than {MAX_LINE:,} bytes"
                continue
            line = line.removeprefix(BOM_UTF8)  # of any line: files may have been put together
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield f"column {error.colno}: {error.msg}"
                continue
            if not isinstance(row, dict):
                yield "not a JSON object"
            elif text_column not in row and "jobs" in row:
                yield {text_column: line}
            else:
                yield row


def parquet_rows(path: Path, selection: Selection) -> Iterator[dict]:
    """The rows of a .parquet file, of the columns that are wanted."""
    pq = import_extra("pyarrow.parquet", "to read .parquet files")
    try:
        with pq.ParquetFile(path) as file:
            check_columns(file.schema_arrow.names, selection)
            columns = [name for name in wanted_columns(selection) if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=256, columns=columns):
                yield from batch.to_pylist()
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error}") from None
    except ValueError as error:  # pyarrow's ArrowInvalid among them, which does not name the file
        raise ValueError(f"{path}: {error}") from None


def dataset_rows(name: str, data_dir: str | None, split: str, selection: Selection) -> Iterator[dict]:
    """The rows of a split of a data set, streamed; the arguments are those of datasets.load_dataset."""
    datasets = import_extra("datasets", "for --dataset")
    try:
        stream = datasets.load_dataset(name, data_dir=data_dir, split=split, streaming=True)
        if stream.column_names:
            check_columns(stream.column_names, selection)
            stream = stream.select_columns(
                [column for column in wanted_columns(selection) if column in stream.column_names]
            )
        yield from stream
    except (ValueError, OSError) as error:
        raise ValueError(f"--dataset {name}: {' '.join(str(error).split())}") from None


def wanted_columns(selection: Selection) -> list[str]:
    group = [] if selection.split_by in ("file", "folder") else [selection.split_by]
    return list(dict.fromkeys([selection.text_column, selection.path_column, *group]))


def check_columns(columns: Iterable[str], selection: Selection):
    """ValueError that names each column that is wanted and not there, its flag, and what is there."""
    needed = {"--text_column": selection.text_column}
    if selection.path_glob is not None or selection.split_by == "folder":
        needed["--path_column"] = selection.path_column
    if selection.split_by not in ("file", "folder"):
        needed["--split-by"] = selection.split_by
    columns = list(columns)
    missing = [f"{flag} {column}" for flag, column in needed.items() if column not in columns]
    if missing:
        raise ValueError(f"no such column: {', '.join(missing)}; there are {', '.join(map(str, columns))}")


def import_extra(module: str, purpose: str):
    """A module of an optional dependency. ValueError that says how to install it."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise ValueError(f"{module.split('.')[0]} is needed {purpose}: pip install -e './tct-bundle[data]'") from None


def is_in_checkout(file: str) -> bool:
    """Whether a path is that of a workflow that GitHub runs: */.github/workflows/NAME.yml"""
    return PurePosixPath(file).match(f"{CHECKOUT}/*.y*ml")

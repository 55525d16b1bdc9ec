"""The workflows of a prepared folder, put together again from their windows."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bpe_tokenizer_adapter import BPETokenizer
from tct_tokenizer_adapter import TCTTokenizer


@dataclass(frozen=True)
class PreparedWorkflow:
    """One workflow of a split."""

    file: str
    group: str | None   # what it was split by: its folder, or the value of a column
    first_window: int   # its first row in the table of the split
    tokens: np.ndarray  # int16 (T,)


def read_split(folder, split: str, metadata: dict) -> Iterator[PreparedWorkflow]:
    """The workflows of a split in their order. FileNotFoundError or ValueError where the folder is not whole, or
    where its windows leave tokens out."""
    from tct_dataloader import load_rows

    rows = load_rows(folder, split, metadata).numpy()
    for entry in read_entries(Path(folder).expanduser())[split]:
        first, length = entry["first_window"], entry["tokens"]
        yield PreparedWorkflow(entry["file"], entry["group"], first,
                               stitch(rows[first:first + entry["windows"]], length, metadata["stride"], entry["file"]))


def stitch(rows: np.ndarray, length: int, stride: int, file: str) -> np.ndarray:
    """The tokens int16 (length,) of the windows (n, C + 1) of one workflow."""
    tokens, seen = np.zeros(length, np.int16), 0
    for row in rows:
        start = int(row[0]) * stride
        if start > seen:
            raise ValueError(f"{file!r}: tokens {seen:,} to {start:,} are in no window: prepare without "
                             "--max-windows-per-workflow")
        seen = min(start + len(row) - 1, length)
        tokens[start:seen] = row[1:1 + seen - start]
    return tokens


def read_entries(folder: Path) -> dict[str, list[dict]]:
    """The lines of workflows.jsonl for each side."""
    path = folder / "workflows.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: prepare the folder again")
    entries: dict[str, list[dict]] = {"train": [], "val": [], "test": []}
    with open(path, "rb") as lines:
        for line in lines:
            entry = json.loads(line)
            entries[entry["split"]].append(entry)
    return entries


def open_tokenizer(folder, metadata: dict) -> TCTTokenizer | BPETokenizer:
    """The tokenizer that a folder was prepared with. ValueError where the one at hand is another."""
    from tct_dataloader import check_metadata

    is_tct = metadata["tokenizer"]["name"] == TCTTokenizer().name
    tokenizer = TCTTokenizer() if is_tct else BPETokenizer.load(Path(folder).expanduser() / "tokenizer.json")
    check_metadata(metadata, folder, tokenizer={"name": tokenizer.name, "fingerprint": tokenizer.fingerprint})
    return tokenizer

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
    group: str | None  # what it was split by: its folder, or the value of a column
    first_window: int  # its first row in the table of the split
    tokens: np.ndarray  # int16 (T,)


def read_split(folder, split: str, metadata: dict) -> Iterator[PreparedWorkflow]:
    """The workflows of a split in their order. FileNotFoundError or ValueError if the folder is damaged, or if its
    windows leave tokens out."""
    from tct_dataloader import load_rows

    rows, end = load_rows(folder, split, metadata).numpy(), 0
    for entry in read_entries(Path(folder).expanduser())[split]:
        first, file = entry["first_window"], entry["file"]
        own = rows[first : first + entry["windows"]]
        if first != end or len(own) != entry["windows"] or own[0, 0] != 0 or not own[1:, 0].all():
            raise ValueError(
                f"{folder}: workflows.jsonl says of {file!r} that its windows are {first} to "
                f"{first + entry['windows']}, but {split}.pt does not: prepare the folder again"
            )
        end += len(own)
        yield PreparedWorkflow(file, entry["group"], first, stitch(own, entry["tokens"], metadata["stride"], file))
    if end != len(rows):
        raise ValueError(
            f"{folder}: workflows.jsonl names {end:,} windows of {split}, but there are {len(rows):,}: "
            "prepare the folder again"
        )


def stitch(rows: np.ndarray, length: int, stride: int, file: str) -> np.ndarray:
    """The tokens int16 (length,) of the windows (n, C + 1) of one workflow."""
    tokens, seen = np.zeros(length, np.int16), 0
    for row in rows:
        start = int(row[0]) * stride
        if start > seen:
            raise ValueError(
                f"{file!r}: tokens {seen:,} to {start:,} are in no window: prepare without --max-windows-per-workflow"
            )
        seen = min(start + len(row) - 1, length)
        tokens[start:seen] = row[1 : 1 + seen - start]
    if seen < length:
        raise ValueError(
            f"{file!r}: workflows.jsonl says {length:,} tokens, but its windows hold {seen:,}: prepare the folder again"
        )
    return tokens


def read_entries(folder: Path) -> dict[str, list[dict]]:
    """The lines of workflows.jsonl for each side. FileNotFoundError, or ValueError if one is damaged."""
    from prepared_checks import fault_of_entry

    path = folder / "workflows.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: prepare the folder again")
    entries: dict[str, list[dict]] = {"train": [], "val": [], "test": []}
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                entry = None
            if fault := fault_of_entry(entry):
                raise ValueError(f"{path}, line {number}, {fault}: prepare the folder again")
            entries[entry["split"]].append(entry)
    return entries


def open_tokenizer(folder, metadata: dict) -> TCTTokenizer | BPETokenizer:
    """The tokenizer that a folder was prepared with. ValueError where the one at hand is another."""
    from tct_dataloader import check_metadata

    is_tct = metadata["tokenizer"]["name"] == TCTTokenizer().name
    tokenizer = TCTTokenizer() if is_tct else BPETokenizer.load(Path(folder).expanduser() / "tokenizer.json")
    check_metadata(metadata, folder, tokenizer={"name": tokenizer.name, "fingerprint": tokenizer.fingerprint})
    return tokenizer

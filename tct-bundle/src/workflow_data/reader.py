"""Read what prepare_training_data.py has written: metadata, windows, whole workflows."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from workflow_data.checks import fault_of_metadata, fault_of_rows, fault_of_states
from workflow_data.table_file import open_table
from workflow_data.tokenizers import BPETokenizer, TCTTokenizer


def read_metadata(data_dir) -> dict:
    """The value of metadata.json of a prepared folder. FileNotFoundError or ValueError if it is not one."""
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no data folder {folder}: make it with prepare_training_data.py --output")
    path = folder / "metadata.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is not a prepared folder, because it has no metadata.json: "
            "make one with prepare_training_data.py --output"
        )
    try:
        metadata = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        metadata = None
    refuse(path, fault_of_metadata(metadata))
    return metadata


def refuse(path: Path, fault: str | None):
    """ValueError if there is a fault in a file of a prepared folder."""
    if fault:
        raise ValueError(f"{path} {fault}: prepare the folder again")


def check_metadata(metadata, data_dir, context_size=None, vocab_size=None, tokenizer=None, n_states=0):
    """ValueError where the folder was prepared for another context size, vocabulary or tokenizer than given, or with
    states other than the n_states of a model that is told them.

    tokenizer is a dict of name and fingerprint, such as a checkpoint carries.
    """
    if context_size not in (None, metadata["context_size"]):
        raise ValueError(
            f"{data_dir} is prepared for context_size {metadata['context_size']} but the model "
            f"has {context_size}: prepare again with --context-size {context_size}"
        )
    if vocab_size not in (None, metadata["vocab_size"]):
        raise ValueError(
            f"{data_dir} is prepared with a vocabulary of {metadata['vocab_size']} tokens but "
            f"the model has {vocab_size}: prepare again with the model's tokenizer"
        )
    if tokenizer not in (None, metadata["tokenizer"]):
        raise ValueError(
            f"{data_dir} is prepared with tokenizer {describe(metadata['tokenizer'])} but the "
            f"model was trained with {describe(tokenizer)}: prepare again with that tokenizer"
        )
    if n_states and n_states != metadata.get("n_states"):
        raise ValueError(
            f"{data_dir} is prepared with {metadata.get('n_states') or 'no'} states but the model knows "
            f"{n_states}: prepare again with --states; if that does not help, train again"
        )


def load_rows(data_dir, split, metadata, max_files=None) -> torch.Tensor:
    """The windows of a split, int16 (N, C + 1), mapped from the file; of its first max_files workflows."""
    path = Path(data_dir).expanduser() / f"{split}.pt"
    rows = load_table(path, metadata["context_size"] + 1)
    refuse(path, fault_of_rows(rows, split, metadata))
    if max_files is not None:
        begins = (rows[:, 0] == 0).nonzero().flatten()  # the first row of each workflow
        rows = rows if max_files >= len(begins) else rows[: begins[max_files]]
    if not len(rows):
        raise ValueError(f"{path} holds no windows: prepare with more workflows or another --train-split")
    return rows


def load_states(data_dir, split, metadata) -> torch.Tensor:
    """The states of a split, int16 (N, C): the one that each token of its windows leads to, that of the position
    included. FileNotFoundError where the folder was prepared without them."""
    path = Path(data_dir).expanduser() / f"{split}_states.pt"
    if not metadata.get("n_states"):
        raise FileNotFoundError(f"{data_dir} has no states of tokens: prepare it again with --states")
    states = load_table(path, metadata["context_size"])
    refuse(path, fault_of_states(states, split, metadata))
    return states


def load_table(path: Path, columns: int) -> torch.Tensor:
    """An int16 tensor (N, columns), mapped from its file. FileNotFoundError, or ValueError if it is another."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: prepare the folder again")
    try:
        table = open_table(path)
        fits = table.dtype == torch.int16 and table.dim() == 2 and table.size(1) == columns and table.is_cpu
        fits = fits and table.layout == torch.strided
    except Exception as error:  # a damaged file shows as one of many kinds
        refuse(path, f"cannot be read ({type(error).__name__})")
    if not fits:
        refuse(path, f"is not an int16 tensor with rows of {columns}, as its metadata.json says")
    return table


def describe(tokenizer: dict) -> str:
    return f"{tokenizer.get('name')} {str(tokenizer.get('fingerprint'))[:12]}"


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
    from workflow_data.reader import load_rows

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
    from workflow_data.checks import fault_of_entry

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
    from workflow_data.reader import check_metadata

    is_tct = metadata["tokenizer"]["name"] == TCTTokenizer().name
    tokenizer = TCTTokenizer() if is_tct else BPETokenizer.load(Path(folder).expanduser() / "tokenizer.json")
    check_metadata(metadata, folder, tokenizer={"name": tokenizer.name, "fingerprint": tokenizer.fingerprint})
    return tokenizer

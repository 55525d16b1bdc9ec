"""Read a prepared folder: metadata, windows, whole workflows."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from workflow_data.checks import fault_of_entry, fault_of_metadata, fault_of_positions_table, fault_of_rows
from workflow_data.split import SPLITS
from workflow_data.table_file import open_table
from workflow_data.tokenizers import FILE, BPETokenizer, TCTTokenizer, load_tokenizer


def read_metadata(data_dir) -> dict:
    """Return metadata.json of a prepared folder. Raise FileNotFoundError or ValueError if it is missing or damaged."""
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no data folder {folder}: make it with prepare_training_data.py --output")
    path = folder / "metadata.json"
    if not path.is_file():
        fault = f"{folder} is not a prepared data folder (metadata.json is missing)"
        raise FileNotFoundError(f"{fault}: make one with prepare_training_data.py --output")
    metadata = parse_json(path.read_bytes())
    raise_fault(path, fault_of_metadata(metadata))
    return metadata


def parse_json(text: bytes):
    """Return the value of a JSON text, or None if it is damaged."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def raise_fault(path: Path, fault: str | None):
    """Raise ValueError if a file of a prepared folder has a fault."""
    if fault:
        raise ValueError(f"{path} {fault}: prepare the folder again")


def check_metadata(metadata, data_dir, context_size=None, vocab_size=None, tokenizer=None, n_states=0):
    """Raise ValueError if the folder was prepared with another context size, vocabulary or tokenizer.

    tokenizer is a dict of name and fingerprint, as in a checkpoint. n_states is the number of schema positions that
    the model takes as input.
    """

    def describe(tokenizer: dict) -> str:
        return f"{tokenizer.get('name')} {str(tokenizer.get('fingerprint'))[:12]}"

    fault = ""
    if context_size not in (None, metadata["context_size"]):
        fault = f"for context_size {metadata['context_size']} but the model has {context_size}: "
        fault += f"prepare again with --context-size {context_size}"
    elif vocab_size not in (None, metadata["vocab_size"]):
        fault = f"with a vocabulary of {metadata['vocab_size']} tokens but the model has {vocab_size}: "
        fault += "prepare again with the model's tokenizer"
    elif tokenizer not in (None, metadata["tokenizer"]):
        fault = f"with tokenizer {describe(metadata['tokenizer'])} but the model was trained with "
        fault += f"{describe(tokenizer)}: prepare again with that tokenizer"
    elif n_states and n_states != metadata.get("n_states"):
        fault = f"with {metadata.get('n_states') or 'no'} schema positions but the model has {n_states}: "
        fault += "prepare again with --states; if that does not help, train again"
    if fault:
        raise ValueError(f"{data_dir} is prepared {fault}")


def open_tokenizer(folder, metadata: dict) -> TCTTokenizer | BPETokenizer:
    """Return the tokenizer that a folder was prepared with. Raise ValueError or OSError if it is not available."""
    path, is_workflow = Path(folder).expanduser() / FILE, metadata["tokenizer"]["name"] == TCTTokenizer.name
    if not is_workflow and not path.is_file():
        raise FileNotFoundError(f"there is no {path}: prepare the folder again")
    tokenizer = TCTTokenizer() if is_workflow else load_tokenizer(path)
    check_metadata(metadata, folder, tokenizer={"name": tokenizer.name, "fingerprint": tokenizer.fingerprint})
    return tokenizer


# -- tables


def load_rows(data_dir, split, metadata, max_files=None) -> torch.Tensor:
    """Map the windows of a split, int16 (N, C + 1), or those of its first max_files workflows."""
    path = Path(data_dir).expanduser() / f"{split}.pt"
    rows = load_table(path, metadata["context_size"] + 1)
    raise_fault(path, fault_of_rows(rows, split, metadata))
    if max_files is not None:
        begins = (rows[:, 0] == 0).nonzero().flatten()  # the first row of each workflow
        rows = rows if max_files >= len(begins) else rows[: begins[max_files]]
    if not len(rows):
        raise ValueError(f"{path} holds no windows: prepare with more workflows or another --train-split")
    return rows


def load_schema_positions(data_dir, split, metadata) -> torch.Tensor:
    """Map the schema position after each input of each window of a split, int16 (N, C).

    Raise FileNotFoundError if the folder was prepared without them.
    """
    path = Path(data_dir).expanduser() / f"{split}_states.pt"
    if not metadata.get("n_states"):
        raise FileNotFoundError(f"{data_dir} has no schema positions of tokens: prepare it again with --states")
    positions = load_table(path, metadata["context_size"])
    raise_fault(path, fault_of_positions_table(positions, split, metadata))
    return positions


def load_table(path: Path, columns: int) -> torch.Tensor:
    """Map an int16 tensor (N, columns) from its file. Raise FileNotFoundError or ValueError if it is not there."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: prepare the folder again")
    try:
        table = open_table(path)
        fits = table.dtype == torch.int16 and table.dim() == 2 and table.size(1) == columns and table.is_cpu
        fits = fits and table.layout == torch.strided
    except Exception as error:  # torch.load has many exceptions for damaged files
        raise_fault(path, f"cannot be read ({type(error).__name__})")
    if not fits:
        raise_fault(path, f"is not an int16 tensor with rows of {columns}, as metadata.json requires")
    return table


# -- whole workflows


@dataclass(frozen=True)
class StoredWorkflow:
    """One workflow of a split."""

    file: str
    group: str | None  # what it was split by: its folder or owner, or the value of a column
    first_window: int  # its first row in the table of the split
    tokens: np.ndarray  # int16 (T,)


def iter_workflows(folder, split: str, metadata: dict) -> Iterator[StoredWorkflow]:
    """Yield the workflows of a split in order.

    Raise FileNotFoundError or ValueError if the folder is damaged, or if tokens are in no window.
    """
    rows, end = load_rows(folder, split, metadata).numpy(), 0
    for entry in read_entries(folder)[split]:
        first, file = entry["first_window"], entry["file"]
        own = rows[first : first + entry["windows"]]
        if first != end or len(own) != entry["windows"] or own[0, 0] != 0 or not own[1:, 0].all():
            fault = f"{file!r} has the windows {first} to {first + entry['windows']}, but not in {split}.pt"
            raise ValueError(f"{folder}: in workflows.jsonl, {fault}: prepare the folder again")
        end += len(own)
        tokens = join_windows(own, entry["tokens"], metadata["stride"], file)
        yield StoredWorkflow(file, entry["group"], first, tokens)
    if end != len(rows):
        fault = f"workflows.jsonl lists {end:,} windows of {split}, but {split}.pt has {len(rows):,}"
        raise ValueError(f"{folder}: {fault}: prepare the folder again")


def join_windows(rows: np.ndarray, length: int, stride: int, file: str) -> np.ndarray:
    """Return the tokens int16 (length,) of one workflow from its windows (n, C + 1)."""
    tokens, seen = np.zeros(length, np.int16), 0
    for row in rows:
        start = int(row[0]) * stride
        if start > seen:
            fault = f"tokens {seen:,} to {start:,} are in no window"
            raise ValueError(f"{file!r}: {fault}: prepare without --max-windows-per-workflow")
        seen = min(start + len(row) - 1, length)
        tokens[start:seen] = row[1 : 1 + seen - start]
    if seen < length:
        fault = f"workflows.jsonl lists {length:,} tokens, but its windows hold {seen:,}"
        raise ValueError(f"{file!r}: {fault}: prepare the folder again")
    return tokens


def read_entries(folder) -> dict[str, list[dict]]:
    """Return the lines of workflows.jsonl for each split. Raise FileNotFoundError or ValueError if it is damaged."""
    path = Path(folder).expanduser() / "workflows.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: prepare the folder again")
    entries: dict[str, list[dict]] = {split: [] for split in SPLITS}
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            entry = parse_json(line)
            if fault := fault_of_entry(entry):
                raise ValueError(f"{path}, line {number}, {fault}: prepare the folder again")
            entries[entry["split"]].append(entry)
    return entries

"""Records by the chunk: the unit in which workflows are tokenised by many processes, kept, resumed and sharded.

A chunk on disk is NNNNNN.bin, the tokens of its workflows (int16) or, for a tokenizer still to be trained, their
compact JSON; NNNNNN.states, the states of the tokens where they are asked for; NNNNNN.npy, their MinHash signatures where
near duplicates are looked for; and NNNNNN.json, written last, which has for each record what became of it. Its number says its place in the order of the input.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

import tct_github_workflow as tct
from script_tools.files import write_atomic
from tct.json_text import compact
from workflow_data.cleaning import Skipped, Workflow, clean
from workflow_data.dedup import signature
from workflow_data.sources import Record

RECORDS = 256  # of a chunk, at most ...
CHARACTERS = 4 << 20  # ... of text that comes with them, and at least this many end it


@dataclass(frozen=True)
class ChunkOptions:
    """What becomes of a record."""

    repair: bool = False
    keep_text: bool = False  # instead of tokens
    with_signatures: bool = False
    with_states: bool = False


def cut(records: Iterable[Record]) -> Iterator[list[Record]]:
    """The chunks of a stream of records."""
    chunk, characters = [], 0
    for record in records:
        chunk.append(record)
        characters += len(record.text or "")
        if len(chunk) == RECORDS or characters >= CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def make_chunk(stem: Path, records: list[Record], options: ChunkOptions) -> int:
    """Cleans and tokenises records and writes the chunk NNNNNN; gives their number. Runs in a worker process."""
    entries, payload, signatures, states = [], [], [], []
    for record in records:
        result = clean(record, options.repair)
        entries.append(entry(record, result))
        if isinstance(result, Workflow):
            payload.append(result.text.encode() if options.keep_text else np.array(result.tokens, np.int16).tobytes())
            if options.with_signatures:
                signatures.append(signature(result.value))
            if options.with_states:
                states.append(np.array(tct.states_of(result.tokens), np.int16).tobytes())
    write_atomic(stem.with_suffix(".bin"), b"".join(payload))
    if options.with_states:
        write_atomic(stem.with_suffix(".states"), b"".join(states))
    if options.with_signatures:
        file = BytesIO()
        np.save(file, np.array(signatures, np.uint32))
        write_atomic(stem.with_suffix(".npy"), file.getvalue())
    write_atomic(stem.with_suffix(".json"), json.dumps(entries).encode())
    return len(records)


def entry(record: Record, result: Workflow | Skipped) -> dict:
    """What a chunk has of a record."""
    if isinstance(result, Skipped):
        return {"file": record.name, "reason": result.reason, "detail": result.detail}
    text = result.text.encode()
    return {
        "file": record.name,
        "group": record.group,
        "digest": sha256(compact(result.value, sort_keys=True).encode()),  # equal whatever the key order
        "sha256": sha256(text),
        "tokens": len(result.tokens),
        "json_bytes": len(text),
        "characters": len(result.text),
        "repairs": result.repairs,
    }


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def chunk_path(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.json"


def find_chunks(folder: Path) -> list[Path]:
    """The finished chunks in a folder, in order."""
    return sorted(
        (path for path in folder.iterdir() if re.fullmatch(r"\d{6,}\.json", path.name)), key=lambda path: int(path.stem)
    )


def read_entries(chunk: Path) -> list[dict]:
    return json.loads(chunk.read_bytes())

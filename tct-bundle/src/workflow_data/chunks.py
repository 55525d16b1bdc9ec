"""Encode records in chunks: the unit that worker processes handle, and that is kept, resumed and sharded.

Chunk NNNNNN of the input becomes these files:
  NNNNNN.bin     the tokens of its workflows (int16), or their compact JSON if the tokenizer is trained later
  NNNNNN.states  with --states: the schema positions of the tokens (int16)
  NNNNNN.npy     with --near-dedup: the MinHash signatures of the workflows
  NNNNNN.json    the outcome of each record; written last, so it marks a finished chunk
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np

from script_tools.files import write_atomic
from tct.json_text import canonical
from workflow_data.cleaning import Skipped, Workflow, clean
from workflow_data.dedup import signature
from workflow_data.settings import PrepareSettings
from workflow_data.sources import Record

MAX_RECORDS = 256  # in a chunk
MAX_CHARACTERS = 4 << 20  # a chunk ends when its texts reach this size


def split_into_chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield the records of a stream in chunks."""
    chunk, characters = [], 0
    for record in records:
        chunk.append(record)
        characters += len(record.text or "")
        if len(chunk) == MAX_RECORDS or characters >= MAX_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def make_chunk(stem: Path, records: list[Record], settings: PrepareSettings) -> int:
    """Clean and encode records, write the files of a chunk, and return the number of records.

    Runs in a worker process.
    """
    entries, payload, signatures, positions = [], [], [], []
    tokenizer, is_encoded = settings.document_tokenizer(), not settings.is_bpe
    for record in records:
        result = clean(record, settings.repair, settings.clean, tokenizer)
        entries.append(record_entry(record, result))
        if isinstance(result, Workflow):
            payload.append(np.array(result.tokens, np.int16).tobytes() if is_encoded else result.text.encode())
            if settings.near_dedup is not None:
                signatures.append(signature(result.value))
            if settings.states:
                positions.append(np.array(tokenizer.library.states_of(result.tokens), np.int16).tobytes())
    write_atomic(stem.with_suffix(".bin"), b"".join(payload))
    if settings.states:
        write_atomic(stem.with_suffix(".states"), b"".join(positions))
    if settings.near_dedup is not None:
        file = BytesIO()
        np.save(file, np.array(signatures, np.uint32))
        write_atomic(stem.with_suffix(".npy"), file.getvalue())
    write_atomic(stem.with_suffix(".json"), json.dumps(entries).encode())
    return len(records)


def record_entry(record: Record, result: Workflow | Skipped) -> dict:
    """Return what a chunk stores about a record."""
    if isinstance(result, Skipped):
        return {"file": record.name, "reason": result.reason, "detail": result.detail}
    text = result.text.encode()
    return {
        "file": record.name,
        "group": record.group,
        "digest": sha256(canonical(result.value).encode()),  # does not depend on the order of keys
        "sha256": sha256(text),
        "tokens": len(result.tokens),
        "json_bytes": len(text),
        "characters": len(result.text),
        "repairs": result.repairs,
    }


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def find_chunks(folder: Path) -> list[Path]:
    """Return the paths of the finished chunks in a folder, in the order of the input."""
    chunks = [path for path in folder.iterdir() if re.fullmatch(r"\d{6,}\.json", path.name)]
    return sorted(chunks, key=lambda path: int(path.stem))


def read_chunk(chunk: Path) -> list[dict]:
    """Return the entries of a chunk: one for each of its records."""
    return json.loads(chunk.read_bytes())

"""Records by the chunk: the unit in which workflows are tokenised by many processes, kept, resumed and sharded.

A chunk on disk is NNNNNN.bin, the tokens of its workflows (int16) or, for a tokenizer still to be trained, their
compact JSON; NNNNNN.states, the states of the tokens where they are asked for; NNNNNN.npy, their MinHash signatures where
near duplicates are looked for; and NNNNNN.json, written last, which has for each record what became of it. Its number says its place in the order of the input.
"""

import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import tct_github_workflow as tct
from tct_github_workflow.workflow_files import write_atomic
from workflow_cleaning import Skipped, Workflow, clean, compact_json
from workflow_selection import signature
from workflow_sources import Record

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
        "digest": sha256(compact_json(result.value, sort_keys=True).encode()),  # equal whatever the key order
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


# -----------------------------------------------------------------------------
# processes


def run_in_processes(function: Callable, calls: Iterable[tuple], num_workers: int) -> Iterator:
    """The results of function(*call), as they come, from num_workers processes (1: from this one). No more calls
    are drawn than keep the workers busy."""
    if num_workers == 1:
        yield from itertools.starmap(function, calls)
        return
    executor = ProcessPoolExecutor(num_workers, initializer=set_up_worker)
    pending = set()
    try:
        with ctrl_c_held_back():  # the workers start here, and never hear it: this process answers for all
            executor.submit(int)  # before a source that is read begins threads, which no fork should split
        for call in calls:
            if len(pending) >= 2 * num_workers:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
            pending.add(executor.submit(function, *call))
        yield from (future.result() for future in pending)
    except BrokenProcessPool:
        raise OSError("a worker process was killed, perhaps for memory; try fewer --num_workers") from None
    finally:
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def ctrl_c_held_back():
    """Delivers SIGINT after the block; threads and processes that start in it hold it back for good. On Windows, which
    has nothing like that, a worker may show a traceback if it comes at once."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def set_up_worker():
    """Leaves Ctrl-C to the parent, and ends this worker when that is killed; it would wait for work forever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait_for_end():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait_for_end, daemon=True).start()

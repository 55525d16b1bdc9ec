"""Find exact and near duplicates of workflows."""

import sqlite3
from pathlib import Path

import numpy as np

from tct.json_text import compact
from workflow_data.cleaning import Skipped
from workflow_data.sources import import_extra

PERMUTATIONS = 128  # of a MinHash: a likeness is known to about +- 0.04


# -----------------------------------------------------------------------------
# duplicates


class Duplicates:
    """Tells of one workflow after the other whether it repeats one that came before and is kept.

    Exact duplicates are found through a table on the disk. Near ones are those whose MinHash signatures agree in
    a share of at least `near`; these are in memory, some two KB for each workflow that is kept.
    """

    def __init__(self, path: Path, near: float | None = None):
        path.unlink(missing_ok=True)
        self._table = sqlite3.connect(path, isolation_level=None)
        self._table.execute("PRAGMA journal_mode = OFF")  # it is thrown away in the end, whatever happens
        self._table.execute("PRAGMA synchronous = OFF")
        self._table.execute("CREATE TABLE first (digest TEXT PRIMARY KEY, file BLOB) WITHOUT ROWID")
        self._table.execute("BEGIN")
        self._near = near
        if near is not None:
            self._signatures: dict[str, np.ndarray] = {}
            self._index = datasketch().MinHashLSH(threshold=near, num_perm=PERMUTATIONS)

    def find(self, file: str, digest: str, signature: np.ndarray | None = None) -> Skipped | None:
        """Why to leave the workflow out; None where it is kept, to be held against those that follow."""
        same = self._table.execute("SELECT file FROM first WHERE digest = ?", (digest,)).fetchone()
        if same:
            return Skipped("duplicate", f"same value as {same[0].decode(errors='surrogateescape')}")
        if self._near is not None and (found := self._find_near(file, signature)):
            return found
        self._table.execute("INSERT INTO first VALUES (?, ?)", (digest, file.encode(errors="surrogateescape")))
        return None

    def _find_near(self, file, signature):
        minhash = new_minhash(signature)
        likeness = {key: float((self._signatures[key] == signature).mean()) for key in self._index.query(minhash)}
        if likeness and max(likeness.values()) >= self._near:
            nearest = min(likeness, key=lambda key: (-likeness[key], key))
            return Skipped("near_duplicate", f"{likeness[nearest]:.0%} of the steps of {nearest}")
        self._index.insert(file, minhash)
        self._signatures[file] = signature
        return None

    def close(self):
        self._table.close()


def signature(workflow: dict) -> np.ndarray:
    """The MinHash of a workflow's steps, whatever their names and order, uint32 (PERMUTATIONS,)."""
    minhash = new_minhash()
    minhash.update_batch([step.encode() for step in steps(workflow)])
    return minhash.hashvalues.astype(np.uint32)


def steps(workflow: dict) -> set[str]:
    """What a workflow does: the steps of its jobs, and the jobs that call a workflow, as canonical JSON."""
    parts = [part for job in workflow["jobs"].values() for part in job.get("steps") or [job]]
    unnamed = ({key: value for key, value in part.items() if key not in ("name", "id")} for part in parts)
    return {compact(part, sort_keys=True) for part in unnamed}


def new_minhash(hashvalues: np.ndarray | None = None):
    return datasketch().MinHash(PERMUTATIONS, hashvalues=hashvalues, scheme="affine32")


def datasketch():
    return import_extra("datasketch", "for --near-dedup")

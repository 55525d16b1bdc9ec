"""Find exact and near duplicates of workflows."""

import sqlite3
from pathlib import Path

import numpy as np

from tct.json_text import canonical
from workflow_data.cleaning import Skipped
from workflow_data.sources import import_extra

PERMUTATIONS = 128  # of a MinHash: estimates a similarity to about +- 0.04


class Duplicates:
    """Find workflows that repeat an earlier one that was kept.

    Exact duplicates are found through a table on disk. Near duplicates are workflows whose MinHash signatures agree
    in a fraction of at least `near`. The signatures take about two KB of memory for each workflow that is kept.
    """

    def __init__(self, path: Path, near: float | None = None):
        path.unlink(missing_ok=True)
        self._table = sqlite3.connect(path, isolation_level=None)
        self._table.execute("PRAGMA journal_mode = OFF")  # the table is deleted in the end, so it needs no safety
        self._table.execute("PRAGMA synchronous = OFF")
        self._table.execute("CREATE TABLE first (digest TEXT PRIMARY KEY, file BLOB) WITHOUT ROWID")
        self._table.execute("BEGIN")
        self._near = near
        if near is not None:
            self._signatures: dict[str, np.ndarray] = {}
            self._index = datasketch().MinHashLSH(threshold=near, num_perm=PERMUTATIONS)

    def find(self, file: str, digest: str, signature: np.ndarray | None = None) -> Skipped | None:
        """Return why to skip the workflow. Return None to keep it; later workflows are then compared with it."""
        same = self._table.execute("SELECT file FROM first WHERE digest = ?", (digest,)).fetchone()
        if same:
            return Skipped("duplicate", f"same value as {same[0].decode(errors='surrogateescape')}")
        if self._near is not None and (found := self._find_near(file, signature)):
            return found
        self._table.execute("INSERT INTO first VALUES (?, ?)", (digest, file.encode(errors="surrogateescape")))
        return None

    def _find_near(self, file, signature):
        minhash = new_minhash(signature)
        similarity = {key: float((self._signatures[key] == signature).mean()) for key in self._index.query(minhash)}
        if similarity and max(similarity.values()) >= self._near:
            nearest = min(similarity, key=lambda key: (-similarity[key], key))
            return Skipped("near_duplicate", f"{similarity[nearest]:.0%} of the steps of {nearest}")
        self._index.insert(file, minhash)
        self._signatures[file] = signature
        return None

    def close(self):
        self._table.close()


def signature(workflow: dict) -> np.ndarray:
    """Return the MinHash of a workflow's steps, uint32 (PERMUTATIONS,). Names and order do not matter."""
    minhash = new_minhash()
    minhash.update_batch([step.encode() for step in steps(workflow)])
    return minhash.hashvalues.astype(np.uint32)


def steps(workflow: dict) -> set[str]:
    """Return the steps of all jobs, and the jobs that call a workflow, as canonical JSON without names."""
    parts = [part for job in workflow["jobs"].values() for part in job.get("steps") or [job]]
    unnamed = ({key: value for key, value in part.items() if key not in ("name", "id")} for part in parts)
    return {canonical(part) for part in unnamed}


def new_minhash(hashvalues: np.ndarray | None = None):
    return datasketch().MinHash(PERMUTATIONS, hashvalues=hashvalues, scheme="affine32")


def datasketch():
    return import_extra("datasketch", "for --near-dedup")

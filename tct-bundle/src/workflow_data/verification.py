"""Check every window of a prepared folder, and that the windows decode to the workflows."""

import json
from collections.abc import Iterator
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from tct.json_text import canonical
from workflow_data.chunks import sha256
from workflow_data.loaders import IGNORE_INDEX, EvalLoader
from workflow_data.reader import load_rows, open_tokenizer, read_entries, read_metadata
from workflow_data.table_file import open_table
from workflow_data.windows import WindowPlan
from workflow_data.workers import run_in_processes

BATCH = 256  # workflows per call of a worker process
FAULTS_SHOWN = 10  # for each check

CHECKS = {
    "tables": "tables are int16 [windows, context + 1], with the row counts of metadata.json and workflows.jsonl",
    "positions": "windows start at multiples of the step, with position = start // stride below the vocabulary size",
    "tokens": "tokens are in the vocabulary, and padding follows the last of them",
    "decoding": "windows agree where they overlap, and together decode to the workflow, byte for byte",
    "targets": "every token is a target as often as the step requires, and padding never is",
    "evaluation": "validation counts each token once",
    "groups": "no group and no workflow is in two splits, and no workflow is repeated",
}


def verify(folder: Path, num_workers: int) -> tuple[dict, dict[str, list[dict]]]:
    """Run all checks, print their results, and return (metadata, entries). Raise ValueError if a check fails."""
    metadata, entries = read_metadata(folder), read_entries(folder)
    faults = {check: [] for check in CHECKS}
    faults["tables"] += check_tables(folder, metadata, entries)
    if not faults["tables"]:
        checked = {split: entries[split] for split in metadata["splits"]}
        digests = check_all_workflows(folder, checked, num_workers, faults)
        faults["evaluation"] += check_evaluation(folder, metadata)
        faults["groups"] += check_groups(entries, digests)
    print_results(faults)
    if count := sum(map(len, faults.values())):
        raise ValueError(f"{folder} is damaged, with {count:,} faults: prepare it again")
    return metadata, entries


def print_results(faults: dict[str, list[str]]):
    for check, claim in CHECKS.items():
        found = sorted(faults[check])
        skipped = faults["tables"] and check != "tables"
        print(f"{'----' if skipped else 'FAIL' if found else 'ok':<5} {claim}")
        for fault in found[:FAULTS_SHOWN]:
            print(f"        {fault}")
        if found[FAULTS_SHOWN:]:
            print(f"        and {len(found) - FAULTS_SHOWN:,} more")


def check_tables(folder: Path, metadata: dict, entries: dict[str, list[dict]]) -> Iterator[str]:
    for split, expected in metadata["splits"].items():
        try:
            rows = open_table(folder / f"{split}.pt")
        except Exception as error:  # torch.load has many exceptions for damaged files
            yield f"{split}.pt cannot be read ({type(error).__name__})"
            continue
        shape = (expected["windows"], metadata["context_size"] + 1)
        if rows.dtype != torch.int16 or tuple(rows.shape) != shape:
            yield f"{split}.pt is {rows.dtype} {list(rows.shape)}, not torch.int16 {list(shape)}"
    for split, expected in metadata["splits"].items():
        counts = {"workflows": len(entries[split]), "windows": sum(entry["windows"] for entry in entries[split])}
        for what, count in counts.items():
            if count != expected[what]:
                yield f"workflows.jsonl has {count:,} {what} in {split}, metadata.json {expected[what]:,}"


# -- each workflow


def check_all_workflows(folder: Path, entries: dict, num_workers: int, faults: dict) -> dict[str, list[str | None]]:
    """Check the workflows in worker processes, add their faults, and return the digests of their values."""
    calls = (
        (folder, split, workflows[first : first + BATCH])
        for split, workflows in entries.items()
        for first in range(0, len(workflows), BATCH)
    )
    digests = {split: [] for split in entries}
    with tqdm(total=sum(map(len, entries.values())), desc="verify", unit="workflow", disable=None) as progress:
        for split, found, values in run_in_processes(check_workflows, calls, num_workers):
            for check, fault in found:
                faults[check].append(fault)
            digests[split] += values
            progress.update(len(values))
    return digests


def check_workflows(folder: Path, split: str, entries: list[dict]):
    """Return (split, faults as (check, text), digests of the canonical values) of some workflows.

    Runs in a worker process.
    """
    rows, plan, limit, tokenizer = open_folder(folder, split)
    faults, digests = [], []
    for entry in entries:
        own = rows[entry["first_window"] : entry["first_window"] + entry["windows"]]
        try:
            digests.append(check_workflow(own, entry, plan, limit, tokenizer))
        except Fault as fault:
            digests.append(None)
            faults.append((fault.check, f"{entry['file']!r}: {fault}"))
    return split, faults, digests


class Fault(Exception):
    def __init__(self, check: str, text: str):
        super().__init__(text)
        self.check = check


def check_workflow(rows: np.ndarray, entry: dict, plan: WindowPlan, limit: int | None, tokenizer) -> str | None:
    """Check a workflow with its rows (n, C + 1). Raise Fault, or return the digest of its value if all is there."""
    length, content = entry["tokens"], rows[:, 1:]
    starts = plan.starts(length, limit)
    if not np.array_equal(rows[:, 0], starts // plan.stride):
        raise Fault("positions", f"positions are {rows[:, 0].tolist()}, not {(starts // plan.stride).tolist()}")
    if rows[-1, 0] >= plan.vocab_size:
        raise Fault("positions", f"position {rows[-1, 0]} is not below {plan.vocab_size}")
    held = np.arange(plan.context_size) < length - starts[:, None]  # (n, C)
    if (content[held] == plan.pad_token).any() or (content[~held] != plan.pad_token).any():
        raise Fault("tokens", f"padding does not begin after its {length:,} tokens")
    if content.min() < 0 or content.max() >= plan.vocab_size:
        raise Fault("tokens", f"tokens are from {content.min()} to {content.max()}")
    tokens, counts = join_equal(content, starts, length)
    if fault := check_counts(counts, plan, limit):
        raise Fault("targets", fault)
    if not counts.all():  # --max-windows-per-workflow has removed windows
        return None
    try:
        text = tokenizer.decode(tokens.tolist())
    except ValueError as error:
        raise Fault("decoding", str(error)) from None
    if sha256(text.encode()) != entry["sha256"]:
        raise Fault("decoding", "decodes to another text")
    return sha256(canonical(json.loads(text)).encode())


def join_equal(content: np.ndarray, starts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens int16 (length,) in windows (n, C), and in how many windows each is, int64 (length,)."""
    tokens, counts = np.zeros(length, np.int16), np.zeros(length, np.int64)
    for start, row in zip(starts, content):
        part = slice(start, min(start + len(row), length))
        seen = counts[part] > 0
        if (tokens[part][seen] != row[: len(seen)][seen]).any():
            raise Fault("decoding", f"the window at token {start} differs from those before it")
        tokens[part] = row[: len(seen)]
        counts[part] += 1
    return tokens, counts


def check_counts(counts: np.ndarray, plan: WindowPlan, limit: int | None) -> str | None:
    """Check that each token is in as many windows as start in the last C tokens up to it."""
    if limit is not None and plan.count(len(counts)) > limit:
        return None  # thinned windows follow no fixed step
    at, last = np.arange(len(counts)), plan.count(len(counts)) - 1
    newest = np.minimum(at // plan.window_step, last)
    oldest = np.maximum(0, -(-(at - plan.context_size + 1) // plan.window_step))
    wrong = np.flatnonzero(counts != newest - oldest + 1)
    return f"token {wrong[0]} is in {counts[wrong[0]]} windows" if wrong.size else None


@lru_cache(maxsize=3)
def open_folder(folder: Path, split: str):
    """Return (rows (N, C + 1), plan, maximum windows of a workflow or None, tokenizer) of a split."""
    torch.set_num_threads(1)
    metadata = read_metadata(folder)
    rows = open_table(folder / f"{split}.pt").numpy()
    plan = WindowPlan(**{field.name: metadata[field.name] for field in fields(WindowPlan)})
    limit = metadata.get("max_windows_per_workflow") if split == "train" else None
    return rows, plan, limit, open_tokenizer(folder, metadata)


# -- the whole folder


def check_evaluation(folder: Path, metadata: dict) -> Iterator[str]:
    """Count the targets that the data loader itself returns."""
    for split, expected in metadata["splits"].items():
        if split != "train" and expected["windows"]:
            try:
                loader = EvalLoader(load_rows(folder, split, metadata), 64, metadata)
            except ValueError as error:
                yield str(error)
                continue
            targets = sum(int((y != IGNORE_INDEX).sum()) for _, y in loader)
            if targets != expected["tokens"]:
                yield f"{split} has {expected['tokens']:,} tokens and {targets:,} targets"


def check_groups(entries: dict[str, list[dict]], digests: dict[str, list[str | None]]) -> Iterator[str]:
    split_of = {}
    for split, workflows in entries.items():
        for entry in workflows:
            group = entry["group"]
            if group is not None and split_of.setdefault(group, split) != split:
                yield f"group {group!r} is in {split_of[group]} and in {split}"
    first = {}
    for split, values in digests.items():
        for digest in filter(None, values):
            if digest in first:
                yield f"a workflow of {split} is also in {first[digest]} (digest {digest[:12]})"
            first[digest] = split

"""Proof that a prepared folder is sound, over the whole set: what one would look at by hand before training.

    python verify_prepared_data.py --data_dir prepared/

Every workflow is put together again from its windows, decoded, and held against the hash that preparation took of
it. Beside the checks: prepared.png shows lengths and windows, and five windows are printed token by token.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import fields
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from script_tools.cli import ArgumentParser, cli_errors
from tct.json_text import compact
from workflow_data.chunks import sha256
from workflow_data.reader import open_tokenizer, read_entries
from workflow_data.table_file import open_table
from workflow_data.windows import WindowPlan
from workflow_data.workers import run_in_processes

AT_ONCE = 256  # workflows that one process checks in one go
SHOWN = 10  # faults printed of each check
TOKENS_SHOWN = 12  # of a printed window, at each end

CHECKS = {
    "tables": "tables are int16 [windows, context + 1], as many rows as metadata.json and workflows.jsonl say",
    "positions": "windows start where the step says, their position is start // stride, below the vocabulary",
    "tokens": "tokens are in the vocabulary, and padding is behind the last of them",
    "stitch": "windows agree where they overlap, and together decode to the workflow, byte for byte",
    "targets": "every token is a target as often as the step says, padding never",
    "evaluation": "validation counts each token once",
    "groups": "no group and no workflow is on two sides, no workflow comes twice",
}


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description="Check a prepared folder from end to end, and show what is in it.")
    parser.add_argument("--data_dir", required=True, type=Path, help="what prepare_training_data.py --output made")
    parser.add_argument("--num_workers", type=int, default=os.cpu_count(), help="processes (default: cores)")
    parser.add_argument("--show", type=int, default=5, metavar="N", help="windows to print (default: %(default)s)")
    args = parser.parse_args(argv)
    verify(args.data_dir.expanduser(), args.num_workers, args.show)


def verify(folder: Path, num_workers: int, show: int):
    """Prints the result of each check. ValueError where one of them fails."""
    from workflow_data.reader import read_metadata

    metadata = read_metadata(folder)
    splits = list(metadata["splits"])
    entries = read_entries(folder)
    faults = {check: [] for check in CHECKS}
    faults["tables"] += check_tables(folder, metadata)
    if not faults["tables"]:
        calls = ((folder, split, part) for split in splits for part in batches(entries[split]))
        total = sum(map(len, entries.values()))
        digests = {split: [] for split in splits}
        with tqdm(total=total, desc="verify", unit="workflow", disable=None) as progress:
            for split, found, values in run_in_processes(check_workflows, calls, num_workers):
                for check, fault in found:
                    faults[check].append(fault)
                digests[split] += values
                progress.update(len(values))
        faults["evaluation"] += check_evaluation(folder, metadata)
        faults["groups"] += check_groups(entries, digests)
    for check, claim in CHECKS.items():
        found = sorted(faults[check])
        skipped = faults["tables"] and check != "tables"
        print(f"{'----' if skipped else 'FAIL' if found else 'ok':<5} {claim}")
        for fault in found[:SHOWN]:
            print(f"        {fault}")
        if found[SHOWN:]:
            print(f"        and {len(found) - SHOWN:,} more")
    count = sum(map(len, faults.values()))
    if count:
        raise ValueError(f"{folder} is not sound, {count:,} faults: prepare it again")
    plot(folder / "prepared.png", entries, metadata)
    print(f"\n{folder / 'prepared.png'} shows lengths and windows")
    print_windows(folder, metadata, entries, show)


def batches(entries: list[dict]) -> Iterator[list[dict]]:
    entries = iter(entries)
    while part := list(islice(entries, AT_ONCE)):
        yield part


# -----------------------------------------------------------------------------
# checks


def check_tables(folder: Path, metadata: dict) -> Iterator[str]:
    import torch

    for split, says in metadata["splits"].items():
        try:
            rows = open_table(folder / f"{split}.pt")
        except Exception as error:  # a damaged file shows as one of many kinds
            yield f"{split}.pt cannot be read ({type(error).__name__})"
            continue
        expected = (says["windows"], metadata["context_size"] + 1)
        if rows.dtype != torch.int16 or tuple(rows.shape) != expected:
            yield f"{split}.pt is {rows.dtype} {list(rows.shape)}, not torch.int16 {list(expected)}"
    listed = read_entries(folder)
    for split, says in metadata["splits"].items():
        for what, count in ("workflows", len(listed[split])), ("windows", sum(e["windows"] for e in listed[split])):
            if count != says[what]:
                yield f"workflows.jsonl has {count:,} {what} in {split}, metadata.json {says[what]:,}"


def check_workflows(folder: Path, split: str, entries: list[dict]):
    """(split, faults as (check, text), digests of the canonical values) of some workflows. Runs in a worker."""
    rows, plan, limit, tokenizer = open_folder(folder, split)
    faults, digests = [], []
    for entry in entries:
        found, digest = check_workflow(
            rows[entry["first_window"] : entry["first_window"] + entry["windows"]], entry, plan, limit, tokenizer
        )
        faults += [(check, f"{entry['file']!r}: {fault}") for check, fault in found]
        digests.append(digest)
    return split, faults, digests


def check_workflow(rows: np.ndarray, entry: dict, plan: WindowPlan, limit: int | None, tokenizer):
    """(faults as (check, text), digest of the canonical value or None) of one workflow and its rows (n, C + 1)."""
    length, context = entry["tokens"], plan.context_size
    starts = plan.starts(length, limit)
    if not np.array_equal(rows[:, 0], starts // plan.stride):
        return [("positions", f"positions are {rows[:, 0].tolist()}, not {(starts // plan.stride).tolist()}")], None
    if rows[-1, 0] >= plan.vocab_size:
        return [("positions", f"position {rows[-1, 0]} is not below {plan.vocab_size}")], None
    held = np.arange(context) < length - starts[:, None]  # (n, C)
    content = rows[:, 1:]
    if (content[held] == plan.pad_token).any() or (content[~held] != plan.pad_token).any():
        return [("tokens", f"padding does not begin where its {length:,} tokens end")], None
    if content.min() < 0 or content.max() >= plan.vocab_size:
        return [("tokens", f"tokens from {content.min()} to {content.max()}")], None
    tokens = np.zeros(length, np.int16)
    counts = np.zeros(length, np.int64)
    for start, row in zip(starts, content):
        part = slice(start, min(start + context, length))
        seen = counts[part] > 0
        if (tokens[part][seen] != row[: len(seen)][seen]).any():
            return [("stitch", f"the window at token {start} differs from those before it")], None
        tokens[part] = row[: len(seen)]
        counts[part] += 1
    if fault := check_counts(counts, plan, limit):
        return [("targets", fault)], None
    if not counts.all():  # --max-windows-per-workflow left tokens out
        return [], None
    try:
        text = tokenizer.decode(tokens.tolist())
    except ValueError as error:
        return [("stitch", str(error))], None
    if sha256(text.encode()) != entry["sha256"]:
        return [("stitch", "decodes to another text")], None
    return [], sha256(compact(json.loads(text), sort_keys=True).encode())


def check_counts(counts: np.ndarray, plan: WindowPlan, limit: int | None) -> str | None:
    """Whether each token is in as many windows as start at most C - 1 tokens before it, on a step's multiple."""
    if limit is not None and plan.count(len(counts)) > limit:
        return None  # thinned: how often is then not the step's to say
    at, last = np.arange(len(counts)), plan.count(len(counts)) - 1
    newest = np.minimum(at // plan.window_step, last)
    oldest = np.maximum(0, -(-(at - plan.context_size + 1) // plan.window_step))
    wrong = np.flatnonzero(counts != newest - oldest + 1)
    return f"token {wrong[0]} is in {counts[wrong[0]]} windows" if wrong.size else None


def check_evaluation(folder: Path, metadata: dict) -> Iterator[str]:
    """Through the data loader itself."""
    from workflow_data.loaders import IGNORE_INDEX, EvalLoader
    from workflow_data.reader import load_rows

    for split, says in metadata["splits"].items():
        if split != "train" and says["windows"]:
            try:
                batches = EvalLoader(load_rows(folder, split, metadata), 64, metadata)
            except ValueError as error:
                yield str(error)
                continue
            targets = sum(int((y != IGNORE_INDEX).sum()) for _, y in batches)
            if targets != says["tokens"]:
                yield f"{split} has {says['tokens']:,} tokens and {targets:,} targets"


def check_groups(entries: dict[str, list[dict]], digests: dict[str, list[str | None]]) -> Iterator[str]:
    side_of = {}
    for split, workflows in entries.items():
        for entry in workflows:
            group = entry["group"]
            if group is not None and side_of.setdefault(group, split) != split:
                yield f"group {group!r} is in {side_of[group]} and in {split}"
    first = {}
    for split, values in digests.items():
        for digest in filter(None, values):
            if digest in first:
                yield f"a workflow of {split} is in {first[digest]} too (digest {digest[:12]})"
            first[digest] = split


@lru_cache(maxsize=3)
def open_folder(folder: Path, split: str):
    """(rows (N, C + 1), plan, most windows of a workflow or None, tokenizer) of a side."""
    import torch

    from workflow_data.reader import read_metadata

    torch.set_num_threads(1)
    metadata = read_metadata(folder)
    rows = open_table(folder / f"{split}.pt").numpy()
    plan = WindowPlan(**{field.name: metadata[field.name] for field in fields(WindowPlan)})
    limit = metadata.get("max_windows_per_workflow") if split == "train" else None
    return rows, plan, limit, open_tokenizer(folder, metadata)


# -----------------------------------------------------------------------------
# to look at


def plot(path: Path, entries: dict[str, list[dict]], metadata: dict):
    """How long workflows are, and how many of the windows come from those of each length."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    longest = max(entry["tokens"] for workflows in entries.values() for entry in workflows)
    bins = np.geomspace(8, max(longest, 16) + 1, 48)
    for split, workflows in entries.items():
        if workflows:
            lengths = np.array([entry["tokens"] for entry in workflows])
            windows = np.array([entry["windows"] for entry in workflows])
            axes[0].hist(
                lengths,
                bins,
                histtype="step",
                label=f"{split}, {len(lengths):,} workflows",
                weights=np.full(len(lengths), 100 / len(lengths)),
            )
            order = lengths.argsort()
            axes[1].step(
                lengths[order],
                100 * windows[order].cumsum() / windows.sum(),
                where="post",
                label=f"{split}, {windows.sum():,} windows",
            )
    for axis in axes:
        axis.axvline(metadata["context_size"], color="grey", linestyle=":", label="context size")
        axis.set(xscale="log", xlabel="tokens of a workflow")
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set(ylabel="% of the workflows", title="Lengths")
    axes[1].set(ylabel="% of the windows", title="Windows from workflows of up to this length")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def print_windows(folder: Path, metadata: dict, entries: dict[str, list[dict]], count: int):
    """A few windows, evenly spread over the workflows: of each the position, and tokens with their place."""
    workflows = [entry for split in entries.values() for entry in split]
    for number in np.linspace(0, len(workflows) - 1, min(count, len(workflows))).round().astype(int):
        entry = workflows[number]
        rows, plan, _, tokenizer = open_folder(folder, entry["split"])
        window = entry["windows"] // 2  # the middle one
        position, *tokens = rows[entry["first_window"] + window].tolist()
        tokens = [token for token in tokens if token != plan.pad_token]
        print(
            f"\n{entry['split']} row {entry['first_window'] + window}: {entry['file']!r}, window {window + 1} of "
            f"{entry['windows']}\n  position {position}: it starts at token {position * plan.stride} of "
            f"{entry['tokens']}, and holds {len(tokens)} and {plan.context_size - len(tokens)} of padding"
        )
        for place, token in enumerate(tokens):
            if place == TOKENS_SHOWN and len(tokens) > 2 * TOKENS_SHOWN:
                print("       ...")
            if place < TOKENS_SHOWN or place >= len(tokens) - TOKENS_SHOWN:
                print(f"  {position * plan.stride + place:>6} {token:>5}  {tokenizer.id_to_token(token)!r}")


if __name__ == "__main__":
    main()

"""Chunks to the prepared set: duplicates dropped, sides chosen, windows written."""

import contextlib
import itertools
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import numpy as np
from tqdm import tqdm

import tct_github_workflow as tct
from workflow_data.chunks import read_entries
from workflow_data.cleaning import Skipped
from workflow_data.dedup import Duplicates
from workflow_data.split import SIDES, choose_sides, place_of
from workflow_data.table_file import new_table
from workflow_data.tokenizers import NAMES, BPETokenizer, TCTTokenizer
from workflow_data.windows import WindowPlan, state_windows, windows

TOTALS = (
    "workflows",
    "windows",
    "tokens",
    "targets",
    "json_bytes",
    "characters",
    "long_workflows",
    "long_windows",
    "long_tokens",
    "long_targets",
    "unseen_tokens",
)


def assemble(flags, chunks: list[Path], records: dict, work: Path, new: Path) -> dict:
    """Writes the prepared set to the folder `new`; gives its metadata."""
    tokenizer, folder = TCTTokenizer(), None
    plan = WindowPlan(
        flags.context_size,
        flags.stride,
        flags.window_step or flags.stride,
        tokenizer.get_vocab_size(),
        tokenizer.get_pad_token_id(),
    )
    with open(new / "skipped.jsonl", "w", encoding="utf-8", newline="\n") as skipped:
        index = index_workflows(flags, chunks, plan, work, skipped)
        sides = np.full(len(index.kept), -1, np.int8)
        sides[index.kept] = choose_sides(index.places[index.kept], flags.train_split, flags.test_split)
        if flags.tokenizer != "tct":
            folder = work / "bpe"
            tokenizer = encode_bpe(flags.tokenizer, chunks, index, sides == 0, folder)
            tokenizer.save(new / "tokenizer.json")
            if flags.tokenizer not in NAMES:  # else it has as many tokens as ours, should some of them go unused
                plan = replace(plan, vocab_size=tokenizer.get_vocab_size())
            leave_out_too_long(chunks, index, plan, skipped)
    if not index.kept.any():
        raise ValueError(describe_failure(index.reasons, records["left_alone"], new / "skipped.jsonl"))
    splits, repairs = write_windows(flags, chunks, folder, index, sides, plan, new)
    metadata = {
        "context_size": plan.context_size,
        "stride": plan.stride,
        "window_step": plan.window_step,
        "max_windows_per_workflow": flags.max_windows_per_workflow,
        "vocab_size": plan.vocab_size,
        "pad_token": plan.pad_token,
        **({"n_states": tct.n_states()} if flags.states else {}),
        "tokenizer": {"name": tokenizer.name, "fingerprint": tokenizer.fingerprint},
        "total_records": records["records"],
        "total_workflows": int(index.kept.sum()),
        "splits": splits,
        "skipped": dict(sorted(index.reasons.items())),
        "left_alone": records["left_alone"],
        "repairs": dict(sorted(repairs.items())),
        "seed": flags.seed,
        "split_by": flags.split_by,
        "train_split": flags.train_split,
        "test_split": flags.test_split,
    }
    (new / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", "utf-8", newline="\n")
    return metadata


@dataclass
class Index:
    """What has to be in memory of all workflows in the chunks, in their order: some twenty bytes of each."""

    kept: np.ndarray  # bool (N,), False for duplicates
    places: np.ndarray  # float64 (N,) of their groups in [0, 1)
    lengths: np.ndarray  # int64 (N,) tokens
    reasons: Counter  # why records are left out


def index_workflows(flags, chunks: list[Path], plan: WindowPlan, work: Path, skipped: TextIO) -> Index:
    """Looks through all chunks for duplicates, and for what is too long; writes what is left out up to here."""
    kept, places, lengths, reasons = array("b"), array("d"), array("q"), Counter()
    duplicates = Duplicates(work / "digests.sqlite", flags.near_dedup)
    for chunk in tqdm(chunks, "compare", unit="chunk", disable=None):
        signatures = iter(np.load(chunk.with_suffix(".npy")) if flags.near_dedup is not None else ())
        for entry in read_entries(chunk):
            if "reason" in entry:
                found = Skipped(entry["reason"], entry["detail"])
            else:
                signature = next(signatures, None)
                if flags.tokenizer == "tct" and not plan.fits(entry["tokens"]):
                    found = Skipped("too_long", plan.remedy(entry["tokens"]))
                else:
                    found = duplicates.find(entry["file"], entry["digest"], signature)
                kept.append(found is None)
                places.append(place_of(group_of(entry), flags.seed))
                lengths.append(entry["tokens"])
            if found:
                reasons[found.reason] += 1
                write_line(skipped, {"file": entry["file"], "reason": found.reason, "detail": found.detail})
    duplicates.close()
    return Index(np.array(kept, bool), np.array(places), np.array(lengths), reasons)


def group_of(entry: dict) -> bytes:
    """What never stands on both sides: the folder or column of a workflow, or else its value."""
    if entry["group"] is None:
        return bytes.fromhex(entry["digest"])
    return entry["group"].encode(errors="surrogateescape")


def numbered_workflows(chunks: list[Path], task: str) -> Iterator[tuple[Path, list[tuple[int, dict]]]]:
    """Each chunk with its workflows, numbered through all chunks. `task` is for the progress bar."""
    number = itertools.count()
    for chunk in tqdm(chunks, task, unit="chunk", disable=None):
        yield chunk, [(next(number), entry) for entry in read_entries(chunk) if "reason" not in entry]


def encode_bpe(which: str, chunks: list[Path], index: Index, trains: np.ndarray, folder: Path) -> BPETokenizer:
    """Trains a BPE tokenizer on the workflows that `trains` (N,) marks, or loads one, and writes to the folder the
    tokens of the workflows that are kept; their lengths go to the index."""
    folder.mkdir(exist_ok=True)
    if which in NAMES:
        texts = (
            text
            for chunk, workflows in numbered_workflows(chunks, "learn merges")
            for (number, _), text in zip(workflows, read_texts(chunk, workflows))
            if trains[number]
        )
        tokenizer = BPETokenizer.train(texts, name=which)
    else:
        tokenizer = BPETokenizer.load(which)
    index.lengths[:] = 0
    for chunk, workflows in numbered_workflows(chunks, "encode"):
        kept = [
            (number, text) for (number, _), text in zip(workflows, read_texts(chunk, workflows)) if index.kept[number]
        ]
        ids = tokenizer.encode_batch([text for _, text in kept])
        for (number, _), tokens in zip(kept, ids):
            index.lengths[number] = len(tokens)
        np.array(list(itertools.chain.from_iterable(ids)), np.int16).tofile(folder / f"{chunk.stem}.bin")
    return tokenizer


def read_texts(chunk: Path, workflows: list[tuple[int, dict]]) -> Iterator[str]:
    """The compact JSON of the workflows of a chunk."""
    data = chunk.with_suffix(".bin").read_bytes()
    return (part.decode() for part in cut_up(data, [entry["json_bytes"] for _, entry in workflows]))


def cut_up(data: Sequence, lengths: Iterable[int]) -> Iterator[Sequence]:
    """The parts of data that have these lengths."""
    end = 0
    for length in lengths:
        yield data[end : (end := end + length)]


def leave_out_too_long(chunks, index: Index, plan: WindowPlan, skipped: TextIO):
    """What is too long in another tokenizer than ours: its lengths are known last."""
    too_long = index.kept & ~plan.fits(index.lengths)
    if too_long.any():
        for _, workflows in numbered_workflows(chunks, "leave out"):
            for number, entry in workflows:
                if too_long[number]:
                    index.kept[number] = False
                    index.reasons["too_long"] += 1
                    write_line(
                        skipped,
                        {
                            "file": entry["file"],
                            "reason": "too_long",
                            "detail": plan.remedy(int(index.lengths[number])),
                        },
                    )


def write_windows(flags, chunks, folder: Path | None, index: Index, sides: np.ndarray, plan: WindowPlan, new: Path):
    """Writes the tables and workflows.jsonl; gives (totals of each side, how often each repair was made). Tokens
    are in the folder, or beside the chunks."""
    chosen = SIDES if flags.test_split else SIDES[:2]
    limit = {"train": flags.max_windows_per_workflow}
    splits, repairs = {side: Counter(dict.fromkeys(TOTALS, 0)) for side in chosen}, Counter()
    with contextlib.ExitStack() as stack:
        tables = {}
        for side, name in enumerate(chosen):
            counts = plan.count(index.lengths[index.kept & (sides == side)])
            rows = int(np.minimum(counts, limit.get(name) or counts).sum())
            tables[name] = stack.enter_context(new_table(new / f"{name}.pt", rows, plan.context_size + 1))
            if flags.states:
                tables[f"{name}_states"] = stack.enter_context(
                    new_table(new / f"{name}_states.pt", rows, plan.context_size)
                )
        out = stack.enter_context(open(new / "workflows.jsonl", "w", encoding="utf-8", newline="\n"))
        for chunk, workflows in numbered_workflows(chunks, "write"):
            path = folder / f"{chunk.stem}.bin" if folder else chunk.with_suffix(".bin")
            lengths = [index.lengths[number] for number, _ in workflows]
            parts = cut_up(np.fromfile(path, np.int16), lengths)
            states = itertools.repeat(None)
            if flags.states:
                states = cut_up(np.fromfile(chunk.with_suffix(".states"), np.int16), [n + 1 for n in lengths])
            for (number, entry), tokens, places in zip(workflows, parts, states):
                if not index.kept[number]:
                    continue
                side = chosen[sides[number]]
                rows = windows(tokens, plan, limit.get(side))
                tables[side].write(rows)
                if flags.states:
                    tables[f"{side}_states"].write(state_windows(places, plan, limit.get(side)))
                write_line(
                    out,
                    {
                        "file": entry["file"],
                        "split": side,
                        "first_window": splits[side]["windows"],
                        "windows": len(rows),
                        "tokens": len(tokens),
                        "sha256": entry["sha256"],
                        "group": entry["group"],
                        "repairs": entry["repairs"],
                    },
                )
                splits[side].update(measure(rows, tokens, entry, plan))
                repairs.update(entry["repairs"])
    return {side: dict(total) for side, total in splits.items()}, repairs


def measure(rows: np.ndarray, tokens: np.ndarray, entry: dict, plan: WindowPlan) -> dict[str, int]:
    """What one workflow adds to the TOTALS of its side. Long ones are longer than the context; targets count a
    token in each window that holds it; unseen tokens are in none."""
    starts = rows[:, 0].astype(np.int64) * plan.stride
    ends = np.minimum(starts + plan.context_size, len(tokens))
    here = {"workflows": 1, "windows": len(rows), "tokens": len(tokens), "targets": int((ends - starts).sum())}
    if len(tokens) > plan.context_size:
        here |= {f"long_{key}": value for key, value in here.items()}
        here["unseen_tokens"] = int(np.maximum(0, np.append(starts[1:], len(tokens)) - ends).sum())
    return here | {"json_bytes": entry["json_bytes"], "characters": entry["characters"]}


def write_line(file: TextIO, value: dict):
    file.write(json.dumps(value) + "\n")


def describe_failure(reasons: Counter, left_alone: int, skipped: Path) -> str:
    """Why there is nothing to prepare."""
    if not reasons and left_alone:
        return f"no workflow in the input: --path_glob takes none of its {left_alone:,} files or rows"
    if not reasons:
        return "no workflow in the input: it has no rows"
    counts = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    with open(skipped, encoding="utf-8") as lines:
        first = json.loads(next(lines))
    return f"no valid workflow in the input: {counts}; for example {first['file']!r}: {first['detail']}"

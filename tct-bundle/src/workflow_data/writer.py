"""Write a prepared folder from chunks: drop duplicates, assign splits, write windows."""

import contextlib
import itertools
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from tqdm import tqdm

from workflow_data.chunks import read_chunk
from workflow_data.cleaning import Skipped
from workflow_data.dedup import Duplicates
from workflow_data.settings import PrepareSettings
from workflow_data.split import SPLITS, assign_splits, hash_fraction
from workflow_data.table_file import new_table
from workflow_data.tokenizers import FILE, NAMES, TCT, BPETokenizer
from workflow_data.windows import WindowPlan, schema_position_windows, windows

TRAIN = SPLITS.index("train")
LONG = ("workflows", "windows", "tokens", "targets")  # counted again for workflows longer than the context
TOTALS = (*LONG, "json_bytes", "characters", *(f"long_{name}" for name in LONG), "unseen_tokens")


def write_dataset(settings: PrepareSettings, chunks: list[Path], counts: dict, work: Path, new: Path) -> dict:
    """Write the prepared folder `new` and return its metadata. `counts` are those of all records in the input."""
    tokenizer = settings.document_tokenizer()
    sizes = settings.context_size, settings.stride, settings.window_step or settings.stride
    plan = WindowPlan(*sizes, tokenizer.get_vocab_size(), tokenizer.get_pad_token_id())
    with open(new / "skipped.jsonl", "w", encoding="utf-8", newline="\n") as file:
        skipped = SkippedRecords(file)
        index = index_workflows(settings, chunks, plan, work, skipped)
        if settings.is_bpe:
            tokenizer = encode_bpe(settings.tokenizer, index, work / "bpe")
            if settings.tokenizer not in NAMES:  # one learned here is padded to the size of the workflow tokenizer
                plan = replace(plan, vocab_size=tokenizer.get_vocab_size())
            skip_too_long(index, plan, skipped)
    if settings.tokenizer != TCT:
        tokenizer.save(new / FILE)
    if not index.kept.any():
        raise ValueError(describe_failure(skipped.reasons, counts["left_alone"], new / "skipped.jsonl"))
    splits, repairs = write_splits(settings, index, plan, new)
    metadata = {
        **{name: getattr(plan, name) for name in ("context_size", "stride", "window_step")},
        "max_windows_per_workflow": settings.max_windows_per_workflow,
        "vocab_size": plan.vocab_size,
        "pad_token": plan.pad_token,
        **({"n_states": tokenizer.library.n_states()} if settings.states else {}),
        "tokenizer": {"name": tokenizer.name, "fingerprint": tokenizer.fingerprint},
        "total_records": counts["records"],
        "total_workflows": int(index.kept.sum()),
        "splits": splits,
        "skipped": dict(sorted(skipped.reasons.items())),
        "left_alone": counts["left_alone"],
        "repairs": dict(sorted(repairs.items())),
        **{name: getattr(settings, name) for name in ("seed", "split_by", "train_split", "test_split")},
    }
    (new / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", "utf-8", newline="\n")
    return metadata


class SkippedRecords:
    """Count and list in skipped.jsonl the records that are not used."""

    def __init__(self, file: TextIO):
        self.file, self.reasons = file, Counter()

    def add(self, entry: dict, why: Skipped):
        self.reasons[why.reason] += 1
        write_line(self.file, {"file": entry["file"], "reason": why.reason, "detail": why.detail})


# -- all workflows, by their number in the order of the input


@dataclass
class WorkflowIndex:
    """All workflows in the chunks, about twenty bytes of memory for each."""

    chunks: list[Path]
    kept: np.ndarray  # bool (N,), False for duplicates and workflows that are too long
    splits: np.ndarray  # int8 (N,), an index into SPLITS, -1 for duplicates
    lengths: np.ndarray  # int64 (N,), tokens
    tokens_folder: Path | None = None  # the tokens of a baseline; if None, tokens are next to the chunks

    def read(self, task: str) -> Iterator[tuple[Path, list[tuple[int, dict]]]]:
        """Yield each chunk with its numbered workflows. `task` names the progress bar."""
        number = itertools.count()
        for chunk in tqdm(self.chunks, task, unit="chunk", disable=None):
            yield chunk, [(next(number), entry) for entry in read_chunk(chunk) if "reason" not in entry]


def index_workflows(settings, chunks: list[Path], plan: WindowPlan, work: Path, skipped: SkippedRecords):
    """Find duplicates and workflows that are too long, assign splits, and return the WorkflowIndex."""
    kept, fractions, lengths, is_bpe = array("b"), array("d"), array("q"), settings.is_bpe
    duplicates = Duplicates(work / "digests.sqlite", settings.near_dedup)
    for chunk in tqdm(chunks, "compare", unit="chunk", disable=None):
        signatures = iter(np.load(chunk.with_suffix(".npy")) if settings.near_dedup is not None else ())
        for entry in read_chunk(chunk):
            if "reason" in entry:
                why = Skipped(entry["reason"], entry["detail"])
            else:
                signature = next(signatures, None)
                if not is_bpe and not plan.fits(entry["tokens"]):
                    why = Skipped("too_long", plan.remedy(entry["tokens"]))
                else:
                    why = duplicates.find(entry["file"], entry["digest"], signature)
                kept.append(why is None)
                group = entry["group"]  # what must stay in one split, or else the value of the workflow
                key = bytes.fromhex(entry["digest"]) if group is None else group.encode(errors="surrogateescape")
                fractions.append(hash_fraction(key, settings.seed))
                lengths.append(entry["tokens"])
            if why:
                skipped.add(entry, why)
    duplicates.close()
    kept = np.array(kept, bool)
    splits = np.full(len(kept), -1, np.int8)
    splits[kept] = assign_splits(np.array(fractions)[kept], settings.train_split, settings.test_split)
    return WorkflowIndex(chunks, kept, splits, np.array(lengths))


# -- baseline tokenizers, which are learned from the training split


def encode_bpe(name: str, index: WorkflowIndex, folder: Path) -> BPETokenizer:
    """Train or load a BPE tokenizer, and write the tokens of all kept workflows to the folder.

    Their lengths replace those in the index.
    """
    folder.mkdir(exist_ok=True)
    is_new = name in NAMES
    tokenizer = BPETokenizer.train(training_texts(index), name=name) if is_new else BPETokenizer.load(name)
    index.lengths[:] = 0
    for chunk, workflows in index.read("encode"):
        texts = zip(workflows, read_texts(chunk, workflows))
        kept = [(number, text) for (number, _), text in texts if index.kept[number]]
        ids = tokenizer.encode_batch([text for _, text in kept])
        for (number, _), tokens in zip(kept, ids):
            index.lengths[number] = len(tokens)
        np.array(list(itertools.chain.from_iterable(ids)), np.int16).tofile(folder / f"{chunk.stem}.bin")
    index.tokens_folder = folder
    return tokenizer


def training_texts(index: WorkflowIndex) -> Iterator[str]:
    for chunk, workflows in index.read("learn merges"):
        for (number, _), text in zip(workflows, read_texts(chunk, workflows)):
            if index.splits[number] == TRAIN:
                yield text


def read_texts(chunk: Path, workflows: list[tuple[int, dict]]) -> Iterator[str]:
    """Yield the compact JSON of each workflow of a chunk."""
    data = chunk.with_suffix(".bin").read_bytes()
    return (part.decode() for part in cut(data, [entry["json_bytes"] for _, entry in workflows]))


def cut(data: Sequence, lengths: Iterable[int]) -> Iterator[Sequence]:
    """Yield consecutive parts of the data with these lengths."""
    end = 0
    for length in lengths:
        yield data[end : (end := end + length)]


def skip_too_long(index: WorkflowIndex, plan: WindowPlan, skipped: SkippedRecords):
    """Skip workflows that are too long in a baseline's tokens: their lengths are known only now."""
    too_long = index.kept & ~plan.fits(index.lengths)
    if too_long.any():
        for _, workflows in index.read("skip"):
            for number, entry in workflows:
                if too_long[number]:
                    skipped.add(entry, Skipped("too_long", plan.remedy(int(index.lengths[number]))))
        index.kept &= ~too_long


# -- windows


class KeptWorkflow(NamedTuple):
    """A workflow that is written to a split."""

    split: int  # an index into SPLITS
    entry: dict  # what its chunk stores about it
    tokens: np.ndarray  # int16 (T,)
    positions: np.ndarray | None  # schema positions, int16 (T + 1,)


def kept_workflows(index: WorkflowIndex, with_positions: bool) -> Iterator[KeptWorkflow]:
    """Yield the workflows to write, in the order of the input."""
    for chunk, workflows in index.read("write"):
        path = index.tokens_folder / f"{chunk.stem}.bin" if index.tokens_folder else chunk.with_suffix(".bin")
        lengths = [index.lengths[number] for number, _ in workflows]
        positions = itertools.repeat(None)
        if with_positions:
            positions = cut(np.fromfile(chunk.with_suffix(".states"), np.int16), [length + 1 for length in lengths])
        for (number, entry), tokens, own in zip(workflows, cut(np.fromfile(path, np.int16), lengths), positions):
            if index.kept[number]:
                yield KeptWorkflow(index.splits[number], entry, tokens, own)


class SplitWriter:
    """Write the tables of one split, row by row, and count what is in them.

    lengths (n,) are the token counts of the split's workflows. The tables are closed with the stack.
    """

    def __init__(self, split: str, lengths, plan: WindowPlan, settings: PrepareSettings, folder: Path, stack):
        self.split, self.plan = split, plan
        self.max_windows = settings.max_windows_per_workflow if split == "train" else None
        counts = plan.count(lengths)
        rows = int(np.minimum(counts, self.max_windows or counts).sum())
        self.windows = stack.enter_context(new_table(folder / f"{split}.pt", rows, plan.context_size + 1))
        if settings.states:
            path = folder / f"{split}_states.pt"
            self.positions = stack.enter_context(new_table(path, rows, plan.context_size))
        self.totals = Counter(dict.fromkeys(TOTALS, 0))
        self.repairs = Counter()

    def add(self, workflow: KeptWorkflow) -> dict:
        """Write the windows of a workflow, and return its line of workflows.jsonl."""
        entry, tokens = workflow.entry, workflow.tokens
        rows = windows(tokens, self.plan, self.max_windows)
        self.windows.write(rows)
        if workflow.positions is not None:
            self.positions.write(schema_position_windows(workflow.positions, self.plan, self.max_windows))
        first_window = self.totals["windows"]
        self.totals.update(totals_of(rows, tokens, entry, self.plan))
        self.repairs.update(entry["repairs"])
        line = {"file": entry["file"], "split": self.split, "first_window": first_window}
        line |= {"windows": len(rows), "tokens": len(tokens)}
        return line | {name: entry[name] for name in ("sha256", "group", "repairs")}


def write_splits(settings: PrepareSettings, index: WorkflowIndex, plan: WindowPlan, folder: Path):
    """Write the tables and workflows.jsonl. Return the totals of each split, and the number of each repair."""
    with contextlib.ExitStack() as stack:
        writers = []
        for split, name in enumerate(SPLITS if settings.test_split else SPLITS[:2]):
            lengths = index.lengths[index.kept & (index.splits == split)]
            writers.append(SplitWriter(name, lengths, plan, settings, folder, stack))
        lines = stack.enter_context(open(folder / "workflows.jsonl", "w", encoding="utf-8", newline="\n"))
        for workflow in kept_workflows(index, settings.states):
            write_line(lines, writers[workflow.split].add(workflow))
    totals = {writer.split: dict(writer.totals) for writer in writers}
    return totals, sum((writer.repairs for writer in writers), Counter())


def totals_of(rows: np.ndarray, tokens: np.ndarray, entry: dict, plan: WindowPlan) -> dict[str, int]:
    """Return what one workflow adds to the TOTALS of its split.

    Targets count a token in each window that holds it. Unseen tokens are in no window.
    """
    starts = rows[:, 0].astype(np.int64) * plan.stride
    ends = np.minimum(starts + plan.context_size, len(tokens))
    totals = {"workflows": 1, "windows": len(rows), "tokens": len(tokens), "targets": int((ends - starts).sum())}
    if len(tokens) > plan.context_size:
        totals |= {f"long_{name}": value for name, value in totals.items()}
        totals["unseen_tokens"] = int(np.maximum(0, np.append(starts[1:], len(tokens)) - ends).sum())
    return totals | {"json_bytes": entry["json_bytes"], "characters": entry["characters"]}


def write_line(file: TextIO, value: dict):
    file.write(json.dumps(value) + "\n")


def describe_failure(reasons: Counter, left_alone: int, skipped: Path) -> str:
    """Return the error message if there is nothing to prepare."""
    if not reasons and left_alone:
        return f"no workflow in the input: --path-glob matches none of its {left_alone:,} files or rows"
    if not reasons:
        return "no workflow in the input: it has no rows"
    counts = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    with open(skipped, encoding="utf-8") as lines:
        first = json.loads(next(lines))
    return f"no valid workflow in the input: {counts}; for example {first['file']!r}: {first['detail']}"

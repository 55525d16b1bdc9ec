"""Turn workflows into training windows: read, clean, encode, drop duplicates, split, write.

    python prepare_training_data.py --input workflows/ --output prepared/ --context-size 512 --stride 32

A window is one int16 row [position, tok_0 .. tok_{C-1}] with position = start // stride. The output is train.pt, val.pt
and, with --test-split, test.pt ([N, C+1] each), metadata.json, workflows.jsonl with a line for each workflow and its
windows, and skipped.jsonl with a line for each record that is skipped. verify_prepared_data.py checks all of it.
"""

import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from script_tools.cli import cli_errors
from script_tools.files import write_json
from workflow_data.chunks import find_chunks, make_chunk, split_into_chunks
from workflow_data.settings import RECORDED, PrepareSettings, parse_settings
from workflow_data.sources import FolderSource, Record, Selection, TableSource, dataset_rows, open_source
from workflow_data.split import SPLITS
from workflow_data.tokenizers import FILE
from workflow_data.work_folder import resumable_folder, sync, work_folder
from workflow_data.workers import run_in_processes

TABLES = {f"{split}{suffix}.pt" for split in SPLITS for suffix in ("", "_states")}
OUTPUTS = TABLES | {"metadata.json", "workflows.jsonl", "skipped.jsonl", FILE, "prepared.png"}
SHARD_OUTPUTS = {"chunks", "settings.json", "records.json"}


@cli_errors
def main(argv=None):
    prepare(parse_settings(argv))


def prepare(settings: PrepareSettings):
    """Write a prepared folder, or one shard of it, and print a report."""
    started = time.monotonic()
    output = settings.output.expanduser().resolve()
    if settings.merge:
        recorded = {"merge": list(map(str, settings.merge))}
        settings, chunks, counts = open_shards(settings)
    else:
        recorded = settings.recorded() | {"shard": settings.shard, "files": describe_files(settings)}
    replaces = SHARD_OUTPUTS if settings.shard else OUTPUTS
    with resumable_folder(output, recorded, settings.resume, "chunks/*.json", replaces, is_earlier_result) as folders:
        work, new = folders
        if not settings.merge:
            counts = tokenize(settings, work, output)
            chunks = find_chunks(work / "chunks")
        if settings.shard:
            shutil.copytree(work / "chunks", new / "chunks")
            for name in ("settings.json", "records.json"):
                shutil.copy(work / name, new)
        else:
            metadata = write_output(settings, chunks, counts, work, new)
    if settings.shard:
        print(f"shard {settings.shard} of {counts['records']:,} records is in {output}; join all shards with --merge")
    else:
        print_report(metadata)
        print(f"\nwritten to {output} in {time.monotonic() - started:.0f} s")


def write_output(settings: PrepareSettings, chunks: list[Path], counts: dict, work: Path, new: Path) -> dict:
    """Write the prepared folder `new` from all chunks, and return its metadata."""
    # The writer needs torch, which is slow to import. --help and the worker processes do without it.
    from workflow_data import writer

    if len(chunks) != counts["chunks"]:
        raise ValueError(f"only {len(chunks)} of {counts['chunks']} chunks exist: start again without --resume")
    try:
        metadata = writer.write_dataset(settings, chunks, counts, work, new)
    except ValueError:  # the same work would fail again: do not offer to resume it
        (work / "records.json").unlink(missing_ok=True)
        shutil.rmtree(work / "chunks", ignore_errors=True)
        raise
    for path in new.iterdir():
        sync(path)
    return metadata


def is_earlier_result(output: Path) -> bool:
    """Return whether a folder is a prepared folder or a shard of one."""
    keys_of = {"metadata.json": {"context_size", "tokenizer", "splits"}, "settings.json": {"shard", *RECORDED}}
    for name, keys in keys_of.items():
        with suppress(OSError, ValueError, AttributeError):
            if keys <= json.loads((output / name).read_bytes()).keys():
                return True
    return False


def describe_files(settings: PrepareSettings) -> dict[str, str]:
    """Return the sizes of the files that the flags name, and the fingerprint of the tokenizer of documents.

    A resumed run must have the same: the flags alone do not show that a file has changed.
    """
    paths = [Path(name).expanduser() for name in (*settings.input, settings.tokenizer)]
    sizes = {str(path): f"{path.stat().st_size} bytes" for path in paths if path.is_file()}
    return sizes | {"workflow tokenizer": settings.document_tokenizer().fingerprint}


# -- from records to chunks


def tokenize(settings: PrepareSettings, work: Path, output: Path) -> dict:
    """Write the chunks of this shard that do not exist yet.

    Return the numbers of records and chunks in all shards, the number of files and rows that were not read, and a hash
    of the names of the records.
    """
    done, folder = work / "records.json", work / "chunks"
    if done.exists():
        return json.loads(done.read_bytes())
    folder.mkdir(exist_ok=True)
    for unfinished in folder.glob("*.tmp"):
        unfinished.unlink(missing_ok=True)  # missing if a worker of a killed run has finished it meanwhile
    sources = open_sources(settings, output)
    keep_listings(sources, work / "listings.json")
    total = count_files(sources, settings.max_files)
    with tqdm(total=total, desc="tokenize", unit="file", smoothing=0.05, disable=None) as progress:
        records = itertools.islice(itertools.chain.from_iterable(sources), settings.max_files)
        calls = ChunkCalls(records, folder, settings, progress)
        for count in run_in_processes(make_chunk, calls, settings.num_workers):
            progress.update(count)
    counts = {
        "records": calls.records,
        "chunks": calls.chunks,
        "left_alone": sum(source.left_alone for source in sources),
        "names": calls.names.hexdigest(),
    }
    write_json(done, counts, indent=None)
    return counts


class ChunkCalls:
    """Iterate over the calls of make_chunk that are left to do, and count all records and chunks on the way."""

    def __init__(self, records: Iterable[Record], folder: Path, settings: PrepareSettings, progress: tqdm):
        self.stream, self.folder, self.settings, self.progress = records, folder, settings, progress
        self.records = self.chunks = 0
        self.names = hashlib.sha256()

    def __iter__(self) -> Iterator[tuple[Path, list[Record], PrepareSettings]]:
        part, parts = self.settings.shard_numbers()
        for index, chunk in enumerate(split_into_chunks(self.stream)):
            self.records, self.chunks = self.records + len(chunk), self.chunks + 1
            self.names.update("".join(f"{record.name}\0" for record in chunk).encode(errors="surrogateescape"))
            path = self.folder / f"{index:06d}.json"
            if index % parts != part - 1 or path.exists():
                self.progress.update(len(chunk))
            else:
                yield path, chunk, self.settings


def count_files(sources: list[FolderSource | TableSource], max_files: int | None) -> int | None:
    """Return the number of records if it is known in advance."""
    if not all(isinstance(source, FolderSource) for source in sources):
        return max_files
    count = sum(len(source.files) for source in sources)
    return min(count, max_files or count)


def open_sources(settings: PrepareSettings, output: Path) -> list[FolderSource | TableSource]:
    """Open all sources. If there are several, the names of records begin with the name of their source."""
    columns = settings.text_column, settings.path_column
    selection = Selection(settings.split_by, *columns, settings.path_glob, settings.is_workflow)
    several = len(settings.input) + bool(settings.dataset) > 1
    avoid = output, work_folder(output)
    prefixes = [f"{location.rstrip('/')}:" if several else "" for location in settings.input]
    sources = [open_source(location, selection, prefix, avoid) for location, prefix in zip(settings.input, prefixes)]
    if settings.dataset:
        arguments = settings.dataset, settings.data_dir, settings.split, selection
        prefix = f"{settings.dataset}:" if several else ""
        sources.append(TableSource(lambda: dataset_rows(*arguments), selection, prefix))
    return sources


def keep_listings(sources: list[FolderSource | TableSource], path: Path):
    """Save which files the folders contain, or restore it: a resumed run reads the files of the first one."""
    folders = [source for source in sources if isinstance(source, FolderSource)]
    if path.exists():
        for source, (files, left_alone) in zip(folders, json.loads(path.read_bytes())):
            source.files, source.left_alone = files, left_alone
    else:
        write_json(path, [(source.files, source.left_alone) for source in folders], indent=None)


def open_shards(settings: PrepareSettings) -> tuple[PrepareSettings, list[Path], dict]:
    """Return the settings of the shards, their chunks in order, and the counts of all records as from `tokenize`.

    Raise ValueError if a shard is missing, or if the shards do not belong together.
    """
    found, chunks, first = {}, [], None
    for shard in settings.merge:
        folder = shard.expanduser()
        try:
            recorded = json.loads((folder / "settings.json").read_bytes())
            counts = json.loads((folder / "records.json").read_bytes())
            number = recorded.pop("shard")
            parts = int(number.split("/")[1])
            chunks += find_chunks(folder / "chunks")
        except (OSError, ValueError, LookupError, AttributeError, TypeError):
            raise ValueError(f"--merge {shard}: not a finished output of --shard") from None
        if number in found:
            raise ValueError(f"--merge {shard}: is shard {number}, and so is {found[number]}")
        found[number] = shard
        first = first or (recorded, counts)
        if (recorded, counts) != first:
            raise ValueError(f"--merge {shard}: made with other flags or from other files than {settings.merge[0]}")
    if missing := [number for part in range(1, parts + 1) if (number := f"{part}/{parts}") not in found]:
        raise ValueError(f"--merge: shard {', '.join(missing)} is missing")
    files, has_our_flags = recorded.pop("files"), recorded.keys() == set(RECORDED)
    settings = replace(settings, **recorded) if has_our_flags else settings
    if not has_our_flags or files["workflow tokenizer"] != settings.document_tokenizer().fingerprint:
        raise ValueError(f"--merge {settings.merge[0]}: made with another version of the tokenizer")
    chunks.sort(key=lambda chunk: int(chunk.stem))
    return settings, chunks, counts


# -- the report


def print_report(metadata: dict):
    """Print the counts of a prepared folder, and warnings."""
    splits = metadata["splits"]
    rows = [("workflows found", metadata["total_records"])]
    rows += [(f"skipped: {reason}", count) for reason, count in metadata["skipped"].items()]
    rows += [("workflows used", metadata["total_workflows"])]
    rows += [(f"repaired: {repair}", count) for repair, count in metadata["repairs"].items()]
    if metadata["left_alone"]:
        rows += [("other files, not read", metadata["left_alone"])]
    for what in ("workflows", "windows", "tokens", "targets"):
        rows += [(f"{name} {what}", split[what]) for name, split in splits.items()]
    print()
    for label, number in rows:
        print(f"{label:<36} {number:>14,}")
    tokens, characters = (sum(split[what] for split in splits.values()) for what in ("tokens", "characters"))
    print(f"{'characters per token':<36} {characters / tokens:>14.2f}")
    print_share_of_long(splits["train"], metadata["context_size"])
    for name, split in splits.items():
        if not split["workflows"]:
            print(f"warning: {name}.pt is empty: add workflows, or change --train-split or --test-split")


def print_share_of_long(train: dict, context_size: int):
    """Print how much of the training data comes from the overlapping windows of long workflows."""
    if not train["long_windows"]:
        return
    share, seen = train["long_windows"] / train["windows"], train["long_targets"] / train["long_tokens"]
    print(f"{'train windows of long workflows':<36} {share:>14.1%}")
    print(f"{'windows with each of their tokens':<36} {seen:>14.1f}")
    if train["unseen_tokens"]:
        remedy = "increase --max-windows-per-workflow to include them"
        print(f"warning: {train['unseen_tokens']:,} training tokens are in no window: {remedy}")
    if share > 0.5 and seen > 2:
        workflows = train["long_workflows"] / train["workflows"]
        print(
            f"note: {share:.0%} of the training windows come from the {workflows:.0%} of workflows longer than "
            f"{context_size} tokens, and each of their tokens is in {seen:.1f} windows; "
            f"--window-step {context_size} or --max-windows-per-workflow balances this"
        )


if __name__ == "__main__":
    main()

"""Workflows to training windows: read, clean, tokenise, drop duplicates, split, write.

    python prepare_training_data.py --input workflows/ --output prepared/ --context-size 512 --stride 32

A window is one int16 row [position, tok_0 .. tok_{C-1}] with position = start // stride. Output: train.pt, val.pt
and with --test-split test.pt ([N, C+1] each); metadata.json; workflows.jsonl, a line for each workflow and where
its windows are; skipped.jsonl, a line for each that was left out. verify_prepared_data.py checks all that.
"""

import argparse
import hashlib
import itertools
import json
import os
import shutil
import time
from pathlib import Path

from tqdm import tqdm

from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_atomic
from workflow_data.chunks import ChunkOptions, chunk_path, cut, find_chunks, make_chunk
from workflow_data.sources import FolderSource, Selection, TableSource, dataset_rows, open_source
from workflow_data.tokenizers import NAMES, BPETokenizer, TCTTokenizer
from workflow_data.work_folder import resumable_folder, sync, work_folder
from workflow_data.workers import run_in_processes
from workflow_data.writer import assemble

OUTPUTS = {
    "train.pt",
    "val.pt",
    "test.pt",
    "train_states.pt",
    "val_states.pt",
    "test_states.pt",
    "metadata.json",
    "workflows.jsonl",
    "skipped.jsonl",
    "tokenizer.json",
    "prepared.png",
}
SHARD_OUTPUTS = {"chunks", "settings.json", "records.json"}
# The flags that decide what is written. A run that is resumed, and all shards of one set, must agree on them.
SETTINGS = (
    "input",
    "dataset",
    "data_dir",
    "split",
    "text_column",
    "path_column",
    "path_glob",
    "max_files",
    "repair",
    "near_dedup",
    "tokenizer",
    "states",
    "context_size",
    "stride",
    "window_step",
    "max_windows_per_workflow",
    "train_split",
    "test_split",
    "split_by",
    "seed",
)


@cli_errors
def main(argv=None):
    prepare(parse_arguments(argv))


def parse_arguments(argv):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser = ArgumentParser(
        description="Turn GitHub workflows into training windows.",
        epilog="A flag may be written --num-workers or "
        "--num_workers. Reasons why a workflow is left out, shards, sources: tct-bundle/docs/DATA.md.",
    )
    add = parser.add_argument_group("where workflows come from").add_argument
    add(
        "--input",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH",
        help="folder of .json, .yml, .yaml files or of checkouts, or .jsonl or .parquet files",
    )
    add("--dataset", metavar="NAME", help="data set to stream, as for datasets.load_dataset")
    add("--data_dir", metavar="DIR", help="its folder, as for datasets.load_dataset")
    add("--split", default="train", help="its split (default: %(default)s)")
    add("--text_column", default="content", metavar="NAME", help="of a table: the workflow's text (%(default)s)")
    add("--path_column", default="path", metavar="NAME", help="of a table: the workflow's path (%(default)s)")
    add("--path_glob", metavar="GLOB", help="take paths that end so, such as '.github/workflows/*'")
    add("--max-files", type=int, metavar="N", help="read the first N only")

    add = parser.add_argument_group("which of them are taken").add_argument
    add("--repair", action="store_true", help="rewrite what GitHub accepts and the schema rejects")
    add(
        "--near-dedup",
        type=float,
        nargs="?",
        const=0.85,
        metavar="SHARE",
        help="drop a workflow that has this share of its steps in common with one before (%(const)s)",
    )
    add("--train-split", type=float, default=0.8, help="share that trains, the rest validates (default: %(default)s)")
    add("--test-split", type=float, default=0.0, help="share set apart as a third part (default: none)")
    add(
        "--split-by",
        default="file",
        metavar="WHAT",
        help="what stays together on one side: file, folder, owner (of folders OWNER__REPOSITORY), or a column's name "
        "(default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="another seed is another split (default: %(default)s)")

    add = parser.add_argument_group("what is written").add_argument
    add("--output", required=True, type=Path, help="folder to write; replaces an earlier prepared set")
    add(
        "--tokenizer",
        default="tct",
        metavar="WHICH",
        help="tct; a baseline learned from the training split: bpe, or bpe-unsplit, whose merges cross any boundary; "
        "or the tokenizer.json of such a one",
    )
    add(
        "--states",
        action="store_true",
        help="write train_states.pt and val_states.pt too: the place of the schema that each token leads to",
    )
    add("--context-size", type=int, default=512, help="tokens in a window (default: %(default)s)")
    add("--stride", type=int, default=32, help="tokens for one step of the position (default: %(default)s)")
    add("--window-step", type=int, help="tokens from window to window, a multiple of the stride (default: the stride)")
    add("--max-windows-per-workflow", type=int, metavar="N", help="keep N of a training workflow, evenly spread")

    add = parser.add_argument_group("how the work is done").add_argument
    add(
        "--num_workers",
        type=int,
        default=cores,
        help="processes; their number changes nothing in the output (default: cores, here %(default)s)",
    )
    add("--resume", action="store_true", help="go on with an interrupted run of the same flags")
    add("--shard", metavar="I/N", help="do part I of N (1/N to N/N); --output is then for --merge")
    add("--merge", nargs="+", type=Path, metavar="SHARD", help="join the outputs of all shards")
    return parser.parse_args(argv)


# -----------------------------------------------------------------------------
# the road


def prepare(args):
    started = time.monotonic()
    output = args.output.expanduser().resolve()
    if args.merge:
        args, chunks, records = open_shards(args)
        settings = {"merge": [str(shard) for shard in args.merge]}
    else:
        check_arguments(args)
        settings = {name: getattr(args, name) for name in (*SETTINGS, "shard")} | {"files": describe_files(args)}
    replaces = SHARD_OUTPUTS if args.shard else OUTPUTS
    with resumable_folder(output, settings, args.resume, "chunks/*.json", replaces, is_earlier_result) as (work, new):
        if not args.merge:
            records = tokenise(args, work, output)
            chunks = find_chunks(work / "chunks")
        if args.shard:
            shutil.copytree(work / "chunks", new / "chunks")
            for name in ("settings.json", "records.json"):
                shutil.copy(work / name, new)
        else:
            if len(chunks) != records["chunks"]:
                raise ValueError(f"{len(chunks)} chunks of {records['chunks']} are there: start anew without --resume")
            try:
                report = assemble(args, chunks, records, work, new)
            except ValueError:  # it would come to that again
                (work / "records.json").unlink(missing_ok=True)
                shutil.rmtree(work / "chunks", ignore_errors=True)
                raise
            for path in new.iterdir():
                sync(path)
    if args.shard:
        print(f"shard {args.shard} of {records['records']:,} records is in {output}; --merge joins it with the others")
    else:
        print_report(report)
        print(f"\nwritten to {output} in {time.monotonic() - started:.0f} s")


def is_earlier_result(output: Path) -> bool:
    """Whether a folder is a prepared set or a shard of one."""
    keys_of = {"metadata.json": {"context_size", "tokenizer", "splits"}, "settings.json": {"shard", *SETTINGS}}
    for name, keys in keys_of.items():
        try:
            if keys <= json.loads((output / name).read_bytes()).keys():
                return True
        except (OSError, ValueError, AttributeError):
            continue
    return False


def check_arguments(args):
    """Raises one ValueError that names every flag that cannot be."""
    faults = []
    if not args.input and not args.dataset:
        faults.append("--input or --dataset is needed: where the workflows are")
    for flag in ("context_size", "stride", "window_step", "max_windows_per_workflow", "max_files", "num_workers"):
        value = getattr(args, flag)
        if value is not None and value < 1:
            faults.append(f"--{flag.replace('_', '-')} must be at least 1, not {value}")
    if not faults:
        step = args.window_step or args.stride
        if step % args.stride:
            faults.append(f"--window-step {step} must be a multiple of --stride {args.stride}")
        if step > args.context_size:
            faults.append(
                f"windows every {step} tokens would leave tokens out; "
                f"--stride and --window-step must be at most --context-size {args.context_size}"
            )
    for flag in ("train_split", "test_split", "near_dedup"):
        if not 0 <= (getattr(args, flag) or 0) <= 1:
            faults.append(f"--{flag.replace('_', '-')} must be from 0 to 1, not {getattr(args, flag)}")
    if not faults and args.train_split + args.test_split > 1:
        faults.append(f"--train-split {args.train_split} and --test-split {args.test_split} are more than all")
    if args.states and args.tokenizer != "tct":
        faults.append("--states are those of --tokenizer tct: other tokens have none")
    if args.shard:
        part, _, parts = args.shard.partition("/")
        if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
            faults.append(f"--shard must be I/N with I from 1 to N, not {args.shard}")
    if args.tokenizer not in ("tct", *NAMES):
        try:
            BPETokenizer.load(args.tokenizer)
        except (ValueError, OSError) as error:
            faults.append(f"--tokenizer must be tct, {', '.join(NAMES)} or a file: {error}")
    if faults:
        raise ValueError("; ".join(faults))


def describe_files(args) -> dict[str, str]:
    """What flags do not say: whether the files that they name have changed, and the tokenizer."""
    paths = [Path(name).expanduser() for name in (*args.input, args.tokenizer)]
    sizes = {str(path): f"{path.stat().st_size} bytes" for path in paths if path.is_file()}
    return sizes | {"workflow tokenizer": TCTTokenizer().fingerprint}


# -----------------------------------------------------------------------------
# tokenising: records to chunks


def tokenise(args, work: Path, output: Path) -> dict:
    """Writes all chunks that are not yet there, of the shard if one is named; gives how many records and chunks there
    are in all shards, how many records were left alone, and a hash of their names."""
    done = work / "records.json"
    if done.exists():
        return json.loads(done.read_bytes())
    folder = work / "chunks"
    folder.mkdir(exist_ok=True)
    for half_done in folder.glob("*.tmp"):
        half_done.unlink(missing_ok=True)  # a worker of a killed run may be at it still
    sources = open_sources(args, output)
    keep_listings(sources, work / "listings.json")
    options = ChunkOptions(args.repair, args.tokenizer != "tct", args.near_dedup is not None, args.states)
    part, parts = map(int, args.shard.split("/")) if args.shard else (1, 1)
    names, records, chunks = hashlib.sha256(), 0, 0

    with tqdm(
        total=count_files(sources, args.max_files), desc="tokenise", unit="file", smoothing=0.05, disable=None
    ) as progress:

        def calls():
            nonlocal records, chunks
            stream = itertools.islice(itertools.chain.from_iterable(sources), args.max_files)
            for index, chunk in enumerate(cut(stream)):
                records, chunks = records + len(chunk), chunks + 1
                names.update("".join(f"{record.name}\0" for record in chunk).encode(errors="surrogateescape"))
                path = chunk_path(folder, index)
                if index % parts != part - 1 or path.exists():
                    progress.update(len(chunk))
                else:
                    yield path, chunk, options

        for count in run_in_processes(make_chunk, calls(), args.num_workers):
            progress.update(count)
    result = {
        "records": records,
        "chunks": chunks,
        "left_alone": sum(source.left_alone for source in sources),
        "names": names.hexdigest(),
    }
    write_atomic(done, json.dumps(result).encode())
    return result


def count_files(sources, max_files: int | None) -> int | None:
    """How many records there will be, where one can know."""
    if not all(isinstance(source, FolderSource) for source in sources):
        return max_files
    count = sum(len(source.files) for source in sources)
    return min(count, max_files or count)


def open_sources(args, output: Path) -> list[FolderSource | TableSource]:
    selection = Selection(args.split_by, args.text_column, args.path_column, args.path_glob)
    several = len(args.input) + bool(args.dataset) > 1  # then names begin with that of their source
    sources = [
        open_source(
            location, selection, f"{location.rstrip('/')}:" if several else "", avoid=(output, work_folder(output))
        )
        for location in args.input
    ]
    if args.dataset:
        sources.append(
            TableSource(
                lambda: dataset_rows(args.dataset, args.data_dir, args.split, selection),
                selection,
                f"{args.dataset}:" if several else "",
            )
        )
    return sources


def keep_listings(sources, path: Path):
    """So that a run that is resumed reads the files that it began with, whatever came or went."""
    folders = [source for source in sources if isinstance(source, FolderSource)]
    if path.exists():
        for source, (files, left_alone) in zip(folders, json.loads(path.read_bytes())):
            source.files, source.left_alone = files, left_alone
    else:
        write_atomic(path, json.dumps([(source.files, source.left_alone) for source in folders]).encode())


def open_shards(args):
    """(arguments as the shards had them, chunks of all shards in order, records as `tokenise` gives them)."""
    found, chunks, records, settings = {}, [], None, None
    for shard in args.merge:
        folder = shard.expanduser()
        try:
            theirs = json.loads((folder / "settings.json").read_bytes())
            seen = json.loads((folder / "records.json").read_bytes())
            number = theirs.pop("shard")
            chunks += find_chunks(folder / "chunks")
        except (OSError, ValueError, KeyError):
            raise ValueError(f"--merge {shard}: no finished output of --shard") from None
        if number in found:
            raise ValueError(f"--merge {shard}: is shard {number}, and so is {found[number]}")
        found[number] = shard
        if (theirs, seen) != (settings or theirs, records or seen):
            raise ValueError(f"--merge {shard}: made with other flags or from other files than {args.merge[0]}")
        settings, records = theirs, seen
    parts = int(number.split("/")[1])
    missing = [f"{part}/{parts}" for part in range(1, parts + 1) if f"{part}/{parts}" not in found]
    if missing:
        raise ValueError(f"--merge: shard {', '.join(missing)} is missing")
    if settings.pop("files")["workflow tokenizer"] != TCTTokenizer().fingerprint:
        raise ValueError(f"--merge {args.merge[0]}: made with another version of the workflow tokenizer")
    chunks.sort(key=lambda chunk: int(chunk.stem))
    return argparse.Namespace(**vars(args) | settings), chunks, records


# -----------------------------------------------------------------------------
# telling


def print_report(metadata: dict):
    splits = metadata["splits"]
    rows = [("workflows found", metadata["total_records"])]
    rows += [(f"skipped: {reason}", count) for reason, count in metadata["skipped"].items()]
    rows += [("workflows taken", metadata["total_workflows"])]
    rows += [(f"repaired: {repair}", count) for repair, count in metadata["repairs"].items()]
    if metadata["left_alone"]:
        rows += [("other files left alone", metadata["left_alone"])]
    rows += [
        (f"{side} {what}", split[what])
        for what in ("workflows", "windows", "tokens", "targets")
        for side, split in splits.items()
    ]
    print()
    for label, number in rows:
        print(f"{label:<36} {number:>14,}")
    tokens, characters = (sum(split[what] for split in splits.values()) for what in ("tokens", "characters"))
    print(f"{'characters per token':<36} {characters / tokens:>14.2f}")
    print_share_of_long(splits["train"], metadata["context_size"])
    for side, split in splits.items():
        if not split["workflows"]:
            print(f"warning: {side}.pt is empty; more workflows or other shares of the split will fill it")


def print_share_of_long(train: dict, context_size: int):
    """What overlapping windows do to the balance of the training data."""
    if not train["long_windows"]:
        return
    share, seen = train["long_windows"] / train["windows"], train["long_targets"] / train["long_tokens"]
    print(f"{'train windows of long workflows':<36} {share:>14.1%}")
    print(f"{'times that each of their tokens is seen':<36} {seen:>11.1f}")
    if train["unseen_tokens"]:
        print(
            f"warning: {train['unseen_tokens']:,} training tokens are in no window; a larger "
            "--max-windows-per-workflow would hold them"
        )
    if share > 0.5 and seen > 2:
        workflows = train["long_workflows"] / train["workflows"]
        print(
            f"note: {share:.0%} of the training windows come from the {workflows:.0%} of workflows longer than "
            f"{context_size} tokens, and each of their tokens is seen {seen:.1f} times; "
            f"--window-step {context_size} or --max-windows-per-workflow evens that out"
        )


if __name__ == "__main__":
    main()

"""Workflows to training windows: read, check, drop duplicates, tokenise, split, write.

    python prepare_training_data.py --input workflows/ --output prepared/ --context-size 512 --stride 32

A window is one int16 row [position, tok_0 .. tok_{C-1}] with position = start // stride. Output: train.pt and
val.pt ([N, C+1] each), metadata.json, and skipped.jsonl with one line for each file that was left out.
"""

import contextlib
import hashlib
import itertools
import json
import math
import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tct_github_workflow.command_line import ArgumentParser, exit_code
from tct_github_workflow.workflow_files import FileTooLargeError, find_files, load_file, publish_folder
from tct_github_workflow.workflow_yaml import WorkflowSyntaxError
from tct_windows import WindowPlan, windows
from tqdm import tqdm

SIDES = ("train", "val")
OUTPUTS = {"train.pt", "val.pt", "metadata.json", "skipped.jsonl"}


@exit_code
def main(argv=None):
    prepare(parse_arguments(argv))


def parse_arguments(argv):
    parser = ArgumentParser(
        description="Turn a folder of GitHub workflows (.json, .yml, .yaml) into training windows.")
    add = parser.add_argument
    add("--input", required=True, type=Path, help="folder of workflows, searched with its subfolders")
    add("--output", required=True, type=Path, help="folder to write; replaces an earlier prepared set")
    add("--context-size", type=int, default=512, help="tokens in a window (default: %(default)s)")
    add("--stride", type=int, default=32, help="tokens for one step of the position (default: %(default)s)")
    add("--window-step", type=int,
        help="tokens from window to window, a multiple of the stride (default: the stride)")
    add("--train-split", type=float, default=0.8,
        help="share that trains, the rest validates (default: %(default)s)")
    add("--split-by", choices=("file", "folder"), default="file",
        help="what stays together on one side; folder suits one folder a repository (default: %(default)s)")
    add("--max-files", type=int, help="read the first N files only, in sorted order")
    add("--seed", type=int, default=0, help="another seed is another split (default: %(default)s)")
    add("--num-workers", "--num_workers", type=int, default=os.cpu_count(),
        help="processes; their number changes nothing in the output (default: cores, here %(default)s)")
    return parser.parse_args(argv)


# -----------------------------------------------------------------------------
# the road

def prepare(args):
    check_numbers(args)
    source, output = args.input.expanduser(), args.output.expanduser().resolve()
    plan = make_plan(args)
    skipped = []
    files = find_inputs(source, output, args.max_files, skipped)
    with publish_folder(output, replaces=OUTPUTS) as folder:
        spool = folder / "tokens.bin"
        workflows = encode_files(source, files, plan, args.num_workers, spool, skipped)
        groups = [group_of(workflow, args.split_by) for workflow in workflows]
        sides = split_groups(groups, args.train_split, args.seed)
        tokens = np.memmap(spool, np.int16, mode="r")
        splits = {}
        for side in SIDES:
            chosen = [workflow for workflow, group in zip(workflows, groups) if sides[group] == side]
            write_windows(folder / f"{side}.pt", chosen, tokens, plan)
            splits[side] = totals(chosen, plan)
        del tokens
        spool.unlink()
        write_skipped(folder / "skipped.jsonl", skipped)
        metadata = make_metadata(args, plan, workflows, splits, skipped)
        (folder / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")
        for path in folder.iterdir():
            sync(path)
    print_report(len(files), workflows, splits, skipped, plan, output)


def check_numbers(args):
    """Raises one ValueError that names every number out of range."""
    faults = []
    for flag in ("context_size", "stride", "window_step", "max_files", "num_workers"):
        value = getattr(args, flag)
        if value is not None and value < 1:
            faults.append(f"--{flag.replace('_', '-')} must be at least 1, not {value}")
    if not faults:
        step = args.window_step or args.stride
        if step % args.stride:
            faults.append(f"--window-step {step} must be a multiple of --stride {args.stride}")
        if step > args.context_size:
            faults.append(f"windows every {step} tokens would leave tokens out; "
                          f"--stride and --window-step must be at most --context-size {args.context_size}")
    if not 0 <= args.train_split <= 1:
        faults.append(f"--train-split must be from 0 to 1, not {args.train_split}")
    if faults:
        raise ValueError("; ".join(faults))


def make_plan(args):
    import tct_github_workflow as tokenizer

    return WindowPlan(args.context_size, args.stride, args.window_step or args.stride,
                      tokenizer.vocab_size(), tokenizer.pad_token())


def find_inputs(source, output, max_files, skipped):
    """The files to read; an output folder inside the input is no input."""
    def unlistable(error):
        path = Path(error.filename).relative_to(source).as_posix()
        skipped.append(Skipped(path, "unreadable", error.strerror))

    files = find_files(source, onerror=unlistable)
    if output.is_relative_to(source.resolve()):
        prefix = output.relative_to(source.resolve()).as_posix() + "/"
        files = [file for file in files if not file.startswith(prefix)]
    if not files:
        raise FileNotFoundError(f"{source} has no .json, .yml or .yaml file")
    return files[:max_files]


# -----------------------------------------------------------------------------
# encoding

@dataclass(frozen=True)
class Encoded:
    """What a worker makes of one file."""
    tokens: np.ndarray  # int16
    digest: bytes       # of the canonical value: equal for equal workflows, whatever their key order
    json_bytes: int     # of the compact JSON in UTF-8
    characters: int


@dataclass(frozen=True)
class Skipped:
    file: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Workflow:
    """A workflow that is in: its tokens are spool[offset:offset + length]."""
    file: str
    digest: bytes
    offset: int
    length: int
    json_bytes: int
    characters: int


def encode_file(source: Path, file: str) -> Encoded | Skipped:
    """Reads and tokenises one file. Runs in a worker process."""
    import tct_github_workflow as tokenizer

    try:
        value = load_file(source / file)
        text = compact_json(value)
        canonical = compact_json(value, sort_keys=True)
        tokens = tokenizer.encode(text)
    except FileTooLargeError as error:
        return Skipped(file, "too_large", str(error))
    except OSError as error:
        return Skipped(file, "unreadable", error.strerror or str(error))
    except WorkflowSyntaxError as error:
        return Skipped(file, "syntax", str(error))
    except RecursionError:
        return Skipped(file, "syntax", "nested too deeply")
    except ValueError as error:
        return Skipped(file, "not_schema_valid", str(error))
    return Encoded(np.array(tokens, np.int16), hashlib.sha256(canonical.encode()).digest(),
                   len(text.encode()), len(text))


def encode_files(source, files, plan, num_workers, spool, skipped) -> list[Workflow]:
    """Tokens of all good files to the spool file, in order; the others to skipped, with the reason."""
    workflows, first_file, offset = [], {}, 0
    with open(spool, "wb") as out, ordered_map(encode_file, source, files, num_workers) as results:
        for result, file in zip(tqdm(results, "tokenise", len(files), unit="file", disable=None), files):
            if isinstance(result, Skipped):
                skipped.append(result)
            elif result.digest in first_file:
                skipped.append(Skipped(file, "duplicate", f"same value as {first_file[result.digest]}"))
            elif not plan.fits(len(result.tokens)):
                skipped.append(Skipped(file, "too_long", plan.remedy(len(result.tokens))))
            else:
                first_file[result.digest] = file
                out.write(result.tokens.tobytes())
                workflows.append(Workflow(file, result.digest, offset, len(result.tokens),
                                          result.json_bytes, result.characters))
                offset += len(result.tokens)
    if not workflows:
        counts = ", ".join(f"{reason} {count}" for reason, count in count_reasons(skipped).items())
        raise ValueError(f"no valid workflow in {source}: {counts}; for example "
                         f"{skipped[0].file!r}: {skipped[0].detail}")
    return workflows


@contextlib.contextmanager
def ordered_map(function, source, files, num_workers):
    """function(source, file) for all files, in order, in num_workers processes (1: in this one)."""
    if num_workers == 1:
        yield (function(source, file) for file in files)
        return
    executor = ProcessPoolExecutor(num_workers, initializer=end_with_parent)
    try:
        with ctrl_c_held_back():  # the workers start here, and never hear it: this process answers for all
            results = executor.map(function, itertools.repeat(source), files, chunksize=16)
        yield results
    except BrokenProcessPool:
        raise OSError("a worker process was killed, perhaps for memory; try fewer --num-workers") from None
    finally:
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def ctrl_c_held_back():
    """Delivers SIGINT after the block; threads and processes that start in it hold it back for good."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def end_with_parent():
    """Ends this worker when its parent is killed; it would wait for work forever."""
    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def compact_json(value, sort_keys=False):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)


# -----------------------------------------------------------------------------
# splitting

def group_of(workflow: Workflow, split_by: str) -> bytes:
    """What never stands on both sides: the workflow's value, or the folder that its file is in."""
    if split_by == "file":
        return workflow.digest
    return os.fsencode(os.path.dirname(workflow.file))


def split_groups(groups: list[bytes], train_split: float, seed: int) -> dict[bytes, str]:
    """A side for each group, by its own hash alone: other groups, order and machine change nothing.

    One exception, for small sets: a side that the hash leaves empty though train_split gives it a share gets
    the group nearest to it.
    """
    place = {group: place_of(group, seed) for group in groups}  # in [0, 1)
    train = {group for group in place if place[group] < train_split}
    if not train and train_split > 0:
        train.add(min(place, key=place.get))
    if len(train) == len(place) > 1 and train_split < 1:
        train.remove(max(place, key=place.get))
    return {group: "train" if group in train else "val" for group in place}


def place_of(group: bytes, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}:".encode() + group).digest()
    return int.from_bytes(digest[:6]) / 2**48  # 48 bits: exact as a float, and never rounded up to 1


# -----------------------------------------------------------------------------
# writing

def write_windows(path: Path, workflows: list[Workflow], tokens: np.ndarray, plan: WindowPlan):
    """One tensor with the windows of all workflows, in pieces: memory does not grow with their number."""
    import torch

    rows = sum(plan.count(workflow.length) for workflow in workflows)
    raw = path.with_suffix(".bin")
    with open(raw, "wb") as out:
        out.writelines(windows(tokens[workflow.offset:workflow.offset + workflow.length], plan)
                       for workflow in tqdm(workflows, path.stem, unit="workflow", disable=None))
    shape = (rows, plan.context_size + 1)
    if rows:
        table = torch.from_file(str(raw), size=math.prod(shape), dtype=torch.int16).view(shape)
    else:  # an empty file cannot be mapped
        table = torch.empty(shape, dtype=torch.int16)
    try:
        torch.save(table, path)
    except RuntimeError:  # how torch says that the disk is full
        raise OSError(f"cannot write {path.name}; is the disk full?") from None
    raw.unlink()


def write_skipped(path, skipped):
    with open(path, "w") as out:
        out.writelines(json.dumps(asdict(item)) + "\n" for item in skipped)


def sync(path):
    """Waits until the file is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def make_metadata(args, plan, workflows, splits, skipped):
    import tct_github_workflow as tokenizer

    return {
        "context_size": plan.context_size,
        "stride": plan.stride,
        "window_step": plan.window_step,
        "vocab_size": plan.vocab_size,
        "pad_token": plan.pad_token,
        "tokenizer": {"name": "tct_github_workflow", "fingerprint": tokenizer.fingerprint()},
        "total_workflows": len(workflows),
        "splits": splits,
        "skipped": count_reasons(skipped),
        "seed": args.seed,
        "split_by": args.split_by,
        "train_split": args.train_split,
    }


def totals(workflows, plan):
    return {
        "workflows": len(workflows),
        "windows": sum(plan.count(workflow.length) for workflow in workflows),
        "tokens": sum(workflow.length for workflow in workflows),
        "json_bytes": sum(workflow.json_bytes for workflow in workflows),
    }


def count_reasons(skipped):
    return dict(sorted(Counter(item.reason for item in skipped).items()))


def print_report(files, workflows, splits, skipped, plan, output):
    tokens = sum(workflow.length for workflow in workflows)
    targets = sum(plan.targets(workflow.length) for workflow in workflows)
    rows = [("files read", files), ("workflows", len(workflows))]
    rows += [(f"skipped: {reason}", count) for reason, count in count_reasons(skipped).items()]
    rows += [(f"{side} {what}", splits[side][what]) for what in ("workflows", "windows", "tokens")
             for side in SIDES]
    rows += [("targets, windows overlapping", targets)]
    print()
    for label, number in rows:
        print(f"{label:<30}{number:>15,}")
    print(f"{'characters per token':<30}{sum(w.characters for w in workflows) / tokens:>15.2f}")
    print(f"\nwritten to {output}" + (", skipped files listed in skipped.jsonl" if skipped else ""))
    for side in SIDES:
        if not splits[side]["workflows"]:
            print(f"warning: {side}.pt is empty; more workflows or another --train-split will fill it")


if __name__ == "__main__":
    sys.exit(main())

"""Proof that preparation gives the same bytes whatever happens: workers, shards, SIGKILL at random moments.

    python -m scripts.stress.prepare --input workflows/ --count 20 -- --split-by folder

What follows -- goes to prepare_training_data.py. One run, with one worker, is what all others are held against.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from script_tools.cli import ArgumentParser, cli_errors
from workflow_data.work_folder import work_folder

SCRIPT = Path(__file__).parent.parent / "tct-bundle/scripts/prepare_training_data.py"
SHARDS = 4


@cli_errors
def main(argv=None):
    parser = ArgumentParser(prog="python -m scripts.stress.prepare", description=__doc__.split("\n")[0])
    parser.add_argument("--input", required=True, metavar="PATH", help="workflows to prepare")
    parser.add_argument("--count", type=int, default=20, metavar="N", help="kills (default: 20)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments to kill at (default: 0)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="for what is written (default: a temporary folder)")
    parser.add_argument("flags", nargs="*", metavar="-- FLAG", help="more flags for the preparation")
    args = parser.parse_args(argv)

    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        start = ["--input", args.input, *args.flags]
        output = Path(folder, "out")
        begun = time.monotonic()
        prepare(*start, "--output", output, "--num_workers", 1)
        seconds, expected = time.monotonic() - begun, hash_folder(output)
        print(f"one worker: {seconds:.1f} s, {expected[:16]}", flush=True)
        for workers in (2, 4):
            prepare(*start, "--output", output, "--num_workers", workers)
            compare(f"{workers} workers", output, expected)

        shards = [Path(folder, f"shard-{part}") for part in range(1, SHARDS + 1)]
        for part, shard in enumerate(shards, 1):
            prepare(*start, "--output", shard, "--shard", f"{part}/{SHARDS}")
        prepare("--merge", *shards, "--output", output)
        compare(f"{SHARDS} shards merged", output, expected)

        shutil.rmtree(output)
        die_and_resume(
            [*start, "--output", output, "--resume", "--num_workers", 2],
            output,
            args.count,
            seconds,
            random.Random(args.seed),
            expected,
        )


def die_and_resume(flags: list, output: Path, count: int, seconds: float, chance: random.Random, expected: str):
    """Kills `count` runs, each resumed after the last; what is finished meanwhile is compared and begun anew."""
    kills, ends, where = 0, 0, Counter()
    while kills < count:
        process = subprocess.Popen(
            command(*flags), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            process.wait(chance.uniform(0.3, seconds / 2))
        except subprocess.TimeoutExpired:
            kill(process)
            process.wait()
            kills += 1
            where[place(output)] += 1
        else:
            ends += 1
            compare(f"finished after {kills} kills", output, expected)
            shutil.rmtree(output)
    prepare(*flags)
    compare(f"{count} kills, {ends + 1} runs that came to their end", output, expected)
    print("killed " + ", ".join(f"{times} times {stage}" for stage, times in sorted(where.items())))


def kill(process: subprocess.Popen):
    """Kills a run and its workers; on Windows these end with it."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def place(output: Path) -> str:
    """How far the run was that writes the output."""
    work = work_folder(output)
    if not (work / "chunks").exists():
        return "while starting"
    return "while assembling" if (work / "records.json").exists() else "while tokenising"


def command(*flags) -> list[str]:
    return [sys.executable, str(SCRIPT), *map(str, flags)]


def prepare(*flags):
    result = subprocess.run(command(*flags), capture_output=True, text=True)
    if result.returncode:
        raise ValueError(f"preparation failed: {result.stderr.strip()}")


def hash_folder(folder: Path) -> str:
    """SHA-256 over names and contents of all files."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def compare(what: str, output: Path, expected: str):
    if hash_folder(output) != expected:
        raise ValueError(f"{what}: other bytes")
    print(f"{what}: the same bytes", flush=True)


if __name__ == "__main__":
    main()

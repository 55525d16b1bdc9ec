"""Prove that data preparation writes the same bytes with any number of workers, in shards, and after random kills.

    python -m scripts.stress.prepare --input workflows/ --count 20 -- --split-by folder

Flags after -- go to the preparation. All runs are compared with one undisturbed run with one worker.
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

SHARDS = 4


@cli_errors
def main(argv=None):
    parser = ArgumentParser(prog="python -m scripts.stress.prepare", description=__doc__.split("\n")[0])
    parser.add("--input", "workflows to prepare", required=True, metavar="PATH")
    parser.add("--count", "kills", 20)
    parser.add("--seed", "seed of the moments of the kills", 0)
    parser.add("--work", "folder for the data (default: a temporary folder)", type=Path, metavar="DIR")
    parser.add("flags", "more flags for the preparation", nargs="*", metavar="-- FLAG")
    flags = parser.parse_args(argv)

    with tempfile.TemporaryDirectory(dir=flags.work) as folder:
        start = ["--input", flags.input, *flags.flags]
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
        resumed = [*start, "--output", output, "--resume", "--num_workers", 2]
        kill_and_resume(resumed, output, flags.count, seconds, random.Random(flags.seed), expected)


def kill_and_resume(flags: list, output: Path, count: int, seconds: float, chance: random.Random, expected: str):
    """Kill `count` runs at random moments. Each next run resumes the last one, or starts again if that has finished."""
    kills, ends, moments = 0, 0, Counter()
    while kills < count:
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command(*flags), start_new_session=True, **silent)
        try:
            process.wait(chance.uniform(0.3, seconds / 2))
        except subprocess.TimeoutExpired:
            kill(process)
            process.wait()
            kills += 1
            moments[stage(output)] += 1
        else:
            ends += 1
            compare(f"finished after {kills} kills", output, expected)
            shutil.rmtree(output)
    prepare(*flags)
    compare(f"{count} kills, {ends + 1} runs that finished", output, expected)
    print("killed " + ", ".join(f"{times} times {moment}" for moment, times in sorted(moments.items())))


def kill(process: subprocess.Popen):
    """Kill a run and its workers. On Windows the workers end with their parent."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def stage(output: Path) -> str:
    """Return how far the run that writes the output has come."""
    work = work_folder(output)
    if not (work / "chunks").exists():
        return "while starting"
    return "while writing" if (work / "records.json").exists() else "while tokenizing"


def command(*flags) -> list[str]:
    return [sys.executable, "-m", "workflow_data.prepare", *map(str, flags)]


def prepare(*flags):
    result = subprocess.run(command(*flags), capture_output=True, text=True)
    if result.returncode:
        raise ValueError(f"preparation failed: {result.stderr.strip()}")


def hash_folder(folder: Path) -> str:
    """Return a SHA-256 of the names and contents of all files."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def compare(what: str, output: Path, expected: str):
    if hash_folder(output) != expected:
        raise ValueError(f"{what}: the bytes differ")
    print(f"{what}: the same bytes", flush=True)


if __name__ == "__main__":
    main()

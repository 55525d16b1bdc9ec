"""Measure the time and memory of data preparation, on workflows that are repeated under other names.

    python -m scripts.bench.prepare --input workflows/ --files 10000 100000 --output bench.json

For each number of files, as JSON and as YAML: seconds of the whole command, files per second and core, and the peak
memory of all its processes together. Memory is the proportional set size, sampled, on Linux only. It includes the pages
of files that are mapped.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import count, islice
from pathlib import Path

from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_json
from tct_github_workflow.files import find_files, read_file
from tct_github_workflow.workflow_yaml import load_workflow

SAMPLE_EVERY = 0.25  # seconds
NAME = re.compile(r"(?m)^name:.*$")


@cli_errors
def main(argv=None):
    parser = ArgumentParser(prog="python -m scripts.bench.prepare", description=__doc__.split("\n")[0])
    parser.add("--input", "folder of YAML workflows", type=Path, required=True, metavar="DIR")
    parser.add("--files", "sizes (default: 10000 100000)", [10_000, 100_000], type=int, nargs="+")
    parser.add("--formats", "(default: both)", ["json", "yml"], type=str, nargs="+", choices=["json", "yml"])
    parser.add("--num_workers", "processes (default: cores)", os.cpu_count())
    parser.add("--work", "folder for the data (default: a temporary folder)", type=Path, metavar="DIR")
    parser.add("--output", "file for the results as JSON", type=Path, metavar="FILE")
    parser.add("flags", "more flags for the preparation", nargs="*", metavar="-- FLAG")
    flags = parser.parse_args(argv)

    results = []
    with tempfile.TemporaryDirectory(dir=flags.work) as folder:
        for suffix in flags.formats:
            for files in flags.files:
                source = Path(folder, f"{files}-{suffix}")
                write_workflows(flags.input.expanduser(), source, suffix, files)
                result = measure(source, Path(folder, "out"), flags.num_workers, flags.flags)
                run = {"format": suffix, "files": files, "num_workers": flags.num_workers, "flags": flags.flags}
                results.append(run | result)
                speed = f"{result['seconds']:>8.1f} s {result['per_core']:>8,.0f} files/s and core"
                print(f"{suffix:<4} {files:>9,} files {speed} {result['peak_mib']:>8,.0f} MiB", flush=True)
    if flags.output:
        write_json(flags.output, {"cpu": os.cpu_count(), "results": results})


def write_workflows(source: Path, target: Path, suffix: str, files: int):
    """Write this many different workflows: those of the source, repeated under other names."""
    texts = {file: read_file(source / file).decode(errors="replace") for file in find_files(source)}
    if suffix == "json":
        texts = {file: value for file, text in texts.items() if isinstance(value := parse(text), dict)}
    copies = ((file, number) for number in count() for file in texts)
    for file, number in islice(copies, files):
        path = target / f"{number:03d}" / f"{file}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        name = f"Copy {number} of {Path(file).stem}"
        if suffix == "json":
            text = json.dumps(texts[file] | {"name": name}, ensure_ascii=False)
        else:
            text, found = NAME.subn(f"name: {name}", texts[file], count=1)
            text = text if found else f"name: {name}\n{text}"
        path.write_text(text, "utf-8")


def parse(text: str):
    """Return the value of a YAML text, or None if it is not valid."""
    with suppress(ValueError):
        return load_workflow(text)


def measure(source: Path, output: Path, num_workers: int, flags: list[str]) -> dict:
    """Run one preparation, and return its seconds, its peak memory and the size of its output."""
    command = [sys.executable, "-m", "workflow_data.prepare", "--input", source, "--output", output]
    command += ["--num-workers", num_workers, *flags]
    started, peak = time.monotonic(), 0
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    while process.poll() is None:
        peak = max(peak, sum(map(memory, family(process.pid))))
        time.sleep(SAMPLE_EVERY)
    seconds = time.monotonic() - started
    if process.returncode:
        raise ValueError(f"preparation failed with exit code {process.returncode}")
    metadata = json.loads((output / "metadata.json").read_bytes())
    return {
        "seconds": round(seconds, 1),
        "peak_mib": round(peak / 2**20),
        "per_core": round(metadata["total_records"] / seconds / min(num_workers, os.cpu_count())),
        "workflows": metadata["total_workflows"],
        "windows": sum(split["windows"] for split in metadata["splits"].values()),
    }


def family(pid: int) -> list[int]:
    """Return the ids of a process and of all processes that descend from it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended
        return []
    return [pid, *(member for child in children for member in family(int(child)))]


def memory(pid: int) -> int:
    """Return the bytes of memory of a process. Pages that n processes share count as a part 1/n."""
    try:
        return int(re.search(r"Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())[1]) * 1024
    except (OSError, TypeError):
        return 0


if __name__ == "__main__":
    main()

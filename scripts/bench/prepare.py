"""How fast and how large is preparation? Workflows repeated with other names, from JSON and from YAML.

    python -m scripts.bench.prepare --input workflows/ --files 10000 100000 --output bench.json

For each size and format: seconds of the whole command, files per second and core, and the peak of the memory of all
its processes together (Linux: proportional set size, sampled), of which the pages of files it maps are a part.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from itertools import count, islice
from pathlib import Path

from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_atomic

SCRIPT = Path(__file__).parent.parent / "tct-bundle/scripts/prepare_training_data.py"
SAMPLE_EVERY = 0.25  # seconds
NAME = re.compile(r"(?m)^name:.*$")


@cli_errors
def main(argv=None):
    parser = ArgumentParser(prog="python -m scripts.bench.prepare", description=__doc__.split("\n")[0])
    parser.add_argument("--input", required=True, type=Path, metavar="DIR", help="folder of YAML workflows")
    parser.add_argument(
        "--files", type=int, nargs="+", default=[10_000, 100_000], metavar="N", help="sizes (default: 10000 100000)"
    )
    parser.add_argument("--formats", nargs="+", default=["json", "yml"], choices=["json", "yml"])
    parser.add_argument("--num_workers", type=int, default=os.cpu_count(), help="(default: cores)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="for what is written (default: a temporary folder)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the results as JSON")
    parser.add_argument("flags", nargs="*", metavar="-- FLAG", help="more flags for the preparation")
    args = parser.parse_args(argv)

    results = []
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        for suffix in args.formats:
            for files in args.files:
                source = Path(folder, f"{files}-{suffix}")
                write_workflows(args.input.expanduser(), source, suffix, files)
                results.append(
                    {
                        "format": suffix,
                        "files": files,
                        "num_workers": args.num_workers,
                        "flags": args.flags,
                        **measure(source, Path(folder, "out"), args),
                    }
                )
                print(
                    "{format:<4} {files:>9,} files {seconds:>8.1f} s {per_core:>8,.0f} files/s and core "
                    "{peak_mib:>8,.0f} MiB".format(**results[-1]),
                    flush=True,
                )
    if args.output:
        write_atomic(args.output, json.dumps({"cpu": os.cpu_count(), "results": results}, indent=2).encode() + b"\n")


def write_workflows(source: Path, target: Path, suffix: str, files: int):
    """So many workflows of the source, again and again under other names, no two alike."""
    from tct_github_workflow.files import find_files, read_file
    from tct_github_workflow.workflow_yaml import load_workflow

    texts = {file: read_file(source / file).decode(errors="replace") for file in find_files(source)}
    if suffix == "json":
        values = {}
        for file, text in texts.items():
            try:
                values[file] = load_workflow(text)
            except ValueError:
                continue
        texts = {file: value for file, value in values.items() if isinstance(value, dict)}
    copies = ((file, number) for number in count() for file in texts)
    for file, number in islice(copies, files):
        path = target / f"{number:03d}" / f"{file}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        name = f"Copy {number} of {Path(file).stem}"
        if suffix == "json":
            path.write_text(json.dumps(texts[file] | {"name": name}, ensure_ascii=False), "utf-8")
        elif NAME.search(texts[file]):
            path.write_text(NAME.sub(f"name: {name}", texts[file], count=1), "utf-8")
        else:
            path.write_text(f"name: {name}\n{texts[file]}", "utf-8")


def measure(source: Path, output: Path, args) -> dict:
    """Seconds and peak memory of one preparation."""
    command = [
        sys.executable,
        SCRIPT,
        "--input",
        source,
        "--output",
        output,
        "--num_workers",
        str(args.num_workers),
        *args.flags,
    ]
    started, peak = time.monotonic(), 0
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    while process.poll() is None:
        peak = max(peak, sum(map(memory, family(process.pid))))
        time.sleep(SAMPLE_EVERY)
    seconds = time.monotonic() - started
    if process.returncode:
        raise ValueError(f"preparation ended with {process.returncode}")
    metadata = json.loads((output / "metadata.json").read_bytes())
    return {
        "seconds": round(seconds, 1),
        "peak_mib": round(peak / 2**20),
        "per_core": round(metadata["total_records"] / seconds / min(args.num_workers, os.cpu_count())),
        "workflows": metadata["total_workflows"],
        "windows": sum(split["windows"] for split in metadata["splits"].values()),
    }


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended
        return []
    return [pid, *(member for child in children for member in family(int(child)))]


def memory(pid: int) -> int:
    """Bytes of memory of a process; what it shares with others counts in part."""
    try:
        return int(re.search(r"Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())[1]) * 1024
    except (OSError, TypeError):
        return 0


if __name__ == "__main__":
    main()

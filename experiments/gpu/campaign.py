"""Measure one GPU in a limited time and without a network, most valuable figures first.

    bash experiments/gpu/campaign.sh --wheels WHEELS --data PREPARED --output RESULTS --seconds 600

Each step is a process of its own with a share of the time. If a step fails or takes too long, this is reported, and
the next step runs. Every figure is written to RESULTS/results.jsonl as soon as it is known. RESULTS has at most 8 files
of at most 15 MiB, 60 MiB together. --dry-run runs every line on a CPU with the smallest models.

This file needs only Python, because it installs what the steps need.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STEPS = {"correct": 0.25, "fast": 0.35, "trained": 1.0}  # step -> maximum share of the remaining time
MAX_FILES, MAX_FILE, MAX_TOTAL = 8, 15 << 20, 60 << 20  # limits for the returned files, in bytes
DRY_WORKFLOWS = 40


def main():
    args = parse_arguments()
    started = time.monotonic()
    args.output.mkdir(parents=True, exist_ok=True)
    if any(args.output.iterdir()):
        sys.exit(f"error: --output {args.output} is not empty: give a new folder, so that no result is lost")
    with tempfile.TemporaryDirectory() as work:
        log = (args.output / "log.txt").open("wb")
        environment = environment_of(args, Path(work))
        data = args.data.resolve() if args.data else compose(Path(work), environment, log)
        failed = []
        for name, share in STEPS.items():
            seconds = share * (args.seconds - (time.monotonic() - started))
            status, taken = run_step(args, name, data, Path(work), seconds, environment, log)
            note(args.output, {"step": name, "check": "step", "status": status, "seconds": round(taken, 1)})
            print(f"{name:8} {taken:6.1f} s  {status}", flush=True)
            if status != "ok":
                failed.append(name)
    list_files(args.output)
    sys.exit(f"error: {', '.join(failed)} failed: see {args.output / 'log.txt'}" if failed else 0)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output", type=Path, default=ROOT / "out/gpu", help="new folder for the results (default: out/gpu)")
    add("--data", type=Path, help="folder prepared with --states (default: a small embedded sample)")
    add("--wheels", type=Path, help="folder of wheels to install first, made by wheels.sh")
    add("--seconds", type=float, default=600, help="time for all steps (default: 600)")
    add("--device", help="cuda or cpu (default: cuda, or cpu with --dry-run)")
    add("--against", type=Path, help="checkout with another nanochat/gpt.py, to compare its speed")
    add("--dry-run", action="store_true", help="run every line with the smallest models")
    add("--fail", choices=STEPS, action="append", default=[], help="make this step fail, to see that others still run")
    args = parser.parse_args()
    args.device = args.device or ("cpu" if args.dry_run else "cuda")
    return args


def environment_of(args, work: Path) -> dict[str, str]:
    """Unpack the wheels. Return the environment of the steps: this checkout and the wheels on the path, no network."""
    packages = work / "packages"
    for wheel in args.wheels.glob("*.whl") if args.wheels else ():
        zipfile.ZipFile(wheel).extractall(packages)
    path = [ROOT, ROOT / "tct-bundle/src", ROOT / "tct-bundle/adapters", packages]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "HF_HUB_OFFLINE": "1"}
    if args.dry_run:
        environment |= {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}  # compiled paths run without compiling
    return environment


def compose(work: Path, environment: dict, log) -> Path:
    """Prepare a small embedded sample, for training without other data."""
    workflows, prepared = work / "workflows", work / "prepared"
    call([sys.executable, "-m", "scripts.make_synthetic_workflows", "--output", workflows,
          "--count", str(DRY_WORKFLOWS)], environment, log)  # fmt: skip
    call([sys.executable, ROOT / "tct-bundle/scripts/prepare_training_data.py", "--input", workflows, "--output",
          prepared, "--states", "--window-step", "256"], environment, log)  # fmt: skip
    return prepared


def run_step(args, name: str, data: Path, work: Path, seconds: float, environment: dict, log) -> tuple[str, float]:
    """Run a step in a process of its own. Return ("ok" or what went wrong, seconds taken)."""
    command = [sys.executable, HERE / f"{name}.py", "--device", args.device, "--data", data, "--work", work / name,
               "--output", args.output, "--seconds", f"{seconds:.0f}"]  # fmt: skip
    if args.dry_run:
        command.append("--dry-run")
    if args.against and name == "fast":
        command += ["--against", args.against.resolve()]
    if name in args.fail:
        command.append("--fail")
    log.write(f"\n== {name}\n".encode())
    started = time.monotonic()
    try:
        call(command, environment, log, timeout=max(1.0, seconds))
        status = "ok"
    except subprocess.TimeoutExpired:
        status = f"not done after {seconds:.0f} s"
    except subprocess.CalledProcessError as error:
        status = f"failed with exit code {error.returncode}"
    return status, time.monotonic() - started


def call(command: list, environment, log, timeout: float | None = None) -> None:
    """Run a command, and end all its processes with it. Raise TimeoutExpired or CalledProcessError on failure."""
    log.flush()
    command = list(map(str, command))
    with subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
    ) as process:
        try:
            process.wait(timeout)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def note(output: Path, record: dict) -> None:
    """Append a line to results.jsonl and wait until it is on the disk."""
    with (output / "results.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def list_files(output: Path) -> None:
    """Print the files to return, and truncate the log if it is too long."""
    log = output / "log.txt"
    if log.stat().st_size > MAX_FILE:
        log.write_bytes(log.read_bytes()[-MAX_FILE:])
    files = sorted(output.iterdir())
    sizes = [path.stat().st_size for path in files]
    for path, size in zip(files, sizes):
        print(f"{size:12,} bytes  {path.name}")
    if len(files) > MAX_FILES or max(sizes) > MAX_FILE or sum(sizes) > MAX_TOTAL:
        print("warning: these files exceed the limits for returned files")


if __name__ == "__main__":
    main()

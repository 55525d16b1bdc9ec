"""Prove that training survives SIGKILL: kill it at random moments, resume, and get the same weights in the end.

    python -m scripts.stress.training --data_dir prepared/ --count 50
    python -m scripts.stress.training --data_dir prepared/ --count 10 --ranks 2
    python -m scripts.stress.training --data_dir prepared/ -- --previous_token --state_embedding --state_attention

Arguments after -- go to scripts.tct_train. An uninterrupted run is compared, bit for bit, with one that was killed
`count` times at random moments. Some of them are in the middle of a save, because it saves after every iteration.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from script_tools.cli import ArgumentParser, cli_errors

ENDLESS = 1_000_000  # iterations: more than any run makes before it is killed
TRAIN = (
    "scripts.tct_train --model_size=tiny --device=cpu --device_batch_size=1 --gradient_accumulation=2"
    f" --schedule=constant --warmup_iters=10 --keep_last=3 --eval_windows=8 --eval_every={ENDLESS}"
)
SAME = "weights, optimizer and data position equal those of the uninterrupted run, bit for bit"


@cli_errors
def main(argv=None):
    parser = ArgumentParser(prog="python -m scripts.stress.training", description=__doc__.split("\n")[0])
    parser.add("--data_dir", "prepared folder", required=True, metavar="DIR")
    parser.add("--count", "kills", 50)
    parser.add("--ranks", "processes per run", 1)
    parser.add("--seed", "seed of the moments", 0)
    parser.add("more", "further flags of scripts.tct_train", nargs="*", metavar="-- FLAG")
    flags = parser.parse_args(argv)

    start = command_of(flags)
    with tempfile.TemporaryDirectory() as folder:
        uninterrupted, killed = Path(folder, "uninterrupted"), Path(folder, "killed")
        endless = [*start, f"--checkpoint_dir={killed}", "--save_every=1", f"--num_iterations={ENDLESS}"]
        chance, in_a_save = random.Random(flags.seed), 0
        for kill in range(1, flags.count + 1):
            step, half_done = run_and_kill(endless, killed, chance)
            in_a_save += bool(half_done)
            where = f", in a save ({', '.join(half_done)})" if half_done else ""
            print(f"kill {kill:>3} of {flags.count}: the last checkpoint is of iteration {step}{where}", flush=True)
        iterations = step + 1
        run = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL)
        run([*endless, f"--num_iterations={iterations}", *resume_flags(killed)])
        print(f"an uninterrupted run of {iterations} iterations ...", flush=True)
        meta = json.loads((killed / f"meta_{iterations:06d}.json").read_text())
        dtype = meta["settings"]["dtype"]  # a new trial may choose another one
        run([*start, f"--checkpoint_dir={uninterrupted}", f"--num_iterations={iterations}", f"--dtype={dtype}"])

        differing = list(differences(uninterrupted, killed, iterations))
    verdict = f"these tensors differ: {', '.join(differing)}" if differing else SAME
    print(f"{flags.count} kills, {in_a_save} of them in a save: {verdict}")
    if differing:
        raise SystemExit(1)


def command_of(flags) -> list[str]:
    start = [sys.executable, "-m"]
    if flags.ranks > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc_per_node={flags.ranks}", "-m"]
    return [*start, *TRAIN.split(), f"--data_dir={flags.data_dir}", *flags.more]


def run_and_kill(start, folder, chance) -> tuple[int, list[str]]:
    """Start or resume the run and kill it at a random moment; return (last step, files of an unfinished save)."""
    process = subprocess.Popen([*start, *resume_flags(folder)], stdout=subprocess.PIPE, text=True)
    for _ in range(chance.randint(0, 3)):
        assert any(line.startswith("Saved checkpoint") for line in iter(process.stdout.readline, "")), "the run ended"
    time.sleep(chance.uniform(0, 0.5))
    ranks = children(process.pid) if "torch.distributed.run" in start else []
    process.kill()
    for pid in ranks:
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode not in (0, 2), "the run ended before it could be killed"
    steps = steps_of(folder)
    whole = {f"{kind}_{step:06d}.pt" for kind in ("model", "optim") for step in steps}
    unfinished = re.compile(r".*\.(pt|json)\.tmp|(model|optim)_\d+\.pt")
    names = {path.name for path in folder.glob("*")} - whole
    return (steps or [0])[-1], sorted(filter(unfinished.fullmatch, names))


def children(pid: int) -> list[int]:
    """Return the child processes of a process."""
    listed = subprocess.run(["ps", "-A", "-o", "ppid=,pid="], capture_output=True, text=True, check=True).stdout
    return [int(child) for parent, child in map(str.split, listed.splitlines()) if int(parent) == pid]


def resume_flags(folder: Path) -> list[str]:
    """Return the flag that continues from the last checkpoint, if there is one."""
    return ["--resume_from_iteration=latest"] if steps_of(folder) else []


def steps_of(folder: Path) -> list[int]:
    """Return the complete steps of a folder: those with a meta file."""
    return sorted(int(path.stem.removeprefix("meta_")) for path in folder.glob("meta_*.json"))


def differences(one: Path, other: Path, step: int):
    """Yield the names of what differs between two checkpoints."""
    from nanochat.checkpoint_manager import load_checkpoint  # torch is slow to import

    (model, state, _), (other_model, other_state, _) = (load_checkpoint(path, step) for path in (one, other))
    for name, a, b in (("model", model, other_model), ("optim", state, other_state)):
        yield from (f"{name}{path}" for path in unequal(a, b))


def unequal(a, b, path=""):
    """Yield the paths at which two nested dicts and lists of tensors and numbers differ."""
    if hasattr(a, "equal"):  # a tensor
        if not a.equal(b):
            yield path
    elif isinstance(a, dict):
        for key in a.keys() | b.keys():
            yield from unequal(a.get(key), b.get(key), f"{path}.{key}")
    elif isinstance(a, list):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from unequal(x, y, f"{path}[{i}]")
    elif a != b:
        yield path


if __name__ == "__main__":
    main()

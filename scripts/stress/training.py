"""Proof that training cannot be killed: SIGKILL at random moments, resume, and the same weights in the end.

    python -m scripts.stress.training --data_dir prepared/ --count 50
    python -m scripts.stress.training --data_dir prepared/ --count 10 --ranks 2
    python -m scripts.stress.training --data_dir prepared/ -- --previous_token --state_embedding --state_attention

What follows -- goes to scripts.tct_train. A run without interruption is compared, bit for bit, with one that was
killed `count` times: at random times, some of them in the middle of a save, because it saves after every iteration.
"""

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nanochat.checkpoint_manager import list_steps, load_checkpoint, load_meta
from script_tools.cli import ArgumentParser, cli_errors

ENDLESS = 1_000_000  # iterations: no run that is to be killed ends before


@cli_errors
def main(argv=None):
    parser = ArgumentParser(prog="python -m scripts.stress.training", description=__doc__.split("\n")[0])
    parser.add_argument("--data_dir", required=True, metavar="DIR", help="prepared folder")
    parser.add_argument("--count", type=int, default=50, metavar="N", help="kills (default: 50)")
    parser.add_argument("--ranks", type=int, default=1, metavar="N", help="processes of each run (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments to kill at (default: 0)")
    parser.add_argument("more", nargs="*", metavar="-- FLAG", help="more flags for the training")
    flags = parser.parse_args(argv)

    start = [sys.executable, "-m"]
    if flags.ranks > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc_per_node={flags.ranks}", "-m"]
    start += [
        "scripts.tct_train",
        "--model_size=tiny",
        f"--data_dir={flags.data_dir}",
        "--device=cpu",
        "--device_batch_size=1",
        "--gradient_accumulation=2",
        "--schedule=constant",
        "--warmup_iters=10",
        "--keep_last=3",
        "--eval_windows=8",
        f"--eval_every={ENDLESS}",
        *flags.more,
    ]

    with tempfile.TemporaryDirectory() as folder:
        straight, killed = Path(folder, "straight"), Path(folder, "killed")
        endless = [*start, f"--checkpoint_dir={killed}", "--save_every=1", f"--num_iterations={ENDLESS}"]
        chance, in_a_save = random.Random(flags.seed), 0
        for kill in range(1, flags.count + 1):
            step, half_done = live_and_die(endless, killed, chance)
            in_a_save += bool(half_done)
            print(
                f"kill {kill:>3} of {flags.count}: the last checkpoint is of iteration {step}"
                + (f", in a save ({', '.join(half_done)})" if half_done else ""),
                flush=True,
            )
        iterations = step + 1
        run([*endless, f"--num_iterations={iterations}", *resume_flags(killed)])
        print(f"a run of {iterations} iterations without interruption ...", flush=True)
        dtype = load_meta(killed, iterations)["settings"]["dtype"]  # a trial might find the other one now
        run([*start, f"--checkpoint_dir={straight}", f"--num_iterations={iterations}", f"--dtype={dtype}"])

        differing = list(differences(straight, killed, iterations))
    print(
        f"{flags.count} kills, {in_a_save} of them in a save: "
        + (
            f"these tensors differ: {', '.join(differing)}"
            if differing
            else "weights, optimizer and data position are those of the run without, bit for bit"
        )
    )
    if differing:
        raise SystemExit(1)


def run(command: list[str]):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def live_and_die(start, folder, chance) -> tuple[int, list[str]]:
    """Start the run or go on with it, kill it at some moment; (last step, files of a save that was cut)."""
    process = subprocess.Popen([*start, *resume_flags(folder)], stdout=subprocess.PIPE, text=True)
    for _ in range(chance.randint(0, 3)):
        assert any(line.startswith("Saved checkpoint") for line in iter(process.stdout.readline, "")), "it ended"
    time.sleep(chance.uniform(0, 0.5))
    ranks = children(process.pid) if "torch.distributed.run" in start else []
    process.kill()
    for pid in ranks:
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode not in (0, 2), "the run ended before it could be killed"
    names = [path.name for path in folder.glob("*")]
    steps = list_steps(folder)
    half_done = [
        name
        for name in names
        if re.search(r"\.(pt|json)\.tmp$", name)
        or (match := re.fullmatch(r"(?:model|optim)_(\d+)\.pt", name))
        and int(match[1]) not in steps
    ]
    return (steps or [0])[-1], half_done


def children(pid: int) -> list[int]:
    """The processes that a process has started: those of torchrun."""
    listed = subprocess.run(["ps", "-A", "-o", "ppid=,pid="], capture_output=True, text=True, check=True).stdout
    return [int(child) for parent, child in map(str.split, listed.splitlines()) if int(parent) == pid]


def resume_flags(folder: Path) -> list[str]:
    return ["--resume_from_iteration=latest"] if list_steps(folder) else []


def differences(one: Path, other: Path, step: int):
    """Names of what is not the same in two checkpoints."""
    (model, state, _), (other_model, other_state, _) = (load_checkpoint(path, step) for path in (one, other))
    for name, a, b in (("model", model, other_model), ("optim", state, other_state)):
        yield from (f"{name}{place}" for place in unequal(a, b))


def unequal(a, b, place=""):
    """The places at which two nests of dicts, lists, tensors and numbers differ."""
    import torch

    if isinstance(a, torch.Tensor):
        if not torch.equal(a, b):
            yield place
    elif isinstance(a, dict):
        for key in a.keys() | b.keys():
            yield from unequal(a.get(key), b.get(key), f"{place}.{key}")
    elif isinstance(a, list):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from unequal(x, y, f"{place}[{i}]")
    elif a != b:
        yield place


if __name__ == "__main__":
    main()

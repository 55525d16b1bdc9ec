"""Print a digest of everything the documented commands write, to prove that a change of the code changes no byte.

    python -m scripts.stress.golden --checkout BEFORE --output before.json
    python -m scripts.stress.golden --checkout . --output after.json
    diff before.json after.json

The commands run in both checkouts with the packages of this interpreter. Digests can be compared only if
the processor and the release of torch are the same.
"""

import argparse
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PREPARE = "--context-size=512 --stride=32 --train-split=0.9"
TRAIN = (
    "--model_size=tiny --device=cpu --dtype=float32 --device_batch_size=2 --gradient_accumulation=2 --warmup_iters=5"
    " --log_every=1 --eval_every=10 --save_every=10 --num_iterations=20"
)
GENERATE = ("--num_samples=6 --seed=3 --max_tokens=300", "--num_samples=3 --seed=4 --temperature=0.7 --top_k=20"
            " --max_tokens=200 --format=jsonl")  # fmt: skip
RUNS = {
    "plain": ("", ""),
    "states": ("--states --window-step=512 --repair", "--state_embedding --state_attention --previous_token"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkout", type=Path, default=Path("."), help="folder of the checkout whose commands run")
    parser.add_argument("--output", type=Path, help="file for the digests (default: standard output)")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(digests(flags.checkout.resolve(), Path(folder)), indent=1, sort_keys=True) + "\n"
    if flags.output:
        flags.output.write_text(text)
    else:
        print(text, end="")


def digests(checkout: Path, out: Path) -> dict[str, str]:
    """Run prepare, train, resume, generate and evaluate in out. Return a digest of what each writes."""
    run = functools.partial(run_command, checkout)
    run(f"-m scripts.make_synthetic_workflows --output={out}/workflows")
    found = {"workflows": digest_of_folder(out / "workflows")}
    for name, (more_data, more_model) in RUNS.items():
        data, folder, samples = out / f"data_{name}", out / f"run_{name}", out / f"samples_{name}"
        prepare = f"tct-bundle/scripts/prepare_training_data.py {PREPARE} {more_data}"
        run(f"{prepare} --input={out}/workflows --output={data}")
        for file in data.iterdir():
            if file.suffix != ".png":
                found[f"data_{name}/{file.name}"] = digest(file.read_bytes())

        train = f"-m scripts.tct_train {TRAIN} --data_dir={data} --checkpoint_dir={folder} {more_model}"
        run(train)
        found |= {f"run_{name}/{key}": value for key, value in read_losses(folder).items()}
        for step in (10, 20):
            found[f"run_{name}/weights/{step}"] = digest_of_weights(folder / f"model_{step:06d}.pt")
        run(f"{train} --resume_from_iteration=10")
        found[f"run_{name}/weights/20, resumed"] = digest_of_weights(folder / "model_000020.pt")

        model = f"--checkpoint={folder} --device=cpu --dtype=float32"
        run(f"-m scripts.generate_workflow {model} {GENERATE[0]} --output={samples}")
        found[f"samples_{name}"] = digest_of_folder(samples)
        lines = run(f"-m scripts.generate_workflow {model} {GENERATE[1]}").splitlines()
        found[f"samples_{name}.jsonl"] = digest_of([{**json.loads(line), "seconds": None} for line in lines])
        run(f"-m scripts.tct_eval {model} --data_dir={data} --num_samples=4 --max_tokens=200")
        evaluation = json.loads((folder / "eval/eval.json").read_text())
        found[f"eval_{name}"] = digest_of(evaluation | dict.fromkeys(("checkpoint", "data_dir", "left_out")))
    return found


def run_command(checkout: Path, command: str) -> str:
    """Run a command in a checkout with its own packages, and return its standard output."""
    paths = [checkout, *(checkout / "tct-bundle" / name for name in ("src", "adapters"))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "2"}
    print("+", command, file=sys.stderr)
    command = [sys.executable, *command.split()]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def read_losses(folder: Path) -> dict[str, str]:
    """Return the losses of a run with all their digits."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [(key, record) for record in records for key in ("loss", "val_loss") if key in record]
    return {f"{key}/{record['step']:02d}": repr(record[key]) for key, record in losses}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of(value) -> str:
    return digest(json.dumps(value, sort_keys=True).encode())


def digest_of_folder(folder: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return digest_of([(str(file.relative_to(folder)), digest(file.read_bytes())) for file in files])


def digest_of_weights(file: Path) -> str:
    """Return the digest of a checkpoint's tensors, whatever else its file contains."""
    import torch  # slow, and --help does not need it

    tensors = torch.load(file, weights_only=True)
    return digest(b"".join(name.encode() + tensors[name].contiguous().numpy().tobytes() for name in sorted(tensors)))


if __name__ == "__main__":
    main()

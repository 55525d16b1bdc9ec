"""Print a digest of everything the documented commands write, to prove that a change of the code changes no byte.

    python -m scripts.stress.golden --checkout BEFORE --output before.json
    python -m scripts.stress.golden --checkout . --output after.json
    diff before.json after.json

The commands run in both checkouts with the packages of this interpreter. Digests are comparable on one processor with
one release of torch only.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TRAIN = ["--model_size=tiny", "--device=cpu", "--dtype=float32", "--device_batch_size=2", "--gradient_accumulation=2",
         "--warmup_iters=5", "--log_every=1", "--eval_every=10"]  # fmt: skip
STATES = ["--state_embedding", "--state_attention", "--previous_token"]


def main():
    flags = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    flags.add_argument("--checkout", type=Path, default=Path("."), help="folder of the checkout whose commands run")
    flags.add_argument("--output", type=Path, help="file for the digests (default: standard output)")
    flags = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(digests(flags.checkout.resolve(), Path(folder)), indent=1, sort_keys=True) + "\n"
    if flags.output:
        flags.output.write_text(text)
    else:
        print(text, end="")


def digests(checkout: Path, out: Path) -> dict:
    """Run prepare, train, resume, generate and evaluate, and return the digest or the figures of what each writes."""

    def run(*command: str | Path) -> str:
        paths = [checkout, *(checkout / "tct-bundle" / name for name in ("src", "adapters"))]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "2"}
        print("+", *command, file=sys.stderr)
        command = [sys.executable, *map(str, command)]
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        return done.stdout

    def prepare(name: str, *more: str) -> Path:
        run("tct-bundle/scripts/prepare_training_data.py", "--input", out / "workflows", "--output", out / name,
            "--context-size=512", "--stride=32", "--train-split=0.9", *more)  # fmt: skip
        return out / name

    def train(name: str, data: Path, *more: str) -> Path:
        command = ["-m", "scripts.tct_train", *TRAIN, f"--data_dir={data}", f"--checkpoint_dir={out / name}", *more]
        run(*command, "--num_iterations=20", "--save_every=10")
        return out / name

    found = {}
    synthetic = (
        "make_synthetic_workflows"
        if (checkout / "scripts/make_synthetic_workflows.py").exists()
        else "sample_workflows"
    )
    run("-m", f"scripts.{synthetic}", "--output", out / "workflows")
    found["workflows"] = digest_of_folder(out / "workflows")
    plain, states = prepare("plain"), prepare("states", "--states", "--window-step=512", "--repair")
    for folder in (plain, states):
        for file in sorted(folder.iterdir()):
            if file.suffix not in (".png",):
                found[f"{folder.name}/{file.name}"] = digest(file)

    runs = {"plain": train("run_plain", plain), "states": train("run_states", states, *STATES)}
    for name, folder in runs.items():
        metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for metric in metrics:
            if "loss" in metric or "val_loss" in metric:
                key = "val_loss" if "val_loss" in metric else "loss"
                found[f"run_{name}/{key}/{metric['step']:02d}"] = repr(metric[key])
        for file in ("model_000010.pt", "model_000020.pt"):
            found[f"run_{name}/{file}"] = weights_digest(folder / file)
        resumed = train(f"run_{name}", plain if name == "plain" else states,
                        *(STATES if name == "states" else []), "--resume_from_iteration=10")  # fmt: skip
        found[f"run_{name}/resumed"] = weights_digest(resumed / "model_000020.pt")
        options = ["--checkpoint", folder, "--device=cpu", "--dtype=float32"]
        samples = out / f"samples_{name}"
        run(
            "-m",
            "scripts.generate_workflow",
            *options,
            "--num_samples=6",
            "--seed=3",
            "--max_tokens=300",
            "--output",
            samples,
        )
        found[f"samples_{name}"] = digest_of_folder(samples)
        text = run("-m", "scripts.generate_workflow", *options, "--num_samples=3", "--seed=4", "--temperature=0.7",
                   "--top_k=20", "--max_tokens=200", "--format=jsonl")  # fmt: skip
        found[f"samples_{name}.jsonl"] = hashlib.sha256(text.encode()).hexdigest()
        run("-m", "scripts.tct_eval", *options, "--data_dir", plain if name == "plain" else states, "--num_samples=4",
            "--max_tokens=200")  # fmt: skip
        evaluation = json.loads((folder / "eval" / "eval.json").read_text())
        for key in ("checkpoint", "data_dir", "left_out"):
            evaluation.pop(key, None)
        found[f"eval_{name}"] = hashlib.sha256(json.dumps(evaluation, sort_keys=True).encode()).hexdigest()
    return found


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def digest_of_folder(folder: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    names = [f"{file.relative_to(folder)} {digest(file)}" for file in files]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def weights_digest(file: Path) -> str:
    """Return the digest of a checkpoint's tensors: the same weights, whatever the container holds besides."""
    import torch  # slow, and --help does without it

    hashed = hashlib.sha256()
    for name, tensor in sorted(torch.load(file, weights_only=True).items()):
        hashed.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return hashed.hexdigest()


if __name__ == "__main__":
    main()

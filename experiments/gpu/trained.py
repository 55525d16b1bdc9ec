"""Step 3: train the best model that fits in the remaining time, and return weights, metrics and samples.

The model is `small` with schema positions, because its weights fit into the returned files, and as int8 into the
project. Value embeddings would add 60% to them. Its speed, measured by step 2, gives the number of updates. The
resulting number of epochs gives dropout and weight decay: the more often a model sees the same workflows, the more it
memorizes them without regularization.
"""

import json
import shutil
import signal
import subprocess
import sys

import torch
from pieces import write_pieces
from step import Step

from nanochat.checkpoint_manager import best_dir, load_model
from workflow_data.reader import read_metadata

CONTEXT = 512
ROWS = 32  # contexts per update, as in the preset
CAUTIOUS_SPEED = 200_000  # tokens per second, if step 2 has none
TRAINING_SHARE = 0.7  # of the remaining time; the rest is for starting, validation, samples and export
SAMPLE_SECONDS = 60  # reserved for samples and export
MAX_EPOCHS = 32
REGULARIZATION = ((4, 0.0, 0.1), (8, 0.1, 0.2), (16, 0.2, 0.4), (MAX_EPOCHS, 0.3, 0.6))  # epochs, dropout, decay
EVALUATIONS = 16


def main():
    step = Step(__doc__)
    args = step.args
    with step.check("plan") as plan:
        plan |= make_plan(args, step.seconds_left())
    with step.check("training") as figures:
        figures |= train(args, plan, step.seconds_left() - SAMPLE_SECONDS * (not args.dry_run))
    with step.check("weights") as figures:
        figures |= export(args)
    with step.check("samples") as figures:
        figures |= generate(args)
    step.end()


def make_plan(args, seconds: float) -> dict:
    """Choose updates, dropout and weight decay for the data and the time."""
    data_targets = read_metadata(str(args.data))["splits"]["train"]["tokens"]
    if args.dry_run:
        return {"model_size": "tiny", "rows": 1, "num_iterations": 4, "dropout": 0.1, "weight_decay": 0.1,
                "epochs": 4 * CONTEXT / data_targets}  # fmt: skip
    speed = measured_speed(args) or CAUTIOUS_SPEED
    per_update = ROWS * CONTEXT
    updates = int(TRAINING_SHARE * (seconds - SAMPLE_SECONDS) * speed / per_update)
    updates = max(1, min(updates, MAX_EPOCHS * data_targets // per_update))
    epochs = updates * per_update / data_targets
    _, dropout, weight_decay = next(row for row in REGULARIZATION if epochs <= row[0])
    return {"model_size": "small", "rows": ROWS, "num_iterations": updates, "dropout": dropout,
            "weight_decay": weight_decay, "epochs": epochs, "assumed_tokens_per_second": speed}  # fmt: skip


def measured_speed(args) -> float | None:
    """Return the tokens per second of `small` with flags, compiled, as step 2 measured it."""
    lines = [json.loads(line) for line in (args.output / "results.jsonl").read_text().splitlines()]
    speeds = [
        line["tokens_per_second"] for line in lines
        if line.get("size") == "small" and line["flags"] and line["compiled"] and "tokens_per_second" in line
    ]  # fmt: skip
    return speeds[0] if speeds else None


def train(args, plan: dict, seconds: float) -> dict:
    """Run tct_train. If it takes too long, stop it; it then saves, and its best model is kept."""
    updates = plan["num_iterations"]
    command = [
        sys.executable, "-m", "scripts.tct_train", "--data_dir", args.data, "--checkpoint_dir", args.work / "model",
        "--device", args.device, "--model_size", plan["model_size"], "--num_iterations", updates,
        "--device_batch_size", plan["rows"], "--dropout", plan["dropout"], "--weight_decay", plan["weight_decay"],
        "--warmup_iters", min(1000, updates // 10), "--eval_every", max(1, updates // EVALUATIONS),
        "--eval_windows", 8 if args.dry_run else 1024, "--save_every", updates, "--log_every", 20,
        "--previous_token", "--state_embedding", "--state_attention", "--random_cuts",
    ]  # fmt: skip
    process = subprocess.Popen(list(map(str, command)))
    try:
        status = process.wait(max(1.0, seconds))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        status = process.wait()
    metrics = args.work / "model/metrics.jsonl"
    shutil.copy(metrics, args.output / "metrics.jsonl")
    losses = [line for line in map(json.loads, metrics.read_text().splitlines()) if "val_loss" in line]
    best = min(losses, key=lambda line: line["val_loss"])
    return {"ok": status == 0, "exit_code": status, "best": best, "last": losses[-1]}


def export(args) -> dict:
    """Write the weights of the best model, and what is needed to use them."""
    model, meta = load_model(best_dir(args.work / "model"))
    files = write_pieces(model.state_dict(), args.output)
    return {
        "files": files,
        "parameters": model.num_parameters(),
        "meta": {name: meta[name] for name in ("step", "model_config", "data", "settings", "versions", "val_loss")},
    }


def generate(args) -> dict:
    """Write 100 samples of the best model to samples.jsonl."""
    count, most = (2, 64) if args.dry_run else (100, 1024)
    output = args.output / "samples.jsonl"
    command = [sys.executable, "-m", "scripts.generate_workflow", "--checkpoint", best_dir(args.work / "model"),
               "--num_samples", count, "--max_tokens", most, "--batch_size", 50, "--temperature", 0.7, "--format",
               "jsonl", "--device", args.device, "--output", output]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True)
    samples = list(map(json.loads, output.read_text().splitlines()))
    complete = sum(sample["finish_reason"] == "complete" for sample in samples)
    return {"ok": len(samples) == count, "samples": len(samples), "complete": complete}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

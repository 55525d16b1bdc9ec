"""Make a checkpoint the model that ships: write workflow_model/model.safetensors, evaluate it, and write its card.

    python experiments/model/release.py --checkpoint out/model/run --data_dir out/model/data

The evaluation is written to experiments/model/eval, the card to workflow_model/README.md.
"""

import json
import subprocess
import sys
from pathlib import Path
from string import Template

import workflow_model
from nanochat.checkpoint_manager import load_model
from nanochat.compact import save_compact
from nanochat.loss_eval import evaluate_loss
from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_atomic
from script_tools.tables import fenced, table
from tct_packing import packed_data_loader
from workflow_eval.report import completion_rows, held_out_rows, metric_rows, sampling, set_names

HERE = Path(__file__).parent
EVALUATION = HERE / "eval"
BATCH, WINDOWS = 16, 400  # to measure the cost of rounding
KEPT = ("step", "model_config", "data", "settings", "versions", "seconds")  # of the meta of a checkpoint
PATHS = ("data_dir", "experiment", "run")  # settings that say nothing to others
MOST_BYTES = 25e6


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description="Make a checkpoint the model that ships.")
    parser.add("--checkpoint", "a file model_NNNNNN.pt, or a folder: its last checkpoint", required=True)
    parser.add("--data_dir", "prepared folder; its validation split is scored", required=True)
    parser.add("--num_samples", "workflows to generate", 200)
    parser.add("--temperature", "of the samples; by default that of generate_workflow", 0.8)
    args = parser.parse_args(argv)
    model, meta = load_model(args.checkpoint)
    kept = {name: meta[name] for name in KEPT}
    kept["settings"] = {name: value for name, value in meta["settings"].items() if name not in PATHS}
    save_compact(workflow_model.PATH, model.state_dict(), kept)
    if (size := workflow_model.PATH.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{workflow_model.PATH} has {size:,} bytes, more than {MOST_BYTES:,.0f}")
    losses = [held_out_loss(each, args.data_dir) for each in (model, load_model(workflow_model.PATH)[0])]
    evaluate = "-m", "scripts.tct_eval", "--data_dir", args.data_dir, "--output", EVALUATION, "--dtype", "float32"
    samples = "--num_samples", args.num_samples, "--temperature", args.temperature
    subprocess.run([sys.executable, *map(str, (*evaluate, *samples))], check=True)
    results = json.loads((EVALUATION / "eval.json").read_bytes())
    write_atomic(Path(workflow_model.PATH.parent, "README.md"), card(model, meta, results, losses, size).encode())


def held_out_loss(model, data_dir: str) -> float:
    """Return the loss on some held-out workflows, in nats per token."""
    config = model.config
    options = {"max_windows": WINDOWS, "with_states": config.n_states > 0}
    nats, tokens = evaluate_loss(model, packed_data_loader(BATCH, config.sequence_len, "val", data_dir, **options))
    return nats / tokens


def card(model, meta: dict, results: dict, losses: list[float], size: int) -> str:
    """Return the model card. The losses are those before and after the weights were rounded."""
    config, train = meta["model_config"], meta["data"]["splits"]["train"]
    before, after = losses
    samples = [path.read_text() for path in sorted((EVALUATION / "samples").glob("*.yml"))[:5]]
    return Template((HERE / "card.md").read_text()).substitute(
        parameters=f"{model.num_parameters():,}",
        shape=f"{config['n_embd']} x {config['n_layer']} layers x {config['n_head']} heads",
        megabytes=f"{size / 1e6:.1f}",
        fingerprint=meta["data"]["tokenizer"]["fingerprint"],
        workflows=f"{train['workflows']:,}",
        tokens=f"{train['tokens']:,}",
        updates=f"{meta['step']:,}",
        targets=f"{meta['step'] * meta['settings']['device_batch_size'] * config['sequence_len']:,}",
        hours=f"{meta['seconds'] / 3600:.1f}",
        rounding=f"{before:.4f} to {after:.4f} nats per token ({after / before - 1:+.2%})",
        held_out_workflows=f"{results['held_out']['val_workflows']:,}",
        held_out=table(("", "", "interval"), held_out_rows(results["held_out"])),
        num_samples=results["num_samples"],
        sampling=sampling(results),
        ended=f"{results['samples']['ended_by_model']:.0%}",
        metrics=table(("", *set_names(results)), metric_rows(results)),
        completions=table(("", "right", ""), completion_rows(results)),
        samples="\n\n".join(fenced(sample, "yaml") for sample in samples),
    )


if __name__ == "__main__":
    main()

"""Write README.md, with tables and plots, from the files that the campaign returned.

    python experiments/gpu/report.py results/ [--output experiments/gpu] [--model out/gpu-model]

--model also writes the weights as a checkpoint, for generate_workflow, tct_eval and tct_train.
"""

import argparse
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from script_tools.cli import ArgumentParser, cli_errors
from tct_github_workflow.workflow_yaml import dump_workflow

HERE = Path(__file__).parent
SAMPLES_SHOWN = 3
REFERENCE_UPDATES, REFERENCE_ROWS = 50_000, 32  # the documented run of `small`


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="folder that the campaign wrote")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for README.md and plots (default: here)")
    parser.add_argument("--model", type=Path, help="new folder for the model as a checkpoint")
    args = parser.parse_args(argv)
    if not (args.results / "results.jsonl").is_file():
        raise ValueError(f"{args.results} has no results.jsonl: give the folder that campaign.sh --output wrote")
    records = [json.loads(line) for line in (args.results / "results.jsonl").read_text().splitlines()]
    by_check = {(record["step"], record["check"]): record for record in records}
    metrics = read_lines(args.results / "metrics.jsonl")
    args.output.mkdir(parents=True, exist_ok=True)
    sections = [
        head(by_check), steps(records), correctness(records), speed(records, args.output),
        training(by_check, metrics, args.output), samples(args.results), profile(records),
    ]  # fmt: skip
    (args.output / "README.md").write_text("\n\n".join(filter(None, sections)) + "\n")
    print(f"written to {args.output / 'README.md'}")
    if args.model:
        write_model(args.results, by_check["trained", "weights"]["meta"], args.model)


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def table(header: list[str], rows: list[list]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def head(by_check: dict) -> str:
    machine = by_check.get(("correct", "machine"), {})
    device = machine.get("gpu", "a CPU (a dry run: the figures say nothing about a GPU)")
    return (
        f"# One GPU\n\nMeasured on {device}, torch {machine.get('torch')}, CUDA {machine.get('cuda')}, by\n\n"
        "    bash experiments/gpu/campaign.sh --wheels WHEELS --data PREPARED --output RESULTS\n"
        "    python experiments/gpu/report.py RESULTS\n\n"
        "PREPARED is made by `prepare_training_data.py --states --window-step 512 --split-by owner`."
    )


def steps(records: list[dict]) -> str:
    rows = [[r["step"], r["status"], f"{r['seconds']:.0f}"] for r in records if r["check"] == "step"]
    return "## Steps\n\n" + table(["step", "result", "seconds"], rows)


def correctness(records: list[dict]) -> str:
    checks = [r for r in records if r["step"] == "correct" and r["check"] not in ("step", "machine")]
    compared = [r for r in checks if "logits" in r]
    names = ["logits", "logits_rounding", "gradients", "gradients_rounding"]
    rows = [[r["check"], *(f"{r[name]:.1e}" for name in names), verdict(r)] for r in compared]
    header = ["path", "logits", "(CPU)", "gradients", "(CPU)", "correct"]
    others = [[r["check"], summary(r), verdict(r)] for r in checks if r not in compared]
    return (
        "## Is every path correct?\n\nRelative errors against float32 on the CPU; in brackets the CPU's own, in the "
        f"same dtype.\n\n{table(header, rows)}\n\n{table(['check', 'found', 'correct'], others)}"
    )


def verdict(record: dict) -> str:
    return "yes" if record["ok"] else f"**no**: {record.get('error', '')}".removesuffix(": ")


def summary(record: dict) -> str:
    shown = ("bitwise", "largest", "samples", "valid", "greedy_tokens", "greedy_tokens_alike")
    return ", ".join(f"{name} {record[name]:.2g}" if isinstance(record[name], float) else f"{name} {record[name]}"
                     for name in shown if name in record)  # fmt: skip


def speed(records: list[dict], folder: Path) -> str:
    cases = [r for r in records if r["step"] == "fast" and "tokens_per_second" in r and "size" in r]
    rows = [
        [r["check"], f"{r['tokens_per_second']:,.0f}", f"{r['mfu']:.1%}" if "mfu" in r else "", f"{r['tflops']:.3g}",
         f"{r['ms_per_update']:.1f}", f"{r['memory'] / 2**30:.1f}", f"{r['warm_up_seconds']:.0f}"]
        for r in cases
    ]  # fmt: skip
    others = [
        f"- {r['check']}: {r.get('error') or r.get('left_out') or figures_of(r)}"
        for r in records if r["step"] == "fast" and r not in cases and r["check"] != "step" and "table" not in r
    ]  # fmt: skip
    text = "## How fast is it?\n\n" + table(
        ["case", "tokens / s", "MFU", "TFLOP/s", "ms / update", "GiB", "warm-up, s"], rows
    )
    reference = [r for r in cases if r["size"] == "small" and r["rows"] == REFERENCE_ROWS]
    if reference:
        minutes = REFERENCE_UPDATES * min(r["ms_per_update"] for r in reference) / 60_000
        text += f"\n\nThe reference run, {REFERENCE_UPDATES:,} updates of `small`, would take {minutes:.1f} minutes."
    if cases:
        figure, axes = plt.subplots(figsize=(8, 0.4 * len(cases) + 1.2))
        axes.barh([r["check"] for r in cases][::-1], [r["tokens_per_second"] for r in cases][::-1])
        axes.set_xlabel("tokens per second")
        figure.savefig(folder / "speed.png", dpi=120, bbox_inches="tight")
        text += "\n\n![Tokens per second of each case](speed.png)"
    return "\n\n".join([text, "\n".join(others)])


def figures_of(record: dict) -> str:
    return ", ".join(f"{name} {value:,.3g}" for name, value in record.items()
                     if isinstance(value, float) and name != "seconds")  # fmt: skip


def training(by_check: dict, metrics: list[dict], folder: Path) -> str:
    plan, result = by_check.get(("trained", "plan")), by_check.get(("trained", "training"))
    if not plan or not metrics:
        return "## The model\n\nNo model was trained."
    losses = [(m["step"], m["loss"]) for m in metrics if "loss" in m]
    validations = [(m["step"], m["val_loss"]) for m in metrics if "val_loss" in m]
    figure, axes = plt.subplots(figsize=(8, 4))
    axes.plot(*zip(*losses), label="training")
    axes.plot(*zip(*validations), "o-", label="validation")
    axes.set_xlabel("update")
    axes.set_ylabel("nats per token")
    axes.legend()
    figure.savefig(folder / "loss.png", dpi=120, bbox_inches="tight")
    best = result.get("best", {})
    rows = [[name, f"{value:.4g}" if isinstance(value, float) else value] for name, value in plan.items()
            if name not in ("step", "check", "ok", "seconds")]  # fmt: skip
    rows += [[f"best {name}", f"{value:.4g}"] for name, value in best.items()]
    return f"## The model\n\n{table(['', ''], rows)}\n\n![Loss over updates](loss.png)"


def samples(results: Path) -> str | None:
    found = read_lines(results / "samples.jsonl")
    if not found:
        return None
    texts = [dump_workflow(sample["workflow"]).rstrip() for sample in found[:SAMPLES_SHOWN]]
    shown = "\n\n".join(f"```yaml\n{text}\n```" for text in texts)
    return f"## The first {len(texts)} of {len(found)} samples\n\n{shown}"


def profile(records: list[dict]) -> str | None:
    tables = [f"## {r['check'].capitalize()}\n\n```\n{r['table']}\n```" for r in records if "table" in r]
    return "\n\n".join(tables) or None


def write_model(results: Path, meta: dict, folder: Path) -> None:
    from pieces import read_pieces

    from nanochat.checkpoint_manager import list_steps, save_checkpoint

    if list_steps(folder):
        raise ValueError(f"--model {folder} already holds checkpoints: give another folder")
    meta = dict(meta)
    save_checkpoint(folder, meta.pop("step"), read_pieces(results), None, meta)
    print(f"model written to {folder}")


if __name__ == "__main__":
    sys.exit(main())

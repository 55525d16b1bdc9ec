"""Print the tables of the study in Markdown and write curve.png, from results.jsonl.

python experiments/vocabulary/report.py
"""

import json
import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from script_tools.cli import ArgumentParser, cli_errors

HERE = Path(__file__).parent
REFERENCE = "ours"
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}  # two-sided 95% points of Student's t by degrees of freedom


@cli_errors
def main(argv=None):
    ArgumentParser(description=__doc__).parse_args(argv)
    lines = [json.loads(line) for line in (HERE / "results.jsonl").read_text().splitlines()]
    runs = defaultdict(dict)  # updates -> recipe -> seed -> line
    for line in lines:
        if "bpb" in line:
            runs[line["updates"]].setdefault(line["recipe"], {})[line["seed"]] = line
    for updates, recipes in sorted(runs.items()):
        print_table(updates, recipes)
    print("\n| tokens only | vocabulary | tokens per workflow | characters per token |\n|---|---:|---:|---:|")
    for line in lines:
        if "bpb" not in line:
            print(f"| {line['recipe']} | {line['vocab_size']:,} | {density(line)} |")
    draw(runs[max(runs)])


def print_table(updates: int, recipes: dict) -> None:
    """Print one row per recipe, sorted by the difference from the reference over the seeds that both have."""
    tokens = next(iter(recipes[REFERENCE].values()))["tokens"]
    differences = {
        name: [line["bpb"] - recipes[REFERENCE][seed]["bpb"] for seed, line in seeds.items()]
        for name, seeds in recipes.items()
    }
    print(f"\n{updates} updates, {tokens:,} tokens\n")
    print(f"| recipe | seeds | minus {REFERENCE} | bits per byte | tokens per workflow | characters per token |")
    print("|---|---:|---:|---|---:|---:|")
    for name in sorted(recipes, key=lambda name: statistics.mean(differences[name])):
        seeds = recipes[name]
        difference = "" if name == REFERENCE else interval(differences[name], "+.4f")
        bpb = ", ".join(f"{seeds[seed]['bpb']:.4f}" for seed in sorted(seeds))
        print(f"| {name} | {len(seeds)} | {difference} | {bpb} | {density(seeds[0])} |")


def interval(values: list[float], form: str) -> str:
    """Return the mean and half the width of the 95% interval of Student's t."""
    mean = format(statistics.mean(values), form)
    if len(values) < 2:
        return mean
    width = T95[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean} ± {width:.4f}"


def density(line: dict) -> str:
    return f"{line['tokens_per_workflow']:.0f} | {line['characters_per_token']:.2f}"


def draw(recipes: dict) -> None:
    """Draw the curves of seed 0."""
    import matplotlib.pyplot as plt

    lines = [seeds[0] for seeds in recipes.values()]
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for line in lines:
        tokens, bpb = zip(*line["curve"])
        axes.plot([n * line["flops"] / line["tokens"] for n in tokens], bpb, marker="o", label=line["recipe"])
    axes.set(xlabel="FLOPs of training, seed 0", ylabel="bits per byte, a quarter of the scored documents")
    axes.legend()
    figure.savefig(HERE / "curve.png", dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    sys.exit(main())

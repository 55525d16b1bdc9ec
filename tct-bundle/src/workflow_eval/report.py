"""Write the report of an evaluation: figures, report.md, and report.html, which has the same contents in one file."""

from pathlib import Path

import numpy as np

from script_tools.figures import add_legend, new_figure, use_logarithmic_scale
from script_tools.files import write_atomic
from script_tools.pages import render_page
from script_tools.tables import fenced, table

SAMPLES, REAL = "tab:orange", "tab:blue"
SHOWN = 10  # samples in full
SETS = {"samples": "samples", "by_schema": "by the schema alone", "real": "real"}  # name in eval.json -> column
SHARES = {  # name in eval.json -> row of the table
    "json_valid": "valid JSON",
    "schema_valid": "valid under the schema",
    "required_fields": "has `on` and `jobs`",
    "lint_clean": "no findings of actionlint (except on runner labels and actions)",
    "github_parser_clean": "no errors of GitHub's own parser",
    "rules_clean": "no findings of our own linter",
    "references_intact": "all jobs, steps, inputs and matrix keys that it refers to exist",
    "ended_by_model": "ended by the model",
    "loops": "repeats a passage three times in a row",
    "distinct": "distinct",
    "copies": "equal to a training workflow",
    "accepted_tokens": "tokens drawn that the rules accept",
    "novel_steps": "steps that are in no training workflow",
    "known_actions": "actions that are in the training workflows",
    "known_versions": "actions that are there in this version",
}
COPIED = "longest span of tokens copied from a training workflow"
LENGTHS = {"tokens": "tokens", "characters": "characters", "longest_common_run": COPIED}
LENGTH_NAMES = {key: f"{name}: median (10%, 90%)" for key, name in LENGTHS.items()}
LOSSES = {
    "val_loss": "nats per token",
    "val_perplexity": "perplexity",
    "val_bits_per_byte": "bits per byte of compact JSON",
    "val_bits_per_byte_renormalised": "the same, over allowed tokens only",
}
ACCURACIES = {
    "top1_accuracy": "top-1 accuracy",
    "top5_accuracy": "top-5 accuracy",
    "allowed_probability": "mean probability of allowed tokens",
}


def write_report(folder: Path, results: dict, sets: dict):
    """Write the report of `results`, the contents of eval.json. `sets` are the SampleSets "samples" and "real", if any.

    Raise ImportError if matplotlib or markdown-it-py is not installed.
    """
    links = {}
    for name, (draw, caption) in FIGURES.items():
        if figure := draw(results, sets):
            figure.savefig(folder / name, dpi=110)
            links[name] = f"![{caption}]({name})"
    text = render(results, links, sets)
    write_atomic(folder / "report.md", text.encode())
    write_atomic(folder / "report.html", render_page(text, folder).encode())


# -- text


def render(results: dict, figures: dict[str, str], sets: dict) -> str:
    """Return the report in Markdown. `figures` are the links to the figures, by file name."""
    parts = [
        f"# Evaluation of {results['checkpoint']}, iteration {results['step']:,}",
        *held_out_parts(results["held_out"], figures),
        *sample_parts(results, figures),
        *completion_parts(results),
    ]
    if results["left_out"]:
        parts += ["## Left out", "\n".join(f"- {reason}" for reason in results["left_out"])]
    if sets:
        samples = sets["samples"]
        parts.append(f"## {min(SHOWN, len(samples.texts))} samples")
        for index, (text, yaml) in enumerate(zip(samples.texts[:SHOWN], samples.yamls)):
            parts += [f"Sample {index}:", fenced(yaml or text, "yaml")]
    return "\n\n".join(parts) + "\n"


def held_out_parts(held_out: dict, figures: dict[str, str]) -> list[str]:
    parts = [
        "## Held-out workflows",
        f"{held_out['val_workflows']:,} workflows, {held_out['val_tokens']:,} tokens, each counted once. The "
        "intervals are 95% intervals over workflows.",
        table(("", "", "interval"), held_out_rows(held_out)),
    ]
    if held_out.get("kinds"):
        header = "kind of token", "tokens", "share of the bits", "nats per token", "top-1", "top-5"
        rows = []
        for kind, found in held_out["kinds"].items():
            bits, top1, top5 = (percent(found[key]) for key in ("share_of_bits", "top1_accuracy", "top5_accuracy"))
            rows.append((kind, f"{found['tokens']:,}", bits, f"{found['loss']:.3f}", top1, top5))
        parts += [table(header, rows), figures["kinds.png"]]
    return parts


def held_out_rows(held_out: dict) -> list[tuple]:
    rows = []
    for key, name in LOSSES.items():
        if key in held_out:
            low, high = held_out[f"{key}_interval"]
            rows.append((name, f"{held_out[key]:.4f}", f"{low:.4f} to {high:.4f}"))
    return rows + [(name, percent(held_out[key]), "") for key, name in ACCURACIES.items() if key in held_out]


def sample_parts(results: dict, figures: dict[str, str]) -> list[str]:
    if "samples" not in results:
        return []
    parts = [
        "## Samples from scratch",
        f"{results['num_samples']} samples of at most {results['max_tokens']:,} tokens, {sampling(results)}, seed "
        f"{results['seed']}, compared with {results['real']['count']} real held-out workflows.",
        table(("", *set_names(results)), metric_rows(results)),
        figures["lengths.png"],
    ]
    if results.get("findings"):
        rows = [(kind, *map(percent, shares)) for kind, shares in results["findings"].items()]
        parts += [
            "### Findings of actionlint",
            "The share of workflows with a finding of each kind.",
            table(("kind", "samples", "real"), rows),
            figures["findings.png"],
        ]
    if results.get("fields"):
        rows = [field_row(name, field) for name, field in results["fields"].items()]
        parts += [
            "## How close the samples are to real workflows",
            "Total variation distance for values, Kolmogorov-Smirnov distance for numbers: 0 for equal shares, 1 for "
            "nothing in common. The noise floor is the distance of an equally large set of real workflows.",
            table(("field", "distance", "noise floor", "samples, real"), rows),
            figures["fields.png"],
        ]
    return parts


def sampling(results: dict) -> str:
    """Return the settings that shaped the distribution of the samples."""
    names = {"temperature": "temperature", "top_k": "top-k", "top_p": "top-p", "min_p": "min-p"}
    return ", ".join(f"{word} {results[name]}" for name, word in names.items() if results[name] is not None)


def set_names(results: dict) -> list[str]:
    """Return the names of the sets of workflows that are compared."""
    return [name for key, name in SETS.items() if key in results]


def metric_rows(results: dict) -> list[tuple]:
    """Return a row for each metric: its name, and its value for each of `set_names`. Without samples there are none."""
    if "samples" not in results:
        return []
    sets = [results[name] for name in SETS if name in results]
    return [
        (name, *(show(each.get(key)) for each in sets))
        for names, show in ((SHARES, percent), (LENGTH_NAMES, quantiles))
        for key, name in names.items()
        if key in sets[0]
    ]


def field_row(name: str, field: dict) -> tuple:
    if "median" in field:
        values = "median {:g}, {:g}".format(*field["median"])
    else:
        values = ", ".join(f"`{value}` ({percent(a)}, {percent(b)})" for value, a, b in field["categories"][:4])
    return name, f"{field['distance']:.3f}", f"{field['noise_floor']:.3f}", values


def completion_parts(results: dict) -> list[str]:
    if "completion" not in results:
        return []
    return [
        "## Completion",
        f"{results['completion']['workflows']} held-out workflows, cut after half of their tokens and continued with "
        "temperature 0. A part is right if it equals that of the workflow exactly; a step with all its contents.",
        table(("", "right", ""), completion_rows(results)),
    ]


def completion_rows(results: dict) -> list[tuple]:
    parts = {name: found for name, found in results.get("completion", {}).items() if name != "workflows"}
    return [
        (f"the next {name}", f"{part['right']} of {part['asked']}", percent(part["share"]))
        for name, part in parts.items()
    ]


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def quantiles(values: dict | None) -> str:
    return "" if values is None else f"{values['median']:,.0f} ({values['low']:,.0f}, {values['high']:,.0f})"


# -- figures: each function returns one, or None if there is nothing to draw


def draw_kinds(results: dict, sets: dict):
    kinds = results["held_out"].get("kinds")
    if not kinds:
        return None
    figure, (bits, accuracy) = new_figure(11, 3.5, 1, 2)
    names = list(kinds)[::-1]

    def shares(key):
        return [100 * kinds[name][key] for name in names]

    bits.barh(names, shares("share_of_bits"), color=REAL, label="share of the bits")
    bits.plot(shares("share_of_tokens"), names, "k|", markersize=14, label="share of the tokens")
    bits.set(xlabel="%", title="Share of the bits")
    accuracy.barh(names, shares("top5_accuracy"), color="lightgray", label="right token among the first five")
    accuracy.barh(names, shares("top1_accuracy"), color="tab:green", label="right token first")
    accuracy.set(xlabel="% of the tokens", xlim=(0, 100), title="Accuracy")
    add_legend(figure)
    return figure


def draw_lengths(results: dict, sets: dict):
    if not sets:
        return None
    figure, both_axes = new_figure(11, 3.5, 1, 2)
    colors = {"samples": SAMPLES, "real": REAL}
    for axes, unit in zip(both_axes, ("tokens", "characters")):
        lengths = {name: list(map(len, side.tokens if unit == "tokens" else side.texts)) for name, side in sets.items()}
        everything = [length for values in lengths.values() for length in values]
        bins = np.geomspace(max(1, min(everything)), max(everything) + 1, 24)
        for name, values in lengths.items():
            weights = np.full(len(values), 100 / len(values))
            axes.hist(values, bins, weights=weights, histtype="step", linewidth=1.6, color=colors[name], label=name)
        axes.set(xlabel=f"{unit} of a workflow", ylabel="% of the workflows")
        use_logarithmic_scale(axes, "x")
    add_legend(figure)
    return figure


def draw_fields(results: dict, sets: dict):
    fields = {name: field for name, field in results.get("fields", {}).items() if "categories" in field}
    if not fields:
        return None
    rows = -(-len(fields) // 2)
    figure, all_axes = new_figure(12, 3.2 * rows, rows, 2)
    for axes, (name, field) in zip(all_axes.flat, fields.items()):
        draw_pairs(axes, [(shorten(value), a, b) for value, a, b in field["categories"]])
        axes.set(title=f"{name}: distance {field['distance']:.2f}, noise floor {field['noise_floor']:.2f}")
    for axes in list(all_axes.flat)[len(fields) :]:
        axes.axis("off")
    add_legend(figure)
    return figure


def draw_findings(results: dict, sets: dict):
    findings = results.get("findings")
    if not findings:
        return None
    figure, axes = new_figure(8, 1 + 0.4 * len(findings))
    draw_pairs(axes, [(kind, a, b) for kind, (a, b) in findings.items()])
    axes.set(title="Findings of actionlint")
    add_legend(figure)
    return figure


FIGURES = {
    "kinds.png": (draw_kinds, "Share of the bits, and accuracy, by kind of token"),
    "lengths.png": (draw_lengths, "Lengths of samples and of real workflows"),
    "fields.png": (draw_fields, "The most frequent values of each field, in samples and in real workflows"),
    "findings.png": (draw_findings, "Findings by kind"),
}


def draw_pairs(axes, rows: list[tuple[str, float, float]]):
    """Draw two bars for each (name, share of samples, share of real workflows); the first row is on top."""
    names, samples, real = zip(*rows)
    heights = -np.arange(len(rows))
    for offset, shares, color, label in ((0.2, samples, SAMPLES, "samples"), (-0.2, real, REAL, "real")):
        axes.barh(heights + offset, 100 * np.array(shares), 0.4, color=color, label=label)
    axes.set_yticks(heights, names, fontsize=8)
    axes.set_xlabel("% of the workflows", fontsize=8)


def shorten(text: str, most: int = 32) -> str:
    """Return at most `most` characters of a text, with "$" escaped because matplotlib would read a formula."""
    text = text if len(text) <= most else text[: most - 3] + "..."
    return text.replace("$", r"\$")

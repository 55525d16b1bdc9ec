"""The report of an evaluation: pictures, report.md, and report.html, which is the same in one file."""

import base64
import re
from pathlib import Path

from script_tools.files import write_atomic
from script_tools.tables import fenced, table

SAMPLES, REAL = "tab:orange", "tab:blue"
SHOWN = 10  # samples in full
STYLE = """
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { padding: .2rem .8rem; border-bottom: 1px solid #ddd;
text-align: left; font-variant-numeric: tabular-nums; } img { max-width: 100%; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 13px; line-height: 1.35; }
"""

JUDGED = {  # key of a judgement -> (its row in the table, what it means)
    "json_valid": "valid JSON",
    "schema_valid": "valid under the schema",
    "required_fields": "has `on` and `jobs`",
    "lint_clean": "actionlint finds nothing (runner labels and actions aside)",
    "github_parser_clean": "GitHub's own parser finds nothing",
    "references_intact": "jobs, steps, inputs and matrix keys that it refers to exist",
    "distinct": "different from all others",
    "copies": "the same as a training workflow",
    "novel_steps": "steps that are in no training workflow",
    "known_actions": "actions that occur in the corpus",
    "known_versions": "actions that occur there in this version",
}


def write_report(folder: Path, results: dict, lengths: dict, samples: list[str]):
    """lengths has lists of "tokens" and "characters" for "samples" and "real"; samples are YAML texts."""
    pictures = {
        "kinds.png": draw_kinds,
        "lengths.png": draw_lengths,
        "fields.png": draw_fields,
        "findings.png": draw_findings,
    }
    drawn = [name for name, draw in pictures.items() if draw(folder / name, results, lengths)]
    text = render(results, drawn, samples)
    write_atomic(folder / "report.md", text.encode())
    write_atomic(folder / "report.html", render_html(text, folder).encode())


# -----------------------------------------------------------------------------
# words


def render(results: dict, pictures: list[str], samples: list[str]) -> str:
    """The report in Markdown."""

    def picture(name: str, says: str) -> list[str]:
        return [f"![{says}]({name})"] if name in pictures else []

    held_out, ours, real = results["held_out"], results.get("samples"), results.get("real")
    parts = [
        f"# Evaluation of {results['checkpoint']}, iteration {results['step']:,}",
        "## Held-out workflows",
        f"{held_out['val_workflows']:,} workflows, {held_out['val_tokens']:,} tokens, each counted once. The "
        "intervals are of 95%, over workflows.",
        table(("", "", "interval"), held_out_rows(held_out)),
    ]
    if "kinds" in held_out:
        parts += [
            table(
                ("kind of token", "tokens", "share of the bits", "nats per token", "top-1", "top-5"),
                [
                    (
                        kind,
                        f"{found['tokens']:,}",
                        percent(found["share_of_bits"]),
                        f"{found['loss']:.3f}",
                        percent(found["top1_accuracy"]),
                        percent(found["top5_accuracy"]),
                    )
                    for kind, found in held_out["kinds"].items()
                ],
            ),
            *picture("kinds.png", "Where the bits go, and how often the model is right"),
        ]
    if ours:
        parts += [
            "## Samples from scratch",
            f"{results['num_samples']} samples of at most {results['max_tokens']:,} tokens, "
            f"{sampling(results)}, seed {results['seed']}; beside them {real['count']} real held-out workflows.",
            table(("", "samples", "real"), judged_rows(ours, real)),
            *picture("lengths.png", "Lengths of samples and of real workflows"),
        ]
    if results.get("findings"):
        parts += [
            "### Findings of actionlint",
            "The share of workflows with a finding of each kind.",
            table(
                ("kind", "samples", "real"),
                [(kind, percent(a), percent(b)) for kind, (a, b) in results["findings"].items()],
            ),
            *picture("findings.png", "Findings by kind"),
        ]
    if results.get("fields"):
        parts += [
            "## How close the samples are to real workflows",
            "Total variation distance: 0 where the shares are the same, 1 where nothing is in common. A perfect "
            "model with so few samples would get about the second figure.",
            table(
                ("field", "distance", "as many real ones", "samples, real"),
                [field_row(name, field) for name, field in results["fields"].items()],
            ),
            *picture("fields.png", "The most frequent values of each field, in samples and in real workflows"),
        ]
    if results.get("completion"):
        parts += ["## Completion", *completion_parts(results["completion"])]
    if results["left_out"]:
        parts += ["## Left out", "\n".join(f"- {reason}" for reason in results["left_out"])]
    if samples:
        parts.append(f"## {min(SHOWN, len(samples))} samples")
        for index, text in enumerate(samples[:SHOWN]):
            parts += [f"Sample {index}:", fenced(text, "yaml")]
    return "\n\n".join(parts) + "\n"


def sampling(results: dict) -> str:
    """What shaped the distribution that samples were drawn from."""
    names = {"temperature": "temperature", "top_k": "top-k", "top_p": "top-p", "min_p": "min-p"}
    return ", ".join(f"{word} {results[name]}" for name, word in names.items() if results[name] is not None)


def held_out_rows(held_out: dict) -> list[tuple]:
    rows = []
    for key, name in (
        ("val_loss", "nats per token"),
        ("val_perplexity", "perplexity"),
        ("val_bits_per_byte", "bits per byte of compact JSON"),
        ("val_bits_per_byte_renormalised", "the same over allowed tokens"),
    ):
        if key in held_out:
            low, high = held_out[f"{key}_interval"]
            rows.append((name, f"{held_out[key]:.4f}", f"{low:.4f} to {high:.4f}"))
    rows += [
        ("the next token is the likeliest", percent(held_out["top1_accuracy"]), ""),
        ("it is among the likeliest five", percent(held_out["top5_accuracy"]), ""),
    ]
    if "allowed_probability" in held_out:
        rows.append(("probability given to allowed tokens", percent(held_out["allowed_probability"]), ""))
    return rows


def judged_rows(ours: dict, real: dict) -> list[tuple]:
    rows = [(says, percent(ours[key]), percent(real[key])) for key, says in JUDGED.items() if key in ours]
    for key in ("tokens", "characters", "longest_common_run"):
        if key in ours:
            name = {"longest_common_run": "longest run of tokens in common with training data"}.get(key, key)
            rows.append((f"{name}: median (10%, 90%)", *(quantiles(side[key]) for side in (ours, real))))
    return rows


def field_row(name: str, field: dict) -> tuple:
    if "median" in field:
        says = "median {:g}, {:g}".format(*field["median"])
    else:
        says = ", ".join(f"`{value}` ({percent(a)}, {percent(b)})" for value, a, b in field["categories"][:4])
    return name, f"{field['distance']:.3f}", f"{field['noise_floor']:.3f}", says


def completion_parts(completion: dict) -> list[str]:
    rows = [
        (
            f"the next {name}",
            f"{completion[name]['right']} of {completion[name]['asked']}",
            percent(completion[name]["share"]),
        )
        for name in ("key", "action", "step")
    ]
    return [
        f"{completion['workflows']} held-out workflows, cut after half of their tokens and gone on with at "
        "temperature 0. Right is what is the same as in the workflow, to the letter; a step with all that is in it.",
        table(("", "right", ""), rows),
    ]


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def quantiles(values: dict) -> str:
    return f"{values['median']:,.0f} ({values['low']:,.0f}, {values['high']:,.0f})"


def render_html(text: str, folder: Path) -> str:
    """Markdown as one page, its pictures within it."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = re.sub(r'src="([\w.-]+\.png)"', lambda match: f'src="{data_uri(folder / match[1])}"', body)
    title = re.search(r"# (.*)", text)[1]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


# -----------------------------------------------------------------------------
# pictures: each function draws one, and says whether there was something to draw


def new_figure(width: float, height: float, *shape):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(*shape)


def draw_kinds(path: Path, results: dict, lengths: dict) -> bool:
    kinds = results["held_out"].get("kinds")
    if not kinds:
        return False
    figure, axes = new_figure(11, 3.5, 1, 2)
    names = list(kinds)[::-1]
    axes[0].barh(names, [100 * kinds[name]["share_of_bits"] for name in names], color=REAL, label="of the bits")
    axes[0].plot(
        [100 * kinds[name]["share_of_tokens"] for name in names], names, "k|", markersize=14, label="of the tokens"
    )
    axes[0].set(xlabel="%", title="Where the bits go")
    for key, color, label in (("top5_accuracy", "tab:gray", "top 5"), ("top1_accuracy", REAL, "top 1")):
        axes[1].barh(names, [100 * kinds[name][key] for name in names], color=color, label=label)
    axes[1].set(xlabel="% of the tokens", xlim=(0, 100), title="Next token right")
    for axis in axes:
        axis.legend(frameon=False)
    figure.savefig(path, dpi=110)
    return True


def draw_lengths(path: Path, results: dict, lengths: dict) -> bool:
    import numpy as np

    if not lengths:
        return False
    figure, axes = new_figure(11, 3.5, 1, 2)
    for axis, unit in zip(axes, ("tokens", "characters")):
        both = [lengths[side][unit] for side in ("samples", "real")]
        bins = np.geomspace(max(1, min(map(min, both))), max(map(max, both)) + 1, 24)
        for values, color, label in zip(both, (SAMPLES, REAL), ("samples", "real")):
            weights = np.full(len(values), 100 / len(values))
            axis.hist(values, bins, weights=weights, histtype="step", linewidth=1.6, color=color, label=label)
        axis.set(xscale="log", xlabel=f"{unit} of a workflow", ylabel="% of the workflows")
        axis.legend(frameon=False)
    figure.savefig(path, dpi=110)
    return True


def draw_fields(path: Path, results: dict, lengths: dict) -> bool:
    fields = {name: field for name, field in results.get("fields", {}).items() if "categories" in field}
    if not fields:
        return False
    rows = -(-len(fields) // 2)
    figure, axes = new_figure(12, 3.2 * rows, rows, 2)
    for axis, (name, field) in zip(axes.flat, fields.items()):
        top = field["categories"]
        draw_pairs(axis, [shortened(value) for value, _, _ in top], [a for _, a, _ in top], [b for *_, b in top])
        axis.set(title=f"{name}: distance {field['distance']:.2f}, as many real ones {field['noise_floor']:.2f}")
    for axis in list(axes.flat)[len(fields) :]:
        axis.axis("off")
    figure.savefig(path, dpi=110)
    return True


def draw_findings(path: Path, results: dict, lengths: dict) -> bool:
    findings = results.get("findings")
    if not findings:
        return False
    figure, axis = new_figure(8, 1 + 0.4 * len(findings), 1, 1)
    draw_pairs(axis, list(findings), [a for a, _ in findings.values()], [b for _, b in findings.values()])
    axis.set(title="Findings of actionlint")
    figure.savefig(path, dpi=110)
    return True


def draw_pairs(axis, names: list[str], samples: list[float], real: list[float]):
    """Two bars for each name, the first name on top."""
    places = range(len(names))
    for offset, shares, color, label in ((0.2, samples, SAMPLES, "samples"), (-0.2, real, REAL, "real")):
        axis.barh(
            [-place + offset for place in places], [100 * share for share in shares], 0.4, color=color, label=label
        )
    axis.set_yticks([-place for place in places], names, fontsize=8)
    axis.set_xlabel("% of the workflows", fontsize=8)
    axis.legend(frameon=False, fontsize=8)


def shortened(text: str, most: int = 32) -> str:
    """With "$" spelled so that matplotlib takes it for no formula."""
    text = text if len(text) <= most else text[: most - 3] + "..."
    return text.replace("$", r"\$")

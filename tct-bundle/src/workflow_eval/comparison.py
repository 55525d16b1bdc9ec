"""Compare evaluations side by side: compare.md, and compare.html with the same contents and its figures."""

import json
import textwrap
from itertools import chain
from pathlib import Path

import numpy as np

from script_tools.figures import add_legend, new_figure
from script_tools.files import write_atomic, write_json
from script_tools.pages import render_page
from script_tools.tables import table
from workflow_eval.report import ACCURACIES, LENGTH_NAMES, LOSSES, SHARES, completion_rows, percent, quantiles

KEYS = {"checkpoint", "step", "held_out"}  # that every eval.json has
SIZES = {"val_workflows": "workflows", "val_tokens": "tokens", "val_json_bytes": "bytes of compact JSON"}
NOT_RECORDED = "not recorded"  # by an earlier version of tct_eval


def read_evaluation(path: Path) -> dict:
    """Return the contents of an eval.json, given by its path or its folder. Raise ValueError if it is not one."""
    file = path / "eval.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{path} has no eval.json: give a folder that scripts.tct_eval has written")
    try:
        results = json.loads(file.read_bytes())
        is_ours = (
            KEYS <= results.keys() and {"val_loss_interval", "val_bits_per_byte_interval"} <= results["held_out"].keys()
        )
    except (ValueError, AttributeError):
        is_ours = False
    if not is_ours:
        raise ValueError(f"{file} is not of an evaluation: give a folder that scripts.tct_eval has written")
    return results


def read_evaluations(paths: list[Path]) -> dict[str, dict]:
    """Return the evaluations by short names. Raise ValueError if one cannot be read, or if there are not two."""
    if len(set(paths)) < max(2, len(paths)):
        raise ValueError("--compare needs two folders of evaluations or more, each named once")
    return dict(zip(short_names(paths), map(read_evaluation, paths)))


def short_names(paths: list[Path]) -> list[str]:
    """Return the parts of different paths in which they differ.

    >>> short_names([Path("out/tiny/eval"), Path("out/small/eval"), Path("out/small/old/eval")])
    ['tiny', 'small', 'small/old']
    """
    parts = [path.parts for path in paths]
    for end in (0, -1):  # drop what all begin with, then what all end with
        while all(len(found) > 1 for found in parts) and len({found[end] for found in parts}) == 1:
            parts = [found[1:] if end == 0 else found[:-1] for found in parts]
    return [Path(*found).as_posix() for found in parts]


def is_comparison(folder: Path) -> bool:
    """Return whether a folder has the files of an earlier comparison."""
    try:
        return json.loads((folder / "compare.json").read_bytes()).keys() == {"compared"}
    except (OSError, ValueError, AttributeError):
        return False


def write_comparison(folder: Path, evaluations: dict[str, dict]):
    """Write the page of the evaluations, its figures, and compare.json, which marks the files as ours.

    Raise ImportError if matplotlib or markdown-it-py is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "compare.json", {"compared": list(evaluations)})
    links = {}
    for name, (draw, caption) in FIGURES.items():
        (folder / name).unlink(missing_ok=True)  # of an earlier comparison, which may have had more to draw
        if figure := draw(evaluations):
            figure.savefig(folder / name, dpi=110)
            links[name] = f"![{caption}]({name})"
    text = render(evaluations, links)
    write_atomic(folder / "compare.md", text.encode())
    write_atomic(folder / "compare.html", render_page(text, folder).encode())


# -- text


def render(evaluations: dict[str, dict], figures: dict[str, str]) -> str:
    """Return the page in Markdown. `figures` are the links to the figures, by file name."""
    header = ("", *evaluations)
    completions = completion_columns(evaluations)
    parts = [
        f"# Comparison of {len(evaluations)} evaluations",
        *setting_parts(evaluations),
        "## Held-out workflows",
        f"{describe_data(evaluations)} In parentheses are 95% intervals over workflows.",
        table(header, held_out_rows(evaluations)),
        figures.get("bits.png"),
        figures.get("kinds.png"),
        *sample_parts(evaluations, figures),
        *(["## Completion", table(header, completions)] if completions else []),
        *left_out_parts(evaluations),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def setting_parts(evaluations: dict[str, dict]) -> list[str]:
    """Return a table of the settings that differ, and a sentence with those that are the same."""
    every = [
        key for found in evaluations.values() for key, value in found.items() if not isinstance(value, (dict, list))
    ]
    differ, same = [], []
    for key in dict.fromkeys(every):
        values = [found.get(key, NOT_RECORDED) for found in evaluations.values()]
        values = ["none" if value is None else str(value) for value in values]
        if len(set(values)) > 1 or key in KEYS:
            differ.append((f"`{key}`", *values))
        else:
            same.append(f"`{key}` {values[0]}")
    text = table(("", *evaluations), differ)
    return [text, f"The same in all: {', '.join(same)}."] if same else [text]


def describe_data(evaluations: dict[str, dict]) -> str:
    """Say whether the losses can be compared."""
    sizes = {tuple(found["held_out"].get(key) for key in SIZES) for found in evaluations.values()}
    if len(sizes) == 1:
        same = "All scored equally many workflows, tokens and bytes."
        return f"{same} If these are the same workflows, differences are more certain than the intervals suggest."
    if len({(workflows, size) for workflows, _, size in sizes}) == 1:
        return "The tokens differ, so compare bits per byte and not the loss of a token."
    return "**The evaluations scored different workflows, so their losses cannot be compared.**"


def held_out_rows(evaluations: dict[str, dict]) -> list[tuple]:
    held_out = [found["held_out"] for found in evaluations.values()]

    def interval(key: str) -> list[dict]:
        return [{key: (part[key], *part[f"{key}_interval"])} if key in part else {} for part in held_out]

    rows = rows_of(SIZES, held_out, "{:,}".format)
    for key, name in LOSSES.items():
        rows += rows_of({key: name}, interval(key), lambda values: "{:.4f} ({:.4f} to {:.4f})".format(*values))
    return rows + rows_of(ACCURACIES, held_out, percent)


def rows_of(names: dict[str, str], parts: list[dict], show) -> list[tuple]:
    """Return a row (name, value in each part) for each key of `names` that one of the parts has."""
    return [
        (name, *(show(part[key]) if key in part else "" for part in parts))
        for key, name in names.items()
        if any(key in part for part in parts)
    ]


def sample_parts(evaluations: dict[str, dict], figures: dict[str, str]) -> list[str | None]:
    rows = sample_rows(evaluations)
    if not rows:
        return []
    fields = [found.get("fields", {}) for found in evaluations.values()]
    names = {name: name for each in fields for name in each}
    distances = rows_of(names, fields, lambda field: f"{field['distance']:.3f} ({field['noise_floor']:.3f})")
    return [
        "## Samples from scratch",
        "A slash separates figures of different real workflows." if any(" / " in real for *_, real in rows) else None,
        table(("", *evaluations, "real"), rows),
        figures.get("samples.png"),
        "Distances from real workflows, as in report.md; in parentheses the noise floor." if distances else None,
        table(("field", *evaluations), distances) if distances else None,
    ]


def sample_rows(evaluations: dict[str, dict]) -> list[tuple]:
    """Return a row for each metric: its value for each evaluation, and for real workflows.

    If the evaluations had other real workflows, the last value has a slash between their values.
    """
    samples, real = ([found.get(name, {}) for found in evaluations.values()] for name in ("samples", "real"))
    rows = []
    for names, show in (({"count": "number"}, str), (SHARES, percent), (LENGTH_NAMES, quantiles)):
        of_real = {name: values for name, *values in rows_of(names, real, show)}
        for name, *values in rows_of(names, samples, show):
            rows.append((name, *values, " / ".join(filter(None, dict.fromkeys(of_real.get(name, []))))))
    return rows


def completion_columns(evaluations: dict[str, dict]) -> list[tuple]:
    """Return a row for each part of a workflow: how many each evaluation completed as they were."""
    found = [
        {name: ", ".join(filter(None, (right, share))) for name, right, share in completion_rows(each)}
        for each in evaluations.values()
    ]
    names = dict.fromkeys(name for each in found for name in each)
    return [(name, *(each.get(name, "") for each in found)) for name in names]


def left_out_parts(evaluations: dict[str, dict]) -> list[str]:
    lines = [f"- {name}: {reason}" for name, found in evaluations.items() for reason in found.get("left_out", [])]
    return ["## Left out", "\n".join(lines)] if lines else []


# -- figures: each function returns one, or None if there is nothing to draw


def draw_bits(evaluations: dict[str, dict]):
    figure, axes = new_figure(9, 1.2 + 0.35 * len(evaluations))
    for row, found in enumerate(evaluations.values()):
        bits, (low, high) = (found["held_out"][f"val_bits_per_byte{end}"] for end in ("", "_interval"))
        axes.errorbar(bits, -row, xerr=[[bits - low], [high - bits]], fmt="o", color=f"C{row % 10}", capsize=4)
    axes.set_yticks(-np.arange(len(evaluations)), evaluations)
    axes.set(xlabel="bits per byte of compact JSON, and 95% interval", ylim=(0.5 - len(evaluations), 0.5))
    axes.grid(alpha=0.3, axis="x")
    return figure


def draw_kinds(evaluations: dict[str, dict]):
    """Draw the bits of each kind of token, per byte of all tokens. They add up to the bits per byte."""
    bars = {}
    for name, found in evaluations.items():
        bits = found["held_out"]["val_bits_per_byte"]
        kinds = found["held_out"].get("kinds", {})  # BPE tokens have none
        bars[name] = {kind: bits * values["share_of_bits"] for kind, values in kinds.items()}
    return draw_groups("bits per byte, by kind of token", dict.fromkeys(chain(*bars.values())), bars, {})


def draw_samples(evaluations: dict[str, dict]):
    """Draw the shares of samples, each with a mark for real workflows."""

    def shares(workflows: dict) -> dict:
        known = {key: workflows.get(key) for key in SHARES}  # None also if there are no steps or no actions
        return {SHARES[key]: 100 * share for key, share in known.items() if share is not None}

    bars, real = (
        {name: shares(found.get(part, {})) for name, found in evaluations.items()} for part in ("samples", "real")
    )
    return draw_groups("%", SHARES.values(), bars, real)


def draw_groups(unit: str, rows, bars: dict[str, dict], real: dict[str, dict]):
    """Draw a group of bars for each row, one for each evaluation. bars and real: evaluation -> {row: value}."""
    rows = [row for row in rows if any(row in values for values in bars.values())]
    if not rows:
        return None
    figure, axes = new_figure(10, 1.2 + len(rows) * (0.2 + 0.14 * len(bars)))
    thickness = 0.8 / len(bars)
    for number, (name, values) in enumerate(bars.items()):
        heights = {row: -index + 0.4 - thickness * (number + 0.5) for index, row in enumerate(rows)}
        axes.barh([heights[row] for row in values], values.values(), thickness, color=f"C{number % 10}", label=name)
        if points := [(value, heights[row]) for row, value in real.get(name, {}).items() if row in values]:
            axes.plot(*zip(*points), "k|", markersize=8, label="real workflows")
    labels = [textwrap.fill(row.replace("`", ""), 40) for row in rows]
    axes.set_yticks(-np.arange(len(rows)), labels, fontsize=8)
    axes.set(xlabel=unit, ylim=(0.5 - len(rows), 0.5))
    add_legend(figure)
    return figure


FIGURES = {
    "bits.png": (draw_bits, "Bits per byte of held-out workflows, with 95% intervals"),
    "kinds.png": (draw_kinds, "Bits per byte, by kind of token"),
    "samples.png": (draw_samples, "Shares of the samples, and of real workflows"),
}
FILES = ("compare.json", "compare.md", "compare.html", *FIGURES)

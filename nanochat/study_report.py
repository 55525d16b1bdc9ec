"""The report of a study: a table of its arms, a picture, and how it was made."""

import json
import platform
from pathlib import Path
from statistics import stdev

from script_tools.tables import fenced, table


def read_results(folder: Path) -> dict:
    path = folder / "results.json"
    return json.loads(path.read_bytes()) if path.is_file() else {}


def write_report(folder: Path, study: dict, done: list[dict]):
    """study.png and README.md, of the runs that are done. ValueError where none is."""
    if not done:
        raise ValueError(f"{folder}: there are no results yet")
    draw(folder / "study.png", study, done)
    rows = [row_of(arm, study, done) for arm in study["arms"] if any(run["arm"] == arm for run in done)]
    conclusion = folder / "conclusion.md"
    flags = {
        "all": {key: study[key] for key in ("prepare", "train", "evaluate_on") if key in study},
        **{arm: {key: value for key, value in says.items() if key != "note"} for arm, says in study["arms"].items()},
    }
    notes = [f"- *{arm}*: {says['note']}" for arm, says in study["arms"].items() if "note" in says]
    versions = ", ".join(f"{name} {version}" for name, version in done[0]["versions"].items())
    parts = [
        f"# {study['title']}",
        study["question"],
        table(
            (
                "",
                "seeds",
                "parameters",
                "tokens",
                "epochs",
                "PFLOPs",
                "nats per token",
                "bits per byte",
                f"minus {name_of_references(study)}",
            ),
            rows,
        ),
        "![Bits per byte over compute, and at the end](study.png)",
        *held_out_parts(study, done),
        *sample_parts(study, done),
        *(["\n".join(notes)] if notes else []),
        *([conclusion.read_text("utf-8").strip()] if conclusion.is_file() else []),
        "## Method",
        "Owners are held out, a fifth of them or what the flags say; at the end each of their tokens "
        "counts once. Curves are of few of their workflows, and not of the same ones where arms cut "
        "windows or tokens differently, unless `eval_windows` asks for all. Bits are of compact JSON. "
        "With several seeds there are means, and differences are taken seed by seed, with the 95% "
        "interval of Student's t."
        + (
            " The workflow tokenizer's merges were learned from the training workflows alone, as those "
            "of the baselines."
            if study.get("own_merges")
            else ""
        ),
        f"Trained on {done[0]['device']} ({platform.machine()}), one thread a run; {versions}.",
        fenced(f"python -m scripts.run_study {folder.as_posix()} --workflows WORKFLOWS"),
        fenced(json.dumps(flags, indent=2), "json"),
    ]
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", "utf-8")


def row_of(arm: str, study: dict, done: list[dict]) -> tuple:
    """The line of an arm in the table."""
    runs = [run for run in done if run["arm"] == arm]
    first, bits = runs[0], [run["val_bpb"] for run in runs]
    tokens = first["iterations"] * first["targets"]
    return (
        arm,
        len(runs),
        f"{first['parameters']:,}",
        f"{tokens:,}",
        f"{first['epochs']:.2f}",
        f"{tokens * first['flops_per_target'] / 1e15:.3f}",
        f"{mean([run['val_loss'] for run in runs]):.3f}",
        f"{mean(bits):.4f}",
        difference(arm, study, done),
    )


def held_out_parts(study: dict, done: list[dict]) -> list[str]:
    """Bits per byte over allowed tokens, of arms whose tokens have masks, against the reference as it is; and where
    their bits go."""
    scored = [run for run in done if "val_bits_per_byte_renormalised" in run.get("held_out", {}).get("held_out", {})]
    if not scored:
        return []
    found = {(run["arm"], run["seed"]): run["held_out"]["held_out"] for run in scored}
    rows, kinds = [], []
    for arm in dict.fromkeys(run["arm"] for run in scored):
        ours = [figures for (name, _), figures in found.items() if name == arm]
        renormalised = [
            run | {"val_bpb": found[arm, run["seed"]]["val_bits_per_byte_renormalised"]}
            if (run["arm"], run["seed"]) in found and run["arm"] == arm
            else run
            for run in done
        ]
        rows.append(
            (
                arm,
                f"{mean([figures['val_bits_per_byte'] for figures in ours]):.4f}",
                f"{mean([figures['val_bits_per_byte_renormalised'] for figures in ours]):.4f}",
                difference(arm, study, renormalised),
                f"{mean([figures['allowed_probability'] for figures in ours]):.2%}",
            )
        )
        kinds.append(
            (
                arm,
                *(
                    f"{mean([figures['kinds'][kind]['share_of_bits'] for figures in ours]):.1%}"
                    for kind in ours[0]["kinds"]
                ),
            )
        )
    return [
        table(
            (
                "over allowed tokens",
                "as it is",
                "renormalised",
                f"renormalised minus {name_of_references(study)}",
                "probability of allowed tokens",
            ),
            rows,
        ),
        table(("share of the bits", *scored[0]["held_out"]["held_out"]["kinds"]), kinds),
    ]


def sample_parts(study: dict, done: list[dict]) -> list[str]:
    """What the samples of each arm are worth."""
    rows = []
    for run in done:
        for label in study["arms"][run["arm"]].get("samples", {}):
            if label not in run:
                continue
            samples, seconds = run[label]["samples"], run[label]["seconds_of_sampling"]
            valid = samples["schema_valid"] * samples["count"]
            rows.append(
                (
                    f"{run['arm']}, {label}",
                    samples["count"],
                    *(
                        f"{samples[key]:.0%}" if key in samples else ""
                        for key in ("json_valid", "schema_valid", "lint_clean", "references_intact", "ended_by_model")
                    ),
                    f"{seconds / valid:.2f}" if valid else "none is",
                )
            )
    return (
        [
            table(
                (
                    "samples",
                    "number",
                    "valid JSON",
                    "valid under the schema",
                    "actionlint-clean",
                    "references intact",
                    "ended by the model",
                    "seconds a valid one",
                ),
                rows,
            )
        ]
        if rows
        else []
    )


def name_of_references(study: dict) -> str:
    """For the head of a column."""
    return "its reference" if any("reference" in says for says in study["arms"].values()) else study["reference"]


def difference(arm: str, study: dict, done: list[dict]) -> str:
    """How far an arm is from its reference, seed by seed, absolutely and in percent."""
    reference = study["arms"][arm].get("reference", study["reference"])
    by_seed = [{run["seed"]: run["val_bpb"] for run in done if run["arm"] == name} for name in (arm, reference)]
    seeds = by_seed[0].keys() & by_seed[1].keys()
    if arm == reference or not seeds:
        return ""
    differences = [by_seed[0][seed] - by_seed[1][seed] for seed in sorted(seeds)]
    percent = 100 * mean(differences) / mean([by_seed[1][seed] for seed in seeds])
    interval = f" ± {half_interval(differences):.4f}" if len(differences) > 1 else ""
    return f"{mean(differences):+.4f}{interval} ({percent:+.1f}%)"


def half_interval(values: list[float]) -> float:
    """Half of the 95% interval of the mean of a sample: t * s / sqrt(n).

    >>> round(half_interval([1.0, 2.0, 3.0]), 3)
    2.484
    """
    # Student's t at 97.5% with 1, 2 ... 9 degrees of freedom (NIST/SEMATECH e-Handbook, section 1.3.6.7.2)
    quantiles = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
    return quantiles[min(len(values), 10) - 2] * stdev(values) / len(values) ** 0.5


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def draw(path: Path, study: dict, done: list[dict]):
    """Left the curves over compute, right how the runs ended."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    curves, ends = figure.subplots(1, 2)
    arms = [arm for arm in study["arms"] if any(run["arm"] == arm for run in done)]
    for place, arm in enumerate(arms):
        color, runs = f"C{place % 10}", [run for run in done if run["arm"] == arm]
        for run in runs:
            unit = 1e6 if study["x"] == "tokens" else 1e15 / run["flops_per_target"]  # in targets
            points = [(step * run["targets"] / unit, bits) for step, bits in run["curve"]]
            curves.plot(
                *zip(*points), "o-", color=color, markersize=3, linewidth=1, label=arm if run is runs[0] else None
            )
        bits = [run["val_bpb"] for run in runs]
        ends.plot(bits, [-place] * len(bits), "o", color=color, alpha=0.5)
        error = half_interval(bits) if len(bits) > 1 else 0
        ends.errorbar(mean(bits), -place, xerr=error, fmt="|", color=color, capsize=4, markersize=16)
    best = min(bits for run in done for _, bits in run["curve"])
    curves.set(
        xlabel="million tokens" if study["x"] == "tokens" else "PFLOPs",
        xscale="log",
        ylabel="bits per byte, owners held out",
        title="Learning curves",
        ylim=(0.97 * best, 1.6 * best),
    )
    ends.set_yticks([-place for place in range(len(arms))], arms)
    ends.set(xlabel="bits per byte at the end: runs, mean, 95% interval", title="At the end")
    curves.legend(frameon=False, fontsize=8)
    for axis in (curves, ends):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)

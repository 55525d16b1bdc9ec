"""The report of a study: a table of its arms, a picture, and how it was made."""

import json
import platform
from pathlib import Path
from statistics import fmean, stdev

import torch

from nanochat.gpt import GPT, GPTConfig
from nanochat.run_folder import CONFIG, METRICS, read_metrics
from script_tools.figures import add_legend, new_figure, use_logarithmic_scale
from script_tools.tables import columns, fenced, table

METHOD = (
    "Owners are held out, a fifth of them unless the flags set another share; at the end each of their tokens counts "
    "once. The curves score few of their workflows, and not the same ones if arms cut windows or tokens differently, "
    "unless `eval_windows` asks for all. Bits are of compact JSON. With several seeds the figures are means, and "
    "differences are taken seed by seed, with the 95% interval of Student's t."
)
OWN_MERGES = (
    " The workflow tokenizer's merges were learned from the training workflows alone, as those of the baselines."
)


def cost_table(names: list[str], settings: list, model_fields: list[dict]) -> str:
    """Return a line for each run: iterations, training tokens, FLOPs of training."""
    rows = [("run", "iterations", "tokens", "PFLOPs")]
    for name, found, fields in zip(names, settings, model_fields, strict=True):
        contexts = found.num_iterations * found.device_batch_size * found.gradient_accumulation
        tokens = contexts * found.context_size
        flops = tokens * weightless(fields).estimate_flops() / 1e15
        rows.append((name, f"{found.num_iterations:,}", f"{tokens:,}", f"{flops:.3f}"))
    return columns(rows)


def weightless(model_fields: dict) -> GPT:
    """Return a model without weights in memory, to count parameters and FLOPs."""
    with torch.device("meta"):
        return GPT(GPTConfig.from_dict(model_fields))


def run_figures(folder: Path) -> dict:
    """Return the figures of a training run that the report shows, from its config and its metrics."""
    config, records = json.loads((folder / CONFIG).read_bytes()), read_metrics(folder / METRICS)
    settings, split = config["settings"], config["data"]["splits"]["val"]
    model = weightless(config["model_config"])
    last = [record for record in records if "loss" in record][-1]
    return {
        "iterations": settings["num_iterations"],
        "targets": settings["device_batch_size"] * settings["gradient_accumulation"] * model.config.sequence_len,
        "flops_per_target": model.estimate_flops(),
        "parameters": model.num_parameters(),
        "epochs": round(last["epoch"], 3),
        "seconds": round(last["seconds"], 1),
        "loss": round(last["loss"], 4),
        "bytes_per_token": round(split["json_bytes"] / split["tokens"], 3),
        "curve": [[record["step"], round(record["val_bpb"], 4)] for record in records if "val_bpb" in record],
        "device": config["device"],
        "versions": config["versions"],
    }


def read_results(folder: Path) -> dict:
    """Return the results of a study by the names of its runs, empty if there are none."""
    path = folder / "results.json"
    return json.loads(path.read_bytes()) if path.is_file() else {}


# -- the report


def write_report(folder: Path, study: dict, done: list[dict]):
    """Write study.png and README.md from the results of the finished runs. ValueError if there are none."""
    if not done:
        raise ValueError(f"{folder}: there are no results yet")
    draw(folder / "study.png", study, done)
    conclusion = folder / "conclusion.md"  # written by hand
    parts = [
        f"# {study['title']}",
        study["question"],
        arms_table(study, done),
        "![Bits per byte over compute, and at the end](study.png)",
        *held_out_parts(study, done),
        *sample_parts(study, done),
        "\n".join(f"- *{arm}*: {found['note']}" for arm, found in study["arms"].items() if "note" in found),
        conclusion.read_text("utf-8").strip() if conclusion.is_file() else "",
        "## Method",
        *method_parts(folder, study, done[0]),
    ]
    (folder / "README.md").write_text("\n\n".join(part for part in parts if part) + "\n", "utf-8")


def arms_table(study: dict, done: list[dict]) -> str:
    """Return the table of the arms that have results."""
    header = ("", "seeds", "parameters", "tokens", "epochs", "PFLOPs", "nats per token", "bits per byte")
    rows = []
    for arm in study["arms"]:
        runs = [run for run in done if run["arm"] == arm]
        if not runs:
            continue
        first = runs[0]
        tokens = first["iterations"] * first["targets"]
        sizes = f"{first['parameters']:,}", f"{tokens:,}", f"{first['epochs']:.2f}"
        flops = f"{tokens * first['flops_per_target'] / 1e15:.3f}"
        losses = f"{mean_of('val_loss', runs):.3f}", f"{mean_of('val_bpb', runs):.4f}"
        rows.append((arm, len(runs), *sizes, flops, *losses, difference(arm, study, done)))
    return table((*header, f"minus {name_of_references(study)}"), rows)


def mean_of(key: str, records: list[dict]) -> float:
    return fmean(record[key] for record in records)


def method_parts(folder: Path, study: dict, run: dict) -> list[str]:
    """Return how the study was made: in words, the command and the flags."""
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    flags = {"all": {key: study[key] for key in ("prepare", "train", "evaluate_on") if key in study}}
    for arm, found in study["arms"].items():
        flags[arm] = {key: value for key, value in found.items() if key != "note"}
    return [
        METHOD + (OWN_MERGES if study.get("own_merges") else ""),
        f"Trained on {run['device']} ({platform.machine()}), one thread a run; {versions}.",
        fenced(f"python -m scripts.run_study {folder.as_posix()} --workflows WORKFLOWS"),
        fenced(json.dumps(flags, indent=2), "json"),
    ]


def held_out_parts(study: dict, done: list[dict]) -> list[str]:
    """Return two tables of the arms whose tokens have masks: bits per byte over allowed tokens, and shares of the bits.

    The renormalised figures of an arm are compared with those of its reference as they are.
    """
    scored = [run for run in done if "val_bits_per_byte_renormalised" in run.get("held_out", {}).get("held_out", {})]
    if not scored:
        return []
    rows, kinds = [], []
    for arm in dict.fromkeys(run["arm"] for run in scored):
        figures = [run["held_out"]["held_out"] for run in scored if run["arm"] == arm]
        bits = [f"{mean_of(key, figures):.4f}" for key in ("val_bits_per_byte", "val_bits_per_byte_renormalised")]
        of_arm = [
            run | {"val_bpb": run["held_out"]["held_out"]["val_bits_per_byte_renormalised"]}
            for run in scored
            if run["arm"] == arm
        ]
        others = [run for run in done if run["arm"] != arm]
        probability = f"{mean_of('allowed_probability', figures):.2%}"
        rows.append((arm, *bits, difference(arm, study, of_arm + others), probability))
        shares = [mean_of("share_of_bits", [found["kinds"][kind] for found in figures]) for kind in figures[0]["kinds"]]
        kinds.append((arm, *(f"{share:.1%}" for share in shares)))
    minus = f"renormalised minus {name_of_references(study)}"
    header = ("over allowed tokens", "as it is", "renormalised", minus, "probability of allowed tokens")
    return [table(header, rows), table(("share of the bits", *scored[0]["held_out"]["held_out"]["kinds"]), kinds)]


SAMPLE_COLUMNS = {
    "json_valid": "valid JSON",
    "schema_valid": "valid under the schema",
    "lint_clean": "actionlint-clean",
    "references_intact": "references intact",
    "ended_by_model": "ended by the model",
    "loops": "with loops",
}
COSTS = {"schema_valid": "seconds for a valid one", "lint_clean": "seconds for an actionlint-clean one"}


def sample_parts(study: dict, done: list[dict]) -> list[str]:
    """Return the table of the samples of each arm, if there are any."""
    rows = []
    for run in done:
        for label in filter(run.get, study["arms"][run["arm"]].get("samples", {})):
            samples, seconds = run[label]["samples"], run[label]["seconds_of_sampling"]
            shares = [f"{samples[key]:.0%}" if key in samples else "" for key in SAMPLE_COLUMNS]
            costs = [seconds_for_one(seconds, samples["count"] * samples.get(key, 0)) for key in COSTS]
            fields = run[label].get("fields", {}).values()
            excess = [f"{fmean(each['distance'] - each['noise_floor'] for each in fields):.3f}" if fields else ""]
            rows.append((f"{run['arm']}, {label}", samples["count"], *shares, *costs, *excess))
    header = ("samples", "number", *SAMPLE_COLUMNS.values(), *COSTS.values(), "excess distance from real ones")
    return [table(header, rows)] if rows else []


def seconds_for_one(seconds: float, count: float) -> str:
    return f"{seconds / count:.2f}" if count else ""


# -- differences


def name_of_references(study: dict) -> str:
    """Return the name of the reference for the head of a column."""
    return "its reference" if any("reference" in arm for arm in study["arms"].values()) else study["reference"]


def difference(arm: str, study: dict, done: list[dict]) -> str:
    """Return the difference of an arm from its reference, seed by seed, absolute and in percent."""
    reference = study["arms"][arm].get("reference", study["reference"])
    by_seed = [{run["seed"]: run["val_bpb"] for run in done if run["arm"] == name} for name in (arm, reference)]
    seeds = by_seed[0].keys() & by_seed[1].keys()
    if arm == reference or not seeds:
        return ""
    differences = [by_seed[0][seed] - by_seed[1][seed] for seed in sorted(seeds)]
    percent = 100 * fmean(differences) / fmean(by_seed[1][seed] for seed in seeds)
    interval = f" ± {half_interval(differences):.4f}" if len(differences) > 1 else ""
    return f"{fmean(differences):+.4f}{interval} ({percent:+.1f}%)"


def half_interval(values: list[float]) -> float:
    """Return half of the 95% interval of the mean of a sample: t * s / sqrt(n).

    >>> round(half_interval([1.0, 2.0, 3.0]), 3)
    2.484
    """
    # Student's t at 97.5% with 1, 2 ... 9 degrees of freedom (NIST/SEMATECH e-Handbook, section 1.3.6.7.2)
    quantiles = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
    return quantiles[min(len(values), 10) - 2] * stdev(values) / len(values) ** 0.5


# -- the picture


def draw(path: Path, study: dict, done: list[dict]):
    """Draw the curves over compute on the left, and the final figures on the right."""
    figure, (curves, ends) = new_figure(12, 4.5, 1, 2)
    arms = [arm for arm in study["arms"] if any(run["arm"] == arm for run in done)]
    for row, arm in enumerate(arms):
        color, runs = f"C{row % 10}", [run for run in done if run["arm"] == arm]
        for run in runs:
            unit = 1e6 if study["x"] == "tokens" else 1e15 / run["flops_per_target"]  # in targets
            points = [(step * run["targets"] / unit, bits) for step, bits in run["curve"]]
            label = arm if run is runs[0] else None
            curves.plot(*zip(*points), "o-", color=color, markersize=3, linewidth=1, label=label)
        bits = [run["val_bpb"] for run in runs]
        ends.plot(bits, [-row] * len(bits), "o", color=color, alpha=0.5)
        error = half_interval(bits) if len(bits) > 1 else 0
        ends.errorbar(fmean(bits), -row, xerr=error, fmt="|", color=color, capsize=4, markersize=16)
    best = min(bits for run in done for _, bits in run["curve"])
    curves.set(xlabel="million tokens" if study["x"] == "tokens" else "PFLOPs")
    curves.set(ylabel="bits per byte, owners held out", title="Learning curves", ylim=(0.97 * best, 1.6 * best))
    ends.set_yticks([-row for row in range(len(arms))], arms)
    ends.set(xlabel="bits per byte at the end: runs, mean, 95% interval", title="At the end")
    use_logarithmic_scale(curves, "x")
    add_legend(figure)
    for axis in (curves, ends):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)

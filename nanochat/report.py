"""What a training run leaves to look at: config.json, metrics.jsonl, curves.png, a report, wandb on request.

    python -m nanochat.report out/small

draws the curves and writes the report again, of a run that goes on or has ended.
"""

import json
import math
import statistics
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

from nanochat.run_folder import CURVES, METRICS, read_config, read_metrics
from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_atomic
from script_tools.tables import fenced, table

MOST_ROWS = 20  # of the table of validations


@cli_errors
def main(argv=None):
    parser = ArgumentParser(
        prog="python -m nanochat.report", description="Draw the curves and write the report of a training run again."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the run wrote its config.json")
    folder = parser.parse_args(argv).folder
    read_config(folder)
    try:
        plot_metrics(folder / METRICS, folder / CURVES)
    except ImportError:
        print(f"no {CURVES}: matplotlib is not installed")
    print(f"written to {write_report(folder)}")


# -----------------------------------------------------------------------------
# the curves


def plot_metrics(metrics_jsonl_path, png_path):
    """Draw loss, learning rate, gradient norm and speed over the iterations, once there are any. ImportError
    where matplotlib is not installed."""
    from matplotlib.figure import Figure  # draws without a display, unlike pyplot

    records = read_metrics(metrics_jsonl_path)
    if not records:
        return
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    figure.suptitle(Path(metrics_jsonl_path).resolve().parent.name, fontweight="bold")
    (loss, rate), (norm, speed) = figure.subplots(2, 2, sharex=True)
    for axes, title in (
        (loss, "loss (nats per token)"),
        (rate, "learning rate"),
        (norm, "gradient norm"),
        (speed, "speed (tokens per second)"),
    ):
        axes.set_title(title, loc="left", fontsize=11)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)

    draw_curve(loss, records, "loss", "tab:blue", "training")
    draw_curve(norm, records, "grad_norm", "tab:purple")
    draw_curve(speed, records, "tokens_per_second", "tab:green")
    rate.plot(*points(records, "lr"), color="tab:gray")
    validations = points(records, "val_loss")
    if validations[0]:
        loss.plot(*validations, "o-", color="tab:orange", markersize=4, label="validation")
        best, step = min(zip(*reversed(validations)))
        loss.plot(step, best, "*", color="tab:red", markersize=12, label=f"best: {best:.4f} at {step:,}")

    loss.legend(frameon=False, loc="upper right")
    spread_small_values(loss)
    spread_small_values(norm)
    for axes in (rate, speed):
        axes.set_ylim(bottom=0)
    speed.yaxis.set_major_formatter("{x:,.0f}")
    for axes in (norm, speed):
        axes.set_xlabel("iteration")
        axes.locator_params(axis="x", nbins=6, integer=True)
        axes.xaxis.set_major_formatter("{x:,.0f}")
    write_atomic(png_path, lambda file: figure.savefig(file, format="png", dpi=120))


def points(records: list[dict], key: str) -> tuple[list, list]:
    """(steps, values) of the records that have the key."""
    having = [record for record in records if key in record]
    return [record["step"] for record in having], [record[key] for record in having]


def draw_curve(axes, records: list[dict], key: str, color: str, label: str | None = None):
    """A line; where it has many points a pale one, and its running mean over it."""
    steps, values = points(records, key)
    if len(values) >= 100:
        axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
        values = smoothed(values)
    axes.plot(steps, values, color=color, linewidth=1.5, label=label)


def smoothed(values: list[float]) -> list[float]:
    """The mean of the values around each, of a twenty-fifth of all; of fewer near the start, which is steep.

    >>> smoothed([4.0] * 3 + [0.0] * 97)[:6]
    [4.0, 4.0, 2.4, 1.6, 0.8, 0.0]
    """
    reaches = [min(i, len(values) // 50) for i in range(len(values))]
    return [statistics.fmean(values[i - reach : i + reach + 1]) for i, reach in enumerate(reaches)]


def spread_small_values(axes):
    """A logarithmic scale, with ticks in plain numbers, where the values differ much in size."""
    from matplotlib.ticker import LogLocator, NullLocator

    values = [value for line in axes.lines for value in line.get_ydata()]
    if values and 0 < 4 * min(values) < max(values):
        axes.set_yscale("log")
        subs = (1, 1.5, 2, 3, 5, 7) if max(values) < 100 * min(values) else (1,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")


# -----------------------------------------------------------------------------
# the report


def write_report(folder) -> Path:
    path = Path(folder) / read_config(folder)["report"]
    write_atomic(path, render_report(folder).encode())
    return path


def render_report(folder) -> str:
    """The report of a run, in Markdown, from what lies in its folder."""
    folder = Path(folder)
    config, records = read_config(folder), read_metrics(folder / METRICS)
    validations = [record for record in records if "val_loss" in record]
    best = min(validations, key=lambda record: record["val_loss"], default=None)

    parts = [f"# {folder.resolve().name}", table(("", ""), summary(config, records, best))]
    if (folder / CURVES).is_file():
        parts.append(f"![Loss, learning rate, gradient norm and speed over the iterations]({CURVES})")
    if best:
        parts += [
            "## Validation",
            table(
                ("iteration", "loss", "perplexity", "bits per byte"),
                [validation_row(record) for record in thinned(validations, best)],
            ),
        ]
    parts += samples(folder)
    parts += ["## Command", fenced(config["command"])]
    if config["history"]:
        parts.append(f"The run was resumed after iteration {config['first_step']:,}. Its earlier commands:")
        parts += [
            f"{before['date']}, after iteration {before['first_step']:,}\n\n{fenced(before['command'])}"
            for before in config["history"]
        ]
    versions = ", ".join(f"{name} {version}" for name, version in config["versions"].items())
    made = (("date", config["date"]), ("device", config["device"]), ("versions", versions))
    rest = {key: config[key] for key in ("model_config", "data")}
    parts += [
        table(("", ""), made),
        "## Settings",
        table(("setting", "value"), config["settings"].items()),
        "## Model and data",
        fenced(json.dumps(rest, indent=2), "json"),
    ]
    return "\n\n".join(parts) + "\n"


def summary(config: dict, records: list[dict], best: dict | None) -> list[tuple]:
    """The first table: how the run stands, best being its best validation."""
    rows = [("status", config["status"]), ("parameters", f"{config['parameters']:,}")]
    training = [record for record in records if "loss" in record]
    if training:
        last, wanted = training[-1], config["settings"].get("num_iterations")
        speeds = [record["tokens_per_second"] for record in training]
        rows += [
            ("iterations", f"{records[-1]['step']:,}" + (f" of {wanted:,}" if wanted else "")),
            ("epochs", f"{last['epoch']:.2f}"),
            ("training time", timedelta(seconds=round(last["seconds"]))),
            ("tokens per second (median)", f"{statistics.median(speeds):,.0f}"),
            ("last training loss", f"{last['loss']:.4f} nats per token"),
        ]
    if best:
        step, loss, perplexity, bits = validation_row(best)
        rows.append(
            (
                "best validation",
                f"{loss} nats per token, perplexity {perplexity}, {bits} bits per byte, at iteration {step}",
            )
        )
    return rows + [("checkpoints", f"`{config['checkpoint_dir']}`")]


def validation_row(record: dict) -> tuple:
    perplexity = record.get("val_ppl", math.inf)  # the one number that may be too large to have been noted
    return (f"{record['step']:,}", f"{record['val_loss']:.4f}", f"{perplexity:,.2f}", f"{record['val_bpb']:.4f}")


def thinned(validations: list[dict], best: dict) -> list[dict]:
    """At most MOST_ROWS of them at even distances: the first, the last, and always the best."""
    last, gaps = len(validations) - 1, MOST_ROWS - 2
    even = range(last + 1) if last <= gaps else [round(i * last / gaps) for i in range(gaps + 1)]
    return [validations[i] for i in sorted({*even, validations.index(best)})]


def samples(folder: Path) -> list[str]:
    """Links to the workflows that each checkpoint wrote, and the first one of the last checkpoint in full."""
    steps = {}  # name of the folder -> paths from the run's folder
    for file in sorted(folder.glob("generated_samples/step_*/*.yml")):
        steps.setdefault(file.parent.name, []).append(file.relative_to(folder))
    if not steps:
        return []
    lines = [
        f"- {step}: " + ", ".join(f"[{file.name}]({quote(file.as_posix())})" for file in files)
        for step, files in steps.items()
    ]
    newest = steps[max(steps)][0]
    return [
        "## Samples",
        "\n".join(lines),
        f"`{newest.as_posix()}`:",
        fenced((folder / newest).read_text("utf-8", errors="replace"), "yaml"),
    ]


if __name__ == "__main__":
    main()

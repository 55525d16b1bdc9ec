"""What a training run leaves to look at: config.json, metrics.jsonl, curves.png, a report, wandb on request.

    python -m nanochat.report out/small

draws the curves and writes the report again, of a run that goes on or has ended.
"""

import json
import math
import os
import re
import statistics
import sys
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from urllib.parse import quote

from nanochat.common import ArgumentParser, sentence, user_errors, write_atomic

CONFIG, METRICS, CURVES = "config.json", "metrics.jsonl", "curves.png"
REPORTS = ("report.md", "README.md")  # the latter of an experiment
KEYS = {"command", "date", "first_step", "history", "status", "report", "settings", "checkpoint_dir"}  # of every config
MOST_ROWS = 20  # of the table of validations


@user_errors
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
# a run as it goes


class RunLog:
    """The record of a run in a folder, which is made where it is missing, and on the screen.

    config describes the run: command, date, versions, device, settings, model_config, parameters, data and
    checkpoint_dir. A run that goes on after iteration first_step keeps its metrics until then, and the
    commands that it was started with before. bar_total, the last iteration, asks for a progress bar where
    stderr is a terminal; log_file for logs/training_DATE_TIME.log, a copy of the lines; is_experiment for a
    report that is called README.md, not report.md. ValueError where wandb does not start, OSError where the
    folder cannot be made; no file that cannot be written stops the run.
    """

    def __init__(
        self,
        folder,
        *,
        first_step=0,
        config: dict,
        wandb_name=None,
        log_file=False,
        bar_total=None,
        is_experiment=False,
    ):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.bar, self.missing = None, set()
        log_name = f"logs/training_{datetime.now():%Y%m%d_%H%M%S}.log"
        self.log_path = self.folder / log_name if log_file else None

        history = []
        if first_step and (self.folder / CONFIG).is_file():
            earlier = read_config(self.folder)
            history = earlier["history"] + [{key: earlier[key] for key in ("command", "date", "first_step")}]
        self.config = {
            **config,
            "first_step": first_step,
            "history": history,
            "status": "running",
            "report": REPORTS[is_experiment],
        }
        self.wandb_run = start_wandb(wandb_name, self.config) if wandb_name else None

        self._save_config()
        with self._going_on(METRICS):
            records = read_metrics(self.folder / METRICS)
            kept = [json.dumps(record) + "\n" for record in records if record["step"] <= first_step]
            write_atomic(self.folder / METRICS, "".join(kept).encode())
        if bar_total and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=bar_total, initial=first_step, unit="it", dynamic_ncols=True)

    def line(self, text):
        """Say text, above the bar if there is one, and note it in the log file."""
        if self.bar:
            self.bar.write(text, file=sys.stdout)
            sys.stdout.flush()
        else:
            print(text, flush=True)
        if self.log_path:
            with self._going_on("the log file"):
                self.log_path.parent.mkdir(exist_ok=True)
                append(self.log_path, f"{text}\n")

    def write(self, record):
        """Note a record of numbers, one of them its "step". What is not finite is left out."""
        record = finite(record)
        with self._going_on(METRICS):
            append(self.folder / METRICS, json.dumps(record) + "\n")
        if self.wandb_run:
            self.wandb_run.log(record, step=record["step"])

    def advance(self, step, **shown):
        """Move the progress bar to step, with what is shown behind it."""
        if self.bar:
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update(step - self.bar.n)

    def draw(self):
        """Draw the curves and write the report of the run so far."""
        with self._going_on(CURVES):
            plot_metrics(self.folder / METRICS, self.folder / CURVES)
        with self._going_on(self.config["report"]):
            write_report(self.folder)

    def finish(self, status):
        """The run is over: how it ended, for the report."""
        if self.bar:
            self.bar.close()
            self.bar = None
        self.config["status"] = status
        self._save_config()
        self.draw()
        if self.wandb_run:
            self.wandb_run.finish()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error:
            self.finish(f"failed: {sentence(error)}")

    def _save_config(self):
        with self._going_on(CONFIG):
            write_atomic(self.folder / CONFIG, json.dumps(self.config, indent=2).encode() + b"\n")

    @contextmanager
    def _going_on(self, name):
        """A full disk or a missing matplotlib costs the file of this name, not the run: one line says so."""
        try:
            yield
        except (OSError, ValueError, ImportError) as error:
            if name not in self.missing:
                self.missing.add(name)
                why = "matplotlib is not installed" if isinstance(error, ImportError) else sentence(error)
                self.line(f"training goes on without {name}: {why}")


def start_wandb(name: str, config: dict):
    try:
        import wandb
    except ImportError:
        raise ValueError("--run needs the package wandb: install it, or leave --run out") from None
    try:
        return wandb.init(project="nanochat-tct", name=name, config=config)
    except wandb.Error as error:
        raise ValueError(f"wandb did not start ({error}); WANDB_MODE=offline needs no account") from None


# -----------------------------------------------------------------------------
# files


def read_config(folder) -> dict:
    """The config.json of a run. ValueError if there is none."""
    path = Path(folder) / CONFIG
    if not path.parent.is_dir():
        raise ValueError(f"{folder}: there is no such folder")
    if not path.is_file():
        raise ValueError(f"{folder} is not the folder of a run: it has no {CONFIG}")
    try:
        config = json.loads(path.read_bytes())
        is_ours = KEYS <= config.keys() and config["report"] in REPORTS
    except (ValueError, AttributeError, TypeError):
        is_ours = False
    if not is_ours:
        raise ValueError(f"{path} is not that of a training run: name another folder")
    return config


def read_metrics(path) -> list[dict]:
    """The records of a metrics.jsonl; a line that a crash cut short is left out."""
    records = []
    if Path(path).is_file():
        for line in Path(path).read_bytes().splitlines():
            try:
                records.append(finite(json.loads(line)))
            except ValueError:
                pass
    return records


def finite(record: dict) -> dict:
    """
    >>> finite({"step": 3, "val_loss": 800.0, "val_ppl": math.inf})
    {'step': 3, 'val_loss': 800.0}
    """
    return {key: value for key, value in record.items() if math.isfinite(value)}


def append(path: Path, text: str):
    """Add text to a file, or nothing at all. OSError where that fails."""
    size = path.stat().st_size if path.exists() else 0
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        if path.exists():
            os.truncate(path, size)  # what follows, when there is room again, begins a line
        raise OSError(error.errno, error.strerror, str(path)) from None


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


def table(header: tuple, rows) -> str:
    rule = ["---"] * len(header)
    lines = [[str(cell).replace("|", r"\|") for cell in line] for line in (header, rule, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def columns(rows) -> str:
    """The rows as plain text: columns as wide as they need with two blanks between, the first to the left and the
    others to the right. An empty row is an empty line.

    >>> print(columns([("", "first", "second"), ("a", 12.5, ""), (), ("longer", 1, "2 to 3")]))
            first  second
    a        12.5
    <BLANKLINE>
    longer      1  2 to 3
    """
    rows = [list(map(str, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    lines = (
        "  ".join(
            [cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(zip(row, widths))]
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def fenced(text: str, language: str = "") -> str:
    """A code block, its fence longer than any in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


if __name__ == "__main__":
    main()

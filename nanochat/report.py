"""The report of a training run in Markdown, and as a page.

    python -m nanochat.report out/small

draws the curves and writes the report again, of a run in progress or a finished one.
"""

import json
import math
import statistics
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

from nanochat import curves
from nanochat.run_folder import CURVES, METRICS, PAGE, REPORTS, read_config, read_metrics
from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_atomic
from script_tools.pages import render_page
from script_tools.tables import fenced, table

MAX_ROWS = 20  # of the table of validations


@cli_errors
def main(argv=None):
    description = "Draw the curves and write the report of a training run again."
    parser = ArgumentParser(prog="python -m nanochat.report", description=description)
    parser.add("folder", "folder with the config.json of the run", type=Path, metavar="FOLDER")
    folder = parser.parse_args(argv).folder
    read_config(folder)
    try:
        curves.plot_metrics(folder / METRICS, folder / CURVES)
    except ImportError:
        print(f"no {CURVES}: matplotlib is not installed")
    print(f"written to {write_report(folder)}")


def write_report(folder) -> Path:
    """Write the report of the run in a folder, and a page next to report.md; return the path of the report."""
    path = Path(folder) / read_config(folder)["report"]
    text = render_report(folder)
    write_atomic(path, text.encode())
    if path.name == REPORTS[0]:
        write_atomic(path.with_name(PAGE), render_page(text, path.parent).encode())
    return path


def render_report(folder) -> str:
    """Return the report of a run in Markdown, from the files in its folder."""
    folder = Path(folder)
    config, records = read_config(folder), read_metrics(folder / METRICS)
    validations = [record for record in records if "val_loss" in record]
    best = min(validations, key=lambda record: record["val_loss"], default=None)

    parts = [f"# {folder.resolve().name}", table(("", ""), summary(config, records, best))]
    if (folder / CURVES).is_file():
        parts.append(f"![Loss, learning rate, gradient norm and speed over the iterations]({CURVES})")
    if best:
        rows = [validation_row(record) for record in subsample(validations, best)]
        parts += ["## Validation", table(("iteration", "loss", "perplexity", "bits per byte"), rows)]
    parts += samples(folder)
    parts += ["## Command", fenced(config["command"])]
    if config["history"]:
        parts.append(f"The run was resumed after iteration {config['first_step']:,}. Earlier commands:")
    for before in config["history"]:
        parts += [f"{before['date']}, after iteration {before['first_step']:,}", fenced(before["command"])]
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
    """Return the rows of the first table: the state of the run. best is the record of its best validation."""
    rows = [("status", config["status"]), ("parameters", f"{config['parameters']:,}")]
    training = [record for record in records if "loss" in record]
    if training:
        last, total = training[-1], config["settings"].get("num_iterations")
        speeds = [record["tokens_per_second"] for record in training]
        rows += [
            ("iterations", f"{records[-1]['step']:,}" + (f" of {total:,}" if total else "")),
            ("epochs", f"{last['epoch']:.2f}"),
            ("training time", timedelta(seconds=round(last["seconds"]))),
            ("tokens per second (median)", f"{statistics.median(speeds):,.0f}"),
            ("last training loss", f"{last['loss']:.4f} nats per token"),
        ]
    if best:
        step, loss, perplexity, bits = validation_row(best)
        text = f"{loss} nats per token, perplexity {perplexity}, {bits} bits per byte, at iteration {step}"
        rows.append(("best validation", text))
    return rows + [("checkpoints", f"`{config['checkpoint_dir']}`")]


def validation_row(record: dict) -> tuple:
    """Format the figures of a validation."""
    perplexity = record.get("val_ppl", math.inf)  # infinite numbers are not logged
    return (f"{record['step']:,}", f"{record['val_loss']:.4f}", f"{perplexity:,.2f}", f"{record['val_bpb']:.4f}")


def subsample(validations: list[dict], best: dict) -> list[dict]:
    """Return at most MAX_ROWS of them, evenly spaced: the first, the last, and always the best."""
    last, gaps = len(validations) - 1, MAX_ROWS - 2
    even = range(last + 1) if last <= gaps else [round(i * last / gaps) for i in range(gaps + 1)]
    return [validations[i] for i in sorted({*even, validations.index(best)})]


def samples(folder: Path) -> list[str]:
    """Return links to the samples of each checkpoint, and the first one of the last checkpoint in full."""
    steps = {}  # name of the folder -> paths relative to the run's folder
    for file in sorted(folder.glob("generated_samples/step_*/*.yml")):
        steps.setdefault(file.parent.name, []).append(file.relative_to(folder))
    if not steps:
        return []
    lines = []
    for step, files in steps.items():
        lines.append(f"- {step}: " + ", ".join(f"[{file.name}]({quote(file.as_posix())})" for file in files))
    newest = steps[max(steps)][0]
    text = (folder / newest).read_text("utf-8", errors="replace")
    return ["## Samples", "\n".join(lines), f"`{newest.as_posix()}`:", fenced(text, "yaml")]


if __name__ == "__main__":
    main()

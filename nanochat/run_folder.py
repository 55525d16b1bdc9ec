"""The files in the folder of a run, and how to read them."""

import json
import math
import os
from pathlib import Path

CONFIG, METRICS, CURVES = "config.json", "metrics.jsonl", "curves.png"
CONFIG_KEYS = {"command", "date", "first_step", "history", "status", "report", "settings", "checkpoint_dir"}
REPORTS = ("report.md", "README.md")  # of a run, of an experiment
PAGE = "report.html"  # the report of a run as a page; an experiment has none


def read_config(folder) -> dict:
    """Return the config.json of a run. ValueError if there is none."""
    path = Path(folder) / CONFIG
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {folder}")
    if not path.is_file():
        raise ValueError(f"{folder} is not the folder of a run: it has no {CONFIG}")
    try:
        config = json.loads(path.read_bytes())
        is_ours = CONFIG_KEYS <= config.keys() and config["report"] in REPORTS
    except (ValueError, AttributeError, TypeError):
        is_ours = False
    if not is_ours:
        raise ValueError(f"{path} is not of a training run: name another folder")
    return config


def read_metrics(path) -> list[dict]:
    """Return the records of a metrics.jsonl; a line that a crash cut short is skipped."""
    records = []
    if Path(path).is_file():
        for line in Path(path).read_bytes().splitlines():
            try:
                records.append(finite_only(json.loads(line)))
            except ValueError:
                pass
    return records


def finite_only(record: dict) -> dict:
    """Drop infinities and NaN, which JSON does not have.

    >>> finite_only({"step": 3, "val_loss": 800.0, "val_ppl": math.inf})
    {'step': 3, 'val_loss': 800.0}
    """
    return {key: value for key, value in record.items() if math.isfinite(value)}


def append(path: Path, text: str):
    """Append text to a file, or nothing at all. OSError if that fails."""
    size = path.stat().st_size if path.exists() else 0
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        if path.exists():
            os.truncate(path, size)  # so that the next text begins a line
        raise OSError(error.errno, error.strerror, str(path)) from None

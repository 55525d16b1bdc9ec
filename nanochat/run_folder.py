"""The files that a run writes in its folder, and how to read them."""

import json
import math
import os
from pathlib import Path

CONFIG, METRICS, CURVES = "config.json", "metrics.jsonl", "curves.png"
CONFIG_KEYS = {"command", "date", "first_step", "history", "status", "report", "settings", "checkpoint_dir"}
REPORTS = ("report.md", "README.md")  # the latter of an experiment


def read_config(folder) -> dict:
    """The config.json of a run. ValueError if there is none."""
    path = Path(folder) / CONFIG
    if not path.parent.is_dir():
        raise ValueError(f"{folder}: there is no such folder")
    if not path.is_file():
        raise ValueError(f"{folder} is not the folder of a run: it has no {CONFIG}")
    try:
        config = json.loads(path.read_bytes())
        is_ours = CONFIG_KEYS <= config.keys() and config["report"] in REPORTS
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

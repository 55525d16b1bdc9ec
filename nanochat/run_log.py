"""The log, the metrics and the config of a run."""

import json
import sys
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tqdm import tqdm

from nanochat import curves
from nanochat.report import write_report
from nanochat.run_folder import CONFIG, CURVES, METRICS, REPORTS, append, finite_only, read_config, read_metrics
from script_tools.cli import format_error
from script_tools.files import write_atomic, write_json


class RunLog:
    """Logs a run to the screen and to a folder, which is made if it is missing.

    config describes the run: command, date, versions, device, settings, model_config, parameters, data and
    checkpoint_dir. A run that is resumed after iteration first_step keeps its metrics up to there and the earlier
    commands. There is a progress bar if stderr is a terminal. An experiment has a README.md instead of report.md and
    report.html, and logs/training_DATE_TIME.log, a copy of the lines.

    ValueError if wandb does not start, OSError if the folder cannot be made. A file that cannot be written does not
    stop the run.
    """

    def __init__(self, folder, *, config: dict, first_step=0, wandb_name=None, is_experiment=False):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.bar, self.missing = None, set()
        self.log_path = self.folder / f"logs/training_{datetime.now():%Y%m%d_%H%M%S}.log" if is_experiment else None

        history = []
        if first_step and (self.folder / CONFIG).is_file():
            earlier = read_config(self.folder)
            history = earlier["history"] + [{key: earlier[key] for key in ("command", "date", "first_step")}]
        state = {"first_step": first_step, "history": history, "status": "running", "report": REPORTS[is_experiment]}
        self.config = config | state
        self.wandb_run = start_wandb(wandb_name, self.config) if wandb_name else None

        self._save_config()
        with self._best_effort(METRICS):
            records = read_metrics(self.folder / METRICS)
            kept = [json.dumps(record) + "\n" for record in records if record["step"] <= first_step]
            write_atomic(self.folder / METRICS, "".join(kept).encode())
        if sys.stderr.isatty():
            total = config["settings"].get("num_iterations")
            self.bar = tqdm(total=total, initial=first_step, unit="it", dynamic_ncols=True)

    def log(self, text):
        """Print a line, above the progress bar if there is one, and append it to the log file."""
        if self.bar:
            self.bar.write(text, file=sys.stdout)
            sys.stdout.flush()
        else:
            print(text, flush=True)
        if self.log_path:
            with self._best_effort("the log file"):
                self.log_path.parent.mkdir(exist_ok=True)
                append(self.log_path, f"{text}\n")

    def log_metrics(self, record):
        """Append a record of numbers, one of them its "step". Numbers that are not finite are skipped."""
        record = finite_only(record)
        with self._best_effort(METRICS):
            append(self.folder / METRICS, json.dumps(record) + "\n")
        if self.wandb_run:
            self.wandb_run.log(record, step=record["step"])

    def advance(self, step, **shown):
        """Move the progress bar to step; show the named figures next to it."""
        if self.bar:
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update(step - self.bar.n)

    def redraw(self):
        """Draw the curves and write the report of the run so far."""
        with self._best_effort(CURVES):
            curves.plot_metrics(self.folder / METRICS, self.folder / CURVES)
        with self._best_effort(self.config["report"]):
            write_report(self.folder)

    def finish(self, status):
        """Record how the run ended, and write the last report."""
        if self.bar:
            self.bar.close()
            self.bar = None
        self.config["status"] = status
        self._save_config()
        self.redraw()
        if self.wandb_run:
            self.wandb_run.finish()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error:
            self.finish(f"failed: {format_error(error)}")

    def _save_config(self):
        with self._best_effort(CONFIG):
            write_json(self.folder / CONFIG, self.config)

    @contextmanager
    def _best_effort(self, name):
        """Catch a full disk or a missing package: the run continues without this file, which one line reports."""
        try:
            yield
        except (OSError, ValueError, ImportError) as error:
            if name not in self.missing:
                self.missing.add(name)
                is_missing = isinstance(error, ImportError)
                why = f"{error.name.split('.')[0]} is not installed" if is_missing else format_error(error)
                self.log(f"training continues without {name}: {why}")


class NullLog:
    """Logs nothing: the log of all ranks but the first."""

    def _ignore(self, *arguments, **named):
        pass

    log = log_metrics = advance = redraw = finish = __exit__ = _ignore

    def __enter__(self):
        return self


def start_wandb(name: str, config: dict):
    """Return a new wandb run. ValueError if wandb is missing or does not start."""
    try:
        import wandb  # optional
    except ImportError:
        raise ValueError("--run needs the package wandb: install it, or leave --run out") from None
    try:
        return wandb.init(project="nanochat-tct", name=name, config=config)
    except wandb.Error as error:
        raise ValueError(f"wandb did not start ({error}); WANDB_MODE=offline needs no account") from None

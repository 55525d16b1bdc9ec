"""The log, the metrics and the config of a run."""

import json
import sys
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from nanochat.report import plot_metrics, write_report
from nanochat.run_folder import CONFIG, CURVES, METRICS, REPORTS, append, finite, read_config, read_metrics
from script_tools.cli import format_error
from script_tools.files import write_atomic

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
            self.finish(f"failed: {format_error(error)}")

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
                why = "matplotlib is not installed" if isinstance(error, ImportError) else format_error(error)
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

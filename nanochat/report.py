"""What a run leaves to look at: metrics.jsonl, loss.png, and wandb if it was asked for."""

import json
from pathlib import Path

from nanochat.common import write_atomic


class MetricsLog:
    """One JSON object a line in folder/metrics.jsonl, each with its "step"; and the same to wandb where
    run_name is given. Of an earlier run's lines those up to first_step stay. ValueError where wandb does not
    start."""

    def __init__(self, folder, first_step: int = 0, run_name: str | None = None, config: dict | None = None):
        self.path = Path(folder) / "metrics.jsonl"
        self.wandb_run = start_wandb(run_name, config) if run_name else None
        kept = [record for record in read_metrics(self.path) if record["step"] <= first_step]
        write_atomic(self.path, "".join(json.dumps(record) + "\n" for record in kept).encode())
        self.draws = True

    def write(self, record: dict):
        with open(self.path, "a") as file:
            file.write(json.dumps(record) + "\n")
        if self.wandb_run:
            self.wandb_run.log(record, step=record["step"])

    def draw(self):
        """loss.png of what was written so far; a note, once, where matplotlib is missing."""
        try:
            if self.draws:
                plot_metrics(self.path, self.path.with_name("loss.png"))
        except ImportError:
            print("matplotlib is not installed: no loss.png")
            self.draws = False

    def finish(self):
        if self.wandb_run:
            self.wandb_run.finish()


def start_wandb(run_name: str, config: dict | None):
    try:
        import wandb
    except ImportError:
        raise ValueError("--run needs the package wandb: install it, or leave --run out") from None
    try:
        return wandb.init(project="nanochat-tct", name=run_name, config=config)
    except wandb.Error as error:
        raise ValueError(f"wandb did not start ({error}); WANDB_MODE=offline needs no account") from None


def read_metrics(path) -> list[dict]:
    """The records of a metrics.jsonl; a last line that a crash cut short is left out."""
    records = []
    if Path(path).is_file():
        for line in Path(path).read_text().splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                break
    return records


def plot_metrics(metrics_jsonl_path, png_path):
    """Draw training and validation loss over iterations. ImportError where matplotlib is not installed."""
    from matplotlib.figure import Figure  # draws without a display, unlike pyplot

    records = read_metrics(metrics_jsonl_path)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for key, label, style in (("loss", "training", "-"), ("val_loss", "validation", "o-")):
        points = [(record["step"], record[key]) for record in records if key in record]
        if points:
            axes.plot(*zip(*points), style, label=label, linewidth=1, markersize=4)
    axes.set(xlabel="iteration", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    axes.legend()
    write_atomic(png_path, lambda file: figure.savefig(file, format="png", dpi=120))

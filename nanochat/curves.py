"""The curves of a training run."""

import statistics
from pathlib import Path

from nanochat.run_folder import read_metrics
from script_tools.figures import add_legend, new_figure, use_logarithmic_scale
from script_tools.files import write_atomic


def plot_metrics(metrics_jsonl_path, png_path):
    """Draw loss, learning rate, gradient norm and speed over the iterations, if there are any.

    Raise ImportError without matplotlib.
    """
    records = read_metrics(metrics_jsonl_path)
    if not records:
        return
    figure, ((loss, lr), (norm, speed)) = new_figure(11, 6.5, 2, 2, sharex=True)
    figure.suptitle(Path(metrics_jsonl_path).resolve().parent.name, fontweight="bold")
    titles = "loss (nats per token)", "learning rate", "gradient norm", "speed (tokens per second)"
    for axes, title in zip((loss, lr, norm, speed), titles):
        axes.set_title(title, loc="left", fontsize=11)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)

    draw_curve(loss, records, "loss", "tab:blue", "training loss")
    draw_curve(norm, records, "grad_norm", "tab:purple")
    draw_curve(speed, records, "tokens_per_second", "tab:green")
    lr.plot(*points(records, "lr"), color="tab:gray")
    validations = points(records, "val_loss")
    if validations[0]:
        loss.plot(*validations, "o-", color="tab:orange", markersize=4, label="validation loss")
        best, step = min(zip(*reversed(validations)))
        loss.plot(step, best, "*", color="tab:red", markersize=12, label=f"best: {best:.4f} at {step:,}")

    spread_small_values(loss)
    spread_small_values(norm)
    for axes in (lr, speed):
        axes.set_ylim(bottom=0)
    speed.yaxis.set_major_formatter("{x:,.0f}")
    for axes in (norm, speed):
        axes.set_xlabel("iteration")
        axes.locator_params(axis="x", nbins=6, integer=True)
        axes.xaxis.set_major_formatter("{x:,.0f}")
    add_legend(figure)
    write_atomic(png_path, lambda file: figure.savefig(file, format="png", dpi=120))


def points(records: list[dict], key: str) -> tuple[list, list]:
    """Return (steps, values) of the records that have the key."""
    found = [record for record in records if key in record]
    return [record["step"] for record in found], [record[key] for record in found]


def draw_curve(axes, records: list[dict], key: str, color: str, label: str | None = None):
    """Draw a line; if it has many points, draw it pale with its running mean on top."""
    steps, values = points(records, key)
    if len(values) >= 100:
        axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
        values = smoothed(values)
    axes.plot(steps, values, color=color, linewidth=1.5, label=label)


def smoothed(values: list[float]) -> list[float]:
    """Replace each value by the mean of those around it, a twenty-fifth of all; fewer near the start, which is steep.

    >>> smoothed([4.0] * 3 + [0.0] * 97)[:6]
    [4.0, 4.0, 2.4, 1.6, 0.8, 0.0]
    """
    reaches = [min(i, len(values) // 50) for i in range(len(values))]
    return [statistics.fmean(values[i - reach : i + reach + 1]) for i, reach in enumerate(reaches)]


def spread_small_values(axes):
    """Use a logarithmic scale if the values differ much in size."""
    values = [value for line in axes.lines for value in line.get_ydata()]
    if values and 0 < 4 * min(values) < max(values):
        use_logarithmic_scale(axes, "y")

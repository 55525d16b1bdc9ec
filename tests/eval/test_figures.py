"""Figures are legible: legends cover nothing, and no two tick labels overlap."""

import json
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nanochat import curves, study_report
from script_tools.figures import add_legend, new_figure, use_logarithmic_scale
from scripts import tok_eval
from workflow_data import views
from workflow_eval import report

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SIDES = {"samples": 200, "real": 400}  # sets of an evaluation, and medians of their lengths


def tick_labels(axis) -> list:
    """Return the tick labels of an axis that are drawn."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() + axis.get_minor_ticks() if low <= tick.get_loc() <= high]
    return [tick.label1 for tick in ticks if tick.label1.get_visible() and tick.label1.get_text()]


def check_legible(figure):
    FigureCanvasAgg(figure).draw()
    shown = [axes for axes in figure.axes if axes.axison]
    labels = [label for axes in shown for axis in (axes.xaxis, axes.yaxis) for label in tick_labels(axis)]
    for one, other in combinations(labels, 2):
        assert not one.get_window_extent().overlaps(other.get_window_extent()), (one.get_text(), other.get_text())
    assert not [axes for axes in shown if axes.get_legend()]
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert not [axes for axes in shown if box.overlaps(axes.get_tightbbox())]
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0


@pytest.fixture
def saved(monkeypatch) -> list[Figure]:
    """Return a list that will have each figure that is saved."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **options: figures.append(self))
    return figures


def lengths(median: float, spread: float, count: int) -> list[int]:
    return np.random.default_rng(0).lognormal(np.log(median), spread, count).astype(int).clip(2).tolist()


@pytest.mark.parametrize("name", ["x", "y"])
@pytest.mark.parametrize(
    "low, high",
    [(8, 9), (8, 16), (300, 450), (90, 1_100), (8, 900), (8, 99_999), (1, 3_000_000), (3e-4, 0.7), (1e-4, 1e4)],
)
def test_a_logarithmic_axis_has_ticks_that_do_not_overlap(low, high, name):
    figure, (_, axes) = new_figure(11, 4, 1, 2)
    axes.plot((low, high), (low, high))
    use_logarithmic_scale(axes, name)
    check_legible(figure)
    labels = [label.get_text() for label in tick_labels(getattr(axes, f"{name}axis"))]
    assert len(labels) >= 2
    assert not [text for text in labels if "e" in text or "$" in text]


def test_a_legend_has_each_label_once_and_fits():
    figure, both = new_figure(6, 3, 1, 2)
    for axes in both:
        for index in range(9):
            axes.plot((0, 1), (index, 9), label=f"a long name of number {index}")
    add_legend(figure)
    check_legible(figure)
    assert len(figure.legends[0].get_texts()) == 9


@pytest.mark.parametrize("median, spread", [(80, 0.3), (300, 1.2), (20_000, 2)])
def test_the_plot_of_prepared_data_is_legible(saved, median, spread):
    counts = {"train": 2_000, "val": 300, "test": 0}
    entries = {
        split: [{"tokens": length, "windows": 1 + length // 32} for length in lengths(median, spread, count)]
        for split, count in counts.items()
    }
    views.plot(Path("prepared.png"), entries, {"context_size": 512})
    check_legible(*saved)


@pytest.mark.parametrize("run", ["exp000-poc", "exp001-small-ctx512-s512", "quickstart"])
def test_the_curves_of_a_run_are_legible(saved, tmp_path, run):
    curves.plot_metrics(EXPERIMENTS / run / "metrics.jsonl", tmp_path / "curves.png")
    check_legible(*saved)


@pytest.mark.parametrize("name", sorted(path.parent.name for path in EXPERIMENTS.glob("*/study.json")))
def test_the_picture_of_a_study_is_legible(saved, name):
    study, results = (json.loads((EXPERIMENTS / name / file).read_bytes()) for file in ("study.json", "results.json"))
    study_report.draw(Path("study.png"), {"x": "flops"} | study, list(results.values()))
    check_legible(*saved)


def test_the_picture_of_tokenizers_is_legible(saved):
    counts = {name: lengths(median, 1, 500) for name, median in (("tct", 200), ("BPE 8,192", 300), ("r50k_base", 900))}
    results = {name: {"counts": found, "characters_per_token": len(name)} for name, found in counts.items()}
    tok_eval.plot(results, Path("tok_eval.png"))
    check_legible(*saved)


@pytest.mark.parametrize("name", report.FIGURES)
def test_the_figures_of_an_evaluation_are_legible(name):
    results = json.loads((EXPERIMENTS / "exp001-small-ctx512-s512/eval-1.0/eval.json").read_bytes())
    sides = {name: [[0] * length for length in lengths(median, 1, 100)] for name, median in SIDES.items()}
    sets = {name: SimpleNamespace(tokens=side, texts=[3 * tokens for tokens in side]) for name, side in sides.items()}
    draw, _ = report.FIGURES[name]
    check_legible(draw(results, sets))

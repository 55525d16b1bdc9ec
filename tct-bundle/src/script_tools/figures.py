"""Create matplotlib figures that need no display, with legends and ticks that cover nothing."""

# The ticks in each power of ten of a logarithmic axis, by the largest ratio of its limits.
TICKS = {10: (1, 1.5, 2, 3, 5, 7), 100: (1, 2, 5), 1000: (1, 3), float("inf"): (1,)}


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options):
    """Return (figure, axes) as pyplot.subplots does. The size is in inches. Raise ImportError without matplotlib."""
    from matplotlib.figure import Figure  # slow, and --help does not need it; unlike pyplot it needs no display

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def add_legend(figure):
    """Put one legend below all axes of a figure, in as many columns as fit its width."""
    entries = {}  # label -> handle: a label that several axes have is shown once
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    for columns in range(len(entries), 0, -1):
        legend = figure.legend(
            entries.values(), entries.keys(), loc="outside lower center", ncols=columns, frameon=False
        )
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def use_logarithmic_scale(axes, name: str):
    """Make the axis "x" or "y" logarithmic, with few ticks, in plain numbers. Call it after drawing."""
    from matplotlib.ticker import LogLocator, NullLocator  # as above

    axes.set(**{f"{name}scale": "log"})
    low, high = getattr(axes, f"get_{name}lim")()
    axis = getattr(axes, f"{name}axis")
    ticks = next(ticks for ratio, ticks in TICKS.items() if high / low <= ratio)
    axis.set_major_locator(LogLocator(subs=ticks, numticks=6))  # at most six powers of ten
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:,.10g}")

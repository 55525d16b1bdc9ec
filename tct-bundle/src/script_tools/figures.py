"""Create matplotlib figures that need no display."""


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options):
    """Return (figure, axes) as pyplot.subplots does. The size is in inches. Raise ImportError without matplotlib."""
    from matplotlib.figure import Figure  # slow, and --help does not need it; unlike pyplot it needs no display

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)

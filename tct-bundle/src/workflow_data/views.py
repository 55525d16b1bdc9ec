"""Show what is in a prepared folder: a plot of the lengths of workflows, and some windows token by token."""

from pathlib import Path

import numpy as np

from script_tools.figures import add_legend, new_figure, use_logarithmic_scale
from workflow_data.reader import open_tokenizer
from workflow_data.table_file import open_table

TOKENS_SHOWN = 12  # at each end of a printed window


def plot(path: Path, entries: dict[str, list[dict]], metadata: dict):
    """Plot the lengths of workflows, and how many windows come from workflows of each length."""
    figure, (left, right) = new_figure(11, 4, 1, 2)
    longest = max(entry["tokens"] for workflows in entries.values() for entry in workflows)
    bins = np.geomspace(8, max(longest, 16) + 1, 48)
    for split, workflows in entries.items():
        if not workflows:
            continue
        lengths = np.array([entry["tokens"] for entry in workflows])
        windows = np.array([entry["windows"] for entry in workflows])
        percent = np.full(len(lengths), 100 / len(lengths))
        label = f"{split}: {len(lengths):,} workflows, {windows.sum():,} windows"
        left.hist(lengths, bins, weights=percent, histtype="step", label=label)
        order = lengths.argsort()
        share = 100 * windows[order].cumsum() / windows.sum()
        right.step(lengths[order], share, where="post", label=label)
    for axis in (left, right):
        axis.axvline(metadata["context_size"], color="grey", linestyle=":", label="context size")
        axis.set(xlabel="tokens of a workflow")
        axis.grid(alpha=0.3)
        use_logarithmic_scale(axis, "x")
    add_legend(figure)
    left.set(ylabel="% of the workflows", title="Lengths")
    right.set(ylabel="% of the windows", title="Windows from workflows of up to this length")
    figure.savefig(path, dpi=120)


def print_windows(folder: Path, metadata: dict, entries: dict[str, list[dict]], count: int):
    """Print the position and the tokens of a few windows, evenly spread over the workflows."""
    tokenizer = open_tokenizer(folder, metadata)
    workflows = [entry for split in entries.values() for entry in split]
    for number in np.linspace(0, len(workflows) - 1, min(count, len(workflows))).round().astype(int):
        entry = workflows[number]
        window = entry["windows"] // 2  # the middle one
        row = entry["first_window"] + window
        position, *tokens = open_table(folder / f"{entry['split']}.pt")[row].tolist()
        tokens = [token for token in tokens if token != metadata["pad_token"]]
        start, padding = position * metadata["stride"], metadata["context_size"] - len(tokens)
        print(
            f"\n{entry['split']} row {row}: {entry['file']!r}, window {window + 1} of {entry['windows']}\n"
            f"  position {position}: it starts at token {start} of {entry['tokens']}, "
            f"with {len(tokens)} tokens and {padding} of padding"
        )
        for i, token in enumerate(tokens):
            if i == TOKENS_SHOWN and len(tokens) > 2 * TOKENS_SHOWN:
                print("       ...")
            if i < TOKENS_SHOWN or i >= len(tokens) - TOKENS_SHOWN:
                print(f"  {start + i:>6} {token:>5}  {tokenizer.id_to_token(token)!r}")

"""Prepared windows in, batches out: one global order of rows, shared by however many ranks there are.

>>> loader = tokenizing_distributed_data_loader(32, 512, "train", "~/data/prepared")  # doctest: +SKIP
>>> x, y = next(loader)                                                               # doctest: +SKIP

A row is [position, tok_0 .. tok_{C-1}]; x is the row without its last token, y the row without its position.
"""

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from workflow_data.reader import check_metadata, load_rows, read_metadata

IGNORE_INDEX = -1  # a target that does not count


def tokenizing_distributed_data_loader(
    device_batch_size,
    context_size,
    split,
    data_dir,
    device="cpu",
    *,
    vocab_size=None,
    seed=0,
    max_files=None,
    max_windows=None,
    rank=None,
    world_size=None,
):
    """Batches of the prepared folder data_dir for one rank: a TrainLoader for "train", else an EvalLoader.

    max_files keeps the first so many workflows of the split; seed is for a TrainLoader, max_windows for an
    EvalLoader. Rank and world size come from torchrun's environment where they are not given. Raises
    FileNotFoundError or ValueError where the folder is missing, is no prepared folder, is empty, or was
    prepared for another context_size or vocab_size.
    """
    rows, metadata, share = open_split(context_size, split, data_dir, device, vocab_size, max_files, rank, world_size)
    if split == "train":
        return TrainLoader(rows, device_batch_size, metadata, seed=seed, **share)
    return EvalLoader(rows, device_batch_size, metadata, max_windows=max_windows, **share)


def create_dataloader(path, batch_size, shuffle, seed=0):
    """Batches of one prepared file such as val.pt, in one process: shuffled, endless; or in order, once."""
    path = Path(path)
    metadata = read_metadata(path.parent)
    rows = load_rows(path.parent, path.stem, metadata)
    if shuffle:
        return TrainLoader(rows, batch_size, metadata, seed=seed)
    return EvalLoader(rows, batch_size, metadata)


# -----------------------------------------------------------------------------
# the two loaders


class TrainLoader:
    """Endless shuffled batches (x, y), each int64 (B, C), always full.

    Row number i of the whole run is row i % N of the order of epoch i // N. A batch of all ranks together is
    the next world_size * B rows, of which rank r takes part r; so one process that accumulates n batches and
    n processes see the same rows, and the position means the same to any number of ranks.
    """

    def __init__(self, rows, batch_size, metadata, *, seed=0, rank=0, world_size=1, device="cpu"):
        self.rows, self.batch_size, self.pad_token = rows, batch_size, metadata["pad_token"]
        self.seed, self.rank, self.world_size, self.device = seed, rank, world_size, torch.device(device)
        self.drawn = 0  # rows that all ranks together have taken since the run began

    def __iter__(self):
        return self

    def __next__(self):
        first = self.drawn + self.rank * self.batch_size
        self.drawn += self.world_size * self.batch_size
        x, y = split_windows(self.rows[self._order(first, first + self.batch_size)], self.pad_token)
        return move(x, self.device), move(y, self.device)

    @property
    def epoch(self) -> float:
        """Passes over the data so far."""
        return self.drawn / len(self.rows)

    def state_dict(self) -> dict:
        epoch, position = divmod(self.drawn, len(self.rows))
        return {"seed": self.seed, "epoch": epoch, "position": position, "rows": len(self.rows)}

    def load_state_dict(self, state: dict):
        """Continue where state was taken, on any number of ranks. ValueError where the rows are others."""
        if state["rows"] != len(self.rows):
            raise ValueError(
                f"the data has {len(self.rows)} training windows, but had {state['rows']} when "
                "the checkpoint was written: give the same --data_dir and --max_files"
            )
        self.seed = state["seed"]
        self.drawn = state["epoch"] * len(self.rows) + state["position"]

    def _order(self, start: int, stop: int) -> torch.Tensor:
        """Which rows have the numbers start .. stop - 1 of the whole run."""
        parts = []
        while start < stop:
            epoch, position = divmod(start, len(self.rows))
            parts.append(epoch_order(len(self.rows), self.seed, epoch)[position : position + stop - start])
            start += len(parts[-1])
        return torch.cat(parts)


class EvalLoader:
    """One ordered pass of batches (x, y), each int64 (at most B, C); every `for` loop starts anew.

    Over all ranks every token of every workflow is a target exactly once, in the rows that `visited_rows`
    chooses.
    """

    def __init__(self, rows, batch_size, metadata, *, max_windows=None, rank=0, world_size=1, device="cpu"):
        self.rows, self.batch_size, self.pad_token = rows, batch_size, metadata["pad_token"]
        self.rank, self.world_size, self.device = rank, world_size, torch.device(device)
        self.visited, self.overlap = visited_rows(rows, metadata, max_windows)

    def __len__(self):
        return len(range(*self._firsts()))

    def __iter__(self):
        for first in range(*self._firsts()):
            batch = slice(first, first + self.batch_size)
            x, y = split_windows(self.rows[self.visited[batch]], self.pad_token)
            y[torch.arange(y.size(1)) < self.overlap[batch, None]] = IGNORE_INDEX
            yield move(x, self.device), move(y, self.device)

    def _firsts(self):
        return self.rank * self.batch_size, len(self.visited), self.world_size * self.batch_size


# -----------------------------------------------------------------------------
# the prepared folder


def open_split(context_size, split, data_dir, device, vocab_size, max_files, rank, world_size):
    """(rows, metadata, keyword arguments of a loader) of one split for one rank; see
    tokenizing_distributed_data_loader."""
    metadata = read_metadata(data_dir)
    check_metadata(metadata, data_dir, context_size, vocab_size)
    rows = load_rows(data_dir, split, metadata, max_files)
    rank = int(os.environ.get("RANK", 0)) if rank is None else rank
    world_size = int(os.environ.get("WORLD_SIZE", 1)) if world_size is None else world_size
    return rows, metadata, {"rank": rank, "world_size": world_size, "device": device}


# -----------------------------------------------------------------------------
# pure functions


@lru_cache(maxsize=2)  # an epoch and, at its end, the next
def epoch_order(num_rows: int, seed: int, epoch: int) -> torch.Tensor:
    """The permutation of num_rows rows for an epoch, int64 (N,)."""
    # Mixed to 32 bits because torch's CPU generator takes no more from a seed.
    mixed = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
    return torch.randperm(num_rows, generator=torch.Generator().manual_seed(mixed))


def visited_rows(rows, metadata, max_windows=None):
    """(visited, overlap), int64 (V,) each: the rows (R, C + 1) to show in an evaluation, and how many of the
    first targets of each were in the row before it, so that every token counts once.

    Of rows that overlap by more than half only as many are visited as keep half a context before every scored
    token, and the last. max_windows keeps about so many rows, those of whole workflows evenly spread.
    """
    context_size, step = metadata["context_size"], metadata["window_step"]
    starts = rows[:, 0].long() * metadata["stride"]  # (R,) in tokens; 0 begins a workflow
    hop = max(1, context_size // 2 // step) * step
    ends = torch.cat([starts[1:] == 0, torch.tensor([True])])
    visited = (starts % hop == 0) | ends
    if max_windows is not None and max_windows < visited.sum():
        share = max_windows / int(visited.sum())
        workflow = (starts == 0).cumsum(0).double()  # (R,) 1, 1, 2, ...
        visited &= (workflow * share).ceil() > ((workflow - 1) * share).ceil()
    visited = visited.nonzero().flatten()
    starts = starts[visited]
    return visited, torch.where(starts > 0, context_size - starts.diff(prepend=starts[:1]), 0)


def split_windows(windows: torch.Tensor, pad_token: int):
    """Inputs and targets, int64 (B, C) each, of windows (B, C + 1); padding is no target."""
    windows = windows.long()
    x, y = windows[:, :-1].contiguous(), windows[:, 1:].clone()
    return x, y.masked_fill_(y == pad_token, IGNORE_INDEX)


def move(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """To the device; to a GPU without waiting for the copy."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)

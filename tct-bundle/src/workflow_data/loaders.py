"""Load batches from prepared windows: one global order of rows, shared by any number of ranks.

>>> loader = tokenizing_distributed_data_loader(32, 512, "train", "~/data/prepared")  # doctest: +SKIP
>>> x, y = next(loader)                                                               # doctest: +SKIP

A row is [position, tok_0 .. tok_{C-1}]; x is the row without its last token, y the row without its position.
Training itself uses nanochat.packing, which needs no padding.
"""

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from workflow_data.reader import check_metadata, load_rows, read_metadata

IGNORE_INDEX = -1  # a target that is not scored


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
    """Return the loader of one rank for a prepared folder: a TrainLoader for "train", otherwise an EvalLoader.

    max_files keeps the first workflows of the split. seed is for a TrainLoader, max_windows for an EvalLoader. rank
    and world_size are by default those of torchrun. Raise FileNotFoundError or ValueError if data_dir is not a prepared
    folder, is empty, or was prepared for another context_size or vocab_size.
    """
    rows, metadata, share = open_split(context_size, split, data_dir, device, vocab_size, max_files, rank, world_size)
    if split == "train":
        return TrainLoader(rows, device_batch_size, metadata, seed=seed, **share)
    return EvalLoader(rows, device_batch_size, metadata, max_windows=max_windows, **share)


def create_dataloader(path, batch_size, shuffle, seed=0):
    """Return a loader for one file such as val.pt and one process: endless and shuffled, or one ordered pass."""
    metadata = read_metadata(Path(path).parent)
    rows = load_rows(Path(path).parent, Path(path).stem, metadata)
    return TrainLoader(rows, batch_size, metadata, seed=seed) if shuffle else EvalLoader(rows, batch_size, metadata)


def open_split(context_size, split, data_dir, device, vocab_size, max_files, rank, world_size):
    """Return (rows, metadata, keyword arguments of a loader) of one split for one rank.

    See tokenizing_distributed_data_loader for the arguments and errors.
    """
    metadata = read_metadata(data_dir)
    check_metadata(metadata, data_dir, context_size, vocab_size)
    rows = load_rows(data_dir, split, metadata, max_files)
    rank = int(os.environ.get("RANK", 0)) if rank is None else rank
    world_size = int(os.environ.get("WORLD_SIZE", 1)) if world_size is None else world_size
    return rows, metadata, {"rank": rank, "world_size": world_size, "device": device}


class TrainLoader:
    """Yield endless, shuffled, full batches (x, y), each int64 (B, C).

    Row i of the whole run is row i % N of the order of epoch i // N. A batch of all ranks together is the next
    world_size * B rows, and rank r takes part r of it. So one process that accumulates n batches sees the same rows as
    n processes, and a saved position is valid for any number of ranks.
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
        """The number of passes over the data so far."""
        return self.drawn / len(self.rows)

    def state_dict(self) -> dict:
        epoch, position = divmod(self.drawn, len(self.rows))
        return {"seed": self.seed, "epoch": epoch, "position": position, "rows": len(self.rows)}

    def load_state_dict(self, state: dict):
        """Continue where the state was saved, on any number of ranks. Raise ValueError if the data has changed."""
        if state["rows"] != len(self.rows):
            had = f"{len(self.rows)} training windows, but had {state['rows']} when the checkpoint was written"
            raise ValueError(f"the data has {had}: use the same --data_dir and --max_files")
        self.seed = state["seed"]
        self.drawn = state["epoch"] * len(self.rows) + state["position"]

    def _order(self, start: int, stop: int) -> torch.Tensor:
        """Return the row numbers of rows start .. stop - 1 of the whole run, int64 (stop - start,)."""
        parts = []
        while start < stop:
            epoch, position = divmod(start, len(self.rows))
            parts.append(epoch_order(len(self.rows), self.seed, epoch)[position : position + stop - start])
            start += len(parts[-1])
        return torch.cat(parts)


class EvalLoader:
    """Yield one ordered pass of batches (x, y), each int64 (at most B, C). Every `for` loop starts from the beginning.

    Over all ranks every token of every workflow is a target exactly once, in the rows that `visited_rows` selects.
    """

    def __init__(self, rows, batch_size, metadata, *, max_windows=None, rank=0, world_size=1, device="cpu"):
        self.rows, self.batch_size, self.pad_token = rows, batch_size, metadata["pad_token"]
        self.rank, self.world_size, self.device = rank, world_size, torch.device(device)
        self.visited, self.overlap = visited_rows(rows, metadata, max_windows)
        self.firsts = range(rank * batch_size, len(self.visited), world_size * batch_size)  # of each batch

    def __len__(self):
        return len(self.firsts)

    def __iter__(self):
        for first in self.firsts:
            batch = slice(first, first + self.batch_size)
            x, y = split_windows(self.rows[self.visited[batch]], self.pad_token)
            y[torch.arange(y.size(1)) < self.overlap[batch, None]] = IGNORE_INDEX
            yield move(x, self.device), move(y, self.device)


@lru_cache(maxsize=2)  # an epoch and, at its end, the next one
def epoch_order(num_rows: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the permutation of the rows for an epoch, int64 (N,)."""
    # Mixed to 32 bits, because torch's CPU generator uses no more of a seed.
    mixed = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
    return torch.randperm(num_rows, generator=torch.Generator().manual_seed(mixed))


def visited_rows(rows, metadata, max_windows=None):
    """Return (visited, overlap), int64 (V,) each, so that an evaluation scores every token once.

    visited are the rows (R, C + 1) to evaluate. overlap counts the first targets of each that were in the row before
    it. If rows overlap by more than half, enough of them are skipped that half a context remains before every scored
    token. max_windows keeps about that many rows: those of whole workflows, evenly spread.
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
    """Return inputs and targets, int64 (B, C) each, of windows (B, C + 1). Padding is not a target."""
    windows = windows.long()
    x, y = windows[:, :-1].contiguous(), windows[:, 1:].clone()
    return x, y.masked_fill_(y == pad_token, IGNORE_INDEX)


def move(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move a tensor to a device. The copy to a GPU is asynchronous."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)

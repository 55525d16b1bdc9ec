"""Pack prepared windows into batches: one window after another in one row, without padding.

Think of an epoch as one line of targets: the windows in random order, end to end. A batch is the next B * C targets of
that line. So every update has the same number of targets, every target comes once per epoch, and the position in the
line is the whole state of the loader. A window that is cut by the end of a batch is repeated from its start in the
next batch, with the targets seen before ignored; `packing_order` makes this rare.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch

from nanochat.functional import IGNORE_INDEX, PackedDocuments, move_tensor

SPARE_DOCUMENTS = 8  # per row of C targets: real workflows are rarely that short


class PackedTrainLoader:
    """Yields batches (x, y, documents) without end: x and y int64 (1, N), with exactly `targets` targets.

    Target number i of the whole run is target i % L of the line of epoch i // L, if an epoch has L targets. All ranks
    together take the next world_size * targets of them, rank r part r. So n batches accumulated by one process are
    those of n processes, and the position is independent of the number of ranks.
    """

    def __init__(
        self, rows, targets, metadata, *, random_cuts=False, states=None, seed=0, rank=0, world_size=1, device="cpu"
    ):
        """random_cuts shows every token once in an epoch, although the rows overlap: see cut_at_random."""
        self.rows, self.states, self.targets, self.pad_token = rows, states, targets, metadata["pad_token"]
        self.context_size = rows.size(1) - 1
        self.tokens = count_tokens(rows, self.pad_token)  # (R,)
        self.starts = rows[:, 0].numpy().astype(np.int64) * metadata["stride"] if random_cuts else None  # (R,)
        self.epoch_targets = int(self._lengths(np.random.default_rng(0)).sum())
        self.seed, self.rank, self.world_size, self.device = seed, rank, world_size, torch.device(device)
        self.drawn = 0  # targets taken by all ranks together since the run began
        self._line = lru_cache(maxsize=2)(self._make_line)  # this epoch and, at its end, the next
        self._ahead = None  # (drawn, future of its batch), made while the GPU works
        self._worker = ThreadPoolExecutor(1) if self.device.type == "cuda" else None

    def __iter__(self):
        return self

    def __next__(self):
        if self._ahead and self._ahead[0] == self.drawn:
            batch = self._ahead[1].result()
        else:
            batch = self._batch(self.drawn)
        self.drawn += self.world_size * self.targets
        if self._worker:
            self._ahead = self.drawn, self._worker.submit(self._batch, self.drawn)
        return tuple(
            part.to(self.device) if isinstance(part, PackedDocuments) else move_tensor(part, self.device)
            for part in batch
        )

    @property
    def epoch(self) -> float:
        """The number of passes over the data so far."""
        return self.drawn / self.epoch_targets

    def state_dict(self) -> dict:
        """Return the position, for load_state_dict."""
        epoch, position = divmod(self.drawn, self.epoch_targets)
        return {"seed": self.seed, "epoch": epoch, "position": position, "targets": self.epoch_targets}

    def load_state_dict(self, state: dict):
        """Continue from a saved position, on any number of ranks. ValueError if the data differs."""
        if state["targets"] != self.epoch_targets:
            had = (
                f"{self.epoch_targets:,} training targets, but had {state['targets']:,} when the checkpoint was written"
            )
            raise ValueError(f"the data has {had}: give the same --data_dir and --max_files")
        self.seed = state["seed"]
        self.drawn = state["epoch"] * self.epoch_targets + state["position"]

    def _batch(self, drawn: int):
        """Return this rank's batch if all ranks together have taken `drawn` targets before."""
        first = drawn + self.rank * self.targets
        segments = list(self._segments(first, first + self.targets))
        # A GPU needs constant shapes: one length for nearly all batches, and one for those that repeat a window.
        on_gpu, repeats = self.device.type == "cuda", sum(stop for _, _, stop in segments) > self.targets
        length = self.targets + repeats * self.context_size if on_gpu else None
        return pack(self.rows, segments, self.pad_token, length, pin=on_gpu, states=self.states)

    def _segments(self, first: int, last: int):
        """Yield (row, start, stop) of each piece of the line from target first to target last of the whole run."""
        while first < last:
            epoch, position = divmod(first, self.epoch_targets)
            order, ends, lengths = self._line(self.seed, epoch)
            i = np.searchsorted(ends, position, side="right")
            row, end = order[i], ends[i]
            begin = end - lengths[row]
            stop = min(end, position + last - first)
            yield int(row), int(position - begin), int(stop - begin)
            first += int(stop - position)

    def _make_line(self, seed: int, epoch: int):
        """Return (order of the rows shown, their ends in the line), both (S,), and the targets of each row (R,)."""
        random = np.random.default_rng((seed, epoch))
        lengths = self._lengths(random)
        shown = lengths.nonzero()[0]
        order = shown[packing_order(lengths[shown], self.context_size, random)]
        return order, lengths[order].cumsum(), lengths

    def _lengths(self, random: np.random.Generator) -> np.ndarray:
        """Return how many targets an epoch has from each row, int64 (R,)."""
        return self.tokens if self.starts is None else cut_at_random(self.starts, self.tokens, random)


class PackedEvalLoader:
    """Yields batches (x, y, documents) of about `targets` tokens in order, once per `for` loop.

    Over all ranks every token of every visited workflow is a target exactly once. visited are the rows to show; the
    first overlap[i] targets of the i-th were in the row before it and are ignored.
    """

    def __init__(self, rows, targets, visited, overlap, metadata, *, states=None, rank=0, world_size=1, device="cpu"):
        self.rows, self.states, self.visited, self.pad_token = rows, states, visited, metadata["pad_token"]
        self.rank, self.world_size, self.device = rank, world_size, torch.device(device)
        lengths = count_tokens(rows[visited], self.pad_token)
        segments = list(zip(visited.tolist(), overlap.tolist(), lengths.tolist()))
        batch = lengths.cumsum() // targets  # (V,) the batch of each row
        firsts = np.flatnonzero(np.diff(batch, prepend=-1))
        self.batches = [segments[i:j] for i, j in zip(firsts, [*firsts[1:], len(segments)])]

    def __len__(self):
        return len(self.batches[self.rank :: self.world_size])

    def __iter__(self):
        for segments in self.batches[self.rank :: self.world_size]:
            x, y, documents = pack(self.rows, segments, self.pad_token, states=self.states)
            yield x.to(self.device), y.to(self.device), documents.to(self.device)


def count_tokens(rows: torch.Tensor, pad_token: int) -> np.ndarray:
    """Count the tokens in each row (R, C + 1) without position and padding, int64 (R,)."""
    parts = [(part[:, 1:] != pad_token).sum(1) for part in rows.split(65_536)]  # to limit memory
    return torch.cat(parts).numpy()


def cut_at_random(starts: np.ndarray, tokens: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return how many targets to take from the beginning of each window (R,), so that every token is a target once.

    starts (R,) are the places of the windows in their workflows, of which 0 begins a new one; tokens (R,) are their
    sizes. The first cut of a workflow is after a random window. Further windows follow without overlap, as far as
    there are windows that begin there; the last window of a workflow is always taken.
    """
    lengths = np.zeros_like(tokens)
    firsts = np.flatnonzero(starts == 0)
    for first, last in zip(firsts, np.append(firsts[1:], len(starts)) - 1):
        row = first
        while row < last:
            reach = starts[row] + tokens[row]  # the window that begins here, or the one before, is next
            later = first + np.searchsorted(starts[first : last + 1], reach, side="right") - 1
            following = random.integers(row + 1, later + 1) if row == first else later
            lengths[row] = starts[following] - starts[row]
            row = following
        lengths[last] = tokens[last]
    return lengths


def packing_order(lengths: np.ndarray, capacity: int, random: np.random.Generator) -> np.ndarray:
    """Return a random order of windows with lengths (R,) that fills rows of `capacity` exactly, one after another.

    Windows that fill no row, a few in a thousand, come at the end. Each row begins with the longest window left. Then
    follows one that fills the row, or the longer of two that do, or the longest that fits: best fit decreasing, with
    equal lengths in random order and the rows shuffled.
    """
    order = random.permutation(len(lengths))
    rows = [[window] for window in order[lengths[order] == capacity].tolist()]
    left = [[] for _ in range(capacity)]  # by length, the windows not yet placed
    for window in order[lengths[order] < capacity].tolist():
        left[lengths[window]].append(window)
    # Sets of lengths as integers: bit b of `available` and bit capacity - b of `mirrored` are 1 if a window of length b
    # is left. Shifting one over the other finds all pairs that fill the space at once.
    available = sum(1 << length for length, windows in enumerate(left) if windows)
    mirrored = sum(1 << capacity - length for length, windows in enumerate(left) if windows)
    rest_of_epoch = []
    while available:
        row, space = [], capacity
        while space:
            fitting = available & (1 << space + 1) - 1
            pairs = fitting & mirrored >> capacity - space  # b if a window of length space - b is left, too
            if not fitting:
                break
            length = space if fitting >> space else (pairs or fitting).bit_length() - 1
            row.append(left[length].pop())
            space -= length
            if not left[length]:
                available ^= 1 << length
                mirrored ^= 1 << capacity - length
        if space:
            rest_of_epoch += row
        else:
            rows.append(row)
    random.shuffle(rows)
    return np.array([window for row in rows for window in row] + rest_of_epoch, dtype=np.int64)


def pack(rows, segments, pad_token: int, length: int | None = None, pin: bool = False, states=None):
    """Return the batch (x, y, documents) of pieces (row, start, stop) of the rows (R, C + 1).

    x (1, N) has each row up to token stop - 1; y (1, N) has as targets its tokens start .. stop - 1. Both are padded to
    `length` if it is given. The documents have the schema positions of x if states (R, C) are given.
    """
    C = rows.size(1) - 1
    lengths = [stop for _, _, stop in segments]
    windows = [rows[row, : stop + 1] for row, _, stop in segments]
    if length is not None:
        while (missing := length - sum(lengths)) > 0:
            lengths.append(min(C, missing))
            windows.append(torch.full((lengths[-1] + 1,), pad_token, dtype=rows.dtype))
    x = torch.cat([window[:-1] for window in windows]).long()
    y = torch.cat([window[1:] for window in windows]).long()
    y[y == pad_token] = IGNORE_INDEX
    begin = 0
    for _, start, stop in segments:
        y[begin : begin + start] = IGNORE_INDEX
        begin += stop
    if states is not None:
        padding = [states.new_zeros(length) for length in lengths[len(segments) :]]
        states = torch.cat([*(states[row, :stop] for row, _, stop in segments), *padding]).long()[None]  # (1, N)
    documents = PackedDocuments.of(lengths, C, SPARE_DOCUMENTS * max(1, sum(lengths) // C), states)
    if pin:
        x, y, documents = x.pin_memory(), y.pin_memory(), documents.pin_memory()
    return x[None], y[None], documents

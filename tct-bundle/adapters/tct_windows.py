"""What a training window is: [position, tok_0 .. tok_{C-1}], position = start // stride."""

import contextlib
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np


@dataclass(frozen=True)
class WindowPlan:
    """How token sequences become windows.

    Starts are 0, window_step, 2 * window_step ... until a window reaches the end of the sequence, so a
    sequence of at most context_size tokens gives one window and the last token is always in one.
    """

    context_size: int  # tokens in a window, C
    stride: int  # tokens for one step of the position
    window_step: int  # tokens from window to window, a multiple of the stride, at most context_size
    vocab_size: int  # positions share the ids of the vocabulary, so they must stay below it
    pad_token: int

    def count(self, length):
        """Windows of a sequence of this many tokens, or of each of several (N,)."""
        beyond_first = np.maximum(0, length - self.context_size)
        return 1 + -(-beyond_first // self.window_step)

    def starts(self, length: int, max_windows: int | None = None) -> np.ndarray:
        """Where the windows of a sequence start, int64 (n,). Of more than max_windows so many are kept, evenly
        spread, with the first and the last."""
        count = self.count(length)
        kept = min(count, max_windows or count)
        return np.linspace(0, count - 1, kept).round().astype(np.int64) * self.window_step

    def fits(self, length):
        """Whether the last window's position is in the vocabulary; for one sequence or several, as `count`."""
        return (self.count(length) - 1) * self.window_step // self.stride < self.vocab_size

    def remedy(self, length: int) -> str:
        """What to tell the owner of a sequence that does not fit."""
        plan = self
        while not plan.fits(length):
            plan = replace(plan, stride=2 * plan.stride, window_step=2 * plan.window_step)
        context = f" with --context-size {plan.window_step}" if plan.window_step > self.context_size else ""
        return (
            f"{length:,} tokens need positions beyond the vocabulary of {self.vocab_size:,}; "
            f"--stride {plan.stride}{context} would do"
        )


def windows(tokens: np.ndarray, plan: WindowPlan, max_windows: int | None = None) -> np.ndarray:
    """The windows of one token sequence, in order: int16 (n, C + 1), the last one padded."""
    starts = plan.starts(len(tokens), max_windows)
    rows = np.empty((len(starts), plan.context_size + 1), np.int16)
    rows[:, 0] = starts // plan.stride
    rows[:, 1:] = cut_out(tokens, starts, plan.context_size, plan.pad_token)
    return rows


def state_windows(states: np.ndarray, plan: WindowPlan, max_windows: int | None = None) -> np.ndarray:
    """Beside the windows of T tokens, of their states (T + 1,), the first of which is that before the first token:
    int16 (n, C), the state that each input of a window leads to, the position's too."""
    return cut_out(states, plan.starts(len(states) - 1, max_windows), plan.context_size, 0)


def cut_out(sequence: np.ndarray, starts: np.ndarray, length: int, padding: int) -> np.ndarray:
    """The parts of a sequence (T,) that begin at starts (n,): int16 (n, length), padded at the end."""
    padded = np.full(starts[-1] + length, padding, np.int16)
    padded[: len(sequence)] = sequence[: len(padded)]
    return np.lib.stride_tricks.sliding_window_view(padded, length)[starts]


@contextlib.contextmanager
def new_table(path: Path, rows: int, columns: int) -> Iterator[BinaryIO]:
    """A new .pt file of one int16 tensor (rows, columns), open where its values are to be written, row by row.

    So it never is in memory as a whole. torch.load maps it and does without the checksum of its values, which is
    not written.
    """
    size = rows * columns
    empty = path.with_suffix(".empty")  # a file of holes, for torch to take for the values: it reads none of them
    with open(empty, "wb") as file:
        file.truncate(2 * size)
    try:
        _save_without_values(path, empty, rows, columns)
    finally:
        empty.unlink()
    with open(path, "r+b") as file:
        begin = _find_values(file)
        file.seek(begin)
        yield file
        if file.tell() != begin + 2 * size:
            raise AssertionError(f"{path.name} has {(file.tell() - begin) / 2 / columns} rows, not {rows}")


def _save_without_values(path: Path, empty: Path, rows: int, columns: int):
    """Writes all of a .pt file but the values. The tensor ends here: Windows removes no file that is mapped."""
    import torch

    size = rows * columns
    values = (
        torch.from_file(str(empty), shared=True, size=size, dtype=torch.int16)
        if size
        else torch.empty(0, dtype=torch.int16)
    )  # no file of 0 bytes can be mapped
    try:
        with torch.serialization.skip_data():
            torch.save(values.view(rows, columns), path)
    except RuntimeError:  # how torch says that the disk is full
        raise OSError(f"cannot write {path.name}; is the disk full?") from None


def open_table(path: Path):
    """The tensor of a .pt file, mapped from it. The errors are torch.load's."""
    import mmap

    import torch

    try:
        return torch.load(path, mmap=True, weights_only=True)
    except RuntimeError as error:
        if "Cannot allocate memory" not in str(error):
            raise
    # A mapping of which pages could be altered in memory may be no larger than memory; one that is shared with the
    # file may. Nobody writes to it.
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        return torch.load(path, mmap=True, weights_only=True)


def _find_values(file: BinaryIO) -> int:
    """The offset of the values of the only tensor in a .pt file: it is a zip archive, and they are its member
    data/0, stored as they are."""
    with zipfile.ZipFile(file) as archive:
        member = next(member for member in archive.infolist() if member.filename.endswith("/data/0"))
    file.seek(member.header_offset)
    header = file.read(30)  # ends with the lengths of two fields that follow (APPNOTE.TXT, 4.3.7)
    return member.header_offset + len(header) + sum(struct.unpack("<HH", header[26:]))

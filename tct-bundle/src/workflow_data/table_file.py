"""train.pt and val.pt: a tensor file that is written and read row by row, mapped into memory."""

import contextlib
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


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

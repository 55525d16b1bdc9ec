"""Write and read train.pt and val.pt: tensor files that are written row by row and mapped into memory."""

import contextlib
import mmap
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch


@contextlib.contextmanager
def new_table(path: Path, rows: int, columns: int) -> Iterator[BinaryIO]:
    """Create a .pt file of one int16 tensor (rows, columns) and open it for writing its values, row by row.

    The tensor is never in memory as a whole. Its checksum is not written; torch.load does not need it.
    """
    size = rows * columns
    empty = path.with_suffix(".empty")  # a sparse file that torch takes for the values, without reading them
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


def open_table(path: Path) -> torch.Tensor:
    """Map the tensor of a .pt file into memory. Raise what torch.load raises."""
    try:
        return torch.load(path, mmap=True, weights_only=True)
    except RuntimeError as error:
        if "Cannot allocate memory" not in str(error):
            raise
    # A private mapping must fit into memory, because its pages could be changed there. A shared one need not.
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        return torch.load(path, mmap=True, weights_only=True)


def _save_without_values(path: Path, empty: Path, rows: int, columns: int):
    """Write everything of a .pt file but the values.

    A function of its own, so that the tensor is freed: Windows cannot remove a file that is mapped.
    """
    size = rows * columns
    if size:
        values = torch.from_file(str(empty), shared=True, size=size, dtype=torch.int16)
    else:  # an empty file cannot be mapped
        values = torch.empty(0, dtype=torch.int16)
    try:
        with torch.serialization.skip_data():
            torch.save(values.view(rows, columns), path)
    except RuntimeError:  # what torch raises if the disk is full
        raise OSError(f"cannot write {path.name}; is the disk full?") from None


def _find_values(file: BinaryIO) -> int:
    """Return the offset of the values of the only tensor in a .pt file: the uncompressed member data/0 of a zip."""
    with zipfile.ZipFile(file) as archive:
        member = next(member for member in archive.infolist() if member.filename.endswith("/data/0"))
    file.seek(member.header_offset)
    header = file.read(30)  # ends with the lengths of the two fields that follow (APPNOTE.TXT, 4.3.7)
    return member.header_offset + len(header) + sum(struct.unpack("<HH", header[26:]))

"""Write files atomically, and never replace a file that the command did not write."""

import json
import os
from pathlib import Path


def write_atomic(path, content):
    """Write a file so that a crash at any moment leaves either the old file or the whole new one.

    `content` is bytes, or a function that writes to the binary file it receives. The file is written under another
    name, synced and renamed. Raise OSError if that fails.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if hasattr(os, "O_DIRECTORY"):  # Windows cannot open a folder
            folder = os.open(path.parent, os.O_DIRECTORY)
            try:
                os.fsync(folder)  # makes the rename itself durable
            finally:
                os.close(folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, value, indent: int | None = 2):
    """Write a value as JSON, as write_atomic does."""
    write_atomic(path, json.dumps(value, indent=indent).encode() + b"\n")


def write_new_files(folder, files: dict[str, bytes]):
    """Write files, given by their paths in a folder, but replace none that has other content.

    Raise FileExistsError, before anything is written, if such a file exists, and OSError if a write fails.
    """
    paths = {Path(folder, name): content for name, content in files.items()}
    for path, content in paths.items():
        if path.exists() and not (path.is_file() and path.read_bytes() == content):
            raise FileExistsError(f"{path} exists with other content and was not replaced: name a new folder")
    for path, content in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)


def refuse_to_replace(folder, names):
    """Raise FileExistsError if the folder has a file of one of these names.

    Call it for a folder that holds no earlier result of the command: only such a result may be replaced.
    """
    for path in (Path(folder, name) for name in names):
        if path.exists():
            fault = f"{path} exists and is not an earlier result of this command"
            raise FileExistsError(f"{fault}: move it away, or name another folder")

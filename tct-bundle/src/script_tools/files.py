"""Write files atomically, and never over a file that is not ours."""

import os
from pathlib import Path

# -----------------------------------------------------------------------------
# files


def write_atomic(path, content):
    """Write bytes, or what content(file) writes to a binary file, so that a crash at any moment leaves the
    old file or the new one, whole: a temporary file next to it, fsync, rename. OSError if that fails."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if hasattr(os, "O_DIRECTORY"):  # Windows opens no folder
            folder = os.open(path.parent, os.O_DIRECTORY)
            try:
                os.fsync(folder)  # the rename itself
            finally:
                os.close(folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_new_files(folder, files: dict[str, bytes]):
    """Write files, by their paths in a folder, but none of them if one is there already with other content, which
    may be somebody's work: then FileExistsError. Other OSErrors as in write_atomic."""
    for name, content in files.items():
        path = Path(folder, name)
        if path.exists() and not (path.is_file() and path.read_bytes() == content):
            raise FileExistsError(f"{path} exists with other content and was not replaced: name a new folder")
    for name, content in files.items():
        Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(Path(folder, name), content)


def refuse_to_replace(folder, names):
    """FileExistsError if the folder has a file of one of these names. For a folder without earlier results of ours,
    which alone may be replaced."""
    for path in (Path(folder, name) for name in names):
        if path.exists():
            raise FileExistsError(
                f"{path} exists and is not an earlier result of this command: move it away, or name another folder"
            )

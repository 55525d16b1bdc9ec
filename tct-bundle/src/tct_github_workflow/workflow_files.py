"""Workflow files on disk: find them, read one, and publish a finished folder of results."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from .workflow_yaml import load_json, load_workflow

MAX_BYTES = 8 * 1024 * 1024  # bounds the memory and time that one file can take
YAML_SUFFIXES = (".yml", ".yaml")
SUFFIXES = (".json", *YAML_SUFFIXES)


class FileTooLargeError(OSError):
    """A file of more than MAX_BYTES."""


def find_files(folder: Path, suffixes=SUFFIXES, onerror=None) -> list[str]:
    """Paths of all files below folder with these suffixes, relative to it, with forward slashes, sorted.

    Links to folders are not followed. A subfolder that cannot be listed goes to onerror as its OSError.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    found = []
    for parent, _, names in os.walk(folder, onerror=onerror):
        found += [Path(parent, name).relative_to(folder).as_posix()
                  for name in names if name.lower().endswith(suffixes)]
    return sorted(found)


def load_file(path: Path):
    """The JSON value of a workflow file: JSON where the name ends in .json, otherwise YAML.

    Raises OSError (FileTooLargeError) where it cannot be read and WorkflowSyntaxError where it is not one
    document.
    """
    load = load_json if path.suffix.lower() == ".json" else load_workflow
    return load(_read_file(path))


def _read_file(path):
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    if status.st_size > MAX_BYTES:
        raise FileTooLargeError(f"{status.st_size:,} bytes, more than the {MAX_BYTES:,} that are read")
    return path.read_bytes()


@contextlib.contextmanager
def publish_folder(output: Path, replaces=frozenset()):
    """A new folder beside output that takes output's place when the block ends well, and vanishes otherwise.

    An existing output may hold nothing but files named in replaces (an earlier result, then replaced);
    otherwise FileExistsError.
    """
    if output.exists():
        if not output.is_dir():
            raise FileExistsError(f"{output} exists and is not a folder")
        others = {path.name for path in output.iterdir()} - replaces
        if others:
            raise FileExistsError(f"{output} holds other files ({min(others)!r}); nothing was overwritten, "
                                  "name a new folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        new, old = Path(temporary, "new"), Path(temporary, "old")
        new.mkdir()
        yield new
        if output.exists():
            output.rename(old)
        try:
            new.rename(output)
        except BaseException:
            if old.exists():
                old.rename(output)
            raise

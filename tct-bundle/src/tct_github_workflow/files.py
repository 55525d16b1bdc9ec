"""Workflow files on disk: find them, read one, and publish a finished folder of results."""

import os
import stat
from pathlib import Path

from .workflow_yaml import decode_text, load_json, load_workflow

try:
    import fcntl
except ImportError:
    fcntl = None

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
        found += [
            Path(parent, name).relative_to(folder).as_posix() for name in names if name.lower().endswith(suffixes)
        ]
    return sorted(found)


def owner_of(name: str) -> str:
    """The owner of a file: its first folder up to a double underscore, or itself where it lies in none.

    >>> owner_of("octocat__hello/ci.yml"), owner_of("ci.yml")
    ('octocat', 'ci.yml')
    """
    return name.split("/")[0].split("__")[0]


def load_file(path: Path):
    """The JSON value of a workflow file: JSON where the name ends in .json, otherwise YAML.

    Raises OSError (FileTooLargeError) where it cannot be read and WorkflowSyntaxError where it is not one
    document.
    """
    return load_text(read_file(path), path.name)


def load_text(text: str | bytes, name: str):
    """The JSON value of a workflow's text: JSON where its name ends in .json, otherwise YAML.

    A text whose name ends in neither, because it may come from a table, is JSON if it starts with {.
    """
    text = decode_text(text)
    suffix = os.path.splitext(name)[1].lower()
    is_json = suffix == ".json" or suffix not in YAML_SUFFIXES and text.lstrip().startswith("{")
    return load_json(text) if is_json else load_workflow(text)


def read_file(path: Path) -> bytes:
    """The bytes of a regular file. OSError where there is none, FileTooLargeError beyond MAX_BYTES."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    if status.st_size > MAX_BYTES:
        raise FileTooLargeError(f"{status.st_size:,} bytes, more than the {MAX_BYTES:,} that are read")
    return path.read_bytes()

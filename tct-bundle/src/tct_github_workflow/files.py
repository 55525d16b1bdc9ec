"""Workflow files on disk: find them, and read one."""

import os
import stat
from pathlib import Path

from .workflow_yaml import decode_text, load_json, load_workflow

MAX_BYTES = 8 * 1024 * 1024  # limits the memory and time that one file can take
YAML_SUFFIXES = (".yml", ".yaml")
SUFFIXES = (".json", *YAML_SUFFIXES)


class FileTooLargeError(OSError):
    """The file has more than MAX_BYTES."""


def find_files(folder: Path, suffixes=SUFFIXES, onerror=None) -> list[str]:
    """Return the sorted paths of all files below a folder with these suffixes, relative to it, with forward slashes.

    Links to folders are not followed. If a subfolder cannot be listed, onerror is called with the OSError.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    found = []
    for parent, _, names in os.walk(folder, onerror=onerror):
        found += [Path(parent, name) for name in names if name.lower().endswith(suffixes)]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def owner_of(name: str) -> str:
    """Return the owner of a file: its first folder up to a double underscore, or its own name if it is in no folder.

    >>> owner_of("octocat__hello/ci.yml"), owner_of("ci.yml")
    ('octocat', 'ci.yml')
    """
    return name.split("/")[0].split("__")[0]


def load_file(path: Path):
    """Return the JSON value of a workflow file: JSON if the name ends in .json, otherwise YAML.

    Raises OSError (FileTooLargeError) if it cannot be read, and WorkflowSyntaxError if it is not one document.
    """
    return load_text(read_file(path), path.name)


def load_text(text: str | bytes, name: str):
    """Return the JSON value of a workflow's text: JSON if its name ends in .json, YAML if in .yml or .yaml.

    Text with any other name, for example from a table, is JSON if it starts with { and YAML otherwise.
    """
    text = decode_text(text)
    suffix = os.path.splitext(name)[1].lower()
    is_json = suffix == ".json" or suffix not in YAML_SUFFIXES and text.lstrip().startswith("{")
    return load_json(text) if is_json else load_workflow(text)


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular file. Raises OSError, or FileTooLargeError if it has more than MAX_BYTES."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    if status.st_size > MAX_BYTES:
        raise FileTooLargeError(f"{status.st_size:,} bytes, more than the {MAX_BYTES:,} that are read")
    return path.read_bytes()

"""Workflow files on disk: find them, read one, and publish a finished folder of results."""

import contextlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from .workflow_yaml import decode_text, load_json, load_workflow

try:
    import fcntl
except ImportError:
    fcntl = None
    import msvcrt  # Windows

MAX_BYTES = 8 * 1024 * 1024  # bounds the memory and time that one file can take
YAML_SUFFIXES = (".yml", ".yaml")
SUFFIXES = (".json", *YAML_SUFFIXES)
KEPT = "what is done so far is kept: --resume goes on from there"


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


# -----------------------------------------------------------------------------
# folders of results


@contextlib.contextmanager
def publish_folder(output: Path):
    """A new folder beside output that takes output's place when the block ends well, and vanishes otherwise.

    FileExistsError if there is an output already that is not an empty folder.
    """
    _check_replaceable(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        new, old = Path(temporary, "new"), Path(temporary, "old")
        new.mkdir()
        yield new
        _replace(output, new, old)


@contextlib.contextmanager
def resumable_folder(
    output: Path,
    settings: dict,
    resume: bool,
    keeps: str,
    replaces=frozenset(),
    is_earlier: Callable[[Path], bool] = lambda output: False,
):
    """(work, new): as publish_folder's new, within a folder of work beside output that a run which does not end
    well leaves behind, and one with `resume` finds again. It is removed where no file in it matches `keeps`.

    An output that is_earlier, the result of an earlier run, is replaced if it holds nothing but files named in
    replaces; FileExistsError if it holds anything else, or another process is at it. ValueError if what is resumed
    had other settings.
    """
    _check_replaceable(output, replaces, is_earlier)
    work = work_folder(output)
    new, old = work / "new", work / "old"
    if work.exists() and any(work.iterdir()) and not (work / "lock").is_file():
        raise FileExistsError(
            f"{work} is needed for work, but holds files that are not of an unfinished run: move it "
            "away, or name another output"
        )
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "lock", "wb") as lock:
        try:
            _lock(lock)  # goes with the process, however it ends
            os.stat(work / "lock")  # still there: no other run has ended since
        except OSError:
            raise FileExistsError(f"another run is writing {output}") from None
        if old.exists() and not output.exists():  # killed between the two renames
            old.rename(output)
        begun = work / "settings.json"
        if resume and begun.exists():
            _check_same(json.loads(begun.read_bytes()), settings, output)
            shutil.rmtree(new, ignore_errors=True)
        else:
            begun.unlink(missing_ok=True)  # first, here and below: what is then half removed is not resumed
            _empty(work, but="lock")
            write_atomic(begun, json.dumps(settings, indent=2).encode())
        new.mkdir()
        try:
            yield work, new
        except (KeyboardInterrupt, OSError, ValueError) as error:
            if not any(work.glob(keeps)):
                _remove(work, lock)
                raise
            kind = OSError if isinstance(error, OSError) else type(error)
            raise kind(f"{error}; {KEPT}" if str(error) else KEPT) from None
        _replace(output, new, old)
        begun.unlink()
        _remove(work, lock)


def work_folder(output: Path) -> Path:
    """Where resumable_folder works on an output."""
    return output.with_name(f".{output.name}.unfinished")


def write_atomic(path: Path, content: bytes):
    """Writes a file so that it is there whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path):
    """Waits until a file is on the disk."""
    with open(path, "r+b") as file:  # Windows asks for the right to write
        os.fsync(file.fileno())


def _check_replaceable(output, replaces=frozenset(), is_earlier=lambda output: False):
    if not output.exists():
        return
    if not output.is_dir():
        raise FileExistsError(f"{output} exists and is not a folder")
    names = {path.name for path in output.iterdir()}
    others = names - replaces or (names if not is_earlier(output) else set())
    if others:
        raise FileExistsError(
            f"{output} holds other files ({min(others)!r}); nothing was overwritten, name a new folder"
        )


def _check_same(former, settings, output):
    differing = [
        f"{key} was {former.get(key)}, is {value}" for key, value in settings.items() if former.get(key) != value
    ]
    if differing:
        raise ValueError(
            f"the unfinished run that writes {output} had other settings ({'; '.join(differing)}): "
            "give the same, or start anew without --resume"
        )


def _empty(folder, but):
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != but:
            path.unlink()


def _lock(file):
    """Locks an open file until it is closed. OSError if another process has locked it."""
    if fcntl:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)


def _remove(work, lock):
    _empty(work, but="lock")  # which says until the end whose folder this is
    if not fcntl:
        lock.close()  # Windows removes no open file
    shutil.rmtree(work)


def _replace(output, new, old):
    """Puts the folder new in the place of output, which goes to old."""
    if output.exists():
        output.rename(old)
    try:
        new.rename(output)
    except BaseException:
        if old.exists():
            old.rename(output)
        raise

"""A folder of work in progress that becomes the output in one rename, or is resumed after a crash."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from script_tools.files import write_atomic

try:
    import fcntl
except ImportError:
    import msvcrt  # Windows

    fcntl = None

KEPT = "what is done so far is kept: --resume goes on from there"


# -----------------------------------------------------------------------------
# folders of results


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
                if isinstance(error, KeyboardInterrupt):
                    raise KeyboardInterrupt("nothing was written") from None
                raise
            kind = OSError if isinstance(error, OSError) else type(error)
            raise kind(f"{error}; {KEPT}" if str(error) else KEPT) from None
        _replace(output, new, old)
        begun.unlink()
        _remove(work, lock)


def work_folder(output: Path) -> Path:
    """Where resumable_folder works on an output."""
    return output.with_name(f".{output.name}.unfinished")


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

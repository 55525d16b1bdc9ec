"""Work in a folder that becomes the output in one rename, or is resumed after a crash."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from script_tools.files import write_atomic

try:
    import fcntl
except ImportError:
    import msvcrt  # Windows

    fcntl = None

KEPT = "finished work is kept: continue with --resume"


@contextlib.contextmanager
def resumable_folder(
    output: Path, settings: dict, resume: bool, keeps: str, replaces: set[str], is_earlier: Callable[[Path], bool]
) -> Iterator[tuple[Path, Path]]:
    """Yield (work, new): a work folder next to the output, and the folder in it that becomes the output.

    If the block fails, the work folder stays if a file in it matches `keeps`, and `resume` continues in it. An
    output that `is_earlier` calls an earlier result is replaced, if all its files are named in `replaces`.

    Raise FileExistsError if the output holds anything else, or if another process writes it, and ValueError if the
    run to resume had other settings.
    """
    _check_replaceable(output, replaces, is_earlier)
    work = work_folder(output)
    with _locked(work, output) as lock:
        _begin(work, output, settings, resume)
        try:
            yield work, work / "new"
        except (KeyboardInterrupt, OSError, ValueError) as error:
            if not any(work.glob(keeps)):
                _remove(work, lock)
                if isinstance(error, KeyboardInterrupt):
                    raise KeyboardInterrupt("nothing was written") from None
                raise
            kind = OSError if isinstance(error, OSError) else type(error)
            raise kind(f"{error}; {KEPT}" if str(error) else KEPT) from None
        _replace(output, work / "new", work / "old")
        (work / "settings.json").unlink()
        _remove(work, lock)


def work_folder(output: Path) -> Path:
    return output.with_name(f".{output.name}.unfinished")


def sync(path: Path):
    """Wait until a file is on the disk."""
    with open(path, "r+b") as file:  # Windows requires write access
        os.fsync(file.fileno())


def _check_replaceable(output: Path, replaces: set[str], is_earlier: Callable[[Path], bool]):
    if not output.exists():
        return
    if not output.is_dir():
        raise FileExistsError(f"{output} exists and is not a folder")
    names = {path.name for path in output.iterdir()}
    foreign = names - replaces or (names if not is_earlier(output) else set())
    if foreign:
        fault = f"{output} holds other files ({min(foreign)!r})"
        raise FileExistsError(f"{fault}; nothing was overwritten, name a new folder")


@contextlib.contextmanager
def _locked(work: Path, output: Path) -> Iterator[BinaryIO]:
    """Create the work folder if needed, and keep other processes out of it."""
    if work.exists() and any(work.iterdir()) and not (work / "lock").is_file():
        fault = f"{work} is needed as the work folder, but holds files that do not belong to an unfinished run"
        raise FileExistsError(f"{fault}: move it away, or name another output")
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "lock", "wb") as lock:
        try:
            _lock(lock)  # released when the process ends, however it ends
            os.stat(work / "lock")  # fails if another run has finished and removed the folder since
        except OSError:
            raise FileExistsError(f"another run is writing {output}") from None
        yield lock


def _begin(work: Path, output: Path, settings: dict, resume: bool):
    """Empty the work folder, or check that it can be resumed, and create the folder `new` in it."""
    new, old, begun = work / "new", work / "old", work / "settings.json"
    if old.exists() and not output.exists():  # killed between the two renames of _replace
        old.rename(output)
    if resume and begun.exists():
        earlier = json.loads(begun.read_bytes())
        changed = {key: value for key, value in settings.items() if earlier.get(key) != value}
        if changed:
            fault = "; ".join(f"{key} was {earlier.get(key)}, is {value}" for key, value in changed.items())
            raise ValueError(
                f"the unfinished run that writes {output} had other settings ({fault}): "
                "use the same, or start again without --resume"
            )
        shutil.rmtree(new, ignore_errors=True)
    else:
        begun.unlink(missing_ok=True)  # first, so that a half emptied folder cannot be resumed
        _empty(work)
        write_atomic(begun, json.dumps(settings, indent=2).encode())
    new.mkdir()


def _empty(work: Path):
    """Remove everything but the lock, which marks the folder as a work folder to the end."""
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


def _lock(file: BinaryIO):
    """Lock an open file until it is closed. Raise OSError if another process has locked it."""
    if fcntl:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)


def _remove(work: Path, lock: BinaryIO):
    _empty(work)
    if not fcntl:
        lock.close()  # Windows cannot remove an open file
    shutil.rmtree(work)


def _replace(output: Path, new: Path, old: Path):
    """Move the folder `new` to the output, and an earlier output to `old`."""
    if output.exists():
        output.rename(old)
    try:
        new.rename(output)
    except BaseException:
        if old.exists():
            old.rename(output)
        raise

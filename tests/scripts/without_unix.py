"""Run this repository in a Python without the modules and functions that only Unix has. Libraries keep them.

    python tests/scripts/without_unix.py FOLDER

Import all modules, then prepare, train, generate and evaluate in the folder.
"""

import builtins
import ctypes
import fcntl
import functools
import importlib
import os
import runpy
import signal
import sys
import types
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [
    ROOT / name
    for name in (
        "nanochat",
        "scripts",
        "tct-bundle/src",
        "tct-bundle/adapters",
        "tct-bundle/scripts",
        "tct-bundle/examples",
    )
]
MODULES = {"fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "syslog", "posix", "readline", "curses"}
SIGNALS = {"SIGINT", "SIGTERM", "SIGABRT", "SIGFPE", "SIGILL", "SIGSEGV", "SIG_DFL", "SIG_IGN"}  # that exist on Windows
UNIX = {
    "fork",
    "forkpty",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getpgid",
    "setsid",
    "killpg",
    "mkfifo",
    "nice",
    "uname",
    "sysconf",
    "statvfs",
    "getloadavg",
    "wait3",
    "wait4",
    "chown",
    "sync",
    "fchmod",
    "O_DIRECTORY",
    "posix_fallocate",
    "pread",
    "pwrite",
    "register_at_fork",
    "pthread_sigmask",
    "pthread_kill",
    "sigwait",
    "setitimer",
    "alarm",
    "pause",
    "siginterrupt",
    *(name for name in dir(os) if name.startswith("sched_")),
}


def without(module, **changed):
    """Return a copy of a module with what exists on Windows."""
    view = types.ModuleType(module.__name__)
    for name, value in vars(module).items():
        if name not in UNIX and (name in SIGNALS or not name.startswith("SIG")):
            setattr(view, name, value)
    vars(view).update(changed)
    return view


def open_file(path, flags, mode=0o777):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return os.open(path, flags, mode)


def load_library(name):
    if name is None:
        raise TypeError("LoadLibrary() argument 1 must be str, not None")
    return ctypes.CDLL(name)


def lock(descriptor, mode, count):
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


VIEWS = {
    "os": without(os, open=open_file),
    "signal": without(signal),
    "ctypes": without(ctypes, CDLL=load_library),
    "msvcrt": types.SimpleNamespace(locking=lock, LK_NBLCK=2),
}
true_import = builtins.__import__


@functools.cache
def is_ours(file: str) -> bool:
    return any(folder in Path(file).resolve().parents for folder in SOURCES)


def import_as_on_windows(name, globals=None, locals=None, fromlist=(), level=0):
    file, top = (globals or {}).get("__file__"), name.split(".")[0]
    if level == 0 and file and is_ours(file):
        if top in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if top in VIEWS and (name == top or not fromlist):
            return VIEWS[top]
    return true_import(name, globals, locals, fromlist, level)


def main(folder: Path):
    sys.path[:0] = [str(ROOT), *(str(path) for path in SOURCES[2:])]
    builtins.__import__ = import_as_on_windows
    for path in sorted(path for source in SOURCES for path in source.rglob("*.py") if "examples" not in path.parts):
        base = next((source for source in SOURCES[2:] if source in path.parents), ROOT)
        name = ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
        importlib.import_module(name)

    os.chdir(folder)
    train = ["--model_size=tiny", "--data_dir=prepared", "--checkpoint_dir=run", "--device_batch_size=1"]
    for name, *flags in [
        ("scripts.make_synthetic_workflows", "--output=workflows", "--count=12"),
        ("prepare_training_data", "--input=workflows", "--output=prepared", "--num-workers=1", "--train-split=0.5"),
        ("prepare_training_data", "--input=workflows", "--output=prepared", "--num-workers=1", "--train-split=0.6"),
        ("verify_prepared_data", "--data_dir=prepared", "--num_workers=1", "--show=0"),
        ("scripts.tct_train", *train, "--num_iterations=1", "--dtype=float32"),
        ("scripts.generate_workflow", "--checkpoint=run", "--max_tokens=40", "--output=samples"),
        ("scripts.tct_eval", "--checkpoint=run", "--data_dir=prepared", "--num_samples=0"),
    ]:
        assert not sys.modules[name].main(flags), name
        print(f"{name} ran", flush=True)
    runpy.run_path(str(SOURCES[5] / "example_quickstart.py"), run_name="__main__")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

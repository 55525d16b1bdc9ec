"""Handle errors, arguments and stop signals of a command line."""

import argparse
import functools
import hashlib
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path


def cli_errors(main):
    """Decorate the main function of a script: report a user's error in one sentence and exit with code 2.

    ValueError and OSError carry a message for the user. Any other exception is our bug and keeps its traceback.
    Ctrl-C exits with code 130. Under torchrun only one process prints the message. If a restart cannot help, the
    processes that torchrun restarts end at once.
    """

    @functools.wraps(main)
    def guarded(argv=None):
        failed = torchrun_file("failed")
        if failed and failed.exists():
            raise SystemExit(2)
        try:
            return main(argv)
        except (ValueError, OSError) as error:
            print_once(f"error: {format_error(error)}")
            if failed and isinstance(error, (ValueError, FileNotFoundError, FileExistsError)):
                with suppress(OSError):
                    failed.touch()
            raise SystemExit(2) from None
        except KeyboardInterrupt as interrupt:  # its message names the files that were kept
            print_once(f"interrupted; {interrupt}" if interrupt.args else "interrupted")
            raise SystemExit(130) from None

    return guarded


def print_once(text: str):
    """Print to stderr, unless another process of the same torchrun has printed the same text."""
    mark = torchrun_file(f"said-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:16]}")
    if mark:
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            return
        except OSError:  # better to print twice than not at all
            pass
    print(text, file=sys.stderr)


def torchrun_file(name: str) -> Path | None:
    """Return the path of a file that all processes and restarts of one torchrun share; None without torchrun."""
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # FOLDER/attempt_N/RANK/error.json
    folder = Path(error_file).absolute().parents[2] if error_file else None
    return folder / name if folder and folder.is_dir() else None


def format_error(error: Exception) -> str:
    """Return the message of an error, without "[Errno 2]"."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


METAVARS = {int: "N", float: "X", Path: "PATH", str: "NAME"}


def argument_options(help: str, default=None, **options) -> dict:
    """Return options of add_argument, completed: the type is that of the default, which the help names.

    A default of False makes a switch. The metavar follows from the type.
    """
    if default is False:
        return {"action": "store_true", "help": help, **options}
    if default is not None:
        options = {"type": type(default), "default": default} | options
        help += "" if "(default" in help else f" (default: {default})"
    if "choices" not in options:
        options = {"metavar": METAVARS[options.get("type", str)]} | options
    return {"help": help, **options}


class ArgumentParser(argparse.ArgumentParser):
    """Parse arguments without abbreviations. Accept --data-dir for --data_dir and the reverse.

    Raise ValueError for a wrong argument; cli_errors reports it.
    """

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def add(self, name: str, help: str, default=None, **options):
        """Add an argument with the options of `argument_options`."""
        self.add_argument(name, **argument_options(help, default, **options))

    def parse_known_args(self, args: list[str] | None = None, namespace=None):
        args = sys.argv[1:] if args is None else args
        spelling = {_dashed(flag): flag for flag in self._option_string_actions}
        named = (argument.partition("=") for argument in args)
        args = [spelling.get(_dashed(name), name) + equals + value for name, equals, value in named]
        return super().parse_known_args(args, namespace)

    def error(self, message: str):
        raise ValueError(f"{message} (--help lists the flags)")


def _dashed(name: str) -> str:
    return name.replace("_", "-") if name.startswith("--") else name


def print0(*args):
    """Print at once, and from rank 0 only."""
    if int(os.environ.get("RANK", "0")) == 0:
        print(*args, flush=True)


class StopSignals:
    """Note Ctrl-C and SIGTERM in `.signal` instead of stopping, from `catch` to the end of the with-block.

    The loop in the block reads `.signal` (0, or the number of the signal) and leaves when its work is saved.
    """

    def __init__(self):
        self.signal = 0
        self._handlers = {}

    def __enter__(self):
        return self

    def catch(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._note)

    def _note(self, number, frame):
        self.signal = number

    def __exit__(self, *exception):
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

"""Errors for users, argument parsing and stop signals: what every command line needs."""

import argparse
import functools
import hashlib
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path


def cli_errors(main):
    """Decorator for a script's main: turn an error of the user into one sentence and exit code 2.

    ValueError and OSError carry a message for the user. Any other exception is our bug and keeps its traceback.
    Ctrl-C exits with 130. The processes of one torchrun print a message once, and after an error that a restart
    cannot change they end at once when torchrun starts them again.
    """

    @functools.wraps(main)
    def guarded(argv=None):
        hopeless = torchrun_file("hopeless")
        if hopeless and hopeless.exists():
            raise SystemExit(2)
        try:
            return main(argv)
        except (ValueError, OSError) as error:
            print_once(f"error: {format_error(error)}")
            if hopeless and isinstance(error, (ValueError, FileNotFoundError, FileExistsError)):
                with suppress(OSError):
                    hopeless.touch()
            raise SystemExit(2) from None
        except KeyboardInterrupt as interrupt:  # its message says what was kept
            print_once(f"interrupted; {interrupt}" if interrupt.args else "interrupted")
            raise SystemExit(130) from None

    return guarded


def print_once(text: str):
    """Print to stderr, unless a process of the same torchrun has printed the same before."""
    said = torchrun_file(f"said-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:16]}")
    if said:
        try:
            said.touch(exist_ok=False)
        except FileExistsError:
            return
        except OSError:  # twice is better than not at all
            pass
    print(text, file=sys.stderr)


def torchrun_file(name: str) -> Path | None:
    """The path of a file that all processes and restarts of one torchrun on this machine share; None without it."""
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # FOLDER/attempt_N/RANK/error.json
    folder = Path(error_file).absolute().parents[2] if error_file else None
    return folder / name if folder and folder.is_dir() else None


def format_error(error: Exception) -> str:
    """The message of an error without "[Errno 2]"."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


class ArgumentParser(argparse.ArgumentParser):
    """Parse arguments without abbreviations, with --data-dir and --data_dir as one flag.

    A wrong argument raises ValueError, which cli_errors reports.
    """

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

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
    """Print from rank 0 only, at once."""
    if int(os.environ.get("RANK", "0")) == 0:
        print(*args, flush=True)


class StopSignals:
    """Once `catch` is called, and until the with-block ends, Ctrl-C and SIGTERM only set `.signal` to their
    number: whoever loops looks at it, and leaves in good order."""

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

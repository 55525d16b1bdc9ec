"""What the scripts of this distribution share: faults of the user become one sentence and an exit code."""

import argparse
import functools
import sys
from collections.abc import Callable


def exit_code(main: Callable[..., None]) -> Callable[..., int]:
    """Decorator for a script's main: 0, or 2 for a ValueError or OSError, or 130 for Ctrl-C, without traceback.

    A KeyboardInterrupt raised again with a message says what is left behind.
    """

    @functools.wraps(main)
    def guarded(argv: list[str] | None = None) -> int:
        try:
            main(argv)
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as interrupt:
            print(
                f"interrupted; {interrupt}" if interrupt.args else "interrupted; nothing was written", file=sys.stderr
            )
            return 130
        return 0

    return guarded


class ArgumentParser(argparse.ArgumentParser):
    """argparse that takes no abbreviations, either of --data-dir and --data_dir for both, and raises its
    complaints as ValueError, for `exit_code` to show."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args: list[str] | None = None, namespace=None):
        args = sys.argv[1:] if args is None else args
        known = {_dashed(flag): flag for flag in self._option_string_actions}
        named = (argument.partition("=") for argument in args)
        args = [known.get(_dashed(name), name) + equals + value for name, equals, value in named]
        return super().parse_known_args(args, namespace)

    def error(self, message: str):
        raise ValueError(f"{message} (--help lists the flags)")


def _dashed(name: str) -> str:
    return name.replace("_", "-") if name.startswith("--") else name

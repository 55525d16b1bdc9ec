"""What the scripts of this distribution share: faults of the user become one sentence and an exit code."""

import argparse
import functools
import sys
from collections.abc import Callable


def exit_code(main: Callable[..., None]) -> Callable[..., int]:
    """Decorator for a script's main: 0, or 2 for a ValueError or OSError, or 130 for Ctrl-C, without traceback."""

    @functools.wraps(main)
    def guarded(argv: list[str] | None = None) -> int:
        try:
            main(argv)
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted; nothing was written", file=sys.stderr)
            return 130
        return 0

    return guarded


class ArgumentParser(argparse.ArgumentParser):
    """argparse that takes no abbreviations and raises its complaints as ValueError, for `exit_code` to show."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str):
        raise ValueError(f"{message} (--help lists the flags)")

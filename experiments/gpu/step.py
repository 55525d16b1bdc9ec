"""Shared by the steps of the campaign: flags, and a record of each figure as soon as it is known."""

import argparse
import sys
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

from campaign import note


class Step:
    """One step: flags, deadline, and checks. A failed check does not stop the next."""

    def __init__(self, description: str):
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--device", required=True)
        for name in "--data", "--work", "--output":
            parser.add_argument(name, type=Path, required=True)
        parser.add_argument("--seconds", type=float, required=True)
        parser.add_argument("--against", type=Path)
        parser.add_argument("--dry-run", action="store_true")
        parser.add_argument("--fail", action="store_true")
        args = self.args = parser.parse_args()
        self.name = Path(sys.argv[0]).stem
        self.deadline = time.monotonic() + args.seconds
        self.failures = 0
        args.work.mkdir(parents=True, exist_ok=True)
        if args.fail:
            sys.exit("this step was made to fail")

    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def note(self, check: str, **figures) -> None:
        print(check, figures, flush=True)
        note(self.args.output, {"step": self.name, "check": check, **figures})

    @contextmanager
    def check(self, name: str):
        """Record what the block puts into the yielded dict. An exception is recorded, and the next check runs."""
        figures, started = {}, time.monotonic()
        try:
            yield figures
        except Exception as error:  # the other checks run after any exception
            traceback.print_exc()
            figures |= {"ok": False, "error": f"{type(error).__name__}: {error}"[:2000]}
        self.failures += not figures.setdefault("ok", True)
        self.note(name, **figures, seconds=round(time.monotonic() - started, 2))

    def end(self) -> None:
        """Exit with 1 if a check failed."""
        sys.exit(f"{self.failures} checks failed" if self.failures else 0)

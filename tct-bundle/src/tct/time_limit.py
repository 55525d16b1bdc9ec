"""A limit for the time that a schema takes to compile. The loops that may take long call `check_time`.

No signal and no thread is needed, so it works everywhere, also in several threads at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic

from tct.errors import TimeLimitError

_limit: ContextVar[tuple[float, float] | None] = ContextVar("limit", default=None)  # (when it ends, its seconds)


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimeLimitError in `check_time` once this many seconds have passed. None is no limit."""
    token = _limit.set(None if seconds is None else (monotonic() + seconds, seconds))
    try:
        yield
    finally:
        _limit.reset(token)


def check_time() -> None:
    limit = _limit.get()
    if limit is not None and monotonic() > limit[0]:
        raise TimeLimitError(limit[1])

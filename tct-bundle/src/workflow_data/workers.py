"""Run calls in worker processes, and stop them cleanly."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool


def run_in_processes(function: Callable, calls: Iterable[tuple], num_workers: int) -> Iterator:
    """Yield the results of function(*call) as they finish, from num_workers processes, or from this one if it is 1.

    Calls are taken from the iterable only as fast as the workers need them.
    """
    if num_workers == 1:
        yield from itertools.starmap(function, calls)
        return
    executor = ProcessPoolExecutor(num_workers, initializer=prepare_worker)
    pending = set()
    try:
        with block_sigint():  # the workers start here and inherit the block: only this process handles Ctrl-C
            executor.submit(int)  # starts them before a source starts threads, which a fork would break
        for call in calls:
            if len(pending) >= 2 * num_workers:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
            pending.add(executor.submit(function, *call))
        yield from (future.result() for future in pending)
    except BrokenProcessPool:
        raise OSError("a worker process was killed, perhaps for lack of memory; try fewer --num-workers") from None
    finally:
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def block_sigint():
    """Deliver SIGINT only after the block. Threads and processes that start in the block keep it blocked.

    Windows cannot block signals: there, a worker may print a traceback if Ctrl-C comes at once.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def prepare_worker():
    """Make a worker ignore Ctrl-C, and exit when its parent is killed instead of waiting for work forever."""

    def exit_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=exit_with_parent, daemon=True).start()

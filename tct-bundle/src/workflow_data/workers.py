"""Run calls in worker processes, in order, and stop in good order."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

# -----------------------------------------------------------------------------
# processes


def run_in_processes(function: Callable, calls: Iterable[tuple], num_workers: int) -> Iterator:
    """The results of function(*call), as they come, from num_workers processes (1: from this one). No more calls
    are drawn than keep the workers busy."""
    if num_workers == 1:
        yield from itertools.starmap(function, calls)
        return
    executor = ProcessPoolExecutor(num_workers, initializer=set_up_worker)
    pending = set()
    try:
        with ctrl_c_held_back():  # the workers start here, and never hear it: this process answers for all
            executor.submit(int)  # before a source that is read begins threads, which no fork should split
        for call in calls:
            if len(pending) >= 2 * num_workers:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
            pending.add(executor.submit(function, *call))
        yield from (future.result() for future in pending)
    except BrokenProcessPool:
        raise OSError("a worker process was killed, perhaps for memory; try fewer --num_workers") from None
    finally:
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def ctrl_c_held_back():
    """Delivers SIGINT after the block; threads and processes that start in it hold it back for good. On Windows, which
    has nothing like that, a worker may show a traceback if it comes at once."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def set_up_worker():
    """Leaves Ctrl-C to the parent, and ends this worker when that is killed; it would wait for work forever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait_for_end():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait_for_end, daemon=True).start()

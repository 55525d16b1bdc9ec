"""Settings of the process that must be made before torch is imported; this module does not import it."""

import ctypes
import os


def tune_process():
    """Make two settings of the C libraries that speed up training on a CPU. Call this before torch is imported.

    Idle OpenMP threads go to sleep soon: those of libgomp otherwise spin for long, which makes a step a hundred times
    slower next to other busy processes. And glibc's malloc keeps freed memory for the next step: by default it returns
    every large tensor to the system, which then clears each page again. That takes up to half the time of a small
    model.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError):  # not glibc; TypeError on Windows
        return
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
    mallopt(M_MMAP_MAX, 0)  # all from the heap ...
    mallopt(M_TRIM_THRESHOLD, -1)  # ... which never shrinks

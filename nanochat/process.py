"""Settings of the process that must be made before torch is imported; this module does not import it."""

import ctypes
import os

# Idle OpenMP threads go to sleep soon. Those of libgomp otherwise spin for long, which makes a step a hundred times
# slower next to other busy processes.
OPENMP_SETTINGS = {"GOMP_SPINCOUNT": "10000"}


def tune_process():
    """Set up OpenMP and malloc for training on a CPU. Call this before torch is imported."""
    for name, value in OPENMP_SETTINGS.items():
        os.environ.setdefault(name, value)
    keep_freed_memory()


def keep_freed_memory():
    """Have glibc's malloc keep freed memory for the next step.

    By default it returns every large tensor to the system, which then clears each page again. That takes up to half the
    time of a small model.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError):  # not glibc; TypeError on Windows
        return
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
    mallopt(M_MMAP_MAX, 0)  # all from the heap ...
    mallopt(M_TRIM_THRESHOLD, -1)  # ... which never shrinks

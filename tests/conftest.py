"""What all tests share: one thread for each process, processes that end, a full disk, and the real workflows, where
they are."""

import contextlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

# Machines differ, and may be busy: no test depends on time.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small models gain nothing from more, and ranks share the cores

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is in the background without Ctrl-C

UNPACK = Path(__file__).parents[2] / "shared/unpack.sh"


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real workflows, workflows/OWNER__REPOSITORY/*; tests that need it are skipped elsewhere."""
    if not UNPACK.is_file():
        pytest.skip("the corpus of real workflows is not here")
    with FileLock(Path(tempfile.gettempdir(), "nanochat-tct-unpack.lock")):  # one of the processes that test unpacks it
        folder = subprocess.run(["bash", str(UNPACK)], check=True, capture_output=True, text=True).stdout.strip()
    return Path(folder)


@pytest.fixture
def spawn():
    """Start a process in a group of its own, with pipes for its output; what is left of it at the end is killed."""
    processes = []

    def start(*command, **options):
        processes.append(
            subprocess.Popen(
                list(map(str, command)),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                **options,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        with process, contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def file_size_limit():
    """A context in which no file may grow beyond a number of bytes, as when the disk is full."""
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limit(size: int):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit

"""What every script needs: errors for users, safe files, the device, the ranks. Imports torch only on use."""

import argparse
import ctypes
import functools
import gc
import hashlib
import importlib.util
import inspect
import os
import shutil
import signal
import sys
import sysconfig
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

# Dense bfloat16 FLOPs per second from NVIDIA's data sheets, by a part of torch's name of the device; the
# first match counts.
PEAK_BF16_FLOPS = (
    ("B200", 2250e12),
    ("H200", 989e12),
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L4", 121e12),
    ("RTX 5090", 209e12),
    ("RTX 4090", 165e12),
    ("RTX 3090", 71e12),
)


# -----------------------------------------------------------------------------
# users


def user_errors(main):
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
            print_once(f"error: {sentence(error)}")
            if hopeless and isinstance(error, (ValueError, FileNotFoundError, FileExistsError)):
                with suppress(OSError):
                    hopeless.touch()
            raise SystemExit(2) from None
        except KeyboardInterrupt:
            print_once("interrupted")
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


def sentence(error: Exception) -> str:
    """The message of an error without "[Errno 2]"."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


class ArgumentParser(argparse.ArgumentParser):
    """argparse that raises its complaints as ValueError, for user_errors to show, and never abbreviates."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        raise ValueError(f"{message} (--help lists the flags)")


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


# -----------------------------------------------------------------------------
# files


def write_atomic(path, content):
    """Write bytes, or what content(file) writes to a binary file, so that a crash at any moment leaves the
    old file or the new one, whole: a temporary file next to it, fsync, rename. OSError if that fails."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if hasattr(os, "O_DIRECTORY"):  # Windows opens no folder
            folder = os.open(path.parent, os.O_DIRECTORY)
            try:
                os.fsync(folder)  # the rename itself
            finally:
                os.close(folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_new_files(folder, files: dict[str, bytes]):
    """Write files, by their paths in a folder, but none of them if one is there already with other content, which
    may be somebody's work: then FileExistsError. Other OSErrors as in write_atomic."""
    for name, content in files.items():
        path = Path(folder, name)
        if path.exists() and not (path.is_file() and path.read_bytes() == content):
            raise FileExistsError(f"{path} exists with other content and was not replaced: name a new folder")
    for name, content in files.items():
        Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(Path(folder, name), content)


def refuse_to_replace(folder, names):
    """FileExistsError if the folder has a file of one of these names. For a folder without earlier results of ours,
    which alone may be replaced."""
    for path in (Path(folder, name) for name in names):
        if path.exists():
            raise FileExistsError(
                f"{path} exists and is not an earlier result of this command: move it away, or name another folder"
            )


# -----------------------------------------------------------------------------
# devices


def choose_device(name: str = "auto"):
    """The torch.device called name ("auto": the first of cuda, mps, cpu that there is); under torchrun each
    local rank has its own GPU. ValueError where there is no such device."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda":
            if device.index is None:
                device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(device)
        else:
            torch.empty(0, device=device)
    except Exception:  # each backend has its own kind of error
        raise ValueError(
            f"--device {name}: there is no such device here; choose cpu, cuda or mps, or leave it out"
        ) from None
    return device


def choose_dtype(name: str, device):
    """The torch.dtype of matrix products. "auto" is bfloat16 on a GPU that has it, and on a CPU if a quick trial finds
    it clearly faster; else float32. All ranks get what rank 0 finds."""
    import torch
    import torch.distributed as dist

    if name == "auto":
        if device.type == "cuda":
            gains = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            gains = device.type == "cpu" and cpu_gains_from_bfloat16()
        if dist.is_initialized():
            choice = torch.tensor(int(gains), device=device)
            dist.broadcast(choice, src=0)
            gains = choice.item()
        name = "bfloat16" if gains else "float32"
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU: what stays in float32 need not be exact there
    return getattr(torch, name)


def cpu_gains_from_bfloat16() -> bool:
    import torch

    if torch.backends.mkldnn.is_available() and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False  # a product takes a hundred times as long then: even the trial would take seconds
    return matmul_seconds(torch.float32) > 1.3 * matmul_seconds(torch.bfloat16)


def matmul_seconds(dtype) -> float:
    """The least time of a few products on the CPU, of the size that a small model has."""
    import torch

    a, b = torch.ones(1024, 384, dtype=dtype), torch.ones(384, 1536, dtype=dtype)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def choose_compile(name: str, device) -> bool:
    """Whether to use torch.compile: "auto" does on a GPU that it can write code for, and not on a CPU, where it
    gains nothing (experiments/speed); "on" is a ValueError if there is no compiler."""
    missing = missing_for_triton() if device.type == "cuda" else missing_for_cpp()
    if name == "on" and missing:
        raise ValueError(f"--compile on needs {missing}, which is not here: install it, or leave the flag out")
    return name == "on" or name == "auto" and device.type == "cuda" and not missing


def missing_for_triton() -> str | None:
    """What torch.compile lacks to write code for a GPU: triton itself compiles a little C for Python."""
    if not importlib.util.find_spec("triton"):
        return "triton"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "a C compiler"
    if not Path(sysconfig.get_path("include", "posix_prefix"), "Python.h").is_file():
        return "Python.h (python3-dev)"
    return None


def missing_for_cpp() -> str | None:
    has_compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    return None if has_compiler else "a C++ compiler"


def autocast(device, dtype):
    """Context in which matrix products run in dtype; weights stay float32."""
    import torch

    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def peak_flops(device) -> float | None:
    """Dense bfloat16 FLOPs per second of a well-known GPU, None for anything else."""
    import torch

    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_BF16_FLOPS if part in name), None)


def tune_process():
    """Two settings of the C libraries that a CPU trains faster with; to be called before torch is loaded.

    Idle threads of OpenMP soon sleep: those of libgomp spin for long, which makes a step a hundred times slower
    beside other busy processes. So many turns cost nothing where there are none. And glibc's malloc keeps freed
    memory for the next step: by default it hands every large tensor back to the system, which then clears each
    page again, up to half the time of a small model.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError):  # not glibc; the latter on Windows
        return
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
    mallopt(M_MMAP_MAX, 0)  # all from the heap ...
    mallopt(M_TRIM_THRESHOLD, -1)  # ... which never shrinks


# -----------------------------------------------------------------------------
# ranks


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int
    world_size: int


@contextmanager
def process_group(device):
    """Join the processes that torchrun started, if any did: gives Ranks, and leaves the group at the end."""
    import torch.distributed as dist

    ranks = Ranks(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    if ranks.world_size == 1:
        yield ranks
        return
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=fresh_store(ranks),
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    try:
        yield ranks
    finally:
        dist.destroy_process_group()
        # The group's threads end with its last reference, and a DDP model, which is in a reference cycle, has
        # one: a thread of gloo that is still there when the interpreter shuts down may abort the process.
        gc.collect()


def fresh_store(ranks: Ranks):
    """The store where torchrun's processes find each other, without what those of an earlier start have left in
    it: after a restart their addresses would be taken for ours (https://github.com/pytorch/pytorch/issues/135712).
    Rank 0 draws a name for this start, tells it to whoever asks, and waits until all have it."""
    import torch.distributed as dist

    store, _, _ = next(dist.rendezvous("env://"))
    name = question = uuid.uuid4().hex
    if ranks.rank > 0:
        store.set(f"asks/{ranks.rank}", question)
        name = store.get(f"answer/{question}").decode()  # waits for it
        store.set(f"{name}/{ranks.rank}", "knows")
    waiting = set(range(1, ranks.world_size)) if ranks.rank == 0 else set()
    while waiting:
        for other in [other for other in waiting if store.check([f"asks/{other}"])]:
            store.set(f"answer/{store.get(f'asks/{other}').decode()}", name)  # perhaps to one long gone
        waiting = {other for other in waiting if not store.check([f"{name}/{other}"])}
        time.sleep(0.01)
    return dist.PrefixStore(name, store)


def sum_over_ranks(tensor):
    """tensor, now the sum of all ranks' tensors."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def gather_bytes(data: bytes) -> list[bytes]:
    """What each rank has, in the order of the ranks, on all of them."""
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        return [data]
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(data)]))
    longest = max(int(size) for size in sizes)
    mine = torch.frombuffer(bytearray(data.ljust(longest)), dtype=torch.uint8)
    parts = [torch.empty_like(mine) for _ in sizes]
    dist.all_gather(parts, mine)
    return [part.numpy().tobytes()[: int(size)] for part, size in zip(parts, sizes)]


def data_parallel(model, device):
    """model, its gradients now the mean over the ranks after backward; outside of a process group model itself."""
    import torch.distributed as dist

    if not dist.is_initialized():
        return model
    from torch.nn.parallel import DistributedDataParallel

    device_ids = [device.index] if device.type == "cuda" else None
    known = inspect.signature(DistributedDataParallel).parameters
    syncs = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # since torch 2.13
    return DistributedDataParallel(model, device_ids=device_ids, **{syncs: False})


def derive_seed(*numbers: int) -> int:
    """A seed of 32 bits, which is all that torch's CPU generator takes, from numbers of any size."""
    import numpy as np

    return int(np.random.SeedSequence(numbers).generate_state(1)[0])

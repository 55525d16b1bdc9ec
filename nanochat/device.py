"""Choose the device, the dtype and the compiler, and tune the process for them."""

import ctypes
import importlib.util
import os
import shutil
import sysconfig
import time
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

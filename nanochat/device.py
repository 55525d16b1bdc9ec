"""Choose the device, the dtype and the compiler."""

import importlib.util
import os
import shutil
import sysconfig
import timeit
from pathlib import Path

import torch
import torch.distributed as dist

# Dense bfloat16 FLOPs per second from NVIDIA's data sheets, by a part of torch's device name. The first match counts.
PEAK_BF16_FLOPS = {
    **{"B200": 2250e12, "H200": 989e12, "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12},
    **{"L40S": 362e12, "L4": 121e12, "RTX 5090": 209e12, "RTX 4090": 165e12, "RTX 3090": 71e12},
}


def choose_device(name: str = "auto"):
    """Return the torch.device called name; "auto" is the first available of cuda, mps, cpu.

    Under torchrun each local rank has its own GPU. ValueError if the device is not available.
    """
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
        remedy = "choose cpu, cuda or mps, or leave the flag out"
        raise ValueError(f"--device {name} is not available here: {remedy}") from None
    return device


def choose_dtype(name: str, device):
    """Return the torch.dtype of matrix products.

    "auto" is bfloat16 on a GPU that supports it, and on a CPU if a short trial finds it clearly faster; else float32.
    All ranks take the choice of rank 0.
    """
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
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, for the products that stay in float32
    return getattr(torch, name)


def cpu_gains_from_bfloat16() -> bool:
    """Time products in float32 and in bfloat16; return whether bfloat16 is clearly faster."""
    if torch.backends.mkldnn.is_available() and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False  # emulated products take a hundred times as long: even the trial would take seconds
    return matmul_seconds(torch.float32) > 1.3 * matmul_seconds(torch.bfloat16)


def matmul_seconds(dtype) -> float:
    """Return the shortest time of a few products on the CPU, in the size of a small model."""
    a, b = torch.ones(1024, 384, dtype=dtype), torch.ones(384, 1536, dtype=dtype)
    return min(timeit.repeat(lambda: a @ b, number=1, repeat=5))


def choose_compile(name: str, device) -> bool:
    """Return whether to use torch.compile.

    "auto" uses it on a GPU if triton and a C compiler are installed, and not on a CPU, where it gains nothing
    (experiments/speed). ValueError for "on" if there is no compiler.
    """
    missing = missing_for_triton() if device.type == "cuda" else missing_for_cpp()
    if name == "on" and missing:
        raise ValueError(f"--compile on needs {missing}: install it, or leave the flag out")
    return name == "on" or name == "auto" and device.type == "cuda" and not missing


def missing_for_triton() -> str | None:
    """Name what torch.compile lacks to generate GPU code; triton itself compiles a little C."""
    if not importlib.util.find_spec("triton"):
        return "triton"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "a C compiler"
    if not Path(sysconfig.get_path("include", "posix_prefix"), "Python.h").is_file():
        return "Python.h (python3-dev)"
    return None


def missing_for_cpp() -> str | None:
    """Name what torch.compile lacks to generate CPU code."""
    has_compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    return None if has_compiler else "a C++ compiler"


def autocast(device, dtype):
    """Return a context in which matrix products run in dtype; weights stay float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def peak_flops(device) -> float | None:
    """Return the dense bfloat16 FLOPs per second of a well-known GPU, None for other devices."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_BF16_FLOPS.items() if part in name), None)

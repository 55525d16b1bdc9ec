"""Compact models: one file with a byte for each weight, for models that ship.

The file is in the format of safetensors. A matrix W is stored as int8 rows under its name, and as NAME.scale, float32
(R, 1): W = rows * scale. Everything else is stored in float32. The meta of the checkpoint is in the file's header.
"""

import json
from pathlib import Path

import torch

from script_tools.files import write_atomic

SUFFIX = ".safetensors"
SCALE = ".scale"


def save_compact(path: Path, model_state: dict, meta: dict):
    """Write the state of a model with the meta of its checkpoint. OSError if the write fails."""
    from safetensors.torch import save  # slow to import, and only models that ship need it

    tensors = {}
    for name, tensor in model_state.items():
        if tensor.dim() == 2:
            tensors[name], tensors[name + SCALE] = quantize_rows(tensor)
        else:
            tensors[name] = tensor.float().contiguous()
    write_atomic(path, save(tensors, {"meta": json.dumps(meta)}))


def load_compact(path: Path, device="cpu") -> tuple[dict, dict]:
    """Return (model state in float32, meta). FileNotFoundError if the file is missing, ValueError if it is damaged."""
    from safetensors import SafetensorError, safe_open  # as in save_compact

    if not path.is_file():
        raise FileNotFoundError(f"there is no model {path}")
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}
            meta = json.loads(file.metadata()["meta"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged, or is not a model of nanochat-tct: {error}") from None
    scales = {name: stored.pop(name + SCALE) for name in list(stored) if name + SCALE in stored}
    return {name: tensor * scales[name] if name in scales else tensor for name, tensor in stored.items()}, meta


def quantize_rows(matrix):
    """Return int8 rows (R, C) and float32 scales (R, 1) whose product is nearest to the matrix (R, C)."""
    scale = matrix.float().abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
    return (matrix.float() / scale).round().to(torch.int8), scale

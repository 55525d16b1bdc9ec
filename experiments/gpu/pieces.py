"""A model's weights in bfloat16, as files small enough to come back, and back to a model."""

import io
from pathlib import Path

import torch

PIECE = 13 << 20  # bytes
MAX_PIECES = 4  # 52 MiB: 27 million parameters


def write_pieces(state: dict, folder: Path) -> list[str]:
    """Write the tensors of a state dict to weights.0, weights.1, ... in bfloat16. Return the names of the files.

    ValueError if they need more than MAX_PIECES.
    """
    buffer = io.BytesIO()
    torch.save({name: tensor.bfloat16().cpu() for name, tensor in state.items()}, buffer)
    pieces = [buffer.getbuffer()[at : at + PIECE] for at in range(0, buffer.tell(), PIECE)]
    if len(pieces) > MAX_PIECES:
        raise ValueError(f"{buffer.tell():,} bytes of weights are more than {MAX_PIECES} pieces of {PIECE:,} bytes")
    for i, piece in enumerate(pieces):
        (folder / f"weights.{i}").write_bytes(piece)
    return [f"weights.{i}" for i in range(len(pieces))]


def read_pieces(folder: Path) -> dict:
    """Read the state dict that `write_pieces` wrote, in float32."""
    parts = sorted(folder.glob("weights.[0-9]"))
    buffer = io.BytesIO(b"".join(part.read_bytes() for part in parts))
    return {name: tensor.float() for name, tensor in torch.load(buffer, weights_only=True).items()}

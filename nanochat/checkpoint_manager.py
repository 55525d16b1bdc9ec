"""Checkpoints: model_{step:06d}.pt, optim_{step:06d}.pt, and meta_{step:06d}.json, written last.

The meta file carries the checksums of the other two. So a step without a matching meta file does not exist, and a
crash in the middle of a save costs nothing but that save. The folder best/ next to them has the model of the lowest
validation loss, without its optimizer. `load_model` also reads compact models.
"""

import hashlib
import json
import math
import re
from functools import partial
from pathlib import Path

import torch

from nanochat.compact import SUFFIX, load_compact
from nanochat.gpt import GPT, GPTConfig
from script_tools.files import write_atomic

STEP = r"(?P<step>\d{6}|[1-9]\d{6,})"  # as {step:06d} writes it
TENSOR_FILE = re.compile(rf"(?P<kind>model|optim)_{STEP}\.pt")
TEMPORARY_FILE = re.compile(rf"\.(model|optim)_{STEP}\.pt\.tmp")
META_FILE = re.compile(rf"meta_{STEP}\.json")


def save_checkpoint(checkpoint_dir, step: int, model_state: dict, optim_state: dict | None, meta: dict):
    """Write a checkpoint, without an optimizer if its state is None.

    meta is a JSON object with the fields of the GPTConfig as "model_config"; step and checksums are added. OSError if
    the write fails; other steps stay as they are in any case.
    """
    folder = Path(checkpoint_dir)
    folder.mkdir(parents=True, exist_ok=True)
    meta_path(folder, step).unlink(missing_ok=True)  # the step does not exist while its files change
    checksums = {}
    try:
        for name, state in ((f"model_{step:06d}.pt", model_state), (f"optim_{step:06d}.pt", optim_state)):
            if state is not None:
                write_atomic(folder / name, partial(torch.save, state))
                checksums[name] = sha256_of(folder / name)
        text = json.dumps({"step": step, **meta, "sha256": checksums}, indent=2)
        write_atomic(meta_path(folder, step), text.encode() + b"\n")
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError if a write fails
        for saved in checksums:  # useless, and the next save may need the space
            (folder / saved).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise
        raise OSError(f"{folder / name} could not be written; is the disk full?") from error


def save_best(checkpoint_dir, step: int, model_state: dict, meta: dict):
    """Replace the best model so far. OSError as in save_checkpoint."""
    save_checkpoint(best_dir(checkpoint_dir), step, model_state, None, meta)
    keep_only(best_dir(checkpoint_dir), [step])


def best_val_loss(checkpoint_dir) -> float:
    """Return the validation loss of the best model in nats per token; inf if there is none."""
    steps = list_steps(best_dir(checkpoint_dir))
    return load_meta(best_dir(checkpoint_dir), steps[-1])["val_loss"] if steps else math.inf


def best_dir(checkpoint_dir) -> Path:
    return Path(checkpoint_dir) / "best"


def keep_last(checkpoint_dir, count: int, newest: int):
    """Remove all but the last count of the steps up to newest, and what a crash left of unfinished saves."""
    steps = list_steps(checkpoint_dir)
    past, later = ([step for step in steps if (step <= newest) == is_past] for is_past in (True, False))
    keep_only(checkpoint_dir, past[-count:] + later)


def keep_only(checkpoint_dir, kept: list[int]):
    """Remove all steps but those kept, complete or not. Files with names that no save writes stay."""
    folder = Path(checkpoint_dir)
    for step in set(list_steps(folder)) - set(kept):
        meta_path(folder, step).unlink(missing_ok=True)  # first, so that no incomplete step exists
    for path in folder.glob("*"):
        match = TENSOR_FILE.fullmatch(path.name)
        if match and int(match["step"]) not in kept or TEMPORARY_FILE.fullmatch(path.name):
            path.unlink(missing_ok=True)


def has_step_files(checkpoint_dir) -> bool:
    """Return whether a folder or its best/ has a file with the name of a checkpoint file, complete or not."""
    folder = Path(checkpoint_dir)
    names = [path.name for path in (*folder.glob("*"), *best_dir(folder).glob("*"))]
    return any(TENSOR_FILE.fullmatch(name) or META_FILE.fullmatch(name) for name in names)


def load_checkpoint(checkpoint_dir, step: int, device="cpu"):
    """Return (model state, optimizer state, meta) of a step, tensors on device.

    FileNotFoundError if the folder or the step is missing, ValueError if a file is damaged.
    """
    folder = Path(checkpoint_dir).expanduser()
    meta = load_meta(folder, step)
    model_state = load_tensors(folder, f"model_{step:06d}.pt", meta, device)
    optim_state = load_tensors(folder, f"optim_{step:06d}.pt", meta, device)
    return model_state, optim_state, meta


def load_model(path, device="cpu", step: int | None = None):
    """Return (model in evaluation mode, meta) from a folder, a file model_{step:06d}.pt or a compact model.

    The step of a folder is the last one unless it is given. Errors as in load_checkpoint.
    """
    path = Path(path).expanduser()
    if path.suffix == SUFFIX:
        state, meta = load_compact(path, device)
    else:
        folder, step = find_step(path, step)
        meta = load_meta(folder, step)
        state = load_tensors(folder, f"model_{step:06d}.pt", meta, device)
    model = GPT(GPTConfig.from_dict(meta["model_config"])).to(device)
    model.load_state_dict(state)
    return model.eval(), meta


def find_step(path: Path, step: int | None) -> tuple[Path, int]:
    """Return the folder and the step of a file model_{step:06d}.pt, or of a folder. Errors as in load_model."""
    if path.is_dir():
        return path, find_last_step(path) if step is None else step
    match = TENSOR_FILE.fullmatch(path.name)
    if not match or match["kind"] != "model":
        raise FileNotFoundError(f"{path} is neither a checkpoint folder nor a file model_NNNNNN.pt")
    return path.parent, int(match["step"])


def list_steps(checkpoint_dir) -> list[int]:
    """Return the steps that exist in a folder, in order; none if the folder is missing."""
    names = (path.name for path in Path(checkpoint_dir).glob("meta_*.json"))
    matches = (META_FILE.fullmatch(name) for name in names)
    steps = sorted(int(match["step"]) for match in matches if match)
    return [step for step in steps if Path(checkpoint_dir, f"model_{step:06d}.pt").is_file()]


def find_last_step(checkpoint_dir) -> int:
    """Return the last step of a folder. FileNotFoundError if the folder is missing or has no checkpoint."""
    folder = Path(checkpoint_dir).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no checkpoint folder {folder}")
    steps = list_steps(folder)
    if not steps:
        raise FileNotFoundError(f"there is no complete checkpoint in {folder}")
    return steps[-1]


def load_meta(folder: Path, step: int) -> dict:
    """Return the meta file of a step. FileNotFoundError, which names the existing steps, if it is missing."""
    steps = list_steps(folder)
    if step not in steps:
        find_last_step(folder)  # has its own error for a folder without checkpoints
        raise FileNotFoundError(
            f"there is no complete checkpoint of iteration {step} in {folder}, only of "
            f"{'..., ' if len(steps) > 10 else ''}{', '.join(map(str, steps[-10:]))}"
        )
    try:
        meta = json.loads(meta_path(folder, step).read_bytes())
        complete = meta["step"] == step and meta["model_config"] and meta["sha256"]
    except (ValueError, KeyError, TypeError):
        complete = False
    if not complete:
        raise ValueError(damaged(folder, meta_path(folder, step).name, step))
    return meta


def load_tensors(folder: Path, name: str, meta: dict, device):
    """Return the tensors of a checkpoint file on device. Errors as in load_checkpoint."""
    if not (folder / name).is_file():
        raise FileNotFoundError(f"there is no {folder / name}: copy it there, or use another iteration")
    if sha256_of(folder / name) != meta["sha256"].get(name):
        raise ValueError(damaged(folder, name, meta["step"]))
    return torch.load(folder / name, map_location=device, weights_only=True)


def damaged(folder: Path, name: str, step: int) -> str:
    """Return the error message for a file that is not as it was written."""
    others = [other for other in list_steps(folder) if other != step]
    remedy = f"use another iteration, such as {others[-1]}" if others else "there is no other checkpoint"
    return f"{folder / name} is damaged: it differs from what was written at iteration {step}; {remedy}"


def meta_path(folder: Path, step: int) -> Path:
    return folder / f"meta_{step:06d}.json"


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

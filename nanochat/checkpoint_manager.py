"""Checkpoints: model_{step:06d}.pt, optim_{step:06d}.pt, and meta_{step:06d}.json, written last.

The meta file carries the checksums of the other two, so a step without a matching meta file does not exist,
and a crash in the middle of a save costs nothing but that save. The folder best/ beside them has the model of
the lowest validation loss, without its optimizer.
"""

import hashlib
import json
import math
import re
from pathlib import Path

import torch

from nanochat.gpt import GPT, GPTConfig
from script_tools.files import write_atomic

STEP = r"(?P<step>\d{6}|[1-9]\d{6,})"  # as {step:06d} writes it
TENSOR_FILE = re.compile(rf"(?P<kind>model|optim)_{STEP}\.pt")
TEMPORARY_FILE = re.compile(rf"\.(model|optim)_{STEP}\.pt\.tmp")
META_FILE = re.compile(rf"meta_{STEP}\.json")


def save_checkpoint(checkpoint_dir, step: int, model_state: dict, optim_state: dict | None, meta: dict):
    """Write a checkpoint, without an optimizer where its state is None. meta must be fit for JSON and have
    "model_config", the fields of the GPTConfig; step and checksums are added. OSError where the disk refuses;
    other steps are untouched in any case."""
    folder = Path(checkpoint_dir)
    folder.mkdir(parents=True, exist_ok=True)
    meta_path(folder, step).unlink(missing_ok=True)  # the step does not exist while its files change
    checksums = {}
    try:
        for name, state in ((f"model_{step:06d}.pt", model_state), (f"optim_{step:06d}.pt", optim_state)):
            if state is None:
                continue
            save_tensors(folder / name, state)
            checksums[name] = sha256_of(folder / name)
        text = json.dumps({"step": step, **meta, "sha256": checksums}, indent=2)
        write_atomic(meta_path(folder, step), text.encode() + b"\n")
    except OSError:
        for name in checksums:  # of no use, and in the way of the next save where the disk is full
            (folder / name).unlink(missing_ok=True)
        raise


def save_best(checkpoint_dir, step: int, model_state: dict, meta: dict):
    """Keep this model as the best so far, in place of the one before. OSError as in save_checkpoint."""
    save_checkpoint(best_dir(checkpoint_dir), step, model_state, None, meta)
    keep_only(best_dir(checkpoint_dir), [step])


def best_val_loss(checkpoint_dir) -> float:
    """The validation loss of the best model that is kept, in nats per token; inf where there is none."""
    steps = list_steps(best_dir(checkpoint_dir))
    return load_meta(best_dir(checkpoint_dir), steps[-1])["val_loss"] if steps else math.inf


def best_dir(checkpoint_dir) -> Path:
    return Path(checkpoint_dir) / "best"


def keep_last(checkpoint_dir, count: int, newest: int):
    """Of the steps up to newest remove all but the last count, and what a crash has left of unfinished saves."""
    steps = list_steps(checkpoint_dir)
    keep_only(
        checkpoint_dir, [step for step in steps if step <= newest][-count:] + [step for step in steps if step > newest]
    )


def keep_only(checkpoint_dir, kept: list[int]):
    """Remove all steps but those kept, whole or half there. Files with other names than a save gives stay."""
    folder = Path(checkpoint_dir)
    for step in set(list_steps(folder)) - set(kept):
        meta_path(folder, step).unlink(missing_ok=True)  # first, so that no step is half there
    for path in folder.glob("*"):
        match = TENSOR_FILE.fullmatch(path.name)
        if match and int(match["step"]) not in kept or TEMPORARY_FILE.fullmatch(path.name):
            path.unlink(missing_ok=True)


def has_step_files(checkpoint_dir) -> bool:
    """Whether a folder or its best/ has a file with a name that a save gives, of a whole step or not."""
    folder = Path(checkpoint_dir)
    names = [path.name for path in (*folder.glob("*"), *best_dir(folder).glob("*"))]
    return any(TENSOR_FILE.fullmatch(name) or META_FILE.fullmatch(name) for name in names)


def load_checkpoint(checkpoint_dir, step: int, device="cpu"):
    """(model state, optimizer state, meta) of a step, tensors on device. FileNotFoundError where the folder
    or the step is missing, ValueError where a file is not what was written."""
    folder = Path(checkpoint_dir).expanduser()
    meta = load_meta(folder, step)
    model_state = load_tensors(folder, f"model_{step:06d}.pt", meta, device)
    optim_state = load_tensors(folder, f"optim_{step:06d}.pt", meta, device)
    return model_state, optim_state, meta


def load_model(path, device="cpu", step: int | None = None):
    """(model in evaluation mode, meta) from a file model_{step:06d}.pt, or from a folder: its last step, or
    the one given. Errors as in load_checkpoint."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        match = TENSOR_FILE.fullmatch(folder.name)
        if not match or match["kind"] != "model":
            raise FileNotFoundError(f"{path} is neither a checkpoint folder nor a file model_NNNNNN.pt")
        folder, step = folder.parent, int(match["step"])
    if step is None:
        step = find_last_step(folder)
    meta = load_meta(folder, step)
    model = GPT(GPTConfig.from_dict(meta["model_config"])).to(device)
    model.load_state_dict(load_tensors(folder, f"model_{step:06d}.pt", meta, device))
    return model.eval(), meta


def list_steps(checkpoint_dir) -> list[int]:
    """The steps that exist in a folder, in order; none where there is no such folder."""
    names = (path.name for path in Path(checkpoint_dir).glob("meta_*.json"))
    matches = (META_FILE.fullmatch(name) for name in names)
    steps = sorted(int(match["step"]) for match in matches if match)
    return [step for step in steps if Path(checkpoint_dir, f"model_{step:06d}.pt").is_file()]


def find_last_step(checkpoint_dir) -> int:
    """The last step of a folder. FileNotFoundError where it, or every checkpoint in it, is missing."""
    folder = Path(checkpoint_dir).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no checkpoint folder {folder}")
    steps = list_steps(folder)
    if not steps:
        raise FileNotFoundError(f"there is no complete checkpoint in {folder}")
    return steps[-1]


def load_meta(folder: Path, step: int) -> dict:
    """The meta file of a step. FileNotFoundError, naming the steps that exist, where this one does not."""
    steps = list_steps(folder)
    if step not in steps:
        find_last_step(folder)  # has its own words for a folder without any
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
    if not (folder / name).is_file():
        raise FileNotFoundError(f"there is no {folder / name}: copy it there, or use another iteration")
    if sha256_of(folder / name) != meta["sha256"].get(name):
        raise ValueError(damaged(folder, name, meta["step"]))
    return torch.load(folder / name, map_location=device, weights_only=True)


def save_tensors(path: Path, state: dict):
    try:
        write_atomic(path, lambda file: torch.save(state, file))
    except RuntimeError as error:  # torch's word for a write that failed
        raise OSError(f"{path} could not be written; is the disk full?") from error


def damaged(folder: Path, name: str, step: int) -> str:
    others = [other for other in list_steps(folder) if other != step]
    remedy = f"use another iteration, such as {others[-1]}" if others else "there is no other checkpoint"
    return f"{folder / name} is damaged, it is not what was written at iteration {step}: {remedy}"


def meta_path(folder: Path, step: int) -> Path:
    return folder / f"meta_{step:06d}.json"


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Where a training run starts: its process, its settings, its folders and the checkpoint that it continues from."""

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from nanochat.checkpoint_manager import find_last_step, has_step_files, list_steps, load_checkpoint
from nanochat.device import choose_device, choose_dtype
from nanochat.distributed import Ranks, process_group
from nanochat.gpt import GPTConfig
from nanochat.run_folder import CONFIG, CURVES, METRICS, PAGE, REPORTS, read_config
from nanochat.settings import TrainSettings
from script_tools.cli import StopSignals, print0
from script_tools.files import refuse_to_replace


class Process(NamedTuple):
    """The device and the rank of this process, and the signals to stop it."""

    device: torch.device
    ranks: Ranks
    stop: StopSignals


@contextmanager
def training_process(device_name: str):
    """Join the other ranks and yield a Process. ValueError if memory runs out."""
    device = choose_device(device_name)
    with process_group(device) as ranks, StopSignals() as stop:
        try:
            yield Process(device, ranks, stop)
        except RuntimeError as error:
            if not any(words in str(error) for words in ("out of memory", "can't allocate memory")):  # of a GPU, a CPU
                raise
            raise ValueError(
                f"out of memory on {device.type}: lower --device_batch_size and raise --gradient_accumulation to "
                "match, which trains the same; or give --gradient_checkpointing, or a smaller --model_size"
            ) from None


@dataclass
class Start:
    """The settings and folders of a run, and the checkpoint that it continues from."""

    settings: TrainSettings
    preset: dict
    checkpoint_dir: Path
    step: int  # of the checkpoint; 0 for a new run
    checkpoint: tuple[dict, dict, dict] | None  # model state, optimizer state, meta

    @property
    def meta(self) -> dict | None:
        return self.checkpoint and self.checkpoint[2]

    def model_config(self, fields: dict) -> GPTConfig:
        """Return the shape of the checkpoint's model; the fields are those of a new model."""
        saved = self.meta["model_config"] | {"dropout": self.settings.dropout} if self.meta else fields
        return GPTConfig.from_dict(saved)

    @property
    def record_dir(self) -> Path:
        """The folder of config.json, metrics.jsonl, curves.png and the report."""
        return Path("experiments", self.settings.experiment) if self.settings.experiment else self.checkpoint_dir


def find_start(given: dict, presets: dict, process: Process) -> Start:
    """Return where the run of these flags starts. ValueError or OSError if it would replace the files of another."""
    name = given.get("experiment") or given.get("model_size") or TrainSettings.model_size
    folder = Path(given.get("checkpoint_dir") or f"out/{name}").expanduser()
    step, checkpoint, saved = 0, None, None
    resume = given.get("resume_from_iteration")
    steps = list_steps(folder)
    if steps and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0:  # torchrun restarts it after a failure
        resume = "latest"
    if resume is None and steps:
        raise ValueError(
            f"{folder} already holds checkpoints, the last of iteration {steps[-1]}: "
            f"continue with --resume_from_iteration {steps[-1]}, or give another --checkpoint_dir"
        )
    if resume is not None:
        step = find_last_step(folder) if resume == "latest" else resume
        checkpoint = load_checkpoint(folder, step, process.device)
        saved = checkpoint[2]["settings"]
        print0(f"Resuming from checkpoint: iteration {step}")
        print0(f"Loaded model weights from: {folder / f'model_{step:06d}.pt'}")
        print0(f"Loaded optimizer state from: {folder / f'optim_{step:06d}.pt'}")
    settings = TrainSettings.resolve(given, presets, saved, step, process.ranks.world_size)
    if saved and (changes := settings.changes_since(saved)):
        print0(f"Changed since the checkpoint: {', '.join(changes.values())}")
    start = Start(settings, presets[settings.model_size], folder, step, checkpoint)
    refuse_foreign_files(start.record_dir, folder, REPORTS[bool(settings.experiment)], is_new=checkpoint is None)
    # A trial may choose another dtype next time, so a resumed run keeps the choice.
    settings.dtype = str(choose_dtype(settings.dtype, process.device)).removeprefix("torch.")
    return start


def refuse_foreign_files(record_dir: Path, checkpoint_dir: Path, report: str, is_new: bool):
    """ValueError or OSError if the run would replace files that no run wrote or, if it is new, another's record."""
    record = read_config(record_dir) if (record_dir / CONFIG).exists() else {}
    if is_new and record.get("status", "").startswith(("finished", "stopped")):
        raise ValueError(f"{record_dir} holds the record of a run that is {record['status']}: name another folder")
    if is_new and record.get("checkpoint_dir") != str(checkpoint_dir) and has_step_files(checkpoint_dir):
        raise ValueError(
            f"{checkpoint_dir} holds files of checkpoints that are not of this run: name another --checkpoint_dir"
        )
    reports = [report, PAGE] if report == REPORTS[0] else [report]
    if record and record["report"] != report:
        refuse_to_replace(record_dir, reports)
    if not record and (is_new or record_dir != checkpoint_dir):
        refuse_to_replace(record_dir, [METRICS, CURVES, *reports, "generated_samples"])

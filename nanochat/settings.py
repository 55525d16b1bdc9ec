"""The settings of a training run: one field for each flag of scripts.tct_train.

The parser, the checks of the values, what a resumed run remembers and the table of flags are derived from the fields.
Nothing slow is imported, so that --help is fast. The presets are handed in as {name: values}, see model_config.PRESETS.

    python -m nanochat.settings

prints the table of flags in Markdown.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

from script_tools.cli import ArgumentParser
from script_tools.tables import table

OPTIMIZERS = ("muon", "adamw")
SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Flag:
    """How a setting is given on the command line."""

    help: str
    convert: Callable[[str], object] | None = str  # ValueError for a value outside the allowed range; None for a switch
    allowed: str = "a text"  # the range in words, for errors
    metavar: str | None = None
    aliases: tuple[str, ...] = ()
    from_preset: bool = False  # the default is the preset's value
    fixed_on_resume: bool = False  # a resumed run must keep the value
    remembered: bool = True  # a resumed run has the value of the checkpoint unless the flag is given


def setting(help: str, default=None, **options):
    """Return the field of a flag; options are those of Flag."""
    return field(default=default, metadata={"flag": Flag(help, **options)})


def whole(least: int, help: str, default=None, **options):
    """Return the field of a whole number from least up."""
    allowed = f"a whole number from {least} up"
    return setting(
        help, default, convert=lambda text: _within(least, int(text)), allowed=allowed, metavar="N", **options
    )


def decimal(help: str, default=None, below=math.inf, **options):
    """Return the field of a number from 0 up and below a limit."""
    allowed = "a number from 0 up" + (f" and below {below}" if below < math.inf else "")
    return setting(
        help, default, convert=lambda text: _within(0, float(text), below), allowed=allowed, metavar="X", **options
    )


def choice(names: tuple, help: str, default=None, **options):
    """Return the field of a setting that is one of several names."""
    return setting(help, default, **_one_of(names), **options)


def switch(help: str, **options):
    """Return the field of a flag that takes no value."""
    return setting(help, False, convert=None, **options)


def _one_of(names) -> dict:
    names = tuple(names)
    return {
        "convert": lambda text: names[names.index(text)],
        "allowed": f"one of {', '.join(names)}",
        "metavar": "{" + ",".join(names) + "}",
    }


def _within(least, number, below=math.inf):
    if not least <= number < below:  # also refuses NaN
        raise ValueError
    return number


# -----------------------------------------------------------------------------
# the settings


@dataclass
class TrainSettings:
    """All settings of a run. --help lists the flags in this order."""

    model_size: str = setting("preset of model and training", "small", fixed_on_resume=True)
    data_dir: str | None = setting("prepared folder", metavar="DIR")
    checkpoint_dir: str | None = setting(
        "folder for checkpoints (default: out/MODEL_SIZE, or out/NAME with --experiment NAME)",
        metavar="DIR",
        remembered=False,
    )
    experiment: str | None = setting(
        "write the folder experiments/NAME: README, config, logs, metrics, plots, and samples at each checkpoint",
        metavar="NAME",
    )
    context_size: int = whole(
        2, "tokens in the model's context, as in the prepared data", from_preset=True, fixed_on_resume=True
    )
    num_iterations: int = whole(1, "optimizer updates", aliases=("--max_iters",), from_preset=True)
    device_batch_size: int = whole(1, "contexts of targets in one forward pass on one device", from_preset=True)
    gradient_accumulation: int = whole(1, "forward passes per update", from_preset=True)
    optimizer: str = choice(
        OPTIMIZERS,
        "muon (Muon for the transformer matrices, AdamW for the rest) or adamw (AdamW alone)",
        "muon",
        fixed_on_resume=True,
    )
    learning_rate: float = decimal("peak learning rate", from_preset=True)
    schedule: str = choice(SCHEDULES, "learning rate schedule after the warmup", "linear")
    warmup_iters: int = whole(
        0, "iterations until the peak learning rate; if not given, at most a tenth of the run", from_preset=True
    )
    warmdown_ratio: float = decimal("share of the run in which the linear schedule decreases to 0", 0.5)
    grad_clip: float = decimal("maximum gradient norm; 0 disables clipping", from_preset=True)
    weight_decay: float = decimal("weight decay of the transformer matrices", from_preset=True)
    dropout: float = decimal("dropout of the embedding and of each sublayer's output", 0.0, below=1)
    previous_token: bool = switch(
        "add the previous token's embedding, weighted per channel, to each token's embedding", fixed_on_resume=True
    )
    state_embedding: bool = switch(
        "add an embedding of the schema position after each token; needs data prepared with --states",
        fixed_on_resume=True,
    )
    state_attention: bool = switch(
        "with --state_embedding: add to each attention logit a learned score of the two schema positions",
        fixed_on_resume=True,
    )
    eval_every: int = whole(1, "iterations between validations", 500)
    eval_windows: int = whole(1, "approximate number of windows per validation; scripts.tct_eval uses all", 128)
    save_every: int = whole(1, "iterations between checkpoints", 5000)
    save_every_minutes: float | None = decimal("also save every X minutes, for preemptible machines")
    keep_last: int | None = whole(1, "keep only the last N checkpoints, and the best one in its own folder")
    log_every: int = whole(1, "iterations between log lines", 10)
    max_files: int | None = whole(1, "use only the first N workflows of each split", fixed_on_resume=True)
    gradient_checkpointing: bool = switch("recompute each block in the backward pass to save memory")
    resume_from_iteration: int | str | None = setting(
        "continue from the checkpoint of this iteration, or from the latest",
        convert=lambda text: text if text == "latest" else _within(0, int(text)),
        allowed="an iteration or latest",
        metavar="N|latest",
        remembered=False,
    )
    run: str | None = setting("also log to wandb under this name", metavar="NAME")
    num_samples: int = whole(0, "workflows that an experiment generates at each checkpoint", 3)
    seed: int = whole(0, "seed of the weights and of the data order", 0, fixed_on_resume=True)
    device: str | None = setting("cpu, cuda or mps (default: the best available)", metavar="NAME", remembered=False)
    dtype: str = choice(
        ("auto", "float32", "bfloat16"),
        "of matrix products; auto takes bfloat16 if a short trial finds it faster",
        "auto",
    )
    compile: str = choice(
        ("auto", "on", "off"), "torch.compile; auto is on for a GPU and off for a CPU", "auto", remembered=False
    )
    world_size: int = 1  # the number of processes, not a flag

    @classmethod
    def resolve(cls, given: dict, presets: dict, saved: dict | None = None, first_step: int = 0, world_size: int = 1):
        """Return the settings of a run: from the flags given, else from the checkpoint (saved), else the defaults.

        ValueError if these settings would not continue the run of the checkpoint, which is of iteration first_step.
        """
        saved = saved or {}
        preset = presets[({"model_size": cls.model_size} | saved | given)["model_size"]]
        defaults = {name: preset[name] if flag.from_preset else getattr(cls, name) for name, flag in FLAGS.items()}
        known = {name: saved[name] for name, flag in FLAGS.items() if flag.remembered and name in saved}
        values = defaults | known | given
        if "warmup_iters" not in known | given:  # a short run reaches its peak, too
            values["warmup_iters"] = min(values["warmup_iters"], values["num_iterations"] // 10)
        settings = cls(**values, world_size=world_size)

        changed = settings.changes_since(saved)
        if fixed := [changed[name] for name in changed if name in FLAGS and FLAGS[name].fixed_on_resume]:
            raise ValueError(
                f"a resumed run cannot change {', '.join(fixed)}: leave the flag out, or begin a new run in another "
                "--checkpoint_dir"
            )
        if settings.num_iterations < first_step:
            raise ValueError(
                f"the checkpoint is at iteration {first_step}, past --num_iterations {settings.num_iterations}: "
                "raise it, or resume from an earlier iteration"
            )
        if settings.state_attention and not settings.state_embedding:
            raise ValueError("--state_attention also needs --state_embedding")
        return settings

    def remembered(self) -> dict:
        """Return the settings that a checkpoint keeps."""
        return {name: value for name, value in vars(self).items() if name not in FLAGS or FLAGS[name].remembered}

    def changes_since(self, saved: dict) -> dict[str, str]:
        """Return {name: "name OLD -> NEW"} of the settings that differ from those of a checkpoint."""
        return {
            name: f"{name} {saved[name]} -> {value}"
            for name, value in self.remembered().items()
            if name in saved and value != saved[name]
        }

    def model_fields(self, n_states: int) -> dict:
        """Return the fields of the GPTConfig that flags decide; n_states is the number of schema positions."""
        return {
            "sequence_len": self.context_size,
            "dropout": self.dropout,
            "previous_token": self.previous_token,
            "n_states": n_states if self.state_embedding else 0,
            "state_attention": self.state_attention,
        }


FLAGS: dict[str, Flag] = {f.name: f.metadata["flag"] for f in fields(TrainSettings) if "flag" in f.metadata}


def parse_flags(argv, presets: dict) -> dict:
    """Return {name: value} of the flags given. One ValueError names every fault."""
    faults = []
    parser = ArgumentParser(
        prog="python -m scripts.tct_train",
        description="Train a GPT on prepared windows. A resumed run remembers the flags that it was started with.",
        epilog="Exit codes: 0 finished; 2 an error, in one sentence; 130 or 143 stopped by Ctrl-C or SIGTERM, with "
        "a checkpoint saved.",
    )
    for name, flag in (FLAGS | {"model_size": replace(FLAGS["model_size"], **_one_of(presets))}).items():
        _add_flag(parser, name, flag, faults)
    found, unknown = parser.parse_known_args(argv)
    if unknown:
        faults.append(f"there is no flag {' '.join(unknown)}; --help lists the flags")
    if found.data_dir is None and found.resume_from_iteration is None:
        faults.append("--data_dir is missing: give the folder that prepare_training_data.py --output made")
    if faults:
        raise ValueError("; ".join(faults))
    return {name: value for name, value in vars(found).items() if value is not None}


def _add_flag(parser, name: str, flag: Flag, faults: list[str]):
    """Add a flag whose faulty values are noted in faults, so that all are reported together."""
    if flag.convert is None:
        parser.add_argument(f"--{name}", action="store_true", default=None, help=flag.help)
        return

    def checked(text):
        try:
            return flag.convert(text)
        except ValueError:
            faults.append(f"--{name} must be {flag.allowed}, not {text!r}")

    default = default_of(name)
    help = flag.help + (f" (default: {default})" if default else "")
    parser.add_argument(f"--{name}", *flag.aliases, type=checked, metavar=flag.metavar, help=help)


def default_of(name: str) -> str:
    """Return the default of a flag in words, empty if there is none."""
    default = getattr(TrainSettings, name)
    return "from the preset" if FLAGS[name].from_preset else "" if default is None else str(default)


def flags_table() -> str:
    """Return the table of all flags in Markdown; * marks those that a resumed run cannot change."""
    rows = [
        (
            f"`--{name}`" + (" *" if flag.fixed_on_resume else ""),
            "off" if flag.convert is None else default_of(name),
            flag.help,
        )
        for name, flag in FLAGS.items()
    ]
    return table(("flag", "default", "meaning"), rows)


if __name__ == "__main__":
    print(flags_table())

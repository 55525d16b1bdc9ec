"""The settings of a training run: one field for each flag of scripts.tct_train.

The parser, the checks of the values, what a resumed run remembers and the table of flags are derived from the fields.
Nothing slow is imported, so that --help is fast. The presets are handed in as {name: values}, see model_config.PRESETS.

    python -m nanochat.settings

prints the table of flags in Markdown.
"""

import math
from dataclasses import dataclass, field, fields, replace

from script_tools.cli import ArgumentParser
from script_tools.tables import table

OPTIMIZERS = ("muon", "adamw")
SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Flag:
    """How a setting is given on the command line."""

    kind: type  # int, float or str; bool for a flag without a value
    help: str
    least: int = 0  # of a number
    below: float = math.inf
    choices: tuple[str, ...] = ()  # all texts that are allowed, or that are allowed instead of a number
    metavar: str = ""
    aliases: tuple[str, ...] = ()
    from_preset: bool = False  # the default is the preset's value
    fixed: bool = False  # a resumed run cannot change it
    remembered: bool = True  # a resumed run has the value of the checkpoint unless the flag is given

    def parse(self, text: str):
        """Return the value of a text. ValueError if it is not allowed."""
        if text in self.choices or self.kind is str and not self.choices:
            return text
        if self.kind is str or not self.least <= self.kind(text) < self.below:  # also refuses NaN
            raise ValueError
        return self.kind(text)

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        if self.kind is str:
            return f"one of {', '.join(self.choices)}"
        number = f"{'a whole number' if self.kind is int else 'a number'} from {self.least} up"
        number += f" and below {self.below}" if self.below < math.inf else ""
        return " or ".join((number, *self.choices))


def flag(help: str, default=None, **options):
    """Return the field of a setting; options are those of Flag."""
    return field(default=default, metadata={"help": help, **options})


@dataclass
class TrainSettings:
    """All settings of a run. --help lists the flags in this order."""

    model_size: str = flag("preset of model and training", "small", fixed=True)
    data_dir: str | None = flag("prepared folder", metavar="DIR")
    checkpoint_dir: str | None = flag(
        "folder for checkpoints (default: out/MODEL_SIZE, or out/NAME with --experiment NAME)",
        metavar="DIR",
        remembered=False,
    )
    experiment: str | None = flag(
        "write the folder experiments/NAME: README, config, logs, metrics, plots, and samples at each checkpoint",
        metavar="NAME",
    )
    context_size: int = flag("tokens in a context, as in the prepared data", least=2, from_preset=True, fixed=True)
    num_iterations: int = flag("optimizer updates", least=1, aliases=("--max_iters",), from_preset=True)
    device_batch_size: int = flag("contexts in one forward pass on one device", least=1, from_preset=True)
    gradient_accumulation: int = flag("forward passes per update", least=1, from_preset=True)
    optimizer: str = flag(
        "muon for the transformer matrices with AdamW for the rest, or AdamW alone",
        "muon",
        choices=OPTIMIZERS,
        fixed=True,
    )
    learning_rate: float = flag("peak learning rate", from_preset=True)
    schedule: str = flag("learning rate schedule after the warmup", "linear", choices=SCHEDULES)
    warmup_iters: int = flag(
        "iterations until the peak learning rate; if not given, at most a tenth of the run", from_preset=True
    )
    warmdown_ratio: float = flag("share of the run in which the linear schedule decreases to 0", 0.5)
    grad_clip: float = flag("maximum gradient norm; 0 disables clipping", from_preset=True)
    weight_decay: float = flag("weight decay of the transformer matrices", from_preset=True)
    dropout: float = flag("dropout of the embedding and of each sublayer's output", 0.0, below=1)
    previous_token: bool = flag(
        "add the previous token's embedding, weighted per channel, to each token's embedding", False, fixed=True
    )
    state_embedding: bool = flag(
        "add an embedding of the schema position after each token; needs data prepared with --states", False, fixed=True
    )
    state_attention: bool = flag(
        "with --state_embedding: add a learned score of two schema positions to each attention logit", False, fixed=True
    )
    value_embedding: bool = flag(
        "add an embedding of each token to its values of attention, in every other layer", False, fixed=True
    )
    random_cuts: bool = flag(
        "cut workflows into other windows in each epoch, each token once; for data with overlapping windows",
        False,
        fixed=True,
    )
    eval_every: int = flag("iterations between validations", 500, least=1)
    eval_windows: int = flag("approximate number of windows per validation; scripts.tct_eval uses all", 128, least=1)
    save_every: int = flag("iterations between checkpoints", 5000, least=1)
    save_every_minutes: float | None = flag("also save every X minutes, for preemptible machines")
    keep_last: int | None = flag("keep only the last N checkpoints, and the best one in its own folder", least=1)
    log_every: int = flag("iterations between log lines", 10, least=1)
    max_files: int | None = flag("use only the first N workflows of each split", least=1, fixed=True)
    gradient_checkpointing: bool = flag("recompute each block in the backward pass to save memory", False)
    resume_from_iteration: int | str | None = flag(
        "continue from the checkpoint of this iteration, or from the latest",
        choices=("latest",),
        metavar="N|latest",
        remembered=False,
    )
    run: str | None = flag("also log to wandb under this name", metavar="NAME")
    num_samples: int = flag("workflows that an experiment generates at each checkpoint", 3)
    seed: int = flag("seed of the weights and of the data order", 0, fixed=True)
    device: str | None = flag("cpu, cuda or mps (default: the best available)", metavar="NAME", remembered=False)
    dtype: str = flag(
        "of matrix products; auto takes bfloat16 if a short trial finds it faster",
        "auto",
        choices=("auto", "float32", "bfloat16"),
    )
    compile: str = flag(
        "torch.compile; auto is on for a GPU and off for a CPU", "auto", choices=("auto", "on", "off"), remembered=False
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
        if fixed := [changed[name] for name in changed if name in FLAGS and FLAGS[name].fixed]:
            remedy = "leave the flag out, or begin a new run in another --checkpoint_dir"
            raise ValueError(f"a resumed run cannot change {', '.join(fixed)}: {remedy}")
        if settings.num_iterations < first_step:
            past = f"iteration {first_step}, past --num_iterations {settings.num_iterations}"
            raise ValueError(f"the checkpoint is at {past}: raise it, or resume from an earlier iteration")
        if settings.state_attention and not settings.state_embedding:
            raise ValueError("--state_attention also needs --state_embedding")
        return settings

    def remembered(self) -> dict:
        """Return the settings that a checkpoint keeps."""
        return {name: value for name, value in vars(self).items() if name not in FLAGS or FLAGS[name].remembered}

    def changes_since(self, saved: dict) -> dict[str, str]:
        """Return {name: "name OLD -> NEW"} of the settings that differ from those of a checkpoint."""
        changed = {name: value for name, value in self.remembered().items() if saved.get(name, value) != value}
        return {name: f"{name} {saved[name]} -> {value}" for name, value in changed.items()}

    def model_fields(self, n_states: int) -> dict:
        """Return the fields of the GPTConfig that flags decide; n_states is the number of schema positions."""
        return {
            "sequence_len": self.context_size,
            "dropout": self.dropout,
            "previous_token": self.previous_token,
            "n_states": n_states if self.state_embedding else 0,
            "state_attention": self.state_attention,
            "value_embedding": self.value_embedding,
        }


# The first type of `int | None` is that of the flag.
FLAGS = {
    f.name: Flag(getattr(f.type, "__args__", [f.type])[0], **f.metadata) for f in fields(TrainSettings) if f.metadata
}


def parse_flags(argv, presets: dict) -> dict:
    """Return {name: value} of the flags given. One ValueError names every fault."""
    faults = []
    parser = ArgumentParser(
        prog="python -m scripts.tct_train",
        description="Train a GPT on prepared windows. A resumed run remembers the flags that it was started with.",
        epilog="Exit codes: 0 finished; 2 an error, in one sentence; 130 or 143 stopped by Ctrl-C or SIGTERM, with "
        "a checkpoint saved.",
    )
    for name, flag in FLAGS.items():
        if name == "model_size":
            flag = replace(flag, choices=tuple(presets))
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
    if flag.kind is bool:
        parser.add_argument(f"--{name}", action="store_true", default=None, help=flag.help)
        return

    def parse(text):
        try:
            return flag.parse(text)
        except ValueError:
            faults.append(f"--{name} must be {flag.allowed}, not {text!r}")

    default = default_of(name)
    help = flag.help + (f" (default: {default})" if default else "")
    metavar = flag.metavar or {int: "N", float: "X", str: "{" + ",".join(flag.choices) + "}"}[flag.kind]
    parser.add_argument(f"--{name}", *flag.aliases, type=parse, metavar=metavar, help=help)


def default_of(name: str) -> str:
    """Return the default of a flag in words, empty if there is none."""
    default = getattr(TrainSettings, name)
    return "from the preset" if FLAGS[name].from_preset else "" if default is None else str(default)


def flags_table() -> str:
    """Return the table of all flags in Markdown; * marks those that a resumed run cannot change."""
    rows = [(f"`--{name}`" + (" *" if flag.fixed else ""), default_of(name), flag.help) for name, flag in FLAGS.items()]
    return table(("flag", "default", "meaning"), rows)


if __name__ == "__main__":
    print(flags_table())

"""The flags of scripts.tct_train, and the settings that they and a checkpoint come to."""

import math
from types import SimpleNamespace

from model_config import PRESET_NAMES, get_config
from script_tools.cli import ArgumentParser, print0

# Where neither a flag nor, on resume, the checkpoint says otherwise.
DEFAULTS = {
    "model_size": "small",
    "data_dir": None,
    "eval_every": 500,
    "eval_windows": 128,
    "save_every": 5000,
    "save_every_minutes": None,
    "keep_last": None,
    "log_every": 10,
    "max_files": None,
    "gradient_checkpointing": False,
    "seed": 0,
    "dtype": "auto",
    "optimizer": "muon",
    "schedule": "linear",
    "warmdown_ratio": 0.5,
    "dropout": 0.0,
    "resid_scalars": False,
    "x0_scalars": False,
    "previous_token": False,
    "state_embedding": False,
    "state_attention": False,
    "num_samples": 3,
    "experiment": None,
    "run": None,
}
PRESET_DEFAULTS = (
    "context_size",
    "num_iterations",
    "device_batch_size",
    "gradient_accumulation",
    "learning_rate",
    "warmup_iters",
    "grad_clip",
    "weight_decay",
)
FIXED_ON_RESUME = (
    "model_size",
    "context_size",
    "max_files",
    "seed",
    "optimizer",
    "resid_scalars",
    "x0_scalars",
    "previous_token",
    "state_embedding",
    "state_attention",
)

OPTIMIZERS = ("muon", "adamw")  # as in nanochat.optim, which would bring torch
SCHEDULES = ("constant", "linear", "cosine")


def parse_arguments(argv) -> SimpleNamespace:
    """The flags, None where not given. One ValueError names every fault."""
    faults = []
    parser = ArgumentParser(
        prog="python -m scripts.tct_train",
        description="Train a GPT on prepared windows. A resumed run remembers the flags that it was started with.",
        epilog="Exit codes: 0 finished; 2 an error, in one sentence; 130 or 143 stopped by Ctrl-C or SIGTERM, with "
        "a checkpoint saved.",
    )

    def add(flag, convert, wanted, help, aliases=(), metavar=None):
        def checked(text):  # notes a fault and goes on, so that all are reported together
            try:
                return convert(text)
            except ValueError:
                faults.append(f"{flag} must be {wanted}, not {text!r}")

        default = DEFAULTS.get(flag.removeprefix("--"))
        parser.add_argument(
            flag,
            *aliases,
            type=checked,
            metavar=metavar,
            help=help + (f" (default: {default})" if default is not None else ""),
        )

    def whole(flag, least, help, *aliases):
        wanted = f"a whole number from {least} up"
        add(flag, lambda text: within(least, int(text)), wanted, help, aliases, "N")

    def decimal(flag, help, below=math.inf):
        wanted = "a number from 0 up" + (f" and below {below}" if below < math.inf else "")
        add(flag, lambda text: within(0, float(text), below), wanted, help, metavar="X")

    def choice(flag, names, help):
        add(
            flag,
            lambda text: names[names.index(text)],
            f"one of {', '.join(names)}",
            help,
            metavar="{" + ",".join(names) + "}",
        )

    def switch(flag, help):
        parser.add_argument(flag, action="store_true", default=None, help=help)

    choice("--model_size", PRESET_NAMES, "preset of model and training")
    add("--data_dir", str, "a folder", "prepared folder", metavar="DIR")
    add(
        "--checkpoint_dir",
        str,
        "a folder",
        "where checkpoints go (default: out/MODEL_SIZE, or out/NAME with --experiment NAME)",
        metavar="DIR",
    )
    add(
        "--experiment",
        str,
        "a name",
        "make the folder experiments/NAME: README, config, logs, metrics, plots, and samples at each checkpoint",
        metavar="NAME",
    )
    whole(
        "--context_size", 2, "inputs that the model sees at once, as the data was prepared for (default: the preset's)"
    )
    whole(
        "--num_iterations",
        1,
        "optimizer updates in all (default: the preset's, like all below without one)",
        "--max_iters",
    )
    whole("--device_batch_size", 1, "contexts full of targets in one forward pass on one device")
    whole("--gradient_accumulation", 1, "forward passes for one update")
    choice("--optimizer", OPTIMIZERS, "muon for the matrices in the blocks with AdamW for the rest, or AdamW alone")
    decimal("--learning_rate", "its peak")
    choice("--schedule", SCHEDULES, "of the learning rate after the warmup")
    whole("--warmup_iters", 0, "iterations until the peak (default: the preset's, or a tenth of a short run)")
    decimal("--warmdown_ratio", "the last share of the run, in which the linear schedule goes down to 0")
    decimal("--grad_clip", "largest norm of the gradient; 0 does not clip")
    decimal("--weight_decay", "of the matrices in the blocks")
    decimal("--dropout", "share of each sublayer's output that is dropped", below=1)
    switch("--resid_scalars", "each block scales what comes in by a learned number")
    switch("--x0_scalars", "each block adds the embedding, scaled by a learned number")
    switch("--previous_token", "each token is seen with the one before it, whose embedding is added by learned weights")
    switch(
        "--state_embedding",
        "tell the model beside each token which place of the schema it leads to; the data is "
        "to be prepared with --states",
    )
    switch("--state_attention", "with --state_embedding: what a token attends to depends on these places, too")
    whole("--eval_every", 1, "iterations between validations")
    whole("--eval_windows", 1, "validation windows that each visits, about; scripts.tct_eval visits all")
    whole("--save_every", 1, "iterations between checkpoints")
    decimal("--save_every_minutes", "save after so many minutes too, for machines that may be taken away")
    whole("--keep_last", 1, "remove all but the last N checkpoints; the best is kept apart in any case")
    whole("--log_every", 1, "iterations between log lines")
    whole("--max_files", 1, "use the first N workflows of each split only")
    switch("--gradient_checkpointing", "compute each block twice to need less memory")
    add(
        "--resume_from_iteration",
        lambda text: text if text == "latest" else within(0, int(text)),
        "an iteration or latest",
        "continue from this checkpoint, or from the latest",
        metavar="N|latest",
    )
    add("--run", str, "a name", "also log to wandb under this name", metavar="NAME")
    whole("--num_samples", 0, "workflows that an experiment writes at each checkpoint")
    whole("--seed", 0, "of the weights and of the order of the data")
    add("--device", str, "a device", "cpu, cuda or mps (default: the best there is)", metavar="NAME")
    choice(
        "--dtype",
        ("auto", "float32", "bfloat16"),
        "of matrix products; auto is bfloat16 where a quick trial finds it faster",
    )
    choice("--compile", ("auto", "on", "off"), "torch.compile; auto is on for a GPU, off for a CPU")

    flags, unknown = parser.parse_known_args(argv)
    if unknown:
        faults.append(f"there is no flag {' '.join(unknown)}; --help lists those there are")
    if flags.data_dir is None and flags.resume_from_iteration is None:
        faults.append("--data_dir is needed: the folder that prepare_training_data.py --output made")
    if faults:
        raise ValueError("; ".join(faults))
    return flags


def settle(flags, before: dict | None, first: int, world_size: int) -> SimpleNamespace:
    """Every setting: from its flag, else as it was before, else the default. Says what changed on resume;
    ValueError where that would not continue the same run."""
    before = before or {}
    given = {name: value for name, value in vars(flags).items() if value is not None}
    preset = get_config((DEFAULTS | before | given)["model_size"])
    defaults = DEFAULTS | {name: preset[name] for name in PRESET_DEFAULTS}
    iterations = (defaults | before | given)["num_iterations"]
    defaults["warmup_iters"] = min(defaults["warmup_iters"], iterations // 10)  # a short run has a peak too
    settings = {name: (defaults | before | given)[name] for name in defaults} | {"world_size": world_size}

    changed = {
        name: f"{name} {before[name]} -> {value}"
        for name, value in settings.items()
        if name in before and value != before[name]
    }
    fixed = [change for name, change in changed.items() if name in FIXED_ON_RESUME]
    if fixed:
        raise ValueError(
            f"a resumed run cannot change {', '.join(fixed)}: leave the flag out, or begin a "
            "new run in another --checkpoint_dir"
        )
    if settings["num_iterations"] < first:
        raise ValueError(
            f"the checkpoint is at iteration {first}, past --num_iterations "
            f"{settings['num_iterations']}: raise it, or resume from an earlier iteration"
        )
    if settings["state_attention"] and not settings["state_embedding"]:
        raise ValueError("--state_attention wants --state_embedding, too")
    if changed:
        print0(f"Changed since the checkpoint: {', '.join(changed.values())}")
    return SimpleNamespace(**settings)


def preset_config(settings, n_states: int) -> dict:
    """The fields of the GPTConfig that the settings ask for; n_states is what the data has."""
    preset = get_config(settings.model_size)
    return {
        "sequence_len": settings.context_size,
        "vocab_size": preset["vocab_size"],
        "n_layer": preset["n_layers"],
        "n_head": preset["n_heads"],
        "n_kv_head": preset["n_heads"],
        "n_embd": preset["d_model"],
        "dropout": settings.dropout,
        "resid_scalars": settings.resid_scalars,
        "x0_scalars": settings.x0_scalars,
        "previous_token": settings.previous_token,
        "n_states": n_states if settings.state_embedding else 0,
        "state_attention": settings.state_attention,
    }


def within(least, number, below=math.inf):
    """number; ValueError where it is not from least up and below the other bound."""
    if not least <= number < below:
        raise ValueError
    return number

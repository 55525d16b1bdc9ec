"""Model presets: the shape of each GPT and its training defaults.

>>> get_config("small")["d_model"]
384

Imports nothing, so that --help is fast.
"""

# learning_rate is the peak of all optimizers; warmup_iters and num_iterations count optimizer updates;
# device_batch_size counts contexts full of targets in one forward pass on one device. The learning rate and the weight
# decay of tiny are the result of a search (experiments/recipe); the learning rates of the other presets follow from it
# as 1 / sqrt(d_model), rounded.

# The vocabulary is that of the workflow tokenizer; position tokens share its ids. A context is a position token and 511
# tokens.
_ALL = {"vocab_size": 8192, "context_size": 512, "grad_clip": 1.0}
_GPU = _ALL | {"num_iterations": 50_000, "warmup_iters": 2000, "weight_decay": 0.1}

PRESETS = {
    "tiny": {  # for a CPU: num_iterations is about a minute on two cores
        **_ALL,
        "d_model": 128,
        "n_layers": 4,
        "n_heads": 2,
        "device_batch_size": 8,
        "gradient_accumulation": 1,
        "num_iterations": 250,
        "learning_rate": 8e-3,
        "warmup_iters": 60,
        "weight_decay": 0.4,
    },
    "small": {
        **_GPU,
        "d_model": 384,
        "n_layers": 8,
        "n_heads": 6,
        "device_batch_size": 32,
        "gradient_accumulation": 1,
        "learning_rate": 4e-3,
    },
    "medium": {
        **_GPU,
        "d_model": 768,
        "n_layers": 8,
        "n_heads": 12,
        "device_batch_size": 32,
        "gradient_accumulation": 1,
        "learning_rate": 3e-3,
    },
    "large": {  # medium's batch in two halves, so that it needs no more memory
        **_GPU,
        "d_model": 1024,
        "n_layers": 12,
        "n_heads": 16,
        "device_batch_size": 16,
        "gradient_accumulation": 2,
        "learning_rate": 2.5e-3,
    },
}

PRESET_NAMES = tuple(PRESETS)


def get_config(name: str) -> dict:
    """Return a copy of a preset: vocab_size, context_size, d_model, n_layers, n_heads and the training defaults.

    ValueError, which names the presets, for any other name.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown model size {name!r}: choose one of {', '.join(PRESET_NAMES)}")
    return dict(PRESETS[name])


def gpt_fields(preset: dict) -> dict:
    """Return the fields of the GPTConfig of a preset, those that every version of nanochat has."""
    return {
        "sequence_len": preset["context_size"],
        "vocab_size": preset["vocab_size"],
        "n_layer": preset["n_layers"],
        "n_head": preset["n_heads"],
        "n_kv_head": preset["n_heads"],
        "n_embd": preset["d_model"],
    }

"""Model presets: the shape of each GPT and the training defaults that go with it.

>>> get_config("small")["d_model"]
384

Imports nothing, so that `--help` and the choices of a flag cost no time.
"""

VOCAB_SIZE = 8192  # ids of the workflow tokenizer; position tokens share this range
CONTEXT_SIZE = 512  # inputs a model sees at once: one position token and 511 tokens

# learning_rate is the peak of all optimizers; warmup_iters and num_iterations count optimizer updates;
# device_batch_size counts contexts full of targets in one forward pass on one device. The rate and decay of tiny
# were searched for (experiments/recipe); the rates of the others follow from it as 1 / sqrt(d_model), rounded.
_PRESETS = {
    "tiny": {  # for a CPU: num_iterations is about a minute on two cores
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
        "d_model": 384,
        "n_layers": 8,
        "n_heads": 6,
        "device_batch_size": 32,
        "gradient_accumulation": 1,
        "num_iterations": 50_000,
        "learning_rate": 4e-3,
        "warmup_iters": 2000,
        "weight_decay": 0.1,
    },
    "medium": {
        "d_model": 768,
        "n_layers": 8,
        "n_heads": 12,
        "device_batch_size": 32,
        "gradient_accumulation": 1,
        "num_iterations": 50_000,
        "learning_rate": 3e-3,
        "warmup_iters": 2000,
        "weight_decay": 0.1,
    },
    "large": {  # the batch of the others in two halves, to need no more memory than medium
        "d_model": 1024,
        "n_layers": 12,
        "n_heads": 16,
        "device_batch_size": 16,
        "gradient_accumulation": 2,
        "num_iterations": 50_000,
        "learning_rate": 2.5e-3,
        "warmup_iters": 2000,
        "weight_decay": 0.1,
    },
}
_SHARED = {"vocab_size": VOCAB_SIZE, "context_size": CONTEXT_SIZE, "grad_clip": 1.0}

PRESET_NAMES = tuple(_PRESETS)


def get_config(name: str) -> dict:
    """The preset `name` as a fresh dict: vocab_size, context_size, d_model, n_layers, n_heads and the
    training defaults. ValueError, naming the presets there are, for any other name."""
    if name not in _PRESETS:
        raise ValueError(f"unknown model size {name!r}: choose one of {', '.join(PRESET_NAMES)}")
    return {**_SHARED, **_PRESETS[name]}

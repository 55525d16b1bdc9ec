"""Model presets: the shape of each GPT and its training defaults.

>>> get_config("small")["d_model"]
384

Imports nothing, so that --help is fast.
"""

# The vocabulary is that of the workflow tokenizer; position tokens share its ids. A context is a position token and 511
# tokens. warmup_iters and num_iterations count optimizer updates; tiny's are about a minute on two cores.
_ALL = {"vocab_size": 8192, "context_size": 512, "grad_clip": 1.0}
_CPU = _ALL | {"num_iterations": 250, "warmup_iters": 60, "weight_decay": 0.4}
_GPU = _ALL | {"num_iterations": 50_000, "warmup_iters": 2000, "weight_decay": 0.1}
# device_batch_size counts contexts full of targets in one forward pass on one device. learning_rate is the peak of all
# optimizers. That of tiny, and its weight decay, are the result of a search (experiments/recipe); the others follow as
# 1 / sqrt(d_model), rounded. The batch of large is medium's in two halves, so that it needs no more memory.
_COLUMNS = ("d_model", "n_layers", "n_heads", "device_batch_size", "gradient_accumulation", "learning_rate")
_ROWS = {
    "tiny": (_CPU, 128, 4, 2, 8, 1, 8e-3),
    "mini": (_CPU | {"num_iterations": 3000, "weight_decay": 0.2}, 256, 6, 4, 8, 1, 5.6e-3),
    "small": (_GPU, 384, 8, 6, 32, 1, 4e-3),
    "medium": (_GPU, 768, 8, 12, 32, 1, 3e-3),
    "large": (_GPU, 1024, 12, 16, 16, 2, 2.5e-3),
}
PRESETS = {name: common | dict(zip(_COLUMNS, row, strict=True)) for name, (common, *row) in _ROWS.items()}
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

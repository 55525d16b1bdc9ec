"""Whether a prepared folder is sound enough to use: types and ranges of all that its files say.

Each function returns what is wrong as the end of a sentence that begins with the file, or None.
verify_prepared_data.py checks the rest: that the windows decode to the workflows.
"""

import torch

KEYS = {"context_size", "stride", "window_step", "vocab_size", "pad_token", "tokenizer", "splits"}
SPLITS = ("train", "val", "test")
SPLIT_COUNTS = ("workflows", "windows", "tokens", "json_bytes")
MOST_IDS = 1 << 15  # int16 holds no more
ROWS_AT_A_TIME = 65_536


def fault_of_metadata(metadata) -> str | None:
    """What is wrong with the value in a metadata.json."""
    if not isinstance(metadata, dict):
        return "is not a JSON object"
    if missing := KEYS - metadata.keys():
        return f"does not say {', '.join(sorted(missing))}"
    sizes = {"context_size": 1, "stride": 1, "window_step": 1, "vocab_size": 1, "pad_token": 0}
    values = {name: metadata[name] for name in sizes} | {
        name: metadata[name] for name in ("n_states", "max_windows_per_workflow") if metadata.get(name) is not None
    }
    for name, value in values.items():
        if not is_count(value, sizes.get(name, 0)):
            return f"says {name} {value!r}, which is not a whole number from {sizes.get(name, 0)} up"
    if not metadata["pad_token"] < metadata["vocab_size"] <= MOST_IDS or values.get("n_states", 0) > MOST_IDS:
        return f"says sizes that do not fit together: pad_token < vocab_size <= {MOST_IDS} >= n_states"
    if metadata["window_step"] % metadata["stride"] or metadata["window_step"] > metadata["context_size"]:
        return "says a window_step that is not a multiple of stride, or is more than context_size"
    tokenizer, splits = metadata["tokenizer"], metadata["splits"]
    names = [tokenizer.get(key) for key in ("name", "fingerprint")] if isinstance(tokenizer, dict) else [None]
    if not all(isinstance(name, str) for name in names):
        return "says a tokenizer without name and fingerprint"
    if not isinstance(splits, dict) or not {"train", "val"} <= splits.keys() <= set(SPLITS):
        return f"says splits other than {', '.join(SPLITS)}"
    for name, split in splits.items():
        counts = [split.get(key) for key in SPLIT_COUNTS] if isinstance(split, dict) else [None]
        if not all(is_count(count, 0) for count in counts) or len({count > 0 for count in counts}) > 1:
            return (
                f"says of the split {name} no {', '.join(SPLIT_COUNTS)} that are whole numbers, all of them 0 or none"
            )
    return None


def fault_of_rows(rows: torch.Tensor, split: str, metadata: dict) -> str | None:
    """What is wrong with the windows (N, C + 1) of a split."""
    windows, vocab_size = metadata["splits"].get(split, {}).get("windows", len(rows)), metadata["vocab_size"]
    if len(rows) != windows:
        return f"has {len(rows):,} windows, but its metadata.json says {windows:,}"
    if not len(rows):
        return None
    positions = []
    for part in rows.split(ROWS_AT_A_TIME):
        for what, ids in ("position", part[:, 0]), ("token id", part[:, 1:]):
            if fault := fault_of_range(ids, what, vocab_size):
                return fault
        if (part[:, 1] == metadata["pad_token"]).any():
            return "has a window without tokens"
        positions.append(part[:, 0].clone())
    are_thinned = split == "train" and metadata.get("max_windows_per_workflow") is not None
    return fault_of_positions(torch.cat(positions), metadata, are_thinned)


def fault_of_positions(positions: torch.Tensor, metadata: dict, are_thinned: bool) -> str | None:
    """What is wrong with the order of positions (N,), which are in range."""
    steps = positions.int().diff() * metadata["stride"]  # (N - 1,) in tokens
    fits = (steps > 0) & (steps % metadata["window_step"] == 0)
    if not are_thinned:
        fits &= steps <= metadata["context_size"]
    wrong = torch.cat([positions[:1] != 0, (positions[1:] != 0) & ~fits]).nonzero().flatten()
    if len(wrong):
        row = int(wrong[0])
        return f"has the position {int(positions[row])} in row {row:,}, which does not follow the row before it"
    return None


def fault_of_states(states: torch.Tensor, split: str, metadata: dict) -> str | None:
    """What is wrong with the schema positions (N, C) of a split."""
    windows = metadata["splits"].get(split, {}).get("windows", len(states))
    if len(states) != windows:
        return f"has {len(states):,} rows, but its metadata.json says {windows:,}"
    parts = states.split(ROWS_AT_A_TIME)
    return next(filter(None, (fault_of_range(part, "schema position", metadata["n_states"]) for part in parts)), None)


def fault_of_range(values: torch.Tensor, what: str, limit: int) -> str | None:
    if not values.numel():
        return None
    for value in map(int, values.aminmax()):
        if not 0 <= value < limit:
            return f"has the {what} {value}, which is not from 0 to {limit - 1}"
    return None


def fault_of_entry(entry) -> str | None:
    """What is wrong with the value of a line of workflows.jsonl."""
    if not isinstance(entry, dict):
        return "is not a JSON object"
    texts = {"file": str, "sha256": str, "group": str | None}
    is_text = all(key in entry and isinstance(entry[key], kind) for key, kind in texts.items())
    if not is_text or entry.get("split") not in SPLITS:
        return f"does not say {', '.join(texts)} and split as texts"
    counts = {"first_window": 0, "windows": 1, "tokens": 1}
    if not all(is_count(entry.get(key), least) for key, least in counts.items()):
        return f"does not say {', '.join(counts)} as whole numbers"
    return None


def is_count(value, least: int) -> bool:
    return type(value) is int and value >= least

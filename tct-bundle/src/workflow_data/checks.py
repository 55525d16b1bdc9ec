"""Check the types and ranges in all files of a prepared folder, before they are used.

Each function returns None, or a fault as the end of a sentence that begins with the name of the file.
verify_prepared_data.py checks the rest: that the windows decode to the workflows.
"""

import torch

from workflow_data.split import SPLITS

KEYS = {"context_size", "stride", "window_step", "vocab_size", "pad_token", "tokenizer", "splits"}
SPLIT_COUNTS = ("workflows", "windows", "tokens", "json_bytes")
MAX_IDS = 1 << 15  # as many as int16 holds
ROWS_AT_A_TIME = 65_536


def fault_of_metadata(metadata) -> str | None:
    if not isinstance(metadata, dict):
        return "is not a JSON object"
    if missing := KEYS - metadata.keys():
        return f"lacks {', '.join(sorted(missing))}"
    tokenizer = metadata["tokenizer"] if isinstance(metadata["tokenizer"], dict) else {}
    is_named = all(isinstance(tokenizer.get(key), str) for key in ("name", "fingerprint"))
    nameless = None if is_named else "has a tokenizer without name and fingerprint"
    return fault_of_sizes(metadata) or nameless or fault_of_splits(metadata["splits"])


def fault_of_sizes(metadata: dict) -> str | None:
    least = {"context_size": 1, "stride": 1, "window_step": 1, "vocab_size": 1, "pad_token": 0}
    least |= {name: 0 for name in ("n_states", "max_windows_per_workflow") if metadata.get(name) is not None}
    for name, minimum in least.items():
        if not is_count(metadata[name], minimum):
            return f"has {name} {metadata[name]!r}, which is not a whole number of at least {minimum}"
    n_states = metadata["n_states"] if "n_states" in least else 0
    if not metadata["pad_token"] < metadata["vocab_size"] <= MAX_IDS or n_states > MAX_IDS:
        return f"has sizes that do not fit together: pad_token < vocab_size <= {MAX_IDS} >= n_states must hold"
    if metadata["window_step"] % metadata["stride"] or metadata["window_step"] > metadata["context_size"]:
        return "has a window_step that is not a multiple of stride, or is more than context_size"
    return None


def fault_of_splits(splits) -> str | None:
    if not isinstance(splits, dict) or not {"train", "val"} <= splits.keys() <= set(SPLITS):
        return f"has splits other than {', '.join(SPLITS)}"
    for name, split in splits.items():
        counts = [split.get(key) for key in SPLIT_COUNTS] if isinstance(split, dict) else [None]
        if not all(is_count(count, 0) for count in counts) or len({count > 0 for count in counts}) > 1:
            rule = "are not whole numbers, either all 0 or all more than 0"
            return f"has a split {name} in which {', '.join(SPLIT_COUNTS)} {rule}"
    return None


def fault_of_rows(rows: torch.Tensor, split: str, metadata: dict) -> str | None:
    """Check the windows (N, C + 1) of a split."""
    if fault := fault_of_row_count(rows, split, metadata):
        return fault
    positions = []
    for part in rows.split(ROWS_AT_A_TIME):
        for what, ids in ("position", part[:, 0]), ("token id", part[:, 1:]):
            if fault := fault_of_range(ids, what, metadata["vocab_size"]):
                return fault
        if (part[:, 1] == metadata["pad_token"]).any():
            return "has a window without tokens"
        positions.append(part[:, 0].clone())
    are_thinned = split == "train" and metadata.get("max_windows_per_workflow") is not None
    return fault_of_order(torch.cat(positions), metadata, are_thinned)


def fault_of_order(positions: torch.Tensor, metadata: dict, are_thinned: bool) -> str | None:
    """Check the order of the positions (N,) of all windows, which are in range."""
    steps = positions.int().diff() * metadata["stride"]  # (N - 1,) in tokens
    fits = (steps > 0) & (steps % metadata["window_step"] == 0)
    if not are_thinned:
        fits &= steps <= metadata["context_size"]
    wrong = torch.cat([positions[:1] != 0, (positions[1:] != 0) & ~fits]).nonzero().flatten()
    if len(wrong):
        row = int(wrong[0])
        return f"has the position {int(positions[row])} in row {row:,}, which does not follow the row before it"
    return None


def fault_of_positions_table(positions: torch.Tensor, split: str, metadata: dict) -> str | None:
    """Check the schema positions (N, C) of a split."""
    if fault := fault_of_row_count(positions, split, metadata):
        return fault
    parts = positions.split(ROWS_AT_A_TIME)
    return next(filter(None, (fault_of_range(part, "schema position", metadata["n_states"]) for part in parts)), None)


def fault_of_row_count(table: torch.Tensor, split: str, metadata: dict) -> str | None:
    expected = metadata["splits"].get(split, {}).get("windows", len(table))
    return None if len(table) == expected else f"has {len(table):,} rows, but metadata.json lists {expected:,} windows"


def fault_of_range(values: torch.Tensor, what: str, limit: int) -> str | None:
    if not values.numel():
        return None
    for value in map(int, values.aminmax()):
        if not 0 <= value < limit:
            return f"has the {what} {value}, which is not from 0 to {limit - 1}"
    return None


def fault_of_entry(entry) -> str | None:
    """Check the value of a line of workflows.jsonl."""
    if not isinstance(entry, dict):
        return "is not a JSON object"
    texts = {"file": str, "sha256": str, "group": str | None}
    is_text = all(key in entry and isinstance(entry[key], kind) for key, kind in texts.items())
    if not is_text or entry.get("split") not in SPLITS:
        return f"lacks a text for {', '.join(texts)} or split"
    counts = {"first_window": 0, "windows": 1, "tokens": 1}
    if not all(is_count(entry.get(key), minimum) for key, minimum in counts.items()):
        return f"lacks a whole number for {', '.join(counts)}"
    return None


def is_count(value, minimum: int) -> bool:
    return type(value) is int and value >= minimum

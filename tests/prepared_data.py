"""A prepared folder of random tokens, as small as a test wants it."""

import json
from pathlib import Path

import numpy as np
import torch

from tct_windows import WindowPlan, windows


def write_prepared(folder, train_lengths, val_lengths, context_size=16, stride=4, window_step=4,
                   vocab_size=64, fingerprint="a tokenizer"):
    """Write train.pt, val.pt and metadata.json, one workflow of random tokens for each length. Gives the
    workflows of each split."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plan = WindowPlan(context_size, stride, window_step, vocab_size, pad_token=0)
    random = np.random.default_rng(0)
    workflows, splits = {}, {}
    for split, lengths in (("train", train_lengths), ("val", val_lengths)):
        workflows[split] = [random.integers(1, vocab_size, length).astype(np.int16) for length in lengths]
        rows = [windows(tokens, plan) for tokens in workflows[split]]
        table = np.concatenate(rows) if rows else np.empty((0, context_size + 1), np.int16)
        torch.save(torch.from_numpy(table), folder / f"{split}.pt")
        splits[split] = {"workflows": len(lengths), "windows": len(table), "tokens": sum(lengths),
                         "json_bytes": 4 * sum(lengths)}
    (folder / "metadata.json").write_text(json.dumps({
        "context_size": context_size, "stride": stride, "window_step": window_step, "vocab_size": vocab_size,
        "pad_token": 0, "tokenizer": {"name": "test", "fingerprint": fingerprint},
        "total_workflows": len(train_lengths) + len(val_lengths), "splits": splits, "skipped": {},
        "seed": 0}))
    return workflows

"""Write small prepared folders of random tokens."""

import json
from pathlib import Path

import numpy as np
import torch

from workflow_data.windows import WindowPlan, schema_position_windows, windows


def write_prepared(
    folder,
    train_lengths,
    val_lengths,
    context_size=16,
    stride=4,
    window_step=4,
    vocab_size=64,
    fingerprint="a tokenizer",
    n_states=0,
):
    """Write a prepared folder with one workflow of random tokens for each length. Return the workflows of each split.

    If n_states is not 0, write random schema positions below it too.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plan = WindowPlan(context_size, stride, window_step, vocab_size, pad_token=0)
    random = np.random.default_rng(0)
    workflows, splits, entries = {}, {}, []
    for split, lengths in (("train", train_lengths), ("val", val_lengths)):
        workflows[split] = [random.integers(1, vocab_size, length).astype(np.int16) for length in lengths]
        rows = [windows(tokens, plan) for tokens in workflows[split]]
        save(rows, folder / f"{split}.pt", context_size + 1)
        if n_states:
            states = [random.integers(0, n_states, length + 1).astype(np.int16) for length in lengths]
            save(
                [schema_position_windows(places, plan) for places in states],
                folder / f"{split}_states.pt",
                context_size,
            )
        first = 0
        for i, (own, length) in enumerate(zip(rows, lengths)):
            entries.append(
                {
                    "file": f"{split}/{i}.yml",
                    "split": split,
                    "first_window": first,
                    "windows": len(own),
                    "tokens": length,
                    "sha256": "",
                    "group": None,
                    "repairs": [],
                }
            )
            first += len(own)
        splits[split] = {
            "workflows": len(lengths),
            "windows": first,
            "tokens": sum(lengths),
            "json_bytes": 4 * sum(lengths),
        }
    (folder / "workflows.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (folder / "metadata.json").write_text(
        json.dumps(
            {
                "context_size": context_size,
                "stride": stride,
                "window_step": window_step,
                "vocab_size": vocab_size,
                "pad_token": 0,
                "n_states": n_states,
                "tokenizer": {"name": "test", "fingerprint": fingerprint},
                "total_workflows": len(train_lengths) + len(val_lengths),
                "splits": splits,
                "skipped": {},
                "seed": 0,
            }
        )
    )
    return workflows


def save(tables: list[np.ndarray], path: Path, columns: int):
    torch.save(torch.from_numpy(np.concatenate([np.empty((0, columns), np.int16), *tables])), path)

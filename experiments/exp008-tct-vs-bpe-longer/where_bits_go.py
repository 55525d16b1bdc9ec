"""Compare the bits that two models need, by kind of text and by length of the workflow.

    python experiments/exp008-tct-vs-bpe-longer/where_bits_go.py TCT_RUN TCT_DATA BPE_RUN BPE_DATA

RUN is a folder with a checkpoint, DATA the prepared folder that it was trained on. Both models have the same workflows.
Set TCT_ARTIFACT to the own_merges.json of the study. A workflow token has one kind. The nats of a byte-pair token are
spread evenly over its bytes, and each byte has a kind.
"""

import argparse
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from model_evaluation import read_held_out, score_held_out
from nanochat.checkpoint_manager import load_model
from script_tools.tables import table
from tct.tokenizer import compact
from workflow_data.reader import open_tokenizer, read_metadata
from workflow_eval.token_kinds import ACTION_REFERENCES, KEYS, KIND_OF_TEXT, KINDS, OTHER_TEXT, RUN_SCRIPTS, STRUCTURE

KINDS_OF_BYTES = (STRUCTURE, KEYS, ACTION_REFERENCES, RUN_SCRIPTS, OTHER_TEXT)  # enum values count as text
LENGTHS = (0, 1_000, 2_000, 4_000, 8_000, 16_000, 10**9)  # bytes


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("tct_run", "tct_data", "bpe_run", "bpe_data"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    (texts, ours), (their_texts, theirs) = (
        nats_by_kind(args.tct_run, args.tct_data),
        nats_by_kind(args.bpe_run, args.bpe_data),
    )
    assert texts == their_texts
    sizes = np.stack([np.bincount(kinds_of_bytes(json.loads(text)), minlength=len(KINDS)) for text in texts])
    total = sizes.sum()

    def row(name, size, ours, theirs):
        return (
            name,
            f"{size / total:.1%}",
            *(f"{nats / math.log(2) / size:.3f}" for nats in (ours, theirs)),
            f"{ours / theirs - 1:+.1%}",
        )

    rows = [row(KINDS[kind], *(part.sum(0)[kind] for part in (sizes, ours, theirs))) for kind in KINDS_OF_BYTES]
    print(table(("kind", "share of the bytes", "TCT, bits per byte", "BPE", "difference"), rows), "\n")
    lengths, rows = sizes.sum(1), []
    for low, high in pairwise(LENGTHS):
        chosen = (lengths >= low) & (lengths < high)
        name = f"{chosen.sum()} of {low:,} to {high:,}" if high < LENGTHS[-1] else f"{chosen.sum()} of {low:,} or more"
        rows.append(row(name, *(part[chosen].sum() for part in (sizes, ours, theirs))))
    print(table(("workflows, bytes", "share of the bytes", "TCT, bits per byte", "BPE", "difference"), rows))


def nats_by_kind(run: Path, data: Path) -> tuple[list[str], np.ndarray]:
    """Return the held-out workflows and the nats (W, kinds) that the model needs for each."""
    metadata = read_metadata(data)
    tokenizer = open_tokenizer(data, metadata)
    held_out = read_held_out(data, metadata, tokenizer)
    model, _ = load_model(run)
    nats = score_held_out(model.eval(), held_out, data, 8, torch.bfloat16).nats
    found = []
    for text, tokens, last in zip(held_out.texts, held_out.tokens, held_out.ends):
        mine = slice(last - len(tokens), last)
        if held_out.kinds is None:
            sizes = np.array(
                [len(tokenizer.library.id_to_token(token)) for token in tokens[:-1]]
            )  # one character per byte
            kinds, weights = kinds_of_bytes(json.loads(text)), np.repeat(nats[mine][:-1] / sizes, sizes)
            kinds, weights = np.append(kinds, STRUCTURE), np.append(weights, nats[last - 1])  # the end token
        else:
            kinds, weights = held_out.kinds[mine], nats[mine]
        found.append(np.bincount(kinds, weights, len(KINDS)))
    found = np.stack(found)
    found[:, OTHER_TEXT] += found[:, KINDS.index("enum values")]
    return held_out.texts, found


def kinds_of_bytes(value, key: str | None = None) -> np.ndarray:
    """Return the kind of each byte of a value's compact JSON text."""
    return np.repeat(*zip(*stretches_of(value, key)))


def stretches_of(value, key: str | None):
    """Yield (kind, bytes) of each stretch in order; quotes belong to their string, colons to keys."""
    if not isinstance(value, dict | list):
        yield KIND_OF_TEXT.get(key, OTHER_TEXT), len(compact(value).encode())
        return
    members = value.items() if isinstance(value, dict) else [(None, child) for child in value]
    for name, child in members:
        yield STRUCTURE, 1  # the bracket or comma before the member
        if name is not None:
            yield KEYS, len(compact(name).encode()) + 1
        yield from stretches_of(child, key if name is None else name)
    yield STRUCTURE, 1 if value else 2


if __name__ == "__main__":
    main()

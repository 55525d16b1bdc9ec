"""Train `tiny` with some levers, that is inputs or losses from the type machine, and measure bits per byte.

    OMP_NUM_THREADS=1 python experiments/exp006-tct-vs-bpe/levers.py PREPARED --levers after before --iterations 700

PREPARED is a folder of prepare_training_data.py --states --window-step 256 (without levers, of any tokenizer).

- after: add an embedding of the state after each token (tct_train --state_embedding)
- before: add an embedding of the state before each token
- head: add an embedding of the state after each token to the output of the last block
- renormalised: compute the training loss over the allowed tokens
- targets: also predict the state after the next token, with a tenth of the weight of the token
- unplaced: begin all windows with the same token, so that the model does not know their position
- bias: with after, also use the states in attention (tct_train --state_attention)
- previous: add the embedding of the previous token, weighted per channel (tct_train --previous_token); this one also
  works with byte pairs

Each trial appends a line to levers.jsonl. Validation uses every fourth batch of the validation split.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from nanochat.device import autocast
from nanochat.distributed import derive_seed
from nanochat.functional import IGNORE_INDEX, capped_cross_entropy
from nanochat.gpt import GPT, GPTConfig, norm
from nanochat.loss_eval import ROWS_AT_A_TIME
from nanochat.optim import build_optimizers, lr_multiplier, set_lrs
from nanochat.packing import PackedTrainLoader, pack
from nanochat.process import tune_process
from tct_packing import packed_data_loader
from workflow_data.reader import iter_workflows, read_metadata
from workflow_data.tokenizers import TCTTokenizer
from workflow_eval.token_kinds import MaskInterner, annotate_tokens

TABLES = ("before", "head")
LEVERS = ("after", *TABLES, "renormalised", "targets", "unplaced", "bias", "previous")
TARGETS, CONTEXT, RATE, WARMUP, DECAY = 4096, 512, 8e-3, 60, 0.4  # as in the preset
STATE_WEIGHT = 0.1
EVERY = 4  # score every fourth batch of the validation split


class StateGPT(GPT):
    """A GPT with embedding tables for the states around each token."""

    def __init__(self, config, levers, n_states):
        super().__init__(config)
        for lever in set(levers) & set(TABLES):
            table = torch.nn.Embedding(n_states, config.n_embd)
            (torch.nn.init.zeros_ if lever == "head" else torch.nn.init.normal_)(table.weight)
            setattr(self, lever, table)
        if "targets" in levers:
            self.state_head = torch.nn.Linear(config.n_embd, n_states, bias=False)
            torch.nn.init.zeros_(self.state_head.weight)

    def hidden_with_states(self, x, documents):
        """Return the output (N, C) for tokens x (1, N)."""
        cos, sin = self.cos[documents.positions], self.sin[documents.positions]
        embedding = self.transformer.wte(x)
        if self.config.n_states:
            embedding = embedding + self.state_embedding(documents.states)
        if hasattr(self, "before"):
            embedding = embedding + self.before(documents.states_before)
        if self.config.previous_token:
            previous = self.transformer.wte(x.roll(1, 1)).masked_fill((documents.positions == 0)[:, None], 0)
            embedding = embedding + self.previous_weight * previous
        hidden = norm(embedding)
        features = [None] * self.config.n_layer
        if self.config.state_attention:
            features = self.state_attention(documents.states_before, documents.states)
        for block, of_layer in zip(self.transformer.h, features):
            hidden = block(hidden, cos, sin, None, documents, of_layer)
        hidden = norm(hidden)
        if hasattr(self, "head"):
            hidden = norm(hidden + self.head(documents.states))
        return hidden[0]


class Data:
    """A split, with the mask of allowed tokens for each target."""

    def __init__(self, folder, split, metadata, seed, table: MaskInterner, is_placed: bool):
        self.is_placed = is_placed
        self.has_states = metadata.get("n_states", 0) > 0
        self.loader = packed_data_loader(
            TARGETS // CONTEXT, CONTEXT, split, folder, seed=seed, with_states=self.has_states
        )
        if self.has_states:
            self.masks, self.firsts = [], np.zeros(len(self.loader.rows), np.int64)
            positions = self.loader.rows[:, 0].numpy().astype(np.int64) * metadata["stride"]
            length, tokenizer = 0, TCTTokenizer()
            for workflow in iter_workflows(folder, split, metadata):
                self.masks.append(annotate_tokens(workflow.tokens.tolist(), table, tokenizer)[2])
                self.firsts[workflow.first_window :] = length
                length += len(workflow.tokens)
            self.masks, self.firsts = np.concatenate(self.masks), self.firsts + positions

    def batch(self, segments):
        """Return x, y, documents, and the mask numbers of the targets that count."""
        x, y, documents = pack(self.loader.rows, segments, self.loader.pad_token, states=self.loader.states)
        if not self.is_placed:
            x = x.masked_fill(documents.positions == 0, 0)
        if not self.has_states:
            return x, y, documents, None
        numbers = np.concatenate(
            [self.masks[self.firsts[row] + start : self.firsts[row] + stop] for row, start, stop in segments]
        )
        return x, y, documents, numbers


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--levers", nargs="*", default=[], choices=LEVERS)
    parser.add_argument("--iterations", type=int, default=700)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tune_process()
    metadata, table = read_metadata(args.data), MaskInterner()
    train, val = (
        Data(args.data, split, metadata, args.seed, table, "unplaced" not in args.levers) for split in ("train", "val")
    )
    allowed = table.table() if train.has_states else None

    torch.manual_seed(derive_seed(args.seed))
    n_states = metadata.get("n_states", 0)
    config = GPTConfig(
        sequence_len=CONTEXT,
        n_layer=4,
        n_head=2,
        n_kv_head=2,
        n_embd=128,
        n_states=n_states if "after" in args.levers else 0,
        state_attention="bias" in args.levers,
        previous_token="previous" in args.levers,
    )
    model = StateGPT(config, args.levers, n_states)
    optimizers = build_optimizers(model, "muon", DECAY, torch.bfloat16)
    for step in range(1, args.iterations + 1):
        loader: PackedTrainLoader = train.loader
        x, y, documents, numbers = train.batch(list(loader._segments(loader.drawn, loader.drawn + TARGETS)))
        loader.drawn += TARGETS
        set_lrs(optimizers, RATE * lr_multiplier(step, "linear", WARMUP, args.iterations, 0.5), step)
        with autocast(torch.device("cpu"), torch.bfloat16):
            hidden = model.hidden_with_states(x, documents)
            if "renormalised" in args.levers:
                loss = masked_loss(model, hidden, y[0], allowed[numbers])
            else:
                loss = capped_cross_entropy(hidden, model.lm_head.weight, y[0])
            if "targets" in args.levers:  # the last position of a document does not have a next token
                states = documents.states[0].roll(-1).masked_fill(documents.positions.roll(-1) == 0, IGNORE_INDEX)
                states = states.masked_fill(y[0] == IGNORE_INDEX, IGNORE_INDEX).long()
                loss = loss + STATE_WEIGHT * F.cross_entropy(
                    model.state_head(hidden).float(), states, ignore_index=IGNORE_INDEX, reduction="sum"
                )
        (loss / TARGETS).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    split = metadata["splits"]["val"]
    scale = split["tokens"] / split["json_bytes"] / math.log(2)
    bits, renormalised = (nats * scale for nats in evaluate(model, val, allowed))
    line = {
        "tokenizer": metadata["tokenizer"]["name"],
        "n_states": n_states,
        "levers": args.levers,
        "iterations": args.iterations,
        "seed": args.seed,
        "bits_per_byte": round(bits, 4),
        "renormalised": round(renormalised, 4),
        "parameters": model.num_parameters(),
    }
    print(json.dumps(line))
    with open(Path(__file__).with_name("levers.jsonl"), "a") as file:
        file.write(json.dumps(line) + "\n")


def masked_loss(model, hidden, targets, masks):
    """Return the summed cross-entropy of the targets that count, over the tokens that masks (n, V / 8) allow."""
    counts = targets != IGNORE_INDEX
    hidden, targets = hidden[counts], targets[counts]
    parts = []
    for rows in torch.arange(len(targets)).split(ROWS_AT_A_TIME):
        logits = model.logits(hidden[rows]).masked_fill(refused(masks[rows.numpy()]), -math.inf)
        parts.append(F.cross_entropy(logits, targets[rows], reduction="sum"))
    return torch.stack(parts).sum()


@torch.no_grad()
def evaluate(model, val: Data, allowed) -> tuple[float, float]:
    """Return nats per token: over all tokens, and over the allowed tokens."""
    sums, count = np.zeros(2), 0
    for segments in val.loader.batches[::EVERY]:
        x, y, documents, numbers = val.batch(segments)
        with autocast(torch.device("cpu"), torch.bfloat16):
            hidden = model.hidden_with_states(x, documents)
            sums[0] += float(capped_cross_entropy(hidden, model.lm_head.weight, y[0]))
            if numbers is not None:
                sums[1] += float(masked_loss(model, hidden, y[0], allowed[numbers]))
        count += int((y != IGNORE_INDEX).sum())
    return tuple(sums / count)


def refused(masks: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.unpackbits(masks, axis=1, bitorder="little") == 0)


if __name__ == "__main__":
    sys.exit(main())

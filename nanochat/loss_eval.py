"""Evaluation: the loss over a whole split, in comparable units, and scores of single tokens."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from nanochat.distributed import sum_over_ranks
from nanochat.functional import IGNORE_INDEX
from script_tools.bitmask import unpack_bitmask

ROWS_AT_A_TIME = 256  # of logits in float32: 8 MiB for a vocabulary of 8,192


@torch.no_grad()
def evaluate_loss(model, batches) -> tuple[float, int]:
    """Return (nats, tokens): the summed loss and the number of targets in all batches of all ranks.

    A batch is (x, y), or (x, y, documents) if it is packed.
    """
    was_training = model.training
    model.eval()
    sums = [torch.zeros(2)]  # a rank may have no batch
    for x, y, *documents in batches:
        loss = model(x, y, loss_reduction="sum", layout=documents[0] if documents else None)
        sums.append(torch.stack([loss, (y != IGNORE_INDEX).sum()]))
    model.train(was_training)
    nats, tokens = sum_over_ranks(torch.stack([pair.cpu() for pair in sums]).double().sum(0)).tolist()
    return nats, int(tokens)


@dataclass(frozen=True)
class TokenScores:
    """The scores that a model gives to N tokens, in their order."""

    nats: np.ndarray  # float64 (N,) the cross-entropy of each
    ranks: np.ndarray  # int32 (N,) the number of tokens that the model finds more likely
    allowed_nats: np.ndarray  # float64 (N,) -log of the probability of all allowed tokens; 0 without masks


@torch.no_grad()
def score_batch(model, x, y, documents=None, masks=None) -> TokenScores:
    """Score the N targets of one batch.

    masks, uint8 (N, V / 8) with the lowest bit first, are the tokens allowed in place of each target.
    """
    is_target = y.flatten() != IGNORE_INDEX
    hidden = model.hidden(x, documents).flatten(0, -2)[is_target]  # (N, C)
    targets = y.flatten()[is_target]  # (N,)
    columns = []
    for rows in torch.arange(len(targets)).split(ROWS_AT_A_TIME):
        logits = model.logits(hidden[rows])  # (n, V) float32
        at_target = logits.gather(1, targets[rows, None])
        total = logits.logsumexp(-1)
        allowed = total
        if masks is not None:
            is_allowed = torch.from_numpy(unpack_bitmask(masks[rows.numpy()], logits.size(1))).to(logits.device)
            allowed = logits.masked_fill(~is_allowed, -math.inf).logsumexp(-1)
        columns.append(torch.stack([total - at_target[:, 0], (logits > at_target).sum(-1), total - allowed]).cpu())
    nats, ranks, allowed_nats = torch.cat(columns, 1).double().numpy() if columns else np.zeros((3, 0))
    return TokenScores(nats, ranks.astype(np.int32), allowed_nats)


def perplexity(nats: float, tokens: int) -> float:
    """Return exp of the mean loss; inf if a float cannot hold it."""
    try:
        return math.exp(nats / tokens)
    except OverflowError:
        return math.inf


def bits_per_byte(nats: float, tokens: int, split: dict) -> float:
    """Return bits per byte of compact JSON. split is metadata["splits"][name].

    The bytes per token are those of the whole split, because those of a part of its workflows are not known.
    """
    return nats / tokens / math.log(2) * split["tokens"] / split["json_bytes"]


def bootstrap_interval(numerators, denominators, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Return the 95% interval of sum(numerators) / sum(denominators), both (D,), over the choice of D documents.

    Its ends are percentiles of `draws` resamples (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13).
    """
    random, count = np.random.default_rng(seed), len(numerators)
    columns = np.stack([numerators, denominators], 1).astype(float)  # (D, 2)
    # The count of each document in a resample: the same as drawing with replacement.
    weights = (random.multinomial(count, np.full(count, 1 / count)) for _ in range(draws))
    sums = np.array([weight @ columns for weight in weights])  # (draws, 2)
    low, high = np.percentile(sums[:, 0] / sums[:, 1], [2.5, 97.5])
    return float(low), float(high)

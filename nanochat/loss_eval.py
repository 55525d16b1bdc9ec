"""Evaluation: the loss over a whole split, in units that can be compared."""

import math

import torch

from nanochat.common import sum_over_ranks
from nanochat.functional import IGNORE_INDEX


@torch.no_grad()
def evaluate_loss(model, batches) -> tuple[float, int]:
    """(nats, tokens): the summed loss and the number of targets in all batches of all ranks, each (x, y), or
    (x, y, documents) where it is packed."""
    was_training = model.training
    model.eval()
    sums = [torch.zeros(2)]  # a rank may have no batch
    for x, y, *documents in batches:
        loss = model(x, y, loss_reduction="sum", documents=documents[0] if documents else None)
        sums.append(torch.stack([loss, (y != IGNORE_INDEX).sum()]))
    model.train(was_training)
    nats, tokens = sum_over_ranks(torch.stack([pair.cpu() for pair in sums]).double().sum(0)).tolist()
    return nats, int(tokens)


def perplexity(nats: float, tokens: int) -> float:
    """exp of the mean loss; inf where that is beyond a float."""
    try:
        return math.exp(nats / tokens)
    except OverflowError:
        return math.inf


def bits_per_byte(nats: float, tokens: int, split: dict) -> float:
    """Bits per byte of compact JSON. split is metadata["splits"][name]: its bytes per token also serve for a
    loss over some of its workflows, whose own bytes are not known."""
    return nats / tokens / math.log(2) * split["tokens"] / split["json_bytes"]

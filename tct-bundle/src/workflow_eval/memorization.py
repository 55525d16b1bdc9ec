"""Measure memorization: the longest spans of tokens, and the steps, that samples share with the training workflows."""

from collections.abc import Iterable

import numpy as np

from workflow_eval.features import canonical, steps

PAD = 0  # separates documents; samples must not contain it


def longest_copied_spans(samples: list[np.ndarray], training: np.ndarray) -> np.ndarray:
    """Return for each sample the length of its longest span of tokens that occurs in training, int64 (N,).

    `samples` are arrays of tokens (S_i,). `training` (T,) has documents with PAD between them; a span does not cross a
    PAD. The result is exact: in the sorted suffixes of training and samples, the training suffix that shares the
    longest prefix with a sample's suffix is the nearest one before or after it. Needs about 80 bytes of memory per
    token. Raise ValueError if a sample contains PAD or a token is negative.
    """
    if not samples:
        return np.zeros(0, np.int64)
    pad = np.array([PAD], np.int64)
    text = np.concatenate([training, *(part for sample in samples for part in (pad, sample)), pad])
    lengths = np.array([len(sample) for sample in samples])
    owners = np.repeat(np.arange(len(samples)), lengths)  # the sample of each of its tokens (S,)
    starts = len(training) + 1 + np.arange(len(owners)) + owners  # their positions in text (S,)
    if text.min() < 0:
        raise ValueError(f"tokens must not be negative, but one is {text.min()}")
    if (text[starts] == PAD).any():
        raise ValueError(f"a sample contains the padding token {PAD}")

    order = sort_suffixes(text, lengths.max())
    in_training = order < len(training)
    neighbours = order[in_training]  # the positions of training in suffix order (T,)
    after = np.cumsum(in_training)[np.argsort(order)[starts]]  # index of the neighbour after each sample token (S,)
    longest = np.zeros(len(samples), np.int64)
    for index in after - 1, after:
        exists = (index >= 0) & (index < len(neighbours))
        spans = common_prefixes(text, starts[exists], neighbours[index[exists]])
        np.maximum.at(longest, owners[exists], spans)
    return longest


def sort_suffixes(text: np.ndarray, limit: int) -> np.ndarray:
    """Return the positions of text (T,) sorted by the text from there on, int64 (T,).

    Compare at least the first `limit` tokens; the order of ties is arbitrary. Use prefix doubling (Manber and Myers,
    1990): ranks by n tokens are known; a position's rank and the rank n tokens later then sort it by 2 n tokens.
    """
    ranks, known = text + 1, 1  # 0 is the rank beyond the end
    while True:
        later = np.zeros_like(ranks)
        later[:-known] = ranks[known:]
        keys = ranks * (ranks.max() + 1) + later
        order, known = np.argsort(keys), 2 * known
        ranks[order] = np.cumsum(np.diff(keys[order], prepend=-1) > 0)
        if known >= min(limit, len(text)) or ranks.max() == len(text):
            return order


def common_prefixes(text: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return how many tokens from our positions (N,) on equal those from theirs (N,) on, up to a PAD, int64 (N,)."""
    lengths, alive, length = np.zeros(len(ours), np.int64), np.arange(len(ours)), 0
    while len(alive):
        tokens = text[ours[alive] + length]
        alive = alive[(tokens != PAD) & (tokens == text[theirs[alive] + length])]
        length += 1
        lengths[alive] = length
    return lengths


def known_steps(workflows: Iterable) -> set[str]:
    """Return the steps of workflows, as canonical JSON."""
    return {canonical(step) for workflow in workflows for step in steps(workflow)}


def novel_step_shares(samples: Iterable, training_steps: set[str]) -> list[float]:
    """Return for each workflow that has steps the share of them that are not in `training_steps`."""
    novel = ([canonical(step) not in training_steps for step in steps(sample)] for sample in samples)
    return [sum(answers) / len(answers) for answers in novel if answers]

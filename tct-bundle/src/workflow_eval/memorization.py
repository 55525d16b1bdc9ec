"""How much of what a model writes it has read: its longest runs of tokens, and its steps, in training."""

from collections.abc import Iterable

import numpy as np

from workflow_eval.features import canonical, steps

PAD = 0  # between documents, and in no sample
BITS = 16  # of a token, so that four of them fit in one key


def longest_common_runs(samples: list[np.ndarray], training: np.ndarray) -> np.ndarray:
    """For each sample the length of the longest run of its tokens that is somewhere in training, int64 (N,).

    `samples` are arrays of tokens (S_i,); `training` (T,) has documents with PAD between them, which no run
    crosses. It is exact: all suffixes of samples and training are sorted together, by as many tokens as the
    longest sample has, so that what shares most with a suffix of a sample stands next to it. Takes some 100
    bytes of memory a token. ValueError where a sample contains PAD, or a token is not from 0 to 32767.
    """
    if not samples:
        return np.zeros(0, np.int64)
    lengths = np.array([len(sample) for sample in samples])
    limit = max(1, int(lengths.max()))
    pad = np.full(limit, PAD, np.int64)
    text = np.concatenate([training, *(part for sample in samples for part in (pad[:1], sample)), pad])
    if text.min() < 0 or text.max() >= 1 << BITS - 1:
        raise ValueError(f"tokens must be from 0 to {(1 << BITS - 1) - 1}, not {text.min()} to {text.max()}")
    owners = np.repeat(np.arange(len(samples)), lengths)  # the sample of each of its tokens (S,)
    places = len(training) + np.arange(len(owners)) + owners + 1  # in text: a PAD is before each sample (S,)
    if (text[places] == PAD).any():
        raise ValueError(f"a sample contains the padding token {PAD}")

    order = sort_suffixes(text, len(text) - limit, limit)
    slots = np.arange(len(order))
    slot_of = np.empty(len(order), np.int64)
    slot_of[order] = slots
    is_training = order < len(training)
    before = np.maximum.accumulate(np.where(is_training, slots, -1))[slot_of[places]]  # (S,)
    after = np.minimum.accumulate(np.where(is_training, slots, len(slots))[::-1])[::-1][slot_of[places]]
    longest = np.zeros(len(samples), np.int64)
    for neighbours in before, after:
        there = (neighbours >= 0) & (neighbours < len(order))
        runs = common_prefixes(text, places[there], order[neighbours[there]])
        np.maximum.at(longest, owners[there], runs)
    return longest


def sort_suffixes(text: np.ndarray, count: int, limit: int) -> np.ndarray:
    """The first `count` places of text (T,) in the order of the tokens from them on, int64 (count,). At least
    `limit` tokens are heeded, or those up to a PAD; places that are alike so far are in any order.

    By prefix doubling: once places are ordered by k tokens, a pair of ranks orders them by 2 k. Only places
    that still share their rank with others are sorted again.
    """
    padded = np.concatenate([text[:count], np.zeros(3, np.int64)])
    key = sum(padded[shift : shift + count] << BITS * (3 - shift) for shift in range(4))
    order = np.argsort(key)
    rank = np.zeros(count + 1, np.int64)  # the first slot of those alike, from 1; 0 behind the end
    slots, key, known = np.arange(count), key[order], 4
    while True:
        heads = np.flatnonzero(np.diff(key, prepend=-1))
        sizes = np.diff(heads, append=len(key))
        rank[order[slots]] = np.repeat(slots[heads], sizes) + 1
        slots = slots[np.repeat(sizes > 1, sizes)]
        if known >= limit or not len(slots):
            return order
        alike = order[slots]
        key = rank[alike] * (count + 1) + rank[np.minimum(alike + known, count)]
        by_key = np.argsort(key)
        order[slots], key, known = alike[by_key], key[by_key], 2 * known


def common_prefixes(text: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """How many tokens are alike from our places (N,) and from theirs (N,) on, up to a PAD, int64 (N,)."""
    lengths, alive, length = np.zeros(len(ours), np.int64), np.arange(len(ours)), 0
    while len(alive):
        tokens = text[ours[alive] + length]
        alive = alive[(tokens != PAD) & (tokens == text[theirs[alive] + length])]
        length += 1
        lengths[alive] = length
    return lengths


def known_steps(workflows: Iterable) -> set[str]:
    """The steps of workflows, as canonical JSON."""
    return {canonical(step) for workflow in workflows for step in steps(workflow)}


def share_of_novel_steps(samples: Iterable, training_steps: set[str]) -> list[float | None]:
    """For each workflow the share of its steps that are not in `training_steps`; None where it has none."""
    shares = []
    for sample in samples:
        novel = [canonical(step) not in training_steps for step in steps(sample)]
        shares.append(sum(novel) / len(novel) if novel else None)
    return shares

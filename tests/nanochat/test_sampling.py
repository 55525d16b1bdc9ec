"""The next token: drawn with its probability, and never one that repeats a block too often."""

import math

import numpy as np
import pytest
import torch

from nanochat.sampling import SamplingParams, disallowed_mask, sample_tokens

VOCAB = 45  # not a multiple of 32, so that the last word of a bitmask is partly used


def chi_square(counts: np.ndarray, probs: np.ndarray) -> float:
    """Return the statistic over possible outcomes, in standard deviations from its mean."""
    assert not counts[probs == 0].any()
    expected, degrees = probs[probs > 0] * counts.sum(), (probs > 0).sum() - 1
    statistic = ((counts[probs > 0] - expected) ** 2 / expected).sum()
    return (statistic - degrees) / math.sqrt(2 * degrees)


def brute_force(logits, allowed, temperature, top_k, top_p, min_p=None):
    """Return the distribution that the options describe, one token at a time."""
    weights = {i: math.exp(logits[i] / temperature) for i in allowed}
    ranked = sorted(weights, key=weights.get, reverse=True)[:top_k]
    total, kept, held = sum(weights[i] for i in ranked), [], 0.0
    for i in ranked:
        if held < (top_p or 1.0):
            kept.append(i)
            held += weights[i] / total
    kept = [i for i in kept if weights[i] >= (min_p or 0) * weights[ranked[0]]]
    total = sum(weights[i] for i in kept)
    return np.array([weights[i] / total if i in kept else 0.0 for i in range(len(logits))])


@pytest.mark.parametrize(
    "temperature, top_k, top_p, min_p",
    [
        (1.0, None, None, None),
        (0.6, None, None, None),
        (2.0, 6, None, None),
        (1.0, None, 0.8, None),
        (1.3, 9, 0.9, None),
        (1.0, 100, 1.0, 0.0),
        (1.0, None, None, 0.2),
        (1.5, 12, 0.95, 0.1),
    ],
)
def test_frequencies_follow_the_renormalized_distribution(temperature, top_k, top_p, min_p):
    random = np.random.default_rng(0)
    logits, allowed = random.normal(0, 1.5, VOCAB), random.choice(VOCAB, 20, replace=False)
    bits = np.zeros(64, dtype=np.uint8)
    bits[allowed] = 1
    rows = torch.tensor(logits, dtype=torch.float32).repeat(40_000, 1)
    rows.masked_fill_(disallowed_mask(np.packbits(bits, bitorder="little").tobytes(), VOCAB), -math.inf)
    uniforms = torch.from_numpy(random.random(40_000, dtype=np.float32))
    sampling = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    tokens, logprobs = sample_tokens(rows, uniforms, sampling)
    probs = brute_force(logits, allowed, temperature, top_k, top_p, min_p)
    assert chi_square(np.bincount(tokens, minlength=VOCAB), probs) < 4
    plain = brute_force(logits, allowed, 1.0, None, None)
    np.testing.assert_allclose(logprobs.numpy(), np.log(plain[tokens]), atol=1e-4)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
@pytest.mark.parametrize("temperature", [1e-40, 1e-5, 1.0, 1e6])
def test_extreme_draws_and_temperatures_pick_allowed_tokens(uniform, temperature):
    logits = torch.full((1, VOCAB), -math.inf)
    logits[0, [7, 20]] = torch.tensor([-14.9, 14.9])
    token = sample_tokens(logits, torch.tensor([uniform]), SamplingParams(temperature=temperature))[0].item()
    assert token in (7, 20)
    if temperature < 1e-3:
        assert token == 20

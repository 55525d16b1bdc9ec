"""Packed attention and the capped loss: equal to their formulas, gradients included."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.functional import (
    CappedCrossEntropy,
    PackedDocuments,
    attend_documents,
    attend_in_blocks,
    attend_one_by_one,
    capped_cross_entropy,
)
from nanochat.gpt import GPT, GPTConfig

CONFIG = GPTConfig(sequence_len=16, vocab_size=50, n_layer=2, n_head=4, n_kv_head=2, n_embd=32)


def random_model(**fields):
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{**vars(CONFIG), **fields}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


# -----------------------------------------------------------------------------
# documents


def test_packed_documents_have_positions_and_cu_seqlens():
    documents = PackedDocuments.of([3, 1, 2], max_seqlen=8, pad_to_multiple=4)
    assert documents.positions.tolist() == [0, 1, 2, 0, 0, 1]
    assert documents.cu_seqlens.tolist() == [0, 3, 4, 6, 6] and documents.cu_seqlens.dtype == torch.int32
    assert documents.lengths == (3, 1, 2)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_packed_attention_equals_attention_per_document(kv_heads):
    lengths = [5, 1, 7, 3]
    q = torch.randn(1, 4, 16, 8, requires_grad=True)
    k, v = (torch.randn(1, kv_heads, 16, 8, requires_grad=True) for _ in range(2))
    together = attend_documents(q, k, v, PackedDocuments.of(lengths, max_seqlen=8))
    alone = torch.cat(
        [
            F.scaled_dot_product_attention(*parts, is_causal=True, enable_gqa=True)
            for parts in zip(*(x.split(lengths, 2) for x in (q, k, v)))
        ],
        2,
    )
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    weights = torch.randn_like(alone)
    for mine, theirs in zip(
        gradients((together * weights).sum(), q, k, v), gradients((alone * weights).sum(), q, k, v)
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


@settings(max_examples=50)
@given(lengths=st.lists(st.integers(1, 16), min_size=1, max_size=9), spare=st.integers(0, 3))
def test_attention_in_blocks_equals_attention_one_by_one(lengths, spare):
    q, k = torch.randn(2, 1, 2, sum(lengths), 12, requires_grad=True)
    v = torch.randn(1, 2, sum(lengths), 8, requires_grad=True)
    documents = PackedDocuments.of(lengths, max_seqlen=max(lengths) + spare)
    blocks, one_by_one = (attend(q, k, v, documents) for attend in (attend_in_blocks, attend_one_by_one))
    torch.testing.assert_close(blocks, one_by_one, rtol=0, atol=1e-6)
    weights = torch.randn_like(blocks)
    for mine, theirs in zip(
        gradients((blocks * weights).sum(), q, k, v), gradients((one_by_one * weights).sum(), q, k, v)
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(1, 16), min_size=1, max_size=6))
def test_packed_logits_equal_logits_per_document(lengths):
    model = random_model()
    tokens = torch.randint(0, 50, (1, sum(lengths)))
    together = model(tokens, layout=PackedDocuments.of(lengths, max_seqlen=16))
    alone = torch.cat([model(part) for part in tokens.split(lengths, 1)], 1)
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-5)


def test_documents_do_not_see_each_other():
    model = random_model()
    tokens = torch.randint(0, 50, (1, 16))
    documents = PackedDocuments.of([6, 10], max_seqlen=16)
    before = model(tokens, layout=documents)
    tokens[0, 2] = (tokens[0, 2] + 1) % 50
    after = model(tokens, layout=documents)
    assert torch.equal(before[0, 6:], after[0, 6:]) and not torch.equal(before[0, 2:6], after[0, 2:6])


def test_gradient_checkpointing_keeps_gradients_of_packed_batches():
    model = random_model()
    x, y = torch.randint(0, 50, (2, 1, 16))
    documents = PackedDocuments.of([6, 10], max_seqlen=16)
    found = []
    for model.gradient_checkpointing in (False, True):
        found.append(gradients(model(x, y, layout=documents), *model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*found))


# -----------------------------------------------------------------------------
# the loss


def exact_loss(x, weight, targets):
    logits = 15 * torch.tanh(x.double() @ weight.double().T / 15)
    return F.cross_entropy(logits, targets, reduction="sum", ignore_index=-1)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])  # 30: most logits lie in the flat part of the cap
@pytest.mark.parametrize("count", [1, 127, 129, 300])
def test_the_capped_loss_equals_its_formula(scale, count):
    torch.manual_seed(count)
    x = torch.randn(count, 24, requires_grad=True)
    weight = (scale * torch.randn(70, 24)).requires_grad_()
    targets = torch.randint(0, 70, (count,))
    targets[torch.rand(count) < 0.3] = -1
    mine, exact = capped_cross_entropy(x, weight, targets), exact_loss(x, weight, targets)
    torch.testing.assert_close(mine, exact.float(), rtol=1e-5, atol=1e-5)
    for a, b in zip(gradients(2 * mine, x, weight), gradients(2 * exact, x, weight)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * max(1, scale))


def test_the_loss_gradient_equals_finite_differences():
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 6, (5,))
    step = 1e-2  # the loss is float32 inside
    for tensor, gradient in zip((x, weight), gradients(CappedCrossEntropy.apply(x, weight, targets), x, weight)):
        for index in [(0, 1), (4, 3)]:
            values = []
            for sign in (1, -1):
                moved = tensor.detach().clone()
                moved[index] += sign * step
                arguments = (moved, weight) if tensor is x else (x, moved)
                values.append(CappedCrossEntropy.apply(*arguments, targets).item())
            assert gradient[index].item() == pytest.approx((values[0] - values[1]) / (2 * step), abs=2e-3)


def test_a_batch_without_targets_has_loss_0_and_no_gradient():
    x, weight = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    loss = capped_cross_entropy(x, weight, torch.full((3,), -1))
    assert loss.item() == 0 and not any(g.any() for g in gradients(loss, x, weight))


def test_the_loss_in_bfloat16_agrees_to_its_precision():
    x = torch.randn(200, 32, requires_grad=True)
    weight = torch.randn(90, 32, requires_grad=True)
    targets = torch.randint(0, 90, (200,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mine = capped_cross_entropy(x, weight, targets)
    theirs = exact_loss(x, weight, targets)
    assert mine.dtype == torch.float32 and mine.item() == pytest.approx(theirs.item(), rel=5e-3)
    for a, b in zip(gradients(mine, x, weight), gradients(theirs, x, weight)):
        assert a.dtype == torch.float32 and (a - b).norm() < 0.02 * b.norm()


# -----------------------------------------------------------------------------
# options of GPTConfig


@pytest.mark.parametrize("name", ["resid_scalars", "x0_scalars", "a_later_field"])
def test_an_unknown_field_loads_only_if_off(name):
    assert GPTConfig.from_dict({**vars(CONFIG), name: False}) == GPTConfig.from_dict(vars(CONFIG)) == CONFIG
    with pytest.raises(ValueError, match=f"uses {name}, which is not supported"):
        GPTConfig.from_dict({**vars(CONFIG), name: True})


def test_dropout_follows_the_seed_in_training_only():
    model, x = random_model(dropout=0.5), torch.randint(0, 50, (2, 9))
    torch.testing.assert_close(model.eval()(x), random_model().eval()(x))
    model.train()
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(model(x))
    assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])


@pytest.mark.parametrize("dropout", [-0.1, 1.0, math.nan])
def test_a_dropout_out_of_range_is_an_error(dropout):
    with pytest.raises(ValueError, match="dropout"):
        GPTConfig(dropout=dropout)

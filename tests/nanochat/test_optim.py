"""The optimizers and the schedule."""

import pytest
import torch

from nanochat.gpt import GPT, GPTConfig
from nanochat.optim import (
    UPDATE_RMS,
    Muon,
    build_optimizers,
    lr_multiplier,
    momentum_at,
    orthogonalize,
    set_lrs,
)
from nanochat.settings import OPTIMIZERS, SCHEDULES

CONFIG = GPTConfig(sequence_len=8, vocab_size=16, n_layer=2, n_head=2, n_kv_head=2, n_embd=8)


def named_groups(model, optimizers):
    """Return the group of each parameter, by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(p)]: group for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_parameter_has_one_group_and_only_matrices_decay(name):
    model = GPT(GPTConfig(**{**vars(CONFIG), "previous_token": True, "n_states": 3, "state_attention": True}))
    optimizers = build_optimizers(model, name, weight_decay=0.1)
    groups = named_groups(model, optimizers)
    assert sum(len(group["params"]) for o in optimizers for group in o.param_groups) == len(groups)
    assert groups.keys() == dict(model.named_parameters()).keys()
    for parameter, group in groups.items():
        assert group["weight_decay"] == (0.1 if parameter.startswith("transformer.h.") else 0.0), parameter
    muons = [o for o in optimizers if isinstance(o, Muon)]
    assert len(muons) == (name == "muon")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_changes_every_parameter_and_can_be_resumed(name):
    torch.manual_seed(0)
    model, twin = GPT(CONFIG), GPT(CONFIG)
    twin.load_state_dict(model.state_dict())
    mine, theirs = (build_optimizers(m, name, 0.1) for m in (model, twin))

    def step(m, optimizers, number):
        torch.manual_seed(number)
        for parameter in m.parameters():
            parameter.grad = torch.randn_like(parameter)
        set_lrs(optimizers, 1e-2, number)
        for optimizer in optimizers:
            optimizer.step()

    before = {name: p.clone() for name, p in model.named_parameters()}
    for m, optimizers in ((model, mine), (twin, theirs)):
        step(m, optimizers, 1)
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    fresh = build_optimizers(twin, name, 0.1)
    for new, old in zip(fresh, theirs):
        new.load_state_dict({**new.state_dict(), "state": old.state_dict()["state"]})
    step(model, mine, 2)
    step(twin, fresh, 2)
    for (name, a), b in zip(model.named_parameters(), twin.parameters()):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 32, 8), (2, 8, 32)])
def test_an_orthogonal_update_has_singular_values_near_1(shape):
    torch.manual_seed(0)
    singular_values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
    assert 0.3 < singular_values.min() and singular_values.max() < 1.3


def test_orthogonalize_keeps_the_singular_vectors():
    torch.manual_seed(0)
    matrix = torch.randn(1, 6, 20)
    u, _, vh = torch.linalg.svd(matrix[0], full_matrices=False)
    inner = u.T @ orthogonalize(matrix)[0] @ vh.T  # diagonal if the vectors are kept
    assert (inner - inner.diag().diag()).abs().max() < 1e-3


def test_muon_updates_are_as_large_as_adamw_updates():
    matrix = torch.nn.Parameter(torch.zeros(64, 256))
    matrix.grad = torch.randn(64, 256)
    optimizer = Muon([matrix], weight_decay=0.0)
    set_lrs([optimizer], 1.0, step=1)
    optimizer.step()
    assert matrix.pow(2).mean().sqrt().item() == pytest.approx(UPDATE_RMS, rel=0.3)


def test_weight_decay_shrinks_by_lr_times_decay():
    matrix = torch.nn.Parameter(torch.ones(4, 4))
    matrix.grad = torch.zeros(4, 4)
    optimizer = Muon([matrix], weight_decay=0.5)
    set_lrs([optimizer], 0.1, step=1)
    optimizer.step()
    torch.testing.assert_close(matrix.detach(), torch.full((4, 4), 0.95))


def test_momentum_rises_for_300_iterations():
    assert [momentum_at(step) for step in (0, 150, 300, 9000)] == pytest.approx([0.85, 0.9, 0.95, 0.95])


# -----------------------------------------------------------------------------
# the schedule


def multipliers(schedule, warmup, total, warmdown=0.5):
    return [lr_multiplier(step, schedule, warmup, total, warmdown) for step in range(1, total + 1)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_warms_up_to_1_and_never_rises_again(schedule):
    shares = multipliers(schedule, 10, 110)
    assert shares[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert shares[9:] == sorted(shares[9:], reverse=True)
    assert all(0 < share <= 1 for share in shares)


def test_where_the_schedules_end():
    assert multipliers("constant", 10, 110)[-1] == 1
    assert multipliers("cosine", 10, 110)[-1] == pytest.approx(0.1) and multipliers("cosine", 10, 110)[
        59
    ] == pytest.approx(0.55)
    linear = multipliers("linear", 10, 110, warmdown=0.5)
    assert linear[54] == 1 and linear[55] == 1 and linear[-1] == pytest.approx(1 / 55)
    assert multipliers("linear", 0, 4, warmdown=1.0) == pytest.approx([1, 0.75, 0.5, 0.25])


def test_a_run_of_one_iteration_has_a_learning_rate():
    for schedule in SCHEDULES:
        assert 0 < lr_multiplier(1, schedule, 0, 1, 0.5) <= 1

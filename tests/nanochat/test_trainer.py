"""One step: the same for every layout, and none at all if it would spoil the weights."""

import math

import pytest
import torch
from prepared_data import write_prepared

from nanochat.distributed import Ranks
from nanochat.functional import PackedDocuments
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim import build_optimizers
from nanochat.trainer import PendingStep, Trainer
from tct_packing import packed_data_loader
from workflow_data.loaders import tokenizing_distributed_data_loader

C = 64
CONFIG = GPTConfig(sequence_len=C, vocab_size=64, n_layer=3, n_head=2, n_kv_head=2, n_embd=32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_prepared(folder, [9, 70, 64, 33, 150, 12, 48, 5] * 4, [30], context_size=C, stride=8, window_step=64)
    return folder


def trainer_of(seed=0, optimizer="adamw", **options):
    torch.manual_seed(seed)
    model = GPT(CONFIG)
    torch.nn.init.normal_(model.lm_head.weight, std=0.1)
    arguments = {"dtype": torch.float32, "grad_clip": 0.0, "seed": 0, "ranks": Ranks(0, 1)} | options
    return Trainer(model, build_optimizers(model, optimizer, 0.1), **arguments)


def gradients_of_a_step(trainer, batches, targets):
    """Return the gradients that the optimizers get."""
    seen = {}
    first, *_ = trainer.optimizers
    step = first.step
    first.step = lambda: (seen.update({name: p.grad.clone() for name, p in trainer.model.named_parameters()}), step())
    trainer.step(1, 1e-3, batches, targets)
    return seen


def test_the_whole_batch_has_the_gradients_of_its_parts(data):
    seen = []
    for size, count in ((8, 1), (4, 2), (1, 8)):
        loader = packed_data_loader(size, C, "train", data, seed=1)
        seen.append(gradients_of_a_step(trainer_of(), [next(loader) for _ in range(count)], 8 * C))
    for parts in seen[1:]:
        for name, whole in seen[0].items():
            assert (parts[name] - whole).norm() <= 1e-6 * whole.norm(), name


def test_packed_windows_have_the_gradients_of_padded_ones(data):
    padded = next(tokenizing_distributed_data_loader(6, C, "train", data, seed=1))
    lengths = (padded[1] != -1).sum(1).tolist()
    x, y = (torch.cat([row[:n] for row, n in zip(rows, lengths)])[None] for rows in padded)
    packed = x, y, PackedDocuments.of(lengths, C)
    one = gradients_of_a_step(trainer_of(), [(*padded, None)], sum(lengths))
    other = gradients_of_a_step(trainer_of(), [packed], sum(lengths))
    for name in one:
        assert (other[name] - one[name]).norm() <= 2e-6 * one[name].norm(), name


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_loss_falls(data, optimizer):
    trainer, loader = trainer_of(optimizer=optimizer), packed_data_loader(4, C, "train", data)
    losses = [trainer.step(step, 1e-2, [next(loader)], 4 * C).loss for step in range(1, 80)]
    assert losses[-1] < losses[0] - 1


@pytest.mark.parametrize("spoil", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(data, spoil):
    trainer, loader = trainer_of(), packed_data_loader(2, C, "train", data)
    trainer.step(1, 1e-2, [next(loader)], 2 * C)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.model.lm_head.weight.register_hook(lambda gradient: gradient * spoil)
    with pytest.raises(ValueError, match="iteration 2, learning rate 1.00e-02; this update is not kept"):
        trainer.step(2, 1e-2, [next(loader)], 2 * C)
    assert all(torch.equal(p, before[name]) for name, p in trainer.model.named_parameters())


def test_the_gradient_is_clipped_to_the_maximum_norm(data):
    loader = packed_data_loader(2, C, "train", data)
    clipped = gradients_of_a_step(trainer_of(grad_clip=0.01), [next(loader)], 2 * C)
    norm = math.sqrt(sum(float(g.pow(2).sum()) for g in clipped.values()))
    assert norm == pytest.approx(0.01, rel=1e-3)


def test_requests_of_a_rank_are_in_the_result(data):
    trainer, loader = trainer_of(), packed_data_loader(1, C, "train", data)
    for requests in ((False, True), (True, False), (None, 0)):
        result = trainer.step(1, 1e-3, [next(loader)], C, lambda: requests)
        assert (result.stop, result.save) == tuple(map(bool, requests))


# -----------------------------------------------------------------------------
# one step ahead of a device that is still at work


class Event:
    def synchronize(self):
        pass


@pytest.fixture
def trainer():
    return trainer_of()


def pending(step, loss=None, stop=0.0):
    loss = float(step) if loss is None else loss
    return PendingStep(step, 1e-3, torch.tensor([loss, stop, 0.0, 1.0]), Event())


def test_the_last_step_stays_pending_unless_it_must_be_known(trainer):
    trainer.pending.append(pending(1))
    assert trainer.flush(wait=False) is None and len(trainer.pending) == 1
    trainer.pending.append(pending(2))
    assert trainer.flush(wait=False).loss == 1.0 and len(trainer.pending) == 1
    assert trainer.flush().loss == 2.0 and not trainer.pending
    assert trainer.flush() is None


def test_a_request_to_stop_flushes_all_steps(trainer):
    trainer.pending.extend([pending(1, stop=1.0), pending(2)])
    result = trainer.flush(wait=False)
    assert result.loss == 2.0 and not trainer.pending
    assert result.stop


def test_the_first_step_that_is_not_finite_is_named(trainer):
    trainer.pending.extend([pending(1), pending(2, loss=math.nan), pending(3)])
    with pytest.raises(ValueError, match="iteration 2"):
        trainer.flush()

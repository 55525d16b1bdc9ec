"""One update: the same whatever the layout, and none at all where it would spoil the weights."""

import math
from collections import deque

import pytest
import torch
from prepared_data import write_prepared

from nanochat.distributed import Ranks
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim import build_optimizers
from nanochat.trainer import Trainer, Update, collect
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


def gradients_of_an_update(trainer, batches, targets):
    """Those that the optimizers get to see."""
    seen = {}
    first, *_ = trainer.optimizers
    step = first.step
    first.step = lambda: (seen.update({name: p.grad.clone() for name, p in trainer.model.named_parameters()}), step())
    trainer.update(1, 1e-3, batches, targets)
    return seen


def test_the_whole_batch_has_the_gradients_of_its_parts(data):
    seen = []
    for size, count in ((8, 1), (4, 2), (1, 8)):
        loader = packed_data_loader(size, C, "train", data, seed=1)
        seen.append(gradients_of_an_update(trainer_of(), [next(loader) for _ in range(count)], 8 * C))
    for parts in seen[1:]:
        for name, whole in seen[0].items():
            assert (parts[name] - whole).norm() <= 1e-6 * whole.norm(), name


def test_packed_windows_have_the_gradients_of_padded_ones(data):
    padded = next(tokenizing_distributed_data_loader(6, C, "train", data, seed=1))
    lengths = (padded[1] != -1).sum(1).tolist()
    from nanochat.functional import PackedDocuments

    x, y = (torch.cat([row[:n] for row, n in zip(rows, lengths)])[None] for rows in padded)
    packed = x, y, PackedDocuments.of(lengths, C)
    one = gradients_of_an_update(trainer_of(), [(*padded, None)], sum(lengths))
    other = gradients_of_an_update(trainer_of(), [packed], sum(lengths))
    for name in one:
        assert (other[name] - one[name]).norm() <= 2e-6 * one[name].norm(), name


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_loss_falls(data, optimizer):
    trainer, loader = trainer_of(optimizer=optimizer), packed_data_loader(4, C, "train", data)
    losses = [trainer.update(step, 1e-2, [next(loader)], 4 * C).wait()[0] for step in range(1, 80)]
    assert losses[-1] < losses[0] - 1


@pytest.mark.parametrize("spoil", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_no_weight(data, spoil):
    trainer, loader = trainer_of(), packed_data_loader(2, C, "train", data)
    trainer.update(1, 1e-2, [next(loader)], 2 * C)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.model.lm_head.weight.register_hook(lambda gradient: gradient * spoil)
    with pytest.raises(ValueError, match="iteration 2, learning rate 1.00e-02; this update is not kept"):
        trainer.update(2, 1e-2, [next(loader)], 2 * C)
    assert all(torch.equal(p, before[name]) for name, p in trainer.model.named_parameters())


def test_the_gradient_is_clipped_to_its_largest_norm(data):
    loader = packed_data_loader(2, C, "train", data)
    clipped = gradients_of_an_update(trainer_of(grad_clip=0.01), [next(loader)], 2 * C)
    norm = math.sqrt(sum(float(g.pow(2).sum()) for g in clipped.values()))
    assert norm == pytest.approx(0.01, rel=1e-3)


def test_what_a_rank_wishes_is_known_after_the_update(data):
    trainer, loader = trainer_of(), packed_data_loader(1, C, "train", data)
    for wishes in ((False, True), (True, False), (None, 0)):
        _, _, stop, save = trainer.update(1, 1e-3, [next(loader)], C, lambda: wishes).wait()
        assert (stop, save) == tuple(map(bool, wishes))


# -----------------------------------------------------------------------------
# reading behind a device that is still at work


class Event:
    def synchronize(self):
        pass


def update(step, stop=0.0):
    return Update(step, 1e-3, torch.tensor([float(step), stop, 0.0, 1.0]), Event())


def test_one_update_stays_unread_unless_it_must_be_known():
    pending = deque([update(1)])
    assert collect(pending, now=False) is None and len(pending) == 1
    pending.append(update(2))
    assert collect(pending, now=False)[0] == 1.0 and len(pending) == 1
    assert collect(pending, now=True)[0] == 2.0 and not pending
    assert collect(pending, now=True) is None


def test_where_a_rank_wants_to_stop_all_updates_are_known():
    pending = deque([update(1, stop=1.0), update(2)])
    loss, _, stop, _ = collect(pending, now=False)
    assert loss == 2.0 and not pending
    assert stop


def test_of_two_updates_the_first_that_is_not_finite_is_named():
    pending = deque([update(1), Update(2, 1e-3, torch.tensor([math.nan, 0, 0, 1]), Event()), update(3)])
    with pytest.raises(ValueError, match="iteration 2"):
        collect(pending, now=True)

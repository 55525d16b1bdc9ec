"""The processes of one torchrun: the rank of this one, and sums over all of them."""

import gc
import inspect
import os
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Ranks:
    """The number of this process, and how many there are."""

    rank: int
    world_size: int


@contextmanager
def process_group(device):
    """Join the processes that torchrun started, if it did; yield Ranks, and leave the group at the end."""
    ranks = Ranks(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    if ranks.world_size == 1:
        yield ranks
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=rendezvous_store(ranks), **vars(ranks))
    try:
        yield ranks
    finally:
        dist.destroy_process_group()
        # The group's threads end with its last reference. A DDP model holds one and is in a reference cycle; a gloo
        # thread that still runs when the interpreter shuts down may abort the process.
        gc.collect()


def rendezvous_store(ranks: Ranks):
    """Return the store in which torchrun's processes find each other, without the entries of an earlier start.

    After a restart the old addresses would be taken for ours (https://github.com/pytorch/pytorch/issues/135712).
    So rank 0 draws a name for this start, sends it to each rank that asks, and waits until all have it.
    """
    store, _, _ = next(dist.rendezvous("env://"))
    name = question = uuid.uuid4().hex
    if ranks.rank > 0:
        store.set(f"asks/{ranks.rank}", question)
        name = store.get(f"answer/{question}").decode()  # blocks until rank 0 has answered
        store.set(f"{name}/{ranks.rank}", "knows")
    waiting = set(range(1, ranks.world_size)) if ranks.rank == 0 else set()
    while waiting:
        for other in [other for other in waiting if store.check([f"asks/{other}"])]:
            store.set(f"answer/{store.get(f'asks/{other}').decode()}", name)  # perhaps of an earlier start
        waiting = {other for other in waiting if not store.check([f"{name}/{other}"])}
        time.sleep(0.01)
    return dist.PrefixStore(name, store)


def sum_over_ranks(tensor):
    """Sum a tensor over all ranks, in place, and return it."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def gather_bytes(data: bytes) -> list[bytes]:
    """Return the data of every rank, in the order of the ranks, on all of them."""
    if not dist.is_initialized():
        return [data]
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(data)]))
    longest = max(int(size) for size in sizes)
    mine = torch.frombuffer(bytearray(data.ljust(longest)), dtype=torch.uint8)
    parts = [torch.empty_like(mine) for _ in sizes]
    dist.all_gather(parts, mine)
    return [part.numpy().tobytes()[: int(size)] for part, size in zip(parts, sizes)]


def data_parallel(model, device):
    """Return the model wrapped so that backward averages gradients over the ranks; unchanged without a group."""
    if not dist.is_initialized():
        return model
    device_ids = [device.index] if device.type == "cuda" else None
    known = inspect.signature(DistributedDataParallel).parameters
    syncs = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # since torch 2.13
    return DistributedDataParallel(model, device_ids=device_ids, **{syncs: False})


def derive_seed(*numbers: int) -> int:
    """Return a seed of 32 bits, the most that torch's CPU generator takes, from numbers of any size."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])

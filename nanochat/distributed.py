"""The processes of one torchrun: who this one is, and sums over all of them."""

import gc
import inspect
import os
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass

# -----------------------------------------------------------------------------
# ranks


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int
    world_size: int


@contextmanager
def process_group(device):
    """Join the processes that torchrun started, if any did: gives Ranks, and leaves the group at the end."""
    import torch.distributed as dist

    ranks = Ranks(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    if ranks.world_size == 1:
        yield ranks
        return
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=fresh_store(ranks),
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    try:
        yield ranks
    finally:
        dist.destroy_process_group()
        # The group's threads end with its last reference, and a DDP model, which is in a reference cycle, has
        # one: a thread of gloo that is still there when the interpreter shuts down may abort the process.
        gc.collect()


def fresh_store(ranks: Ranks):
    """The store where torchrun's processes find each other, without what those of an earlier start have left in
    it: after a restart their addresses would be taken for ours (https://github.com/pytorch/pytorch/issues/135712).
    Rank 0 draws a name for this start, tells it to whoever asks, and waits until all have it."""
    import torch.distributed as dist

    store, _, _ = next(dist.rendezvous("env://"))
    name = question = uuid.uuid4().hex
    if ranks.rank > 0:
        store.set(f"asks/{ranks.rank}", question)
        name = store.get(f"answer/{question}").decode()  # waits for it
        store.set(f"{name}/{ranks.rank}", "knows")
    waiting = set(range(1, ranks.world_size)) if ranks.rank == 0 else set()
    while waiting:
        for other in [other for other in waiting if store.check([f"asks/{other}"])]:
            store.set(f"answer/{store.get(f'asks/{other}').decode()}", name)  # perhaps to one long gone
        waiting = {other for other in waiting if not store.check([f"{name}/{other}"])}
        time.sleep(0.01)
    return dist.PrefixStore(name, store)


def sum_over_ranks(tensor):
    """tensor, now the sum of all ranks' tensors."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def gather_bytes(data: bytes) -> list[bytes]:
    """What each rank has, in the order of the ranks, on all of them."""
    import torch
    import torch.distributed as dist

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
    """model, its gradients now the mean over the ranks after backward; outside of a process group model itself."""
    import torch.distributed as dist

    if not dist.is_initialized():
        return model
    from torch.nn.parallel import DistributedDataParallel

    device_ids = [device.index] if device.type == "cuda" else None
    known = inspect.signature(DistributedDataParallel).parameters
    syncs = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # since torch 2.13
    return DistributedDataParallel(model, device_ids=device_ids, **{syncs: False})


def derive_seed(*numbers: int) -> int:
    """A seed of 32 bits, which is all that torch's CPU generator takes, from numbers of any size."""
    import numpy as np

    return int(np.random.SeedSequence(numbers).generate_state(1)[0])

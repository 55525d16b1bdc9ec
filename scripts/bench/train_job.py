"""One measurement of scripts.bench.train, in a process of its own: python train_job.py JOB, as JSON.

With --against, nanochat is that of another checkout. So only nanochat.gpt is imported at the top, which all have.
"""

import json
import math
import platform
import random
import sys
import time
from itertools import islice
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F

from nanochat import gpt

WARM_UP = 2  # updates before the clock starts: the first allocates, the second may compile again
RANDOM_ROWS = 256  # if there is no data
IGNORE_INDEX = -1  # a target that does not count, in every nanochat
CEILING_SECONDS = 2
CEILING_SIZES, GPU_CEILING_SIZES = (1024, 2048, 4096), (4096, 8192)  # of square matrices


def measure(job: dict) -> dict:
    if job["mode"] == "probe":
        return probe(job)
    device = torch.device(job["device"])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    synchronize = torch.accelerator.synchronize if device.type != "cpu" else lambda: None
    if job["mode"] == "ceiling":
        return {"flops": matmul_flops(job, device, synchronize)}
    torch.manual_seed(job["round"])
    train = train_this if job["mode"] in ("padded", "packed") else train_baseline
    updates = train(job, device, *load_rows(job))
    list(islice(updates, WARM_UP))
    synchronize()
    started = time.perf_counter()
    timed = list(islice(updates, job["steps"]))
    synchronize()
    seconds = time.perf_counter() - started
    for _, check in timed:
        check()
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_memory()
    return {"seconds": seconds / len(timed), "positions": mean(p for p, _ in timed), "memory": memory}


def peak_memory() -> float:
    """Return the peak memory of this process in bytes; NaN on Windows, which does not report it."""
    try:
        import resource  # not on Windows
    except ImportError:
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def probe(job: dict) -> dict:
    """Describe the machine, the data and the models. ValueError or OSError if the flags do not fit them."""
    # not in the memory of the other jobs, and a checkout given by --against may lack them
    from nanochat import device as devices
    from nanochat import packing
    from workflow_data.loaders import open_split

    device = devices.choose_device(job["device"])
    padded_share, flops = 1.0, {}
    for name, config in job["configs"].items():
        if job["data_dir"]:
            place = config["sequence_len"], "train", job["data_dir"], device
            rows, metadata, _ = open_split(*place, config["vocab_size"], max_files=None, rank=0, world_size=1)
            padded_share = float(packing.count_tokens(rows, metadata["pad_token"]).sum() / rows[:, 1:].numel())
        with torch.device("meta"):
            flops[name] = gpt.GPT(gpt.GPTConfig(**config)).estimate_flops()
    return {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "compile": devices.choose_compile(job["compile"], device),
        "peak_flops": devices.peak_flops(device),
        "padded_share": padded_share,
        "flops_of_a_token": flops,
    }


def matmul_flops(job: dict, device, synchronize) -> float:
    """Return the highest FLOPs per second of large square products, computed as in training."""
    from nanochat.device import choose_dtype  # only ours has it

    dtype = choose_dtype(job["dtype"], device)
    best, deadline = 0.0, time.perf_counter() + CEILING_SECONDS
    for size in GPU_CEILING_SIZES if device.type == "cuda" else CEILING_SIZES:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        for _ in range(10):
            synchronize()
            started = time.perf_counter()
            a @ b
            synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - started))
            if time.perf_counter() > deadline:
                return best
    return best


def load_rows(job: dict):
    """Return (rows, pad token): the prepared windows (R, C + 1) int16, or random ones without padding."""
    if job["data_dir"]:
        from workflow_data.reader import load_table, read_metadata  # not in the memory of jobs without data

        metadata = read_metadata(job["data_dir"])
        path = Path(job["data_dir"]).expanduser() / "train.pt"
        return load_table(path, metadata["context_size"] + 1), metadata["pad_token"]
    shape = RANDOM_ROWS, job["config"]["sequence_len"] + 1
    return torch.randint(1, job["config"]["vocab_size"], shape, dtype=torch.int16), 0


def train_this(job: dict, device, rows, pad_token: int):
    """Make updates as scripts.tct_train does. Yield (number of positions, function that checks the loss) for each."""
    # a checkout given by --against may lack them
    from nanochat import device as devices
    from nanochat import distributed, optim, packing, process, trainer
    from workflow_data.loaders import TrainLoader

    process.keep_freed_memory()
    dtype = devices.choose_dtype(job["dtype"], device)
    model = gpt.GPT(gpt.GPTConfig(**job["config"])).to(device)
    optimizers = optim.build_optimizers(model, "muon", job["weight_decay"], dtype)
    ranks = distributed.Ranks(0, 1)
    updates = trainer.Trainer(model, optimizers, dtype, job["grad_clip"], 0, ranks, job["compile"])
    loading = {"metadata": {"pad_token": pad_token}, "seed": job["round"], "device": device}
    if job["mode"] == "packed":
        batches = packing.PackedTrainLoader(rows, job["device_batch_size"] * job["config"]["sequence_len"], **loading)
    else:
        batches = ((x, y, None) for x, y in TrainLoader(rows, job["device_batch_size"], **loading))
    for step, batch in enumerate(batches, 1):
        targets = (batch[1] != IGNORE_INDEX).sum()
        updates.step(step, job["learning_rate"], [batch], targets)
        yield batch[0].numel(), updates.flush


def train_baseline(job: dict, device, rows, pad_token: int):
    """Do the same with padded rows and AdamW, for our GPT or that of another checkout."""
    dtype = getattr(torch, job["dtype"])
    model = gpt.GPT(gpt.GPTConfig(**job["config"])).to(device)
    if job["mode"] == "plain":

        def loss_of(x, y):
            logits = model.logits(model.hidden(x))  # (B, C, V)
            return F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=IGNORE_INDEX)
    else:
        if Path(job["against"]).resolve() not in Path(gpt.__file__).resolve().parents:
            raise ValueError(f"python imports {gpt.__file__} in its place")
        if hasattr(model, "init_weights"):
            model.init_weights()
        if dtype == torch.float32:  # some keep the embedding in bfloat16, which needs autocast
            for parameter in model.parameters():
                parameter.data = parameter.data.float()
        loss_of = torch.compile(model, dynamic=False) if job["compile"] else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=job["learning_rate"])
    order = random.Random(job["round"])
    while True:
        chosen = rows[order.choices(range(len(rows)), k=job["device_batch_size"])].long()  # (B, C + 1)
        x, y = chosen[:, :-1].contiguous().to(device), chosen[:, 1:].contiguous().to(device)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = loss_of(x, y.masked_fill(y == pad_token, IGNORE_INDEX))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield x.numel(), loss.detach().item


if __name__ == "__main__":
    try:
        print(json.dumps(measure(json.loads(sys.argv[1]))))
    except (ValueError, OSError) as error:
        sys.exit(str(error))

"""Train `tiny` in one short run on one core, for the search of the default recipe. Print a line of JSON.

    OMP_NUM_THREADS=1 python experiments/recipe/search.py --data WORK/prepared --its 300 --opt muon --lr 8e-3 --emb 30

search.jsonl has the runs that were made: "short" with 300 iterations and a warmup of 30, split by repository;
"long" with 1,340 and 60, split by owner. Bits per byte are over the same 400 validation windows for all runs.
"""

import argparse
import json
import time

from nanochat.process import tune_process

tune_process()  # before torch

import torch  # noqa: E402

import nanochat.optim as optim  # noqa: E402
from model_config import get_config  # noqa: E402
from nanochat.device import autocast  # noqa: E402
from nanochat.distributed import Ranks, derive_seed  # noqa: E402
from nanochat.gpt import GPT, GPTConfig  # noqa: E402
from nanochat.loss_eval import bits_per_byte, evaluate_loss  # noqa: E402
from nanochat.trainer import Trainer  # noqa: E402
from tct_packing import packed_data_loader  # noqa: E402
from workflow_data.reader import read_metadata  # noqa: E402

DTYPE = torch.bfloat16
FLAGS = {
    "opt": "muon",
    "lr": 8e-3,
    "wd": 0.1,
    "batch": 8,
    "its": 300,
    "warmup": 30,
    "schedule": "linear",
    "warmdown": 0.5,
    "emb": 30.0,
    "head": 1.0,
    "beta1": 0.8,
    "dropout": 0.0,
    "seed": 0,
}
EVALS = 6


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="prepared folder")
    for name, value in FLAGS.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    optim.EMBEDDING_LR_SCALE, optim.HEAD_LR_SCALE = flags.emb, flags.head
    optim.EMBEDDING_BETAS = optim.ADAMW_BETAS = flags.beta1, 0.95

    preset = get_config("tiny")
    torch.manual_seed(derive_seed(flags.seed))
    model = GPT(
        GPTConfig(
            n_embd=preset["d_model"],
            n_layer=preset["n_layers"],
            n_head=preset["n_heads"],
            n_kv_head=preset["n_heads"],
            dropout=flags.dropout,
        )
    )
    loader = packed_data_loader(flags.batch, 512, "train", flags.data, seed=flags.seed)
    val_loader = packed_data_loader(8, 512, "val", flags.data, max_windows=400)
    split = read_metadata(flags.data)["splits"]["val"]
    optimizers = optim.build_optimizers(model, flags.opt, flags.wd, DTYPE)
    trainer = Trainer(model, optimizers, DTYPE, 1.0, flags.seed, Ranks(0, 1))

    curve, seconds, started = [], 0.0, time.process_time()
    for step in range(1, flags.its + 1):
        lr = flags.lr * optim.lr_multiplier(step, flags.schedule, flags.warmup, flags.its, flags.warmdown)
        trainer.step(step, lr, [next(loader)], flags.batch * 512)
        if step % (flags.its // EVALS) == 0:
            seconds += time.process_time() - started
            with autocast(torch.device("cpu"), DTYPE):
                totals = evaluate_loss(model, val_loader)
            curve.append([step, round(seconds), round(bits_per_byte(*totals, split), 4)])
            started = time.process_time()
    print(json.dumps({"bpb": curve[-1][-1], **vars(flags), "curve": curve}), flush=True)


if __name__ == "__main__":
    main()

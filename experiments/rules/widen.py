"""Write a checkpoint of the size `small` that computes what a trained `tiny` computes: its tensors, padded with zeros.

    python experiments/rules/widen.py out/quickstart/checkpoints out/wide

The cost of the rules depends on what a model draws, and that of the model on its size. So the speed of `small` can be
measured with realistic samples, without an hour of training.
"""

import hashlib
import json
import math
from pathlib import Path

import torch

from model_config import get_config, gpt_fields
from nanochat.checkpoint_manager import find_last_step
from nanochat.gpt import GPT, GPTConfig
from script_tools.cli import ArgumentParser, cli_errors


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description="Write a small checkpoint that computes what a tiny one computes.")
    parser.add_argument("source", type=Path, help="folder of a tiny checkpoint without further features")
    parser.add_argument("target", type=Path, help="folder to create")
    args = parser.parse_args(argv)
    step = find_last_step(args.source)
    narrow = torch.load(args.source / f"model_{step:06d}.pt", weights_only=True)
    meta = json.loads((args.source / f"meta_{step:06d}.json").read_text())
    args.target.mkdir(parents=True)
    file = args.target / f"model_{step:06d}.pt"
    torch.save(widened(narrow, GPTConfig(**gpt_fields(get_config("small")))), file)
    meta["model_config"] |= gpt_fields(get_config("small"))
    meta["sha256"] = {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    (args.target / f"meta_{step:06d}.json").write_text(json.dumps(meta))


def widened(narrow: dict[str, torch.Tensor], config: GPTConfig) -> dict[str, torch.Tensor]:
    """Return the tensors of a larger model that computes the same logits.

    RMSNorm divides by the mean over all C channels. With zeros in the others, what it returns grows by `scale`, and so
    does the embedding. Queries and keys are normalized again; all else that reads a norm is divided, and what is added
    to the residual stream is multiplied.
    """
    scale = math.sqrt(config.n_embd / narrow["lm_head.weight"].size(1))
    wide = {name: torch.zeros_like(tensor) for name, tensor in GPT(config).state_dict().items()}
    for name, tensor in narrow.items():
        factor = (
            scale if "c_proj" in name else 1 / scale if any(part in name for part in ("c_v", "c_fc", "lm_head")) else 1
        )
        rows, columns = tensor.shape
        wide[name][:rows, :columns] = tensor * factor
    return wide


if __name__ == "__main__":
    main()

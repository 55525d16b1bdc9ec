"""How fast is generation? Tokens per second by batch, with and without constraint and cache, beside Hugging Face.

    python -m scripts.bench.generate --checkpoint out/small --output bench.json
    python -m scripts.bench.generate --model_size small --device cpu

All ways take turns in one run, round by round, on the same machine: ours with and without the constraint, ours without
a cache, and generate() of transformers on a model of the same shape (GPT-NeoX: rotary positions, one MLP of 4C, untied),
in each dtype asked for, if transformers is installed. The limit is that of memory: every weight that a step multiplies
with, and all keys and values, are read once a step, at the rate at which this machine reads.
"""

import importlib.util
import json
import time
from pathlib import Path
from statistics import median

from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_atomic
from script_tools.tables import columns

BATCHES = (1, 16, 64)


@cli_errors
def main(argv=None):
    parser = ArgumentParser(prog="python -m scripts.bench.generate", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--checkpoint", metavar="PATH", help="a file model_NNNNNN.pt or a folder (default: random weights)")
    add("--model_size", default="small", choices=("tiny", "small", "medium", "large"), help="of random weights (small)")
    for flag in ("--previous_token", "--state_embedding", "--state_attention"):
        add(flag, action="store_true", help="of random weights: as in scripts.tct_train")
    add("--batches", type=int, nargs="+", default=list(BATCHES), metavar="B", help="(default: 1 16 64)")
    add("--new_tokens", type=int, default=256, metavar="N", help="of each sample, in mid-document (default 256)")
    add("--rounds", type=int, default=5, metavar="N", help="(default 5)")
    add("--dtypes", nargs="+", default=["auto"], choices=("auto", "float32", "bfloat16"), help="ours (default: auto)")
    add("--device", default="auto", help="cpu, cuda or mps (default: the best there is)")
    add("--output", type=Path, metavar="FILE", help="the results as JSON")
    args = parser.parse_args(argv)

    import torch

    from nanochat.device import choose_device, choose_dtype
    from nanochat.process import tune_process

    tune_process()
    device = choose_device(args.device)
    ways = {}
    for dtype in dict.fromkeys(choose_dtype(name, device) for name in args.dtypes):
        ways |= our_ways(load_generator(args, device, dtype), args.new_tokens, str(dtype).removeprefix("torch."))
    config = load_config(args)
    ways |= hugging_face_ways(config, device, args.new_tokens)
    results = []
    for batch in args.batches:
        rounds = measure(ways, batch, args.rounds, device)
        results.append(report(batch, rounds, config, device, args.new_tokens))
    if args.output:
        write_atomic(
            args.output,
            json.dumps(
                {
                    "model": vars(config),
                    "device": describe(device),
                    "new_tokens": args.new_tokens,
                    "threads": torch.get_num_threads(),
                    "results": results,
                },
                indent=2,
            ).encode()
            + b"\n",
        )


def measure(ways: dict, batch: int, count: int, device) -> dict[str, list[float]]:
    """Tokens a second of each way, in each of `count` rounds."""
    rounds = {name: [] for name in ways if "no cache" not in name or batch == 1}  # which is known to be slow
    for _ in range(count + 1):
        for name in rounds:
            started = time.perf_counter()
            tokens = ways[name](batch)
            synchronize(device)
            rounds[name].append(tokens / (time.perf_counter() - started))
    return {name: speeds[1:] for name, speeds in rounds.items()}  # the first warms up


# -----------------------------------------------------------------------------
# ours


def load_config(args):
    import tct_github_workflow as tct
    from model_config import get_config
    from nanochat.checkpoint_manager import find_last_step, load_meta
    from nanochat.gpt import GPTConfig

    if args.checkpoint:
        folder = Path(args.checkpoint).expanduser()
        folder = folder if folder.is_dir() else folder.parent
        return GPTConfig(**load_meta(folder, find_last_step(folder))["model_config"])
    preset = get_config(args.model_size)
    return GPTConfig(
        preset["context_size"],
        preset["vocab_size"],
        preset["n_layers"],
        preset["n_heads"],
        preset["n_heads"],
        preset["d_model"],
        previous_token=args.previous_token,
        n_states=tct.n_states() if args.state_embedding else 0,
        state_attention=args.state_attention,
    )


def load_generator(args, device, dtype):
    import torch

    from nanochat.gpt import GPT
    from nanochat.inference import prepare_for_inference
    from workflow_generator import WorkflowGenerator

    if args.checkpoint:
        return WorkflowGenerator.load(args.checkpoint, device, str(dtype).removeprefix("torch."))
    torch.manual_seed(0)
    model = GPT(load_config(args)).to(device)
    torch.nn.init.normal_(model.lm_head.weight, std=0.02)
    return WorkflowGenerator(prepare_for_inference(model, dtype), stride=32)


def our_ways(generator, new_tokens: int, dtype: str) -> dict:
    """(batch -> tokens made) with and without constraint; and one token at a time without a cache."""
    import torch

    model, seeds = generator.engine.model, iter(range(10**9))

    def generate(constrained):
        prompt, factory = generator.language.start(None, None, constrained)
        # The raw model needs nothing that watches it, unless it takes schema positions, which something has to know.
        factory = factory if constrained or model.config.n_states else None

        def run(batch):
            # max_tokens leaves room: what is measured is writing, not the closing of a document.
            steps = generator.engine.stream(
                prompt,
                8 * batch,
                max_tokens=new_tokens + 300,
                seed=next(seeds),
                batch_size=batch,
                constraint_factory=factory,
            )
            tokens = 0
            for step in steps:
                tokens += len(step.tokens)
                if tokens >= batch * new_tokens:
                    break
            return tokens

        return run

    @torch.inference_mode()
    def without_cache(batch):
        from nanochat.kv_cache import KVCache

        tokens = [[0] for _ in range(batch)]
        for _ in range(32):  # the whole window each time: a few are enough
            cache = KVCache(model.config, batch, model.transformer.wte.weight.dtype, model.get_device())
            states = [[0] * (len(row) + 1) for row in tokens] if model.config.n_states else ()
            cache.reserve(list(range(batch)), [len(row) for row in tokens], states, before=[0] * batch)
            line = torch.tensor([[token for row in tokens for token in row]], device=model.get_device())
            model.logits(model.hidden(line, cache)[:, -1]).argmax()
            for row in tokens:
                row += [1] * (new_tokens // 32)
        return 32 * batch

    return {
        f"ours, {dtype}": generate(False),
        f"ours, {dtype}, constraint": generate(True),
        f"ours, {dtype}, no cache": without_cache,
    }


# -----------------------------------------------------------------------------
# Hugging Face, and the limit


def hugging_face_ways(config, device, new_tokens: int) -> dict:
    if not importlib.util.find_spec("transformers"):
        print("Hugging Face is skipped: transformers is not installed")
        return {}
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()

    def way(dtype):
        model = (
            GPTNeoXForCausalLM(
                GPTNeoXConfig(
                    vocab_size=config.vocab_size,
                    hidden_size=config.n_embd,
                    num_hidden_layers=config.n_layer,
                    num_attention_heads=config.n_head,
                    intermediate_size=4 * config.n_embd,
                    rotary_pct=1.0,
                    max_position_embeddings=config.sequence_len,
                    use_parallel_residual=False,
                )
            )
            .to(device, dtype)
            .eval()
        )

        def run(batch):
            model.generate(
                torch.ones(batch, 1, dtype=torch.long, device=device),
                do_sample=True,
                top_k=0,
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                pad_token_id=0,
            )
            return batch * new_tokens

        return run

    return {
        f"Hugging Face, {str(dtype).removeprefix('torch.')}": way(dtype) for dtype in (torch.float32, torch.bfloat16)
    }


def synchronize(device):
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def read_rate(device) -> float:
    """Bytes a second at which this machine reads memory: the best of some sums over 1 GB."""
    import torch

    values, best = torch.ones(250_000_000, device=device), float("inf")
    for _ in range(5):
        synchronize(device)
        started = time.perf_counter()
        values.sum().item()
        best = min(best, time.perf_counter() - started)
    return 4 * len(values) / best


def limit(batch: int, config, dtype_bytes: int, cache_bytes: int, rate: float, new_tokens: int) -> float:
    """Tokens a second at which reading alone, of weights and of the cache half full on average, takes all the time."""
    C, H_kv = config.n_embd, config.n_kv_head * config.head_dim
    weights = config.n_layer * (2 * C * C + 2 * C * H_kv + 8 * C * C) + config.vocab_size * C
    cache = config.n_layer * 2 * H_kv * batch * new_tokens / 2
    return batch * rate / (weights * dtype_bytes + cache * cache_bytes)


def report(batch: int, rounds: dict[str, list[float]], config, device, new_tokens: int) -> dict:
    """Prints the speeds of one batch size, and gives them."""
    rate, rows = (
        read_rate(device),
        [(f"batch {batch}, tokens per second of all rows", "median", "worst", "best", "of the limit")],
    )
    result = {"batch": batch, "read_gb_per_second": rate / 1e9, "ways": {}}
    for name, speeds in rounds.items():
        dtype_bytes = 4 if "float32" in name else 2
        cache_bytes = 4 if name.startswith("ours") and device.type == "cpu" else dtype_bytes
        share = median(speeds) / limit(batch, config, dtype_bytes, cache_bytes, rate, new_tokens)
        spread = (f"{speed:,.0f}" for speed in (median(speeds), min(speeds), max(speeds)))
        rows.append((name, *spread, f"{share:.0%}"))
        result["ways"][name] = {"tokens_per_second": speeds, "share_of_limit": share}
    print(f"\n{columns(rows)}")
    for name in rounds:
        if name.endswith("constraint"):
            ratios = [on / off for on, off in zip(rounds[name], rounds[name.removesuffix(", constraint")])]
            print(f"{name}: {median(ratios):.3f} of the speed without, round by round", flush=True)
            result["ways"][name]["of_unconstrained"] = ratios
    return result


def describe(device) -> str:
    import os

    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores"


if __name__ == "__main__":
    main()

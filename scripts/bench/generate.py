"""Measure the speed of generation in tokens per second, by batch size, with and without rules and cache.

    python -m scripts.bench.generate --checkpoint out/small --output bench.json
    python -m scripts.bench.generate --model_size small --device cpu

All variants take turns in one run, round by round, on the same machine: ours without a constraint and under both kinds
of rules, ours without a cache, and generate() of transformers on a model of the same shape (GPT-NeoX: rotary positions,
one MLP of 4C, untied) in two dtypes, if transformers is installed. The limit is memory bandwidth: a step reads every
weight of its matrix products, and all keys and values, once.
"""

import time
from pathlib import Path
from statistics import median

from model_config import PRESET_NAMES
from nanochat.process import tune_process
from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_json
from script_tools.tables import columns


@cli_errors
def main(argv=None):
    args = parse_arguments(argv)
    tune_process()
    # torch is slow to import, and tune_process must come first
    from nanochat.device import choose_device, choose_dtype
    from scripts.bench import generation_variants as variants

    device = choose_device(args.device)
    config = variants.load_config(args)
    runs = {}
    for dtype in dict.fromkeys(choose_dtype(name, device) for name in args.dtypes):
        runs |= variants.our_variants(variants.load_generator(args, device, dtype), args.new_tokens, dtype)
    runs |= variants.hugging_face_variants(config, device, args.new_tokens)
    results = []
    for batch in args.batches:
        rounds = measure(runs, batch, args.rounds, lambda: variants.synchronize(device))
        rate = variants.read_rate(device)
        results.append(report(batch, rounds, config, rate, args.new_tokens, is_cpu=device.type == "cpu"))
    if args.output:
        found = {"model": vars(config), **variants.describe(device), "new_tokens": args.new_tokens, "results": results}
        write_json(args.output, found)


def parse_arguments(argv):
    parser = ArgumentParser(prog="python -m scripts.bench.generate", description=__doc__.split("\n")[0])
    add = parser.add
    add("--checkpoint", "a file model_NNNNNN.pt or a folder (default: random weights)", metavar="PATH")
    add("--model_size", "of random weights", "small", choices=PRESET_NAMES)
    for flag in ("--previous_token", "--state_embedding", "--state_attention"):
        add(flag, "for random weights: as in scripts.tct_train", False)
    add("--batches", "batch sizes (default: 1 16 64)", [1, 16, 64], type=int, nargs="+")
    add("--new_tokens", "of each sample, in mid-document", 256)
    add("--rounds", "rounds in which the variants take turns", 5)
    add("--dtypes", "ours (default: auto)", ["auto"], type=str, nargs="+", choices=("auto", "float32", "bfloat16"))
    add("--device", "cpu, cuda or mps (default: the best available)", "auto")
    add("--output", "write the results there as JSON", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def measure(runs: dict, batch: int, count: int, synchronize) -> dict[str, list[float]]:
    """Return the tokens per second of each variant in each of `count` rounds."""
    rounds = {name: [] for name in runs if "no cache" not in name or batch == 1}  # which is known to be slow
    for _ in range(count + 1):
        for name in rounds:
            started = time.perf_counter()
            tokens = runs[name](batch)
            synchronize()
            rounds[name].append(tokens / (time.perf_counter() - started))
    return {name: speeds[1:] for name, speeds in rounds.items()}  # the first warms up


def limit(batch: int, config, dtype_bytes: int, cache_bytes: int, rate: float, new_tokens: int) -> float:
    """Return the tokens per second if all time is spent on reading the weights and a cache that is half full."""
    C, H_kv = config.n_embd, config.n_kv_head * config.head_dim
    weights = config.n_layer * (2 * C * C + 2 * C * H_kv + 8 * C * C) + config.vocab_size * C
    cache = config.n_layer * 2 * H_kv * batch * new_tokens / 2
    return batch * rate / (weights * dtype_bytes + cache * cache_bytes)


def report(batch: int, rounds: dict[str, list[float]], config, rate: float, new_tokens: int, is_cpu: bool) -> dict:
    """Print and return the speeds of one batch size."""
    rows = [(f"batch {batch}, tokens per second of all rows", "median", "worst", "best", "of the limit")]
    result = {"batch": batch, "read_gb_per_second": rate / 1e9, "ways": {}}
    for name, speeds in rounds.items():
        dtype_bytes = 4 if "float32" in name else 2
        cache_bytes = 4 if name.startswith("ours") and is_cpu else dtype_bytes
        share = median(speeds) / limit(batch, config, dtype_bytes, cache_bytes, rate, new_tokens)
        spread = (f"{speed:,.0f}" for speed in (median(speeds), min(speeds), max(speeds)))
        rows.append((name, *spread, f"{share:.0%}"))
        result["ways"][name] = {"tokens_per_second": speeds, "share_of_limit": share}
    print(f"\n{columns(rows)}")
    for name in rounds:
        free, _, rules = name.partition(", rules ")
        if rules:
            ratios = [on / off for on, off in zip(rounds[name], rounds[free])]
            print(f"{name}: {median(ratios):.3f} of the speed without rules, round by round", flush=True)
            result["ways"][name]["of_unconstrained"] = ratios
    return result


if __name__ == "__main__":
    main()

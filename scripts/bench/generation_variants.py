"""The generators that bench.generate compares: ours with and without constraint and cache, and Hugging Face's.

A variant is a function: batch size -> number of tokens that it has generated.
"""

import importlib.util
import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch

import tct_github_workflow as tct
from model_config import get_config, gpt_fields
from nanochat.checkpoint_manager import find_last_step, load_meta
from nanochat.gpt import GPT, GPTConfig
from nanochat.inference import prepare_for_inference
from nanochat.kv_cache import KVCache, NewTokens
from nanochat.sampling import SamplingParams
from workflow_generator import WorkflowGenerator

Variant = Callable[[int], int]


def load_config(args) -> GPTConfig:
    """Return the config of the checkpoint, or of a model of the size and with the features that the flags name."""
    if args.checkpoint:
        folder = Path(args.checkpoint).expanduser()
        folder = folder if folder.is_dir() else folder.parent
        return GPTConfig.from_dict(load_meta(folder, find_last_step(folder))["model_config"])
    n_states = tct.n_states() if args.state_embedding else 0
    features = {"previous_token": args.previous_token, "n_states": n_states, "state_attention": args.state_attention}
    return GPTConfig(**gpt_fields(get_config(args.model_size)), **features)


def load_generator(args, device, dtype) -> WorkflowGenerator:
    if args.checkpoint:
        return WorkflowGenerator.load(args.checkpoint, device, name_of(dtype))
    return untrained_generator(load_config(args), name_of(dtype), std=0.02, device=device)


def untrained_generator(config: GPTConfig, dtype: str, std: float, stride: int = 32, device="cpu") -> WorkflowGenerator:
    """Return a generator with random weights, whose logits are random too."""
    torch.manual_seed(0)
    model = GPT(config).to(device)
    torch.nn.init.normal_(model.lm_head.weight, std=std)
    return WorkflowGenerator(prepare_for_inference(model, getattr(torch, dtype)), stride)


def name_of(dtype) -> str:
    return str(dtype).removeprefix("torch.")


def our_variants(generator: WorkflowGenerator, new_tokens: int, dtype) -> dict[str, Variant]:
    """Return our generator without constraint, under both kinds of rules, and without a cache."""
    name, seeds = f"ours, {name_of(dtype)}", count()
    return {
        name: with_cache(generator, new_tokens, seeds, None),
        f"{name}, rules schema": with_cache(generator, new_tokens, seeds, "schema"),
        f"{name}, rules github": with_cache(generator, new_tokens, seeds, "github"),
        f"{name}, no cache": without_cache(generator.engine.model, new_tokens),
    }


def with_cache(generator: WorkflowGenerator, new_tokens: int, seeds, rules: str | None) -> Variant:
    prompt, factory = generator.language.start(None, None, rules is not None, rules or "schema")
    # The raw model needs no monitor, unless it takes schema positions as input.
    factory = factory if rules or generator.engine.model.config.n_states else None

    def run(batch: int) -> int:
        # max_tokens leaves room, because closing a document is not what is measured.
        sampling = SamplingParams(max_tokens=new_tokens + 300, seed=next(seeds))
        tokens = 0
        steps = generator.engine.stream(prompt, 8 * batch, sampling, batch_size=batch, constraint_factory=factory)
        for step in steps:
            tokens += len(step.tokens)
            if tokens >= batch * new_tokens:
                break
        return tokens

    return run


def without_cache(model: GPT, new_tokens: int) -> Variant:
    @torch.inference_mode()
    def run(batch: int) -> int:
        length = 1
        for _ in range(32):  # each step reads the whole window, so a few steps are enough
            cache = KVCache(model.config, batch, model.transformer.wte.weight.dtype, model.get_device())
            tokens = [0] + [1] * (length - 1)
            schema_positions = [0] * (length + 1) if model.config.n_states else ()
            layout = cache.reserve({row: NewTokens(tokens, 0, schema_positions) for row in range(batch)})
            model.logits(model.hidden(layout.tokens, layout)[:, -1]).argmax()
            length += new_tokens // 32
        return 32 * batch

    return run


def hugging_face_variants(config: GPTConfig, device, new_tokens: int) -> dict[str, Variant]:
    """Return generate() of transformers with GPT-NeoX in our shape, in two dtypes, if transformers is installed."""
    if not importlib.util.find_spec("transformers"):
        print("Hugging Face is skipped: transformers is not installed")
        return {}
    # an optional dependency
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    shape = GPTNeoXConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.n_embd,
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        intermediate_size=4 * config.n_embd,
        rotary_pct=1.0,
        max_position_embeddings=config.sequence_len,
        use_parallel_residual=False,
    )

    def variant(dtype) -> Variant:
        model = GPTNeoXForCausalLM(shape).to(device, dtype).eval()

        def run(batch: int) -> int:
            prompt = torch.ones(batch, 1, dtype=torch.long, device=device)
            length = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
            model.generate(prompt, do_sample=True, top_k=0, pad_token_id=0, **length)
            return batch * new_tokens

        return run

    return {f"Hugging Face, {name_of(dtype)}": variant(dtype) for dtype in (torch.float32, torch.bfloat16)}


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def read_rate(device) -> float:
    """Return how many bytes this machine reads from memory in a second: the best of five sums over 1 GB."""
    values, best = torch.ones(250_000_000, device=device), float("inf")
    for _ in range(5):
        synchronize(device)
        started = time.perf_counter()
        values.sum().item()
        best = min(best, time.perf_counter() - started)
    return 4 * len(values) / best


def describe(device) -> dict:
    """Return the fields of a result file that describe the machine."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores"
    return {"device": name, "threads": torch.get_num_threads()}

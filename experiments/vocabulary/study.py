"""Measure held-out bits per byte of the `tiny` GPT with the vocabulary of each recipe.

    python experiments/vocabulary/study.py --corpus WORKFLOWS --seeds 0 1

trains a model for each recipe and seed and appends a line to results.jsonl. A run that has a line is skipped, so the
same command continues a stopped study. Owners are held out; merges are learned from the other owners. recipes.py has
the recipes, report.py makes the tables and plots, README.md has the results.
"""

import argparse
import hashlib
import json
import math
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from script_tools.cli import ArgumentParser, cli_errors

HERE = Path(__file__).parent
CONTEXT = 512  # tokens of a row
ROWS = 4  # rows of an update
HEAD_CHUNK = 256  # tokens whose logits are computed at a time: they fit in the processor's cache
WARMUP, WARMDOWN = 0.1, 0.5  # shares of the updates
PER_OWNER = 3  # scored held-out documents per owner, at most ...
MAX_BYTES = 12_000  # ... and their maximum size
PAD = 0  # before each document, and at its end in JSON text
IGNORE = -1  # nanochat.gpt.IGNORE_INDEX
CHECKPOINTS = 4  # points of the curve, each over a quarter of these documents


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="workflows, in folders OWNER__REPOSITORY")
    parser.add_argument("--recipes", nargs="+", metavar="NAME", help="recipes to run (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="seeds to run (default: 0)")
    parser.add_argument("--updates", type=int, default=400, help="updates of a run (default: 400)")
    parser.add_argument("--learning-rate", type=float, default=5.6e-3, help="peak learning rate (default: 5.6e-3)")
    parser.add_argument("--count-only", action="store_true", help="count tokens, train nothing")
    parser.add_argument("--tiktoken", type=Path, help="unpacked npm package tiktoken, to count its tokens too")
    parser.add_argument("--results", type=Path, default=HERE / "results.jsonl", help="file of the results")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir(), "vocabulary-study"),
        help="folder for documents and tokens; remove it after a change of the corpus or of a recipe",
    )  # fmt: skip
    args = parser.parse_args(argv)
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    from recipes import RECIPES, Document

    args.cache.mkdir(exist_ok=True)
    rows_of_json = cached(args.cache / "documents.json", read_documents, args.corpus)
    documents = [Document(*fields) for fields in rows_of_json]
    if args.tiktoken:
        for name in "o200k_base", "cl100k_base":
            publish(args.results, {"recipe": name}, count_tiktoken, documents, args.tiktoken)
    for seed in args.seeds:
        for name in args.recipes or RECIPES:
            if args.count_only:
                publish(args.results, {"recipe": name}, count, documents, args.cache)
            else:
                key = {
                    "recipe": name,
                    "seed": seed,
                    "updates": args.updates,
                    "learning_rate": args.learning_rate,
                }
                publish(args.results, key, run, documents, args.cache)


def publish(path: Path, key: dict, measure: Callable[..., dict], *args) -> None:
    """Append the result of `measure(*args, **key)` to the results, unless they have a line with this key."""
    lines = path.read_text().splitlines() if path.exists() else []
    if any(key.items() <= json.loads(line).items() for line in lines):
        return
    line = json.dumps({**key, **measure(*args, **key)})
    with path.open("a") as file:
        file.write(line + "\n")


def cached(path: Path, make: Callable, *args) -> Any:
    """Return the result of `make(*args)`, from a file if it exists."""
    if not path.exists():
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(make(*args)))
        unfinished.replace(path)
    return json.loads(path.read_text())


# ---------------------------------------------------------------------------------------------------------
# documents


def read_documents(corpus: Path) -> list:
    """Return the schema-valid workflows without exact copies. A hash of the owner decides which are held out."""
    from recipes import Document

    from tct.codec import Encoder
    from tct.tokenizer import compact
    from tct_github_workflow.files import find_files, load_file

    documents = {}
    for name in find_files(corpus):
        try:
            value = load_file(corpus / name)
            written = Encoder(machine()).encode(value)
        except (OSError, ValueError):
            continue
        owner, text = name.split("__")[0], compact(value)
        documents.setdefault(text, Document(owner, text, written, digest(owner) % 5 == 0, False))
    scored = Counter()
    for text, document in sorted(documents.items(), key=lambda item: digest(item[0])):
        if document.is_held_out and len(text.encode()) <= MAX_BYTES and scored[document.owner] < PER_OWNER:
            scored[document.owner] += 1
            documents[text] = document._replace(is_scored=True)
    return list(documents.values())


@cache
def machine():
    from tct.tokenizer import compile_json_schema
    from tct_github_workflow import workflow_schema

    return compile_json_schema(workflow_schema()).machine


def digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def count(documents: list, cache_folder: Path, recipe: str) -> dict:
    """Return the density of a recipe, without training."""
    data = tokens_of(documents, cache_folder, recipe)
    return {"vocab_size": data["vocab_size"], **data["density"]}


def count_tiktoken(documents: list, package: Path, recipe: str) -> dict:
    """Return tokens per held-out workflow of a vocabulary of tiktoken, which is too large to train with here."""
    import base64

    import tiktoken

    data = json.loads((package / "encoders" / f"{recipe}.json").read_text())
    ranks = {}
    for line in data["bpe_ranks"].splitlines():  # "! FIRST_RANK TOKEN TOKEN ..."
        _, first, *tokens = line.split()
        ranks |= {base64.b64decode(token): int(first) + i for i, token in enumerate(tokens)}
    encoding = tiktoken.Encoding(
        recipe, pat_str=data["pat_str"], mergeable_ranks=ranks, special_tokens=data["special_tokens"]
    )
    return {
        **density(documents, lambda document: encoding.encode_ordinary(document.json), True),
        "vocab_size": encoding.n_vocab,
    }


def density(documents: list, encode: Callable, count_end: bool) -> dict:
    """Return tokens per workflow, including its end, and characters per token over all held-out documents."""
    held_out = [document for document in documents if document.is_held_out]
    tokens = sum(len(encode(document)) + count_end for document in held_out)
    return {
        "tokens_per_workflow": round(tokens / len(held_out), 1),
        "characters_per_token": round(sum(len(document.json) for document in held_out) / tokens, 4),
    }


# ---------------------------------------------------------------------------------------------------------
# one run


def tokens_of(documents: list, cache_folder: Path, recipe: str) -> dict:
    """Return the result of `encoded`, from a file if it exists."""
    name = recipe.replace(" ", "_").replace(",", "")
    return cached(cache_folder / f"{name}.json", encoded, documents, recipe)


def encoded(documents: list, recipe: str) -> dict:
    """Return a recipe's tokens of the training and the scored documents, and its density."""
    from recipes import JSON_SYMBOLS, RECIPES, VOCAB_SIZE

    base_size = JSON_SYMBOLS if recipe.startswith("JSON") else machine().symbols.size
    training = [document for document in documents if not document.is_held_out]
    scored_bytes = [len(document.json.encode()) for document in documents if document.is_scored]
    encode = RECIPES[recipe](training, base_size)
    return {
        "training": [encode(document) for document in training],
        "scored": [encode(document) for document in documents if document.is_scored],
        "bytes": sum(scored_bytes),
        "quarter_bytes": sum(scored_bytes[::4]),
        "vocab_size": VOCAB_SIZE,
        "density": density(documents, encode, recipe.startswith("JSON")),
    }


def run(documents: list, cache_folder: Path, recipe: str, seed: int, updates: int, learning_rate: float) -> dict:
    """Train a model on the tokens of a recipe and score it. Return the figures of a line of the results."""
    import torch

    from model_config import get_config
    from nanochat.gpt import GPT, GPTConfig
    from nanochat.optim import build_optimizers, rate_at, set_rates

    torch.set_num_threads(1)
    data = tokens_of(documents, cache_folder, recipe)
    tiny = get_config("tiny")
    heads = tiny["n_heads"]
    torch.manual_seed(seed)
    model = GPT(GPTConfig(CONTEXT, data["vocab_size"], tiny["n_layers"], heads, heads, tiny["d_model"]))
    optimizers = build_optimizers(model, "muon", tiny["weight_decay"])
    count_end = recipe.startswith("JSON")  # other documents end with their own symbol
    batches = rows(data["training"], seed, updates)
    curve = []
    for update, tokens in enumerate(batches, 1):
        rate = rate_at(update, "linear", int(WARMUP * updates), updates, WARMDOWN)
        set_rates(optimizers, learning_rate * rate, update)
        x, y = tokens[:, :-1], tokens[:, 1:]  # (B, T)
        loss = backward(model, x, y if count_end else y.where(y != PAD, IGNORE))
        if not math.isfinite(loss):
            raise ValueError(f"{recipe}, seed {seed}: the loss of update {update} is not finite")
        torch.nn.utils.clip_grad_norm_(model.parameters(), tiny["grad_clip"])
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if update * CHECKPOINTS % updates < CHECKPOINTS:
            print(recipe, seed, update, round(loss, 3), flush=True)
            quarter = score(model, data["scored"][::4], count_end) / math.log(2) / data["quarter_bytes"]
            curve.append([update * ROWS * CONTEXT, round(quarter, 5)])
    nats = score(model, data["scored"], count_end)
    return {
        "tokens": updates * ROWS * CONTEXT,
        "parameters": model.num_parameters(),
        "flops": model.estimate_flops() * updates * ROWS * CONTEXT,
        "training_tokens": sum(map(len, data["training"])),
        "nats": round(nats, 1),
        "bytes": data["bytes"],
        "bpb": round(nats / math.log(2) / data["bytes"], 5),
        "curve": curve,
        "vocab_size": data["vocab_size"],
        **data["density"],
    }


def rows(documents: list, seed: int, updates: int):
    """Return batches (ROWS, CONTEXT + 1): shuffled documents, each after PAD, cut into rows that are shuffled again."""
    import numpy as np
    import torch

    rng = np.random.default_rng(seed)
    parts, missing = [], updates * ROWS * CONTEXT + 1
    while missing > 0:
        for index in rng.permutation(len(documents)):
            parts += [[PAD], documents[index]]
            missing -= 1 + len(documents[index])
    stream = torch.from_numpy(np.concatenate(parts).astype(np.int64))
    windows = stream.unfold(0, CONTEXT + 1, CONTEXT)[: updates * ROWS]
    return windows[rng.permutation(len(windows))].split(ROWS)


def backward(model, x, y) -> float:
    """Return the mean loss of tokens x with targets y (B, T), and add its gradients. The head runs in chunks."""
    import torch.nn.functional as F

    hidden = model.hidden(x).flatten(0, 1)  # (B * T, C)
    y = y.flatten()
    counted, total = (y != IGNORE).sum(), 0.0
    cut = hidden.detach().requires_grad_()
    for part, targets in zip(cut.split(HEAD_CHUNK), y.split(HEAD_CHUNK)):
        loss = F.cross_entropy(model.logits(part), targets, ignore_index=IGNORE, reduction="sum") / counted
        loss.backward()
        total += loss.item()
    hidden.backward(cut.grad)
    return total


def score(model, documents: list[list[int]], count_end: bool) -> float:
    """Return the nats of documents. Rows overlap by half: a token has all tokens before it or at least half a row."""
    import torch

    inputs, targets = [], []
    for tokens in documents:
        tokens = torch.tensor([PAD, *tokens, *[PAD] * count_end])
        for start in range(0, max(1, len(tokens) - 1 - CONTEXT // 2), CONTEXT // 2):
            x, y = torch.full((2, CONTEXT), PAD)
            y[:] = IGNORE
            part = tokens[start : start + CONTEXT + 1]
            x[: len(part) - 1], y[: len(part) - 1] = part[:-1], part[1:]
            if start:
                y[: CONTEXT // 2] = IGNORE  # scored in the previous row
            inputs.append(x)
            targets.append(y)
    with torch.no_grad():
        pairs = zip(torch.stack(inputs).split(2), torch.stack(targets).split(2))
        return sum(model(x, y, loss_reduction="sum").item() for x, y in pairs)


if __name__ == "__main__":
    sys.exit(main())

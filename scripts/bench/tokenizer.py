"""Compare the speed of the tokenizer with that of others: in one run, on the same documents, with one thread.

    python -m scripts.bench.tokenizer --input WORKFLOWS --tiktoken NPM_PACKAGE --output bench.json

1. Encoding and decoding: ours, tiktoken (the npm package tiktoken contains its ranks), and byte-level BPE of the
   tokenizers library, learned in the run. They take turns, pass by pass. Our caches are empty in the first pass.
2. The mask of the next token: ours along the documents' tokens, llguidance and xgrammar on the same schema along their
   BPE tokens. They take turns, document by document. The first pass is cold, all later passes are warm.

The other engines fix the order of keys. For them the documents are put in the schema's order; those that their grammar
still rejects are skipped and counted. Engines that are not installed are skipped; pip install '.[bench]' installs
them.
"""

import argparse
import gc
import os
import platform
import random
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tqdm import tqdm

import tct_github_workflow
from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_json
from script_tools.tables import columns
from scripts.bench import engines
from tct.json_text import compact
from tct_github_workflow.files import find_files, load_file
from workflow_data.tokenizers import BPETokenizer
from workflow_synth.compose import compose_workflows

PACKAGES = ("tct-github-workflow", "tokenizers", "tiktoken", "llguidance", "xgrammar", "numpy")


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add("--input", "workflows (default: the embedded sample)", type=Path, metavar="DIR")
    parser.add("--documents", "number of workflows", 500)
    parser.add("--passes", "times each document is measured", 5)
    parser.add("--seed", "which workflows of the folder", 0)
    parser.add("--tiktoken", "unpacked npm package tiktoken", type=Path, metavar="DIR")
    parser.add("--output", "JSON file for the figures", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    if args.documents < 1 or args.passes < 2:
        raise ValueError("--documents must be at least 1, --passes at least 2: one is cold")
    # before the libraries start threads
    os.environ |= {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    reader = tct_github_workflow.tokenizer()
    workflows = read_workflows(args.input, args.documents, args.seed, reader)
    texts = [compact(workflow) for workflow in workflows]
    size = sum(len(text.encode()) for text in texts)
    print(f"{len(texts)} workflows, {size / 1e6:.2f} MB of compact JSON")
    bpe = BPETokenizer.train(texts).library
    gc.collect()
    gc.freeze()  # the garbage collector need not visit the documents while we measure
    try:
        measured = {
            "codecs": measure_codecs(texts, bpe, args.tiktoken, args.passes),
            "masks": measure_masks(workflows, bpe, reader, args.passes),
        }
    finally:
        gc.unfreeze()  # frozen objects are never freed, and nanobind would report each of its own as leaked
    results = {
        "documents": len(texts),
        "bytes": size,
        "input": str(args.input or "embedded sample"),
        "seed": args.seed,
        "python": platform.python_version(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: installed(name) for name in PACKAGES},
        **measured,
    }
    if args.output:
        write_json(args.output, results)
        print(f"written to {args.output}")


def read_workflows(folder: Path | None, count: int, seed: int, reader) -> list[dict]:
    """Return `count` schema-valid workflows, drawn by seed, of a folder or of the embedded sample."""
    if folder is None:
        return [workflow for _, workflow in compose_workflows(count, seed)]
    workflows = []
    files = find_files(folder)
    random.Random(seed).shuffle(files)
    with tqdm(total=min(count, len(files)), desc="reading", unit="file", disable=None) as progress:
        for file in files:
            try:
                workflow = load_file(folder / file)
                reader.encode_value(workflow)
            except (ValueError, OSError):
                continue
            workflows.append(workflow)
            progress.update()
            if len(workflows) == count:
                break
    if not workflows:
        raise ValueError(f"--input {folder} holds no valid workflow")
    return workflows


# -- encoding and decoding: a codec is a pair of functions, text -> ids and ids -> text


def measure_codecs(texts: list[str], bpe, tiktoken_folder: Path | None, passes: int) -> dict:
    """Measure the documents per second of each codec: in the first pass, the median pass and the best one."""
    tokenizer = engines.fresh_tokenizer()
    codecs = {"tct": (tokenizer.encode, lambda ids: tokenizer.decode(ids)[0])}
    if tiktoken_folder is None:
        print("tiktoken is skipped: --tiktoken is not given")
    else:
        try:
            encoding = engines.tiktoken_encoding("o200k_base", tiktoken_folder)
            codecs["tiktoken o200k_base"] = encoding.encode_ordinary, encoding.decode
        except (ImportError, OSError) as error:
            print(f"tiktoken is skipped: {error}")
    codecs[f"BPE of {bpe.get_vocab_size()}, GPT-4 split"] = lambda text: bpe.encode(text).ids, bpe.decode
    results = time_codecs(codecs, texts, passes)

    characters, size = sum(map(len, texts)), sum(len(text.encode()) for text in texts)
    for result in results.values():
        result["tokens_per_document"] = result["tokens"] / len(texts)
        result["characters_per_token"] = characters / result["tokens"]
        for way in ("encode", "decode"):
            seconds = result[f"{way}_seconds"]
            spent = {"first": seconds[0], "median": median(seconds), "best": min(seconds)}
            result[f"{way}_documents_per_second"] = {which: len(texts) / s for which, s in spent.items()}
            result[f"{way}_mb_per_second"] = size / spent["median"] / 1e6
    for way in ("encode", "decode"):
        print_codecs(way, results)
    return results


def time_codecs(codecs: dict, texts: list[str], passes: int) -> dict[str, dict[str, Any]]:
    """Measure the seconds for all texts, pass by pass. Each text must be unchanged after decoding."""
    results: dict[str, dict[str, Any]] = {name: {"encode_seconds": [], "decode_seconds": []} for name in codecs}
    for _ in tqdm(range(passes), desc="encode, decode", unit="pass", disable=None):
        for name, (encode, decode) in codecs.items():
            start = time.perf_counter()
            ids = [encode(text) for text in texts]
            encoded = time.perf_counter()
            decoded = [decode(tokens) for tokens in ids]
            end = time.perf_counter()
            assert decoded == texts, name
            results[name]["encode_seconds"].append(encoded - start)
            results[name]["decode_seconds"].append(end - encoded)
            results[name]["tokens"] = sum(map(len, ids))
    return results


def print_codecs(way: str, results: dict) -> None:
    head = [way, *"tokens/doc|chars/token|docs/s: first|median|best|MB/s|tct/it: first|median".split("|")]
    ours, rows = results["tct"][f"{way}_documents_per_second"], []
    for name, result in results.items():
        speeds = result[f"{way}_documents_per_second"]
        sizes = f"{result['tokens_per_document']:.0f}", f"{result['characters_per_token']:.2f}"
        ratios = (f"{ours[which] / speeds[which]:.2f}" for which in ("first", "median"))
        per_second = *(f"{speed:,.0f}" for speed in speeds.values()), f"{result[f'{way}_mb_per_second']:.2f}"
        rows.append([name, *sizes, *per_second, *ratios])
    print(f"\n{columns([head, *rows])}")


# -- masks


def measure_masks(workflows: list[dict], bpe, reader, passes: int) -> list[dict]:
    """Measure the microseconds per token of each engine, cold and warm, on the documents that it accepts."""
    orders = list(engines.key_orders(tct_github_workflow.workflow_schema()))
    ordered = [engines.in_order(workflow, orders) for workflow in workflows]
    compared, ids = {"tct": engines.Tct()}, {"tct": [reader.encode_value(workflow) for workflow in workflows]}
    for engine_class in (engines.LLGuidance, engines.XGrammar):
        try:
            engine = engine_class(bpe)
        except ImportError as error:
            print(f"{engine_class.name} is skipped: {error}")
            continue
        compared[engine.name] = engine
        ids[engine.name] = [engine.ids(workflow) for workflow in ordered]
    spent = time_masks(compared, ids, passes)

    results = []
    for name, engine in compared.items():
        taken = [i for i, tokens in enumerate(ids[name]) if tokens]
        rows = mask_rows(name, spent[name], taken)
        result = {
            "engine": name,
            "rows": rows,
            "dropped": engine.dropped,
            "lets_pass": engines.let_pass(engine),
            "refused_documents": len(workflows) - len(taken),
        }
        if name != "tct" and taken:  # and ours on the same documents
            ours = mask_rows(f"tct, documents of {name}", spent["tct"], taken)
            result["mean_of_tct_by_its_mean"] = {
                mine["cache"]: mine["fill_us"]["mean"] / its["fill_us"]["mean"] for mine, its in zip(ours, rows)
            }
            rows += ours
        print_masks(result)
        results.append(result)
    return results


def time_masks(compared: dict, ids: dict, passes: int) -> dict[str, list[dict[int, tuple]]]:
    """Return, for each engine and pass: document -> (microseconds of each fill, of each accept)."""
    spent: dict[str, list[dict[int, tuple]]] = {name: [{} for _ in range(passes)] for name in compared}
    count = len(ids["tct"])
    turns = [(at, document) for at in range(passes) for document in range(count)]
    for at, document in tqdm(turns, desc="masks", unit="document", disable=None):
        for name, engine in compared.items():
            if tokens := ids[name][document]:
                spent[name][at][document] = walk(tokens, *engine.start())
    return spent


def walk(tokens: list[int], fill: Callable[[], Any], accept: Callable[[int], bool]):
    """Measure the microseconds of each fill and of each accept along a document: two arrays (tokens,)."""
    clock, fills, accepts = time.perf_counter_ns, [], []
    for token in tokens:
        start = clock()
        fill()
        filled = clock()
        fits = accept(token)
        end = clock()
        assert fits
        fills.append(filled - start)
        accepts.append(end - filled)
    return np.array(fills) / 1e3, np.array(accepts) / 1e3


def mask_rows(name: str, passes: list[dict[int, tuple]], documents: list[int]) -> list[dict]:
    """Summarize the measurements on some documents: cold, then all warm passes together."""
    rows = []
    for state, chosen in (("cold", passes[:1]), ("warm", passes[1:])):
        measured = [spent[document] for spent in chosen for document in documents]
        if not measured:
            continue
        fills, accepts = map(np.concatenate, zip(*measured))
        counts = {"documents": len(documents), "tokens": len(fills) // len(chosen)}
        times = {"fill_us": summary(fills), "accept_us": summary(accepts)}
        rows.append({"name": name, "cache": state, **counts, **times})
    return rows


def summary(values) -> dict[str, float]:
    median, p99, largest = map(float, np.percentile(values, (50, 99, 100)))
    return {"mean": float(values.mean()), "median": median, "p99": p99, "max": largest}


def print_masks(result: dict) -> None:
    head = ["mask, microseconds a token", "cache", "docs", "tokens", "mean", "median", "p99", "max"]
    rows = [
        [
            row["name"],
            row["cache"],
            f"{row['documents']}",
            f"{row['tokens']:,}",
            *(f"{value:,.1f}" for value in row["fill_us"].values()),
            *(f"{row['accept_us'][which]:,.1f}" for which in ("mean", "median")),
        ]
        for row in result["rows"]
    ]
    print(f"\n{columns([[*head, 'accept: mean', 'median'], *rows])}")
    for cache, ratio in result.get("mean_of_tct_by_its_mean", {}).items():
        print(f"our mean / mean of {result['engine']}, {cache}: {ratio:.2f}")
    print(f"documents refused: {result['refused_documents']}")
    print(f"dropped from the schema: {result['dropped'] or 'nothing'}")
    print(f"lets pass what these forbid: {', '.join(result['lets_pass']) or 'none'}")


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()

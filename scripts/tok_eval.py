"""How many tokens a workflow takes: ours, byte-level BPE learned from the same workflows, tiktoken's encodings.

    python -m scripts.tok_eval --input workflows/ --output out/tok_eval

All tokenise the same compact JSON. The baselines learn from the folders that train, and everything is counted on
those held out. Writes tok_eval.json and tok_eval.png.
"""

import json
from collections.abc import Callable
from pathlib import Path

from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_atomic

TIKTOKEN = ("o200k_base", "cl100k_base", "r50k_base")


@cli_errors
def main(argv=None):
    parser = ArgumentParser(prog="python -m scripts.tok_eval", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--input", required=True, nargs="+", metavar="PATH", help="as for prepare_training_data.py")
    add("--text_column", default="content", metavar="NAME", help="of a table: the workflow's text (%(default)s)")
    add("--path_column", default="path", metavar="NAME", help="of a table: the workflow's path (%(default)s)")
    add("--path_glob", metavar="GLOB", help="take paths that end so, such as '.github/workflows/*'")
    add(
        "--split-by",
        default="folder",
        metavar="WHAT",
        help="what is held out together: file, folder, owner, or a column's name (default: %(default)s)",
    )
    add("--max-files", type=int, metavar="N", help="read the first N only")
    add(
        "--vocab_sizes",
        type=int,
        nargs="*",
        default=[8192],
        metavar="N",
        help="sizes of the BPE baselines to learn (default: 8192)",
    )
    add("--bpe", nargs="*", default=[], metavar="FILE", help="tokenizer.json of further baselines")
    add(
        "--tiktoken",
        nargs="?",
        const="",
        metavar="DIR",
        help="count tiktoken's encodings too: those of the unpacked npm package tiktoken in DIR, or without DIR "
        "tiktoken's own, which it downloads where it has not kept them",
    )
    add("--output", type=Path, default=Path("out/tok_eval"), metavar="DIR", help="(default: %(default)s)")
    args = parser.parse_args(argv)

    train, held_out = read_workflows(args)
    print(f"{len(train):,} workflows to learn from, {len(held_out):,} held out and counted")
    results = {
        name: summarize(name, size, count(held_out), held_out) for name, size, count in open_tokenizers(args, train)
    }
    print_table(results)
    args.output.mkdir(parents=True, exist_ok=True)
    plot(results, args.output / "tok_eval.png")
    write_atomic(
        args.output / "tok_eval.json",
        json.dumps(
            {
                "input": args.input,
                "learned_from": len(train),
                "counted": len(held_out),
                "characters": sum(map(len, held_out)),
                "tokenizers": results,
            }
        ).encode()
        + b"\n",
    )
    print(f"\nwritten to {args.output}: tok_eval.json, tok_eval.png")


def read_workflows(args) -> tuple[list[str], list[str]]:
    """The compact JSON of the valid workflows, each once: those to learn from, and those held out."""
    from itertools import chain, islice

    import numpy as np
    from tqdm import tqdm

    from workflow_data.chunks import sha256
    from workflow_data.cleaning import Workflow, clean
    from workflow_data.sources import Selection, open_source
    from workflow_data.split import assign_splits, hash_fraction

    selection = Selection(args.split_by, args.text_column, args.path_column, args.path_glob)
    records = chain.from_iterable(open_source(location, selection) for location in args.input)
    groups = {}
    for record in tqdm(islice(records, args.max_files), "read", unit="file", disable=None):
        result = clean(record)
        if isinstance(result, Workflow):
            groups.setdefault(result.text, record.group)
    if len(groups) < 2:
        raise ValueError(f"{', '.join(args.input)}: {len(groups)} valid workflows; two are needed")
    if len(set(groups.values())) == 1:  # one folder: then each workflow by itself
        groups = dict.fromkeys(groups)
    places = [hash_fraction((group or sha256(text.encode())).encode(), seed=0) for text, group in groups.items()]
    sides = assign_splits(np.array(places), train_split=0.8)
    return tuple([text for text, side in zip(groups, sides) if side == which] for which in (0, 1))


def open_tokenizers(args, train: list[str]):
    """(name, vocabulary size, texts -> number of tokens of each) of every tokenizer there is."""
    from workflow_data.tokenizers import BPETokenizer, TCTTokenizer

    tct = TCTTokenizer()
    yield "tct", tct.get_vocab_size(), counter(tct.encode)
    for size in args.vocab_sizes:
        bpe = BPETokenizer.train(train, size)
        yield f"BPE {size:,}", bpe.get_vocab_size(), counter(bpe.encode)
    for path in args.bpe:
        bpe = BPETokenizer.load(path)
        yield f"BPE {path}", bpe.get_vocab_size(), counter(bpe.encode)
    if args.tiktoken is None:
        print("tiktoken is skipped: --tiktoken is not given")
        return
    from scripts.bench.engines import tiktoken_encoding

    for name in TIKTOKEN:
        try:
            encoding = tiktoken_encoding(name, args.tiktoken)
        except (ImportError, OSError) as error:
            print(f"tiktoken {name} is skipped: {error}")
        else:
            yield f"tiktoken {name}", encoding.n_vocab, counter(encoding.encode_ordinary)


def counter(encode: Callable[[str], list[int]]) -> Callable[[list[str]], list[int]]:
    return lambda texts: [len(encode(text)) for text in texts]


def summarize(name: str, size: int, counts: list[int], texts: list[str]) -> dict:
    import numpy as np

    tokens = sum(counts)
    return {
        "vocab_size": size,
        "tokens_per_workflow": tokens / len(texts),
        "median": float(np.median(counts)),
        "characters_per_token": sum(map(len, texts)) / tokens,
        "bytes_per_token": sum(len(text.encode()) for text in texts) / tokens,
        "counts": counts,
    }


def print_table(results: dict[str, dict]):
    from script_tools.tables import columns

    ours = results["tct"]["tokens_per_workflow"]
    rows = [
        (
            name,
            f"{result['vocab_size']:,}",
            f"{result['tokens_per_workflow']:.1f}",
            f"{result['median']:.0f}",
            f"{result['characters_per_token']:.2f}",
            f"{result['tokens_per_workflow'] / ours:.2f}",
        )
        for name, result in results.items()
    ]
    head = "", "vocabulary", "tokens/workflow", "median", "chars/token", "of ours"
    print(f"\n{columns([head, *rows])}")


def plot(results: dict[str, dict], path: Path):
    """How tokens per workflow are spread, and characters per token."""
    import matplotlib
    import numpy as np

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", width_ratios=(3, 2))
    for name, result in results.items():
        counts = np.sort(result["counts"])
        axes[0].step(counts, 100 * np.arange(1, len(counts) + 1) / len(counts), where="post", label=name)
    axes[0].set(xscale="log", xlabel="tokens", ylabel="% of the workflows", title="Workflows of up to so many tokens")
    axes[0].grid(alpha=0.3)
    axes[0].legend()
    names = list(results)[::-1]
    bars = axes[1].barh(
        names,
        [results[name]["characters_per_token"] for name in names],
        color=[f"C{list(results).index(name)}" for name in names],
    )
    axes[1].bar_label(bars, fmt="%.2f", padding=3)
    axes[1].margins(x=0.15)
    axes[1].set(title="Characters per token")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()

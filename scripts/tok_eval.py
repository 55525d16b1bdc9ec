"""Compare the number of tokens that tokenizers need for a workflow: TCT, byte-level BPE, and tiktoken's encodings.

    python -m scripts.tok_eval --input workflows/ --output out/tok_eval

All encode the same compact JSON. The BPE baselines learn from the training folders; all tokens are counted on held-out
folders. Writes tok_eval.json and tok_eval.png.
"""

from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from script_tools.cli import ArgumentParser, cli_errors
from script_tools.figures import add_legend, new_figure, use_logarithmic_scale
from script_tools.files import write_json
from script_tools.tables import columns
from scripts.bench.engines import tiktoken_encoding
from workflow_data.chunks import sha256
from workflow_data.cleaning import Workflow, clean
from workflow_data.sources import Selection, open_source
from workflow_data.split import assign_splits, hash_fraction
from workflow_data.tokenizers import BPETokenizer, TCTTokenizer

TIKTOKEN = ("o200k_base", "cl100k_base", "r50k_base")


@cli_errors
def main(argv=None):
    args = parse_arguments(argv)
    train, held_out = read_workflows(args)
    print(f"{len(train):,} workflows to learn from, {len(held_out):,} held out and counted")
    results = {name: summarize(size, encode, held_out) for name, size, encode in open_tokenizers(args, train)}
    print_table(results)
    report = {
        "input": args.input,
        "learned_from": len(train),
        "counted": len(held_out),
        "characters": sum(map(len, held_out)),
        "tokenizers": results,
    }
    args.output.mkdir(parents=True, exist_ok=True)
    plot(results, args.output / "tok_eval.png")
    write_json(args.output / "tok_eval.json", report, indent=None)
    print(f"\nwritten to {args.output}: tok_eval.json, tok_eval.png")


def parse_arguments(argv):
    parser = ArgumentParser(prog="python -m scripts.tok_eval", description=__doc__.split("\n")[0])
    add = parser.add
    add("--input", "as in prepare_training_data.py", required=True, nargs="+", metavar="PATH")
    add("--text_column", "column with a workflow's text", "content")
    add("--path_column", "column with a workflow's path", "path")
    add("--path_glob", "only paths that end like this, such as '.github/workflows/*'", metavar="GLOB")
    units = "unit that is held out as a whole: file, folder, owner, or the name of a column"
    add("--split-by", units, "folder", metavar="WHAT")
    add("--max-files", "read only the first N files", type=int)
    sizes = "vocabulary sizes of the BPE baselines to train (default: 8192)"
    add("--vocab_sizes", sizes, [8192], type=int, nargs="*")
    add("--bpe", "tokenizer.json of further BPE baselines (default: none)", [], type=str, nargs="*", metavar="FILE")
    encodings = "also count tiktoken's encodings, from the unpacked npm package in DIR, or else downloaded by tiktoken"
    add("--tiktoken", encodings, nargs="?", const="", metavar="DIR")
    add("--output", "folder for the results", Path("out/tok_eval"), type=Path, metavar="DIR")
    return parser.parse_args(argv)


def read_workflows(args) -> tuple[list[str], list[str]]:
    """Return the compact JSON of the training and of the held-out workflows: the valid ones, without duplicates."""
    selection = Selection(args.split_by, args.text_column, args.path_column, args.path_glob)
    records = chain.from_iterable(open_source(location, selection) for location in args.input)
    groups = {}
    for record in tqdm(islice(records, args.max_files), "read", unit="file", disable=None):
        result = clean(record)
        if isinstance(result, Workflow):
            groups.setdefault(result.text, record.group)
    if len(groups) < 2:
        raise ValueError(f"{', '.join(args.input)}: {len(groups)} valid workflows; two are needed")
    if len(set(groups.values())) == 1:  # a single folder: split by workflow
        groups = dict.fromkeys(groups)
    places = [hash_fraction((group or sha256(text.encode())).encode(), seed=0) for text, group in groups.items()]
    sides = assign_splits(np.array(places), train_split=0.8)
    return tuple([text for text, side in zip(groups, sides) if side == which] for which in (0, 1))


def open_tokenizers(args, train: list[str]) -> Iterator[tuple[str, int, Callable[[str], list[int]]]]:
    """Yield (name, vocabulary size, encode) of every available tokenizer."""
    tct = TCTTokenizer()
    yield "tct", tct.get_vocab_size(), tct.encode
    for size in args.vocab_sizes:
        bpe = BPETokenizer.train(train, size)
        yield f"BPE {size:,}", bpe.get_vocab_size(), bpe.encode
    for path in args.bpe:
        bpe = BPETokenizer.load(path)
        yield f"BPE {path}", bpe.get_vocab_size(), bpe.encode
    if args.tiktoken is None:
        print("tiktoken is skipped: --tiktoken is not given")
        return
    for name in TIKTOKEN:
        try:
            encoding = tiktoken_encoding(name, args.tiktoken)
        except (ImportError, OSError) as error:
            print(f"tiktoken {name} is skipped: {error}")
        else:
            yield f"tiktoken {name}", encoding.n_vocab, encoding.encode_ordinary


def summarize(vocab_size: int, encode: Callable[[str], list[int]], texts: list[str]) -> dict:
    counts = [len(encode(text)) for text in texts]
    tokens = sum(counts)
    return {
        "vocab_size": vocab_size,
        "tokens_per_workflow": tokens / len(texts),
        "median": float(np.median(counts)),
        "characters_per_token": sum(map(len, texts)) / tokens,
        "bytes_per_token": sum(len(text.encode()) for text in texts) / tokens,
        "counts": counts,
    }


def print_table(results: dict[str, dict]):
    tct = results["tct"]["tokens_per_workflow"]
    rows = [("", "vocabulary", "tokens/workflow", "median", "chars/token", "of tct")]
    for name, result in results.items():
        tokens, characters = result["tokens_per_workflow"], result["characters_per_token"]
        figures = f"{tokens:.1f}", f"{result['median']:.0f}", f"{characters:.2f}", f"{tokens / tct:.2f}"
        rows.append((name, f"{result['vocab_size']:,}", *figures))
    print(f"\n{columns(rows)}")


def plot(results: dict[str, dict], path: Path):
    """Draw the distribution of tokens per workflow, and characters per token."""
    figure, (left, right) = new_figure(11, 4, 1, 2, width_ratios=(3, 2))
    for name, result in results.items():
        counts = np.sort(result["counts"])
        left.step(counts, 100 * np.arange(1, len(counts) + 1) / len(counts), where="post", label=name)
    left.set(xlabel="tokens", ylabel="% of the workflows", title="Workflows of at most N tokens")
    left.grid(alpha=0.3)
    use_logarithmic_scale(left, "x")
    values = [result["characters_per_token"] for result in results.values()]
    bars = right.barh(list(results), values, color=[f"C{index}" for index in range(len(values))])
    right.bar_label(bars, fmt="%.2f", padding=3)
    right.invert_yaxis()
    right.margins(x=0.15)
    right.set(title="Characters per token")
    add_legend(figure)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()

"""Builds a tokenizer: compiles a schema, learns merges from a corpus, writes the artifact and its vocabulary.

The tokenizer of this repository:

    python tct-bundle/scripts/build_tokenizer.py --corpus WORKFLOWS \
        --output tct-bundle/src/tct_github_workflow/github_workflow.json

With --schema, one for any other kind of document. The same corpus, schema and version of the tokenizers library
give the same bytes.
"""

import argparse
from pathlib import Path

from script_tools.cli import ArgumentParser, cli_errors

MAX_SHOWN = 5  # refused files that are named


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schema", type=Path, help="JSON Schema file (default: the GitHub workflow schema)")
    parser.add_argument(
        "--corpus", type=Path, required=True,
        help="folder of .json/.yml/.yaml documents, a folder per owner: OWNER or OWNER__REPOSITORY",
    )  # fmt: skip
    parser.add_argument("--vocab-size", type=int, default=8192, help="number of tokens (default: 8192)")
    parser.add_argument("--output", type=Path, required=True, help="artifact to write, a .json file")
    args = parser.parse_args(argv)
    build(args.schema, args.corpus, args.vocab_size, args.output)


def build(schema_path: Path | None, corpus: Path, vocab_size: int, output: Path) -> None:
    """Compiles, learns, writes. ValueError or OSError where an input does not serve."""
    from tct.bpe import MIN_OWNERS, learn_merges
    from tct.tokenizer import Tokenizer
    from tct_github_workflow import workflow_schema

    schema = workflow_schema() if schema_path is None else read_schema(schema_path)
    machine = Tokenizer(schema).machine
    if vocab_size <= machine.symbols.size:
        raise ValueError(f"--vocab-size {vocab_size}: this schema has {machine.symbols.size} base symbols alone")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"--output {output}: {output.parent} is not a folder")
    listing = output.with_suffix(".vocab.txt")
    if listing.exists() and not output.exists():
        raise FileExistsError(
            f"--output {output}: {listing} would be replaced, which no artifact belongs to: move it "
            "away, or give another name"
        )
    documents, characters, refused = read_documents(corpus, machine)
    report_refused(refused)
    if not documents:
        raise ValueError(f"--corpus {corpus} holds no document that is valid under the schema")
    owners = {owner for owner, _ in documents}
    tokenizer = Tokenizer(schema, learn_merges(documents, machine.symbols.size, vocab_size))
    if tokenizer.vocab_size() < vocab_size:
        raise ValueError(
            f"--vocab-size {vocab_size}: the corpus supports no more than {tokenizer.vocab_size()}; what is merged "
            f"must come from {MIN_OWNERS} owners (first folders of --corpus), and there are {len(owners)}"
        )
    tokenizer.save(output, embed_schema=schema_path is not None)
    tokens = sum(len(tokenizer.merges.tokens(written)) for _, written in documents)
    print(
        f"{len(documents):,} documents of {len(owners):,} owners: {tokens / len(documents):.1f} tokens each, "
        f"{characters / tokens:.2f} characters of compact JSON per token\n"
        f"{tokenizer.vocab_size():,} tokens, {machine.symbols.size:,} of them base symbols; "
        f"fingerprint {tokenizer.fingerprint}, written to {output}"
    )


def read_schema(path: Path):
    """The JSON Schema in a file."""
    from tct_github_workflow.workflow_yaml import WorkflowSyntaxError, load_json

    try:
        return load_json(path.read_bytes())
    except WorkflowSyntaxError as error:
        raise ValueError(f"--schema {path} is not JSON: {error}") from None


def read_documents(corpus: Path, machine):
    """All valid documents as (owner, written document), their characters, and (file, reason) of the others."""
    from tqdm import tqdm

    from tct.codec import Encoder
    from tct.json_text import compact
    from tct_github_workflow.files import find_files, load_file, owner_of

    files = find_files(corpus)
    if not files:
        raise ValueError(f"--corpus {corpus} holds no .json, .yml or .yaml file")
    documents, characters, refused = [], 0, []
    for name in tqdm(files, desc="reading", unit="file", disable=None):
        try:
            value = load_file(corpus / name)
            documents.append((owner_of(name), Encoder(machine).encode(value)))
        except (OSError, ValueError) as error:
            refused.append((name, getattr(error, "strerror", None) or str(error)))
        else:
            characters += len(compact(value))
    return documents, characters, refused


def report_refused(refused: list[tuple[str, str]]) -> None:
    for name, reason in refused[:MAX_SHOWN]:
        print(f"refused {name!r}: {reason}")
    if len(refused) > MAX_SHOWN:
        print(f"refused {len(refused) - MAX_SHOWN:,} more")


if __name__ == "__main__":
    main()

"""Builds a tokenizer: compiles a schema, learns merges from a corpus, writes the artifact and its vocabulary.

The tokenizer of this repository:

    python tct-bundle/scripts/build_tokenizer.py --corpus WORKFLOWS \
        --output tct-bundle/src/tct_github_workflow/github_workflow.json

The same corpus, schema and version of the tokenizers library give the same bytes.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from tct_github_workflow.command_line import ArgumentParser, exit_code


@exit_code
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
    import orjson
    from tct.bpe import learn_merges
    from tct.codec import Encoder
    from tct.tokenizer import Tokenizer
    from tct_github_workflow import workflow_schema
    from tct_github_workflow.workflow_files import find_files, load_file
    from tqdm import tqdm

    schema = workflow_schema() if schema_path is None else orjson.loads(schema_path.read_bytes())
    machine = Tokenizer(schema).machine
    if vocab_size <= machine.symbols.size:
        raise ValueError(
            f"--vocab-size {vocab_size}: this schema has {machine.symbols.size} base symbols alone"
        )
    files = find_files(corpus)
    if not files:
        raise ValueError(f"--corpus {corpus} holds no .json, .yml or .yaml file")
    documents, refused = [], Counter()
    for name in tqdm(files, desc="reading", unit="file", disable=None):
        try:
            written = Encoder(machine).encode(load_file(corpus / name))
        except (OSError, ValueError) as error:
            refused[type(error).__name__] += 1
        else:
            documents.append((owner_of(name), written))
    tokenizer = Tokenizer(schema, learn_merges(documents, machine.symbols.size, vocab_size))
    if tokenizer.vocab_size() < vocab_size:
        raise ValueError(
            f"the corpus supports only {tokenizer.vocab_size()} tokens: choose --vocab-size accordingly"
        )
    tokenizer.save(output, embed_schema=schema_path is not None)
    print(
        f"{len(documents)} documents of {len({owner for owner, _ in documents})} owners, refused: {dict(refused)}"
    )
    print(f"{tokenizer.vocab_size()} tokens, fingerprint {tokenizer.fingerprint}, written to {output}")


def owner_of(name: str) -> str:
    """The owner of a file: its first folder up to a double underscore, or itself where it lies in none.

    >>> owner_of("octocat__hello/ci.yml"), owner_of("ci.yml")
    ('octocat', 'ci.yml')
    """
    return name.split("/")[0].split("__")[0]


if __name__ == "__main__":
    sys.exit(main())

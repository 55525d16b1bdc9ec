"""Build a tokenizer: compile a schema, learn merges from a corpus, write the artifact and its vocabulary.

The tokenizer of this repository:

    python tct-bundle/scripts/build_tokenizer.py --corpus WORKFLOWS \
        --output tct-bundle/src/tct_github_workflow/github_workflow.json

With --schema, a tokenizer for any other kind of document; tct-bundle/docs/LANGUAGES.md shows what follows. The same
corpus, schema and version of the tokenizers library give the same bytes.
"""

import argparse
from itertools import groupby
from pathlib import Path
from typing import Any

from tqdm import tqdm

from script_tools.cli import ArgumentParser, cli_errors
from tct.bpe import MIN_OWNERS, learn_merges
from tct.codec import Encoder, Segments
from tct.json_text import compact
from tct.machine import TypeMachine
from tct.time_limit import time_limit
from tct.tokenizer import Tokenizer
from tct_github_workflow import workflow_schema
from tct_github_workflow.files import find_files, load_file, owner_of
from tct_github_workflow.workflow_yaml import WorkflowSyntaxError, load_json

MAX_SECONDS = 600.0
MAX_SHOWN = 5  # rejected files that are listed


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    corpus = "folder of .json/.yml/.yaml documents, with one folder for each owner: OWNER or OWNER__REPOSITORY"
    parser.add("--schema", "JSON Schema file (default: the GitHub workflow schema)", type=Path)
    resource = "another schema that the schema refers to, for example types.json or http://a.b/types.json=types.json"
    resource += "; repeat the flag for more"
    parser.add_argument("--resource", help=resource, action="append", default=[], metavar="[URI=]FILE")
    parser.add("--corpus", corpus, type=Path, required=True)
    parser.add("--vocab-size", "number of tokens", 8192)
    parser.add("--time-limit", "seconds that the schema may take to compile", MAX_SECONDS)
    parser.add("--output", "artifact to write, a .json file", type=Path, required=True)
    args = parser.parse_args(argv)
    build(args.schema, args.resource, args.corpus, args.vocab_size, args.output, args.time_limit)


def build(
    schema_path: Path | None,
    resources: list[str],
    corpus: Path,
    vocab_size: int,
    output: Path,
    max_seconds: float = MAX_SECONDS,
) -> None:
    """Compile, learn and write. Raises ValueError or OSError if an input is unusable."""
    schema = workflow_schema() if schema_path is None else read_schema(schema_path)
    others = dict(map(read_resource, resources))
    with time_limit(max_seconds):
        machine = TypeMachine(schema, others)
    for keyword, places in groupby(sorted(machine.ignored_keywords, key=keyword_of), keyword_of):
        first, *more = places
        elsewhere = f" (and {keyword} in {len(more)} other places)" if more else ""
        print(f"--schema: {first} asserts nothing{elsewhere}")
    if vocab_size <= machine.symbols.size:
        raise ValueError(f"--vocab-size {vocab_size}: this schema has {machine.symbols.size} base symbols alone")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"--output {output}: {output.parent} is not a folder")
    listing = output.with_suffix(".vocab.txt")
    if listing.exists() and not output.exists():
        fault = f"{listing} would be replaced, but belongs to no artifact"
        raise FileExistsError(f"--output {output}: {fault}: move it away, or use another name")
    documents, characters, rejected = read_documents(corpus, machine)
    for name, reason in rejected[:MAX_SHOWN]:
        print(f"rejected {name!r}: {reason}")
    if rejected[MAX_SHOWN:]:
        print(f"rejected {len(rejected) - MAX_SHOWN:,} more")
    if not documents:
        raise ValueError(f"--corpus {corpus} holds no document that is valid under the schema")
    owners = {owner for owner, _ in documents}
    tokenizer = Tokenizer(schema, learn_merges(documents, machine.symbols.size, vocab_size), others)
    if tokenizer.vocab_size() < vocab_size:
        raise ValueError(
            f"--vocab-size {vocab_size}: the corpus supports no more than {tokenizer.vocab_size()}; each merge needs "
            f"{MIN_OWNERS} owners (first folders of --corpus), and there are {len(owners)}"
        )
    tokenizer.save(output, embed_schema=schema_path is not None)
    tokens = sum(len(tokenizer.bpe.tokens(segments)) for _, segments in documents)
    print(
        f"{len(documents):,} documents of {len(owners):,} owners: {tokens / len(documents):.1f} tokens each, "
        f"{characters / tokens:.2f} characters of compact JSON per token\n"
        f"{tokenizer.vocab_size():,} tokens, {machine.symbols.size:,} of them base symbols; "
        f"fingerprint {tokenizer.fingerprint}, written to {output}"
    )


def keyword_of(pointer: str) -> str:
    """Return the last part of a JSON pointer."""
    return pointer.rpartition("/")[2]


def read_schema(path: Path, flag: str = "--schema"):
    try:
        return load_json(path.read_bytes())
    except WorkflowSyntaxError as error:
        raise ValueError(f"{flag} {path} is not JSON: {error}") from None


def read_resource(argument: str) -> tuple[str, Any]:
    """Read URI=FILE, or FILE with a schema that names its URI. Return the URI and the schema."""
    uri, _, path = argument.rpartition("=")
    schema = read_schema(Path(path), "--resource")
    if not uri:
        named = [schema[keyword] for keyword in ("$id", "id") if isinstance(schema, dict) and keyword in schema]
        uri = next((name for name in named if isinstance(name, str)), "")
    if not uri:
        raise ValueError(f"--resource {argument}: the schema has no $id: write URI={path}, with the URI that names it")
    return uri, schema


def read_documents(corpus: Path, machine: TypeMachine) -> tuple[list[tuple[str, Segments]], int, list[tuple[str, str]]]:
    """Return all valid documents as (owner, segments), the number of their characters, and (file, reason) for each
    rejected file."""
    files = find_files(corpus)
    if not files:
        raise ValueError(f"--corpus {corpus} holds no .json, .yml or .yaml file")
    documents, characters, rejected = [], 0, []
    for name in tqdm(files, desc="reading", unit="file", disable=None):
        try:
            value = load_file(corpus / name)
            documents.append((owner_of(name), Encoder(machine).encode(value)))
        except (OSError, ValueError) as error:
            rejected.append((name, getattr(error, "strerror", None) or str(error)))
        else:
            characters += len(compact(value))
    return documents, characters, rejected


if __name__ == "__main__":
    main()

"""Compare the tokenizer with jsonschema-rs, an independent judge, on far more documents than the tests do.

    python -m scripts.stress.tokenizer corpus --input WORKFLOWS
    python -m scripts.stress.tokenizer mutations --input WORKFLOWS --count 50000
    python -m scripts.stress.tokenizer walks --count 20000

corpus     all files of a folder: valid files round-trip, invalid files are rejected with a path
mutations  damaged real workflows: the verdict must be that of the judge, and accepted documents must round-trip
walks      random documents, each token drawn uniformly from the mask: each must end and be valid

--schema tests the tokenizer of another schema, without merges; --artifact one that build_tokenizer.py made. Each
failure is printed, and the exit status is then 1.
"""

import argparse
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
from tqdm import tqdm

import tct_github_workflow
from script_tools.bitmask import allowed_tokens
from script_tools.cli import ArgumentParser, cli_errors
from scripts.stress.mutations import Pool, mutate
from tct import Tokenizer
from tct.json_text import compact
from tct_github_workflow.files import find_files, load_file
from tct_github_workflow.workflow_yaml import load_json
from workflow_synth.compose import compose_workflows


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    checks = parser.add_subparsers(required=True, metavar="CHECK")

    corpus = checks.add_parser("corpus", help="all files of a folder")
    corpus.add("--input", ".json, .yml and .yaml files", type=Path, required=True, metavar="DIR")
    corpus.add("--expect", "what each file must be", choices=("valid", "invalid"))
    mutations = checks.add_parser("mutations", help="damaged documents")
    mutations.add("--input", "(default: the embedded sample)", type=Path, metavar="DIR")
    mutations.add("--count", "documents", 50_000)
    walks = checks.add_parser("walks", help="random documents")
    walks.add("--count", "walks", 20_000)
    walks.add("--max-tokens", "complete a walk after N tokens", 512)
    for check in (mutations, walks):
        check.add("--seed", "seed of the random choices", 0)
    for check, function in ((corpus, check_corpus), (mutations, check_mutations), (walks, check_walks)):
        check.set_defaults(check=function)
        which = check.add_mutually_exclusive_group()
        which.add_argument("--schema", type=Path, metavar="FILE", help="(default: the GitHub workflow schema)")
        which.add_argument("--artifact", type=Path, metavar="FILE", help="(default: the workflow tokenizer)")
    args = parser.parse_args(argv)
    tokenizer = load_tokenizer(args.schema, args.artifact)
    return args.check(args, tokenizer, jsonschema_rs.Draft7Validator(tokenizer.schema))


def load_tokenizer(schema: Path | None, artifact: Path | None):
    """Return the tokenizer to test. Raises ValueError or OSError if a file is unusable."""
    if schema:
        return Tokenizer(load_json(schema.read_bytes()))
    return Tokenizer.load(artifact) if artifact else tct_github_workflow.tokenizer()


# -- the checks: (arguments, tokenizer, judge) -> exit status


def check_corpus(args, tokenizer, judge) -> int:
    files = find_files(args.input)
    if not files:
        raise ValueError(f"--input {args.input} holds no .json, .yml or .yaml file")
    counts, failures = Counter(), []
    for name in tqdm(files, desc="corpus", unit="file", disable=None):
        try:
            document = load_file(args.input / name)
        except ValueError:
            counts["not YAML or JSON"] += 1
            continue
        is_valid = judge.is_valid(document)
        counts["valid" if is_valid else "invalid"] += 1
        failure = fault(tokenizer, compact(document), is_valid)
        if args.expect and is_valid != (args.expect == "valid"):
            failure = f"is not {args.expect}"
        if failure:
            failures.append(f"{name}: {failure}")
    listed = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    return report(f"{counts.total()} files, {listed}", failures)


def check_mutations(args, tokenizer, judge) -> int:
    documents = [(name, value) for name, value in read_documents(args.input) if judge.is_valid(value)]
    if not documents:
        raise ValueError(f"--input {args.input} holds no valid document")
    rng = random.Random(args.seed)
    rng.shuffle(documents)
    pool = Pool(tokenizer.schema, [value for _, value in documents])
    valid, tried, failures = Counter(), Counter(), []
    for index in tqdm(range(args.count), desc="mutations", unit="document", disable=None):
        name, document = documents[index % len(documents)]
        text, mutations = mutate(document, rng.choice((1, 1, 2, 3)), pool, rng)
        is_valid = "duplicate_key" not in mutations and judge.is_valid(json.loads(text))
        tried.update(set(mutations))
        valid.update(set(mutations) if is_valid else ())
        valid["documents"] += is_valid
        if failure := fault(tokenizer, text, is_valid):
            failures.append(f"{name}, {' and '.join(mutations)}: {failure}")
    for mutation, count in tried.most_common():
        print(f"{mutation:<15} {count:>9,} times, {valid[mutation] / count:4.0%} still valid")
    accepted = f"{valid['documents']:,} valid and {args.count - valid['documents']:,} not"
    return report(f"{args.count:,} mutations of {len(documents):,} documents, {accepted}, seed {args.seed}", failures)


def check_walks(args, tokenizer, judge) -> int:
    counts, failures = Counter(), []
    for index in tqdm(range(args.count), desc="walks", unit="walk", disable=None):
        rng = np.random.default_rng([args.seed, index])
        try:
            tokens, has_ended = walk(tokenizer, rng, args.max_tokens)
            text, consumed, total = tokenizer.decode(tokens)
            assert consumed == total, f"the document ends after {consumed} of {total} tokens"
            assert judge.is_valid(json.loads(text)), f"is not valid: {text[:300]}"
            failure = fault(tokenizer, text, True)
            assert not failure, failure
        except (AssertionError, ValueError) as error:
            failures.append(f"walk {index}: {error}")
            continue
        counts.update(tokens=len(tokens), characters=len(text), ended=has_ended)
    return report(
        f"{args.count - len(failures):,} of {args.count:,} walks are valid documents;"
        f" {counts['ended']:,} ended by themselves, all others were completed after {args.max_tokens} tokens;"
        f" {counts['tokens']:,} tokens, {counts['characters']:,} characters, seed {args.seed}",
        failures,
    )


# -- their parts


def fault(tokenizer, text: str, is_valid: bool) -> str | None:
    """Return what the tokenizer does wrong with a document's compact JSON text, or None."""
    try:
        tokens = tokenizer.encode(text)
    except ValueError as error:
        if is_valid:
            return f"rejected, but valid: {error}"
        return None if str(error).startswith("$") else f"rejected without a JSON path: {error}"
    if not is_valid:
        return f"accepted, but not valid: {text[:300]}"
    back = tokenizer.decode(tokens)
    return None if back == (text, len(tokens), len(tokens)) else f"comes back as {back[0][:300]}"


def walk(tokenizer, rng, max_tokens: int) -> tuple[list[int], bool]:
    """Return the tokens of a random document, and whether it ended by itself. Raises AssertionError at a dead end."""
    matcher, tokens = tokenizer.matcher(), []
    mask = matcher.allocate_token_bitmask()
    while not matcher.is_terminated() and len(tokens) < max_tokens:
        matcher.fill_next_token_bitmask(mask)
        allowed = allowed_tokens(mask)
        assert len(allowed), f"a dead end after {tokens}"
        tokens.append(int(rng.choice(allowed)))
        assert matcher.accept_token(tokens[-1]), f"only the mask allows the last of {tokens}"
    has_ended, ending = matcher.is_terminated(), matcher.closing_tokens()
    assert matcher.accept_tokens(ending) and matcher.is_terminated(), f"{ending} does not complete {tokens}"
    return tokens + ending, has_ended


def read_documents(folder: Path | None) -> list[tuple[str, Any]]:
    """Return the documents of a folder, or of the embedded sample, each with its name."""
    if folder is None:
        return compose_workflows(400)
    documents = []
    for name in tqdm(find_files(folder), desc="reading", unit="file", disable=None):
        try:
            documents.append((name, load_file(folder / name)))
        except ValueError:
            continue
    return documents


def report(summary: str, failures: list[str]) -> int:
    """Print the failures and the verdict. Return the exit status."""
    for failure in failures:
        print(f"  {failure}")
    print(f"{'FAILED' if failures else 'passed'}: {summary}; {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

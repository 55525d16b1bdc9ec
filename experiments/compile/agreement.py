"""Do tct and jsonschema-rs agree about documents of many schemas?

    python experiments/compile/agreement.py FOLDER [FOLDER ...] --walks 500 --mutants 2000

Folders as in study.py. For each schema that compiles, random walks over allowed tokens are completed: each must be
valid. Mutants of these documents, and of those that come with the schema, must have the same verdict from both.
Formats that are annotations for tct (`regex` and others that are not regular) are so for jsonschema-rs here.
"""

import argparse
import json
import random
import time
from pathlib import Path

import jsonschema_rs
from study import BUNDLED

from script_tools.bitmask import allowed_tokens
from script_tools.cli import ArgumentParser, cli_errors
from scripts.stress.mutations import Pool, mutate
from scripts.stress.tokenizer import fault
from tct import Tokenizer, UnsupportedSchemaError
from tct.formats import NOT_ENFORCED
from tct.json_text import compact
from tct.symbols import END_STRING

LONGEST = 60  # tokens of a walk before it is completed


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add("folders", "folders of schemas, or `bundled`", nargs="+", metavar="FOLDER")
    parser.add("--walks", "random walks for each schema", 500)
    parser.add("--mutants", "mutated documents for each schema", 2000)
    parser.add("--limit", "seconds for each schema", 60)
    parser.add("--seed", "seed of the random choices", 0)
    args = parser.parse_args(argv)
    totals = {"schemas": 0, "walks": 0, "mutants": 0, "valid mutants": 0, "failures": 0}
    for folder in args.folders:
        for file in sorted((BUNDLED if folder == "bundled" else Path(folder)).rglob("*.json")):
            counts = check(file, args, random.Random(args.seed))
            print(f"{file.stem:40}", ", ".join(f"{count:,} {name}" for name, count in counts.items()), flush=True)
            totals = {name: count + counts.get(name, 0) for name, count in totals.items()}
    print(", ".join(f"{count:,} {name}" for name, count in totals.items()))
    return 1 if totals["failures"] else 0


def check(file: Path, args, rng: random.Random) -> dict[str, int]:
    """Walk and mutate for one schema, until enough is done or the time is up. Print failures, and return counts."""
    content = json.loads(file.read_text("utf-8"))
    is_bench = isinstance(content, dict) and content.keys() >= {"schema", "tests"}
    schema, tests = (content["schema"], content["tests"]) if is_bench else (content, [])
    end = time.monotonic() + args.limit
    try:
        tokenizer = Tokenizer(schema)
    except UnsupportedSchemaError as error:
        return {f"refused because of {error.keyword}": 1}
    validator = jsonschema_rs.validator_for if "$schema" in schema else jsonschema_rs.Draft7Validator
    try:
        judge = validator(schema, formats=dict.fromkeys(NOT_ENFORCED, lambda text: True))
    except ValueError:  # jsonschema-rs checks patterns by its own dialect of regular expressions
        return {"not a schema for jsonschema-rs": 1}
    counts = {"schemas": 1, "walks": 0, "mutants": 0, "valid mutants": 0, "failures": 0}
    documents = [test["data"] for test in tests if test["valid"]]
    while counts["walks"] < args.walks and time.monotonic() < end - args.limit / 2:
        document = walk(tokenizer, rng)
        counts["walks"] += 1
        counts["failures"] += failed(tokenizer, compact(document), True, judge.is_valid(document))
        if "\\u0000" not in compact(document):  # it marks keys that a mutation repeats
            documents.append(document)
    documents = [document for document in documents if isinstance(document, (dict, list)) and document]
    pool = Pool(schema, documents)
    while documents and counts["mutants"] < args.mutants and time.monotonic() < end:
        text, mutations = mutate(rng.choice(documents), rng.choice((1, 1, 2, 3)), pool, rng)
        is_valid = "duplicate_key" not in mutations and judge.is_valid(json.loads(text))
        counts["mutants"] += 1
        counts["valid mutants"] += is_valid
        counts["failures"] += failed(tokenizer, text, is_valid, is_valid)
    return counts


def walk(tokenizer: Tokenizer, rng: random.Random) -> object:
    """Return a random document: half of the tokens are structure, if there is a choice."""
    matcher, tokens = tokenizer.matcher(), []
    mask, length = matcher.allocate_token_bitmask(), rng.randrange(LONGEST)
    while not matcher.is_terminated() and len(tokens) < length:
        matcher.fill_next_token_bitmask(mask)
        allowed = [int(token) for token in allowed_tokens(mask)]
        structure = [token for token in allowed if token >= END_STRING]
        tokens.append(rng.choice(structure if structure and rng.random() < 0.5 else allowed))
        assert matcher.accept_token(tokens[-1])
    return json.loads(tokenizer.decode([*tokens, *matcher.closing_tokens()])[0])


def failed(tokenizer: Tokenizer, text: str, expected: bool, is_valid: bool) -> bool:
    """Print what is wrong, and return whether something is."""
    reason = fault(tokenizer, text, is_valid) if expected == is_valid else f"is not valid: {text[:300]}"
    if reason and reason.startswith("comes back"):
        back = tokenizer.decode(tokenizer.encode(text))[0]
        if json.loads(text) == json.loads(back):
            return False  # a number that the schema names is spelled in its way: 2.0 comes back as 2
    if reason:
        print(f"  {reason}", flush=True)
    return bool(reason)


if __name__ == "__main__":
    raise SystemExit(main())

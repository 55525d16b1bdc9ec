"""Lint workflows: YAML, schema, and the rules that GitHub checks beyond the schema.

    python -m scripts.lint_workflow .github/workflows/ci.yml
    python -m scripts.lint_workflow workflows/ --format json
    python -m scripts.lint_workflow --list

Findings go to the standard output, and their number to the standard error. The exit code is 1 if there are findings,
and 0 if there are none.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from script_tools.cli import ArgumentParser, cli_errors
from tct_github_workflow.files import YAML_SUFFIXES, read_file
from tct_github_workflow.lint import SAYS, Problem, lint
from tct_github_workflow.rules import RULES
from workflow_data.sources import FolderSource, Selection


@cli_errors
def main(argv=None):
    args = parse_arguments(argv)
    if args.list:
        print_rules(args.format)
        return
    n_found, files = 0, find_workflows(args.files)
    for path in files:
        problems = lint(read_file(path))
        n_found += len(problems)
        for problem in problems:
            print(as_json(path, problem) if args.format == "json" else f"{path}:{problem}")
    print(f"{count(len(files), 'file')}, {count(n_found, 'finding') if n_found else 'no findings'}", file=sys.stderr)
    if n_found:
        raise SystemExit(1)


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def parse_arguments(argv):
    parser = ArgumentParser(prog="python -m scripts.lint_workflow", description=__doc__.split("\n")[0])
    add = parser.add_argument
    folders = (
        "YAML files, or folders: of a checkout only the files that GitHub runs, of others all .yml and .yaml files"
    )
    add("files", nargs="*", type=Path, metavar="PATH", help=folders)
    add("--format", choices=("text", "json"), default="text", help="text, or a JSON object per line (default: text)")
    add("--list", action="store_true", help="print the rules")
    args = parser.parse_args(argv)
    if not (args.files or args.list):
        raise ValueError("name the files or folders to lint (--help lists the flags)")
    return args


def find_workflows(paths: Iterable[Path]) -> list[Path]:
    """Return the files to lint. Raises OSError before any is linted if a path does not exist or cannot be listed."""
    found = []
    for path in paths:
        if path.is_dir():
            records = list(FolderSource(path, Selection()))
            if faults := [f"{path / record.name}: {record.fault[1]}" for record in records if record.fault]:
                raise OSError(faults[0])
            files = [record.path for record in records if record.path.suffix.lower() in YAML_SUFFIXES]
            if not files:
                raise FileNotFoundError(f"there is no .yml or .yaml file in {path}")
            found += files
        elif path.exists():
            found.append(path)
        else:
            raise FileNotFoundError(f"{path} does not exist")
    return found


def as_json(path: Path, problem: Problem) -> str:
    return json.dumps({"file": str(path), **vars(problem)}, ensure_ascii=False)


def print_rules(format: str):
    """Print the name of each rule and what it requires; as JSON also its page in GitHub's documentation."""
    width = max(map(len, SAYS))
    for name, says in SAYS.items():
        page = RULES[name].page if name in RULES else None
        print(
            json.dumps({"rule": name, "says": says, "page": page}) if format == "json" else f"{name:<{width}}  {says}"
        )


if __name__ == "__main__":
    main()

"""Build the table of known actions: what at least three owners of a corpus use.

    python tct-bundle/scripts/build_known_actions.py --corpus WORKFLOWS \
        --output tct-bundle/src/tct_github_workflow/rules/known_actions.json

The most frequent come first. Actions and workflows of the same repository (`./`) and images are left out, because they
depend on the repository. The same corpus gives the same bytes.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_json
from tct.bpe import MIN_OWNERS
from tct_github_workflow.files import find_files, load_file, owner_of

Owners = defaultdict[Any, set[str]]  # what is used -> who uses it


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    corpus = "folder of .json/.yml/.yaml documents, with one folder for each owner: OWNER or OWNER__REPOSITORY"
    parser.add("--corpus", corpus, type=Path, required=True)
    parser.add("--output", "table to write, a .json file", type=Path, required=True)
    args = parser.parse_args(argv)
    table = build(args.corpus)
    if not table["refs"]:
        raise ValueError(f"--corpus {args.corpus}: no action is used by {MIN_OWNERS} owners")
    write_json(args.output, table, indent=0)
    n_refs, n_inputs = (sum(map(len, table[name].values())) for name in ("refs", "inputs"))
    print(f"{len(table['refs'])} actions, {n_refs} refs, {n_inputs} inputs, {len(table['workflows'])} workflows")


def build(corpus: Path) -> dict[str, Any]:
    """Return the fields of KnownActions for a corpus."""
    actions, inputs, workflows = defaultdict(set), defaultdict(set), defaultdict(set)
    for name in tqdm(find_files(corpus), desc="reading", unit="file", disable=None):
        try:
            workflow = load_file(corpus / name)
        except (OSError, ValueError):
            continue
        owner = owner_of(name)
        for job in members(members(workflow).get("jobs")).values():
            if is_remote(uses := members(job).get("uses")):
                workflows[uses].add(owner)
            for step in steps_of(job):
                if is_remote(uses := step.get("uses")):
                    action, _, ref = uses.partition("@")
                    actions[action, ref].add(owner)
                    for key in members(step.get("with")):
                        inputs[action, key].add(owner)
    refs = by_action(actions)
    known = {action: names for action, names in by_action(inputs).items() if action in refs}
    return {"refs": refs, "inputs": known, "workflows": frequent(workflows)}


def members(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def steps_of(job: Any) -> Iterator[dict[str, Any]]:
    steps = members(job).get("steps")
    return (step for step in steps if isinstance(step, dict)) if isinstance(steps, list) else iter(())


def is_remote(uses: Any) -> bool:
    """Is this an action or workflow of another repository, with a ref?"""
    return isinstance(uses, str) and "@" in uses and not uses.startswith(("./", "docker://"))


def by_action(owners: Owners) -> dict[str, list[str]]:
    """Return the names of each action: keys are (action, name)."""
    found: dict[str, list[str]] = {}
    for action, name in frequent(owners):
        found.setdefault(action, []).append(name)
    return found


def frequent(owners: Owners) -> list[Any]:
    """Return what at least three owners use, the most frequent first."""
    known = [name for name in owners if len(owners[name]) >= MIN_OWNERS]
    return sorted(known, key=lambda name: (-len(owners[name]), name))


if __name__ == "__main__":
    main()

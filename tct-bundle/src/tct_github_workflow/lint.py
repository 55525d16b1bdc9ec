"""Lint the text of a workflow: its YAML, its schema and GitHub's rules.

>>> for problem in lint("on: push\\njobs:\\n  a:\\n    runs-on: x\\n    steps: [{run: '${{ steps.b }}'}]"):
...     print(problem)
5:14: there is no property 'b' in `steps.b` [undefined-property]
"""

from dataclasses import dataclass

from tct.errors import SchemaValidationError
from tct.json_text import compact

from . import encode
from .rules import RULES, check
from .workflow_yaml import WorkflowSyntaxError, load_with_positions

# The rules that a text can break: what is not in RULES comes first.
SAYS = {
    "yaml": "The file is one YAML document without duplicate keys.",
    "schema": "The workflow is valid under the JSON schema of GitHub workflows; the first fault is found.",
    **{rule.name: rule.says for rule in RULES.values()},
}


@dataclass(frozen=True)
class Problem:
    """A fault in the text of a workflow. Line and column count from 1."""

    line: int
    column: int
    rule: str  # one of SAYS
    message: str
    path: tuple[str | int, ...] = ()  # keys and indices

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {self.message} [{self.rule}]"


def lint(text: str | bytes) -> list[Problem]:
    """Return what is wrong in a workflow, in the order of the text.

    A problem stands where the key of its value does, or where an item of an array begins. What is inside an alias
    stands where its anchor is, and is returned once.
    """
    try:
        value, positions = load_with_positions(text)
        findings = [(finding.path, finding.rule, finding.message) for finding in check(value)]
        findings += _schema_fault(value, {path for path, _, _ in findings})
    except WorkflowSyntaxError as error:
        return [Problem(error.line or 1, error.column or 1, "yaml", error.problem)]
    except RecursionError:
        return [Problem(1, 1, "yaml", "nested too deeply")]
    problems = {}
    for path, rule, message in findings:
        place = positions.find(path)
        problems.setdefault((place, rule, message), Problem(*place, rule, message, path))
    return sorted(problems.values(), key=lambda problem: (problem.line, problem.column))


def _schema_fault(value, found: set[tuple]) -> list[tuple]:
    """Return the first fault that the schema finds, unless a rule has found it in the same value or its parent."""
    try:
        encode(compact(value))
    except SchemaValidationError as error:
        if found.isdisjoint((error.steps, error.steps[:-1])):
            return [(error.steps, "schema", error.reason)]
    return []

"""The table of rules: it has every rule, and its examples pass and fail as it says."""

import ast
import re
from pathlib import Path

import pytest

import tct_github_workflow
from tct_github_workflow.rules import KNOWN_RULES, RULES, check, example
from workflow_synth.compose import compose_workflows

PACKAGE = Path(tct_github_workflow.__file__).parent / "rules"
OF_GENERATION = {"schema", "no-ending"}  # why a state refuses to continue a text; `check` never finds them


def raised() -> set[str]:
    """Return the names of rules that the package uses: the first arguments of Fault, Format, _pattern and one_of."""
    calls = [node for path in PACKAGE.glob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    return {
        call.args[0].value
        for call in calls
        if isinstance(call, ast.Call)
        and getattr(call.func, "id", "") in ("Fault", "Format", "_pattern", "one_of")
        and call.args
        and isinstance(call.args[0], ast.Constant)
    }


def test_the_table_has_every_rule():
    assert raised() - OF_GENERATION == RULES.keys() | KNOWN_RULES.keys()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_passing_examples_have_no_finding(rule):
    assert rule.passes and [check(example(text)) for text in rule.passes] == [[] for _ in rule.passes]


@pytest.mark.parametrize("rule, text", [(rule, text) for rule in RULES.values() for text in rule.fails])
def test_failing_examples_break_their_rule_only(rule, text):
    assert [finding.rule for finding in check(example(text))] == [rule.name]


@pytest.mark.parametrize("rule", KNOWN_RULES.values(), ids=KNOWN_RULES)
def test_only_known_actions(rule):
    for text in rule.passes:
        assert check(example(text), known_actions=True) == []
    for text in rule.fails:
        assert check(example(text)) == []
        assert [finding.rule for finding in check(example(text), known_actions=True)] == [rule.name]


@pytest.mark.parametrize("rule", [*RULES.values(), *KNOWN_RULES.values()], ids=[*RULES, *KNOWN_RULES])
def test_every_rule_is_described(rule):
    assert rule.fails and rule.page.startswith("https://docs.github.com/en/actions/")
    assert re.fullmatch(r"[A-Z`].*[^.]\.", rule.says) and re.fullmatch("[a-z]+(-[a-z]+)*", rule.name)


def test_synthetic_workflows_have_no_finding():
    found = [f"{name}: {finding}" for name, workflow in compose_workflows(400) for finding in check(workflow)]
    assert not found

"""What an editor shows at the caret without a model: words that fit, and descriptions."""

import pytest

from tct_github_workflow.caret import describe_at, suggest
from tct_github_workflow.descriptions import describe
from tct_github_workflow.lint import lint
from tct_github_workflow.rules.places import place_of
from tct_github_workflow.scalars import scalars
from tct_github_workflow.workflow_yaml import dump_workflow
from workflow_synth.compose import compose_workflows

JOB = "on: push\njobs:\n  test:\n    runs-on: ubuntu-latest\n"
STEPS = JOB + "    steps:\n      - uses: actions/checkout@v4\n"


def words(text: str) -> list[str]:
    """Return the words that fit at the ¦ in a text."""
    before, after = text.split("¦")
    found = suggest(before + after, len(before))
    return [word.text for word in found.words] if found else []


@pytest.mark.parametrize(
    "text, some, none",
    [
        ("¦", "on jobs name", "steps"),
        ("on: ¦", "push pull_request", "schedule"),  # which needs settings
        ("on: [push, ¦", "release", "schedule"),
        ("on:\n  ¦\njobs: {}", "push schedule", "jobs"),
        ("on:\n  push:\n    tags: [v1]\n    ¦", "branches paths", "tags tags-ignore types"),
        (JOB + "    ¦", "steps needs", "runs-on uses"),
        (JOB + "    needs: ¦\n  build: {}\n", "build", "test"),
        (JOB + "    needs: [¦\n  build: {}\n", "", "test"),
        (JOB.replace("ubuntu-latest", "ubuntu-¦"), "ubuntu-latest windows-latest", "self-hosted"),
        (JOB + "    continue-on-error: ¦", "true false", "yes"),
        (STEPS + "        ¦", "with name", "uses run shell"),
        (STEPS + "      - ¦\n        run: make", "shell name", "uses run"),
        (STEPS + "      - run: make\n        shell: ¦", "bash pwsh", "fish"),
        (STEPS + "      - uses: actions/¦", "actions/setup-node@v4", ""),
        (STEPS + "        with:\n          ref: main\n          ¦", "fetch-depth", "ref node-version"),
        (STEPS + "        with: {¦}", "fetch-depth", "node-version"),
        ("permissions:\n  ¦\n" + JOB, "contents", "read-all models"),
        ("permissions:\n  contents: ¦\n" + JOB, "read write none", "admin"),
    ],
)
def test_words_are_those_that_fit(text, some, none):
    found = words(text)
    assert set(some.split()) <= set(found)
    assert set(none.split()).isdisjoint(found)


@pytest.mark.parametrize("text", ["# ¦", "name: a ¦", STEPS + "      - run: |\n          ¦", "a: [}\n¦", "on:¦"])
def test_free_text_has_no_words(text):
    assert not words(text)


def test_keys_come_with_their_colon():
    found = {word.text: word.insert for word in suggest(JOB + "    ", len(JOB) + 4).words}
    assert (found["steps"], found["needs"]) == ("steps:", "needs: ")
    before_colon = JOB + "    step: []"
    assert "steps" in [word.insert for word in suggest(before_colon, len(JOB) + 6).words]


def test_the_whole_word_is_replaced():
    text = JOB.replace("ubuntu-latest", "win/dows")
    found = suggest(text, text.index("/"))
    assert text[found.start : found.end] == "win/dows" and found.is_value


@pytest.mark.parametrize("workflow", [dump_workflow(workflow) for _, workflow in compose_workflows(8, seed=3)])
def test_words_break_no_rule(workflow):
    values = [scalar for scalar in scalars(workflow) if not scalar.is_key]
    for value in values:
        for word in suggest(workflow, value.start).words[:3]:
            changed = workflow[: value.start] + word.insert + workflow[value.end :]
            rules = {problem.rule for problem in lint(changed)}
            assert rules.isdisjoint({"yaml", "schema", "choice", "uses", "value-type", "shell"}), changed


@pytest.mark.parametrize("path", [(), ("on",), ("jobs", "a"), ("jobs", "a", "steps", 0), ("jobs", "a", "strategy")])
def test_keys_that_the_rules_know_have_descriptions(path):
    for key in place_of(path).members:
        assert len(describe((*path, key)).split("\n\n")) >= 2, key


def test_scalars_know_where_they_stand():
    text = "a: [1, {b: c}]\nd: &x {e: 'f'}\ng: *x\nh:\ni: j\n"
    found = list(scalars(text))
    assert [scalar.path for scalar in found if not scalar.is_key] == [
        ("a", 0),
        ("a", 1, "b"),
        ("d", "e"),
        ("h",),
        ("i",),
    ]
    assert all(text[scalar.start : scalar.end].strip("'") == scalar.text for scalar in found)


def test_scripts_have_no_description():
    text = STEPS + "      - run: |\n          push\n"
    assert describe_at(text, text.index("push\n", len(STEPS))) is None

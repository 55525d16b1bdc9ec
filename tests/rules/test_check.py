"""Checking: a fault that is put into a clean workflow is found, and no value makes the check fail."""

import copy
import re
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tct_github_workflow.rules import RULES, check
from tct_github_workflow.rules.places import place_of
from tct_github_workflow.rules.scope import OpenArray, OpenObject
from workflow_synth.compose import compose_workflows

WORKFLOWS = [workflow for _, workflow in compose_workflows(200)]


# -----------------------------------------------------------------------------
# faults: each function changes a workflow wherever the fault can be, and yields once for each place

FAULTS = {}


def fault(rule: str):
    """Register a function that makes faults which break a rule."""

    def register(function):
        FAULTS[function.__name__] = rule, function
        return function

    return register


def jobs_with_steps(workflow) -> list[dict]:
    return [job for job in workflow["jobs"].values() if job.get("steps")]


def steps(workflow) -> list[dict]:
    return [step for job in jobs_with_steps(workflow) for step in job["steps"]]


def texts(value, path=()) -> Iterator[tuple[tuple, str]]:
    """Yield the path of each text, and the text."""
    if isinstance(value, str):
        yield path, value
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from texts(part, (*path, key))


def replaced(root, path, value):
    """Return a copy of a value with another one at a path."""
    root = holder = copy.deepcopy(root)
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return root


def with_change(workflow, choose, change) -> Iterator[dict]:
    """Yield a copy for each of the chosen parts, in which this part is changed."""
    for index in range(len(choose(workflow))):
        changed = copy.deepcopy(workflow)
        if change(choose(changed)[index]) is not False:
            yield changed


def rewritten(workflow, pattern: str, repl) -> Iterator[dict]:
    """Yield a copy for each text in which a pattern occurs, with its first occurrence replaced."""
    for path, text in texts(workflow):
        if re.search(pattern, text):
            yield replaced(workflow, path, re.sub(pattern, repl, text, count=1))


def remove(*keys):
    """Return a change that removes the keys that an object has, and refuses objects without any."""

    def change(holder):
        found = [holder.pop(key) for key in keys if key in holder]
        return bool(found)

    return change


@fault("needs")
def renamed_needed_job(workflow):
    for path, text in texts(workflow):
        if path[2:3] == ("needs",):
            yield replaced(workflow, path, f"{text}-2")


@fault("needs")
def job_that_needs_itself(workflow):
    for name in workflow["jobs"]:
        yield replaced(workflow, ("jobs", name, "needs"), name)


@fault("undefined-property")
def removed_needs(workflow):
    for name, job in workflow["jobs"].items():
        if re.search(r"\bneeds\.[a-z]", str(job)):
            yield replaced(workflow, ("jobs", name), {key: value for key, value in job.items() if key != "needs"})


def referred_steps(workflow) -> list[tuple[str, int]]:
    """Return the jobs and indices of the steps to which expressions in other places of their job refer."""
    found = []
    for name, job in workflow["jobs"].items():
        for index, step in enumerate(job.get("steps", ())):
            if "id" in step and f"steps.{step['id']}." in str(job):
                found.append((name, index))
    return found


@fault("undefined-property")
def renamed_step(workflow):
    for job, index in referred_steps(workflow):
        yield replaced(workflow, ("jobs", job, "steps", index, "id"), "another")


@fault("undefined-property")
def removed_step(workflow):
    for job, index in referred_steps(workflow):
        rest = workflow["jobs"][job]["steps"]
        yield replaced(workflow, ("jobs", job, "steps"), rest[:index] + rest[index + 1 :])


@fault("undefined-property")
def step_moved_to_the_end(workflow):
    for job, index in referred_steps(workflow):
        rest = list(workflow["jobs"][job]["steps"])
        if f"steps.{rest[index]['id']}." in str(rest):  # not only in the outputs of the job
            rest.append(rest.pop(index))
            yield replaced(workflow, ("jobs", job, "steps"), rest)


@fault("undefined-property")
def renamed_property(workflow):
    yield from rewritten(workflow, r"(\$\{\{ (matrix|inputs|github|runner)\.[a-z_-]+)(?![a-z_.-])", r"\1_x")


@fault("expression-syntax")
def cut_expression(workflow):
    yield from rewritten(workflow, r"(\$\{\{ *[a-z]+\.).*?\}\}", r"\1 }}")


@fault("expression-syntax")
def open_expression(workflow):
    yield from rewritten(workflow, r"(?s)(\$\{\{.*?)\}\}.*", r"\1")


@fault("expression-syntax")
def unknown_context(workflow):
    yield from rewritten(workflow, r"\$\{\{ github\.", "${{ gihub.")


@fault("context-availability")
def secret_in_a_condition(workflow):
    yield from with_change(workflow, steps, lambda step: step.update({"if": "secrets.TOKEN != ''"}))


@fault("constant-condition")
def text_around_a_condition(workflow):
    yield from with_change(workflow, steps, lambda step: step.update({"if": "${{ github.ref == 'x' }} || false"}))


@fault("function-arguments")
def missing_argument(workflow):
    yield from with_change(workflow, steps, lambda step: step.update({"if": "contains(github.ref)"}))


@fault("expression-type")
def condition_on_objects(workflow):
    yield from with_change(workflow, steps, lambda step: step.update({"if": "github.event == 1"}))


@fault("expression-place")
def expression_in_the_name_of_the_workflow(workflow):
    yield workflow | {"name": "CI of ${{ github.ref }}"}


@fault("script-injection")
def untrusted_text_in_a_script(workflow):
    def change(step):
        if "run" not in step:
            return False
        step["run"] += "\necho ${{ github.event.pull_request.title }}"

    yield from with_change(workflow, steps, change)


@fault("deprecated-command")
def disabled_command(workflow):
    def change(step):
        if "run" not in step:
            return False
        step["run"] += "\necho '::set-output name=a::b'"

    yield from with_change(workflow, steps, change)


@fault("duplicate-id")
def copied_step(workflow):
    for name, job in workflow["jobs"].items():
        for index, step in enumerate(job.get("steps", ())):
            if "id" in step:
                copied = [*job["steps"], step | {"id": step["id"].upper()}]
                yield replaced(workflow, ("jobs", name, "steps"), copied)


@fault("duplicate-key")
def copied_job(workflow):
    name, job = next(iter(workflow["jobs"].items()))
    yield replaced(workflow, ("jobs", name.swapcase()), job)


@fault("missing-key")
def removed_runner(workflow):
    yield from with_change(workflow, jobs_with_steps, remove("runs-on"))


@fault("missing-key")
def removed_steps(workflow):
    yield from with_change(workflow, jobs_with_steps, remove("steps"))


@fault("missing-key")
def removed_command(workflow):
    yield from with_change(workflow, steps, remove("run", "uses", "with"))


@fault("empty-value")
def emptied_steps(workflow):
    yield from with_change(workflow, jobs_with_steps, lambda job: job["steps"].clear())


@fault("mixed-kinds")
def script_and_action(workflow):
    yield from with_change(workflow, steps, lambda step: step.update({"run": "make", "uses": "a/b@v1"}))


@fault("unknown-key")
def unknown_key_of_a_step(workflow):
    yield from with_change(workflow, steps, lambda step: step.update({"script": "make"}))


@fault("value-type")
def number_as_environment(workflow):
    yield from with_change(workflow, jobs_with_steps, lambda job: job.update({"env": 1}))


@fault("identifier")
def id_with_a_blank(workflow):
    yield from with_change(workflow, steps, lambda step: step.update({"id": "my step"}))


@fault("environment-variable")
def variable_with_a_blank(workflow):
    yield from with_change(workflow, jobs_with_steps, lambda job: job.update({"env": {"A B": "c"}}))


@fault("uses")
def action_without_version(workflow):
    yield from with_change(
        workflow,
        lambda changed: [step for step in steps(changed) if "@" in step.get("uses", "")],
        lambda step: step.update({"uses": step["uses"].split("@")[0]}),
    )


@fault("cron")
def schedule_without_a_field(workflow):
    for path, text in texts(workflow):
        if path[-1] == "cron":
            yield replaced(workflow, path, text.rpartition(" ")[0])


@fault("glob")
def pattern_with_an_open_bracket(workflow):
    for path, text in texts(workflow["on"]):
        if path[1:2] in (("branches",), ("tags",), ("paths",)):
            yield replaced(workflow, ("on", *path), f"{text}[")


@fault("choice")
def unknown_permission(workflow):
    for path, text in texts(workflow):
        if "permissions" in path:
            yield replaced(workflow, path, "all")


@fault("positive-number")
def no_time(workflow):
    yield from with_change(workflow, jobs_with_steps, lambda job: job.update({"timeout-minutes": 0}))


@fault("shell")
def unknown_shell(workflow):
    yield from with_change(
        workflow,
        lambda changed: [step for step in steps(changed) if "run" in step],
        lambda step: step.update({"shell": "fish"}),
    )


@fault("matrix-duplicate")
def repeated_value(workflow):
    for name, job in workflow["jobs"].items():
        for row, values in job.get("strategy", {}).get("matrix", {}).items():
            if row not in ("include", "exclude") and isinstance(values, list):
                yield replaced(workflow, ("jobs", name, "strategy", "matrix", row), [*values, values[0]])


@fault("matrix-exclude")
def excluded_value_that_is_not_there(workflow):
    for path, text in texts(workflow):
        if "exclude" in path:
            yield replaced(workflow, path, f"{text}-2")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(name):
    rule, make = FAULTS[name]
    changed = [(workflow, copied) for workflow in WORKFLOWS for copied in islice(make(workflow), 2)]
    assert changed
    for workflow, copied in changed:
        assert copied != workflow and rule in {finding.rule for finding in check(copied)}, copied


def test_the_faults_break_most_rules():
    broken = {rule for rule, _ in FAULTS.values()}
    assert RULES.keys() - broken == {"runs-on", "filters", "inputs"}  # the examples in the table break these


# -----------------------------------------------------------------------------
# any value

SCALARS = st.sampled_from(
    [None, True, 0, -1.5, "", "a", "1", "${{ a", "${{ github }}", "${{ matrix.os }}", "x y", "é\n"]
)
KEYS = st.sampled_from(["", "a", "A", "os", "on", "jobs", "needs", "steps", "run", "uses", "env", "include", "exclude"])
VALUES = st.recursive(SCALARS, lambda parts: st.lists(parts, max_size=3) | st.dictionaries(KEYS, parts, max_size=3))


def all_paths(value, path=()):
    """Return the paths of a value and all its parts."""
    found = [path]
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        found += all_paths(part, (*path, key))
    return found


PATHS = [all_paths(workflow) for workflow in WORKFLOWS]


def at(value, path):
    """Return the part of a value at a path. Raises LookupError or TypeError if there is none."""
    for key in path:
        value = value[key]
    return value


@settings(max_examples=500)
@given(st.integers(0, len(WORKFLOWS) - 1), st.data())
def test_no_value_makes_the_check_fail(index, data):
    path = data.draw(st.sampled_from(PATHS[index]))
    value = data.draw(VALUES)
    workflow = replaced({"w": WORKFLOWS[index]}, ("w", *path), value)["w"]
    if isinstance(part := at(workflow, path[:-1]), dict) and path:
        part[data.draw(KEYS)] = data.draw(VALUES)
    before = copy.deepcopy(workflow)
    for finding in check(workflow):
        at(workflow, finding.path)
        assert finding.rule in RULES and finding.message and "\n" not in str(finding)
    assert workflow == before


@settings(max_examples=300)
@given(st.sampled_from(WORKFLOWS), st.data())
def test_an_open_workflow_breaks_only_rules_that_stay_broken(workflow, data):
    changed = list(data.draw(st.sampled_from([make for _, make in FAULTS.values()]))(workflow))
    workflow = data.draw(st.sampled_from(changed)) if changed else workflow
    beginning = opened(workflow, data.draw(st.sampled_from(all_paths(workflow))))
    assert {finding.rule for finding in check(beginning)} <= {finding.rule for finding in check(workflow)}


def opened(value, path):
    """Return the parts of a value up to a path, with the containers around it open."""
    if not path:
        return value
    if isinstance(value, list):
        return OpenArray([*value[: path[0]], opened(value[path[0]], path[1:])])
    kept = OpenObject()
    for key, member in value.items():
        kept[key] = member if key != path[0] else opened(member, path[1:])
        if key == path[0]:
            break
    return kept


@pytest.mark.parametrize(
    "value", [None, 1, "a", [], {}, {"on": None, "jobs": None}, {"jobs": {"a": []}}, {"jobs": [{}]}]
)
def test_what_is_not_a_workflow_has_findings(value):
    assert check(value)


def test_each_key_of_synthetic_workflows_has_a_place():
    assert all(place_of(path) for paths in PATHS for path in paths)

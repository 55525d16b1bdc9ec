"""What the parts of a workflow must fulfil beyond their place: the checks of scalars, keys, objects and arrays.

A check raises Fault if its part breaks a rule, whatever else the workflow may get. So it serves for complete workflows
and for those that are still being written: their last containers are open (scope.py), and what may still come is not
missed.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from typing import Any, NamedTuple

from tct.json_text import compact

from .formats import VARIABLE, platform_of, shell_fault
from .places import Place
from .scope import FLOAT, OpenArray, OpenObject, Path, Workflow, is_complete, items, may_come, members
from .templates import OPEN, check_text, has_expression
from .types import Fault, Promise

MAX_INPUTS = 10  # of workflow_dispatch; GitHub has raised it to 25, but actionlint 1.7.7 refuses more than 10
STEPS_KEYS = frozenset(
    [
        "runs-on",
        "environment",
        "outputs",
        "env",
        "defaults",
        "steps",
        "timeout-minutes",
        "continue-on-error",
        "container",
        "services",
    ]
)
CALL_KEYS = frozenset(["uses", "with", "secrets"])
RUN_KEYS = frozenset(["run", "shell", "working-directory"])
USES_KEYS = frozenset(["uses", "with"])

Promises = set[Promise]


class Spot(NamedTuple):
    """One place of one workflow."""

    workflow: Workflow
    path: Path
    place: Place

    @property
    def job(self) -> dict[str, Any]:
        """The job around the place."""
        return members(self.workflow.jobs.get(self.path[1]))

    def contexts(self, name: str):
        return self.workflow.context(name, self.path)


def kind_of(value: Any) -> str:
    """Return the JSON type of a value."""
    if isinstance(value, (dict, list)):
        return "object" if isinstance(value, dict) else "array"
    return (
        "string"
        if isinstance(value, str)
        else "boolean"
        if isinstance(value, bool)
        else "null"
        if value is None
        else "number"
    )


def check_kind(place: Place, kind: str) -> None:
    """Check that a value of this kind may stand in a place."""
    if not place.takes(kind):
        kinds = [k for k in ("string", "number", "boolean", "null", "object", "array") if place.takes(k)]
        article = "an" if kind[0] in "ao" else "a"
        raise Fault(
            "value-type", f"expected {' or '.join(kinds)}, not {article} {kind}".replace("not a null", "not null")
        )


def check_scalar(spot: Spot, value: Any) -> Promises:
    """Check a text, number, boolean or null. Return what it promises (see `Typing.promises`)."""
    place = spot.place
    check_kind(place, kind_of(value))
    if isinstance(value, str):
        return check_string(spot, value)
    return _special_checks(spot, value)


def check_string(spot: Spot, value: str) -> Promises:
    """Check a text: its form, or its expressions, and what depends on its neighbours."""
    place, template = spot.place, spot.place.template
    if not (value or template.may_be_empty):
        raise Fault("empty-value", "the text is empty")
    if place.format and not has_expression(value):
        if fault := place.format.fault(value):
            raise Fault(place.format.rule, fault)
    promises = check_text(value, template, spot.contexts, is_script=is_script(spot))
    return promises | _special_checks(spot, value)


def _special_checks(spot: Spot, value: Any) -> Promises:
    return set().union(*(check(spot, value) or () for check in SCALAR_CHECKS.get(spot.place.name, ())))


def is_script(spot: Spot) -> bool:
    """Is a text run: as a script of a shell, or by actions/github-script?"""
    if spot.place.is_script:
        return True
    if spot.place.name != "jobs.*.steps.*.with.*" or spot.path[-1].lower() != "script":
        return False
    uses = members(spot.job["steps"][spot.path[3]]).get("uses")
    return isinstance(uses, str) and uses.startswith("actions/github-script@")


def check_key(spot: Spot, key: str, siblings: Iterable[str]) -> Promises:
    """Check a key of the object at a place, given the keys before it. Return what it promises."""
    place = spot.place
    if key in (place.members or ()):
        is_fixed = place.others is None
    elif place.others is None:
        raise Fault("unknown-key", f"{key!r} is not one of {', '.join(sorted(place.members))}")
    else:
        is_fixed = False
        if not key:
            raise Fault("empty-value", "the key is empty")
        if place.key and not has_expression(key) and (fault := place.key.fault(key)):
            raise Fault(place.key.rule, fault)
        if OPEN in key:
            return check_key_expression(spot, key)
    if not is_fixed and key.lower() in map(str.lower, siblings):
        raise Fault("duplicate-key", f"{key!r} is there already: upper and lower case make no difference")
    return set()


def check_key_expression(spot: Spot, key: str) -> Promises:
    """Check a key with expressions. Only the names of environment variables may have them."""
    if spot.place.key is not VARIABLE:
        raise Fault("expression-place", "expressions are not evaluated in keys")
    return check_text(key, spot.place.key_template, spot.contexts)


def check_container(spot: Spot, value: dict | list) -> None:
    """Check an object or array, complete or not."""
    for check in CONTAINER_CHECKS.get(spot.place.name, ()):
        check(spot, value)
    if is_complete(value):
        if not value and not spot.place.may_be_empty:
            raise Fault("empty-value", f"the {kind_of(value)} is empty")
        if isinstance(value, dict):
            for key in spot.place.required:
                if key not in value:
                    raise Fault("missing-key", f"{key!r} is missing")


# ---------------------------------------------------------------------------------------------------------
# scalars

SCALAR_CHECKS: dict[str, list[Callable[[Spot, Any], Promises | None]]] = {}
CONTAINER_CHECKS: dict[str, list[Callable[[Spot, Any], None]]] = {}


def scalar_at(*places: str):
    """Register a check of the scalars at some places."""

    def register(check):
        for place in places:
            SCALAR_CHECKS.setdefault(place, []).append(check)
        return check

    return register


def container_at(*places: str):
    """Register a check of the objects and arrays at some places."""

    def register(check):
        for place in places:
            CONTAINER_CHECKS.setdefault(place, []).append(check)
        return check

    return register


LARGEST_NUMBER = 2**31 - 1  # of our choice: actionlint's limits are 64 bits or infinity, and none is so useful


@scalar_at("jobs.*.timeout-minutes", "jobs.*.steps.*.timeout-minutes", "jobs.*.strategy.max-parallel")
def positive_number(spot: Spot, value: Any) -> None:
    if isinstance(value, str):
        return
    if not value > 0:
        raise Fault("positive-number", f"{value} is not greater than zero")
    if value > LARGEST_NUMBER:
        raise Fault("positive-number", f"the number is greater than {LARGEST_NUMBER}")


@scalar_at("jobs.*.strategy.max-parallel")
def whole_number(spot: Spot, value: Any) -> None:
    if isinstance(value, float):
        raise Fault("positive-number", f"{value} is not a whole number")


DEPRECATED = re.compile(r"::(save-state|set-output|set-env)\s+name=[a-zA-Z][a-zA-Z_-]*::\S+|::(add-path)::\S+")


@scalar_at("jobs.*.steps.*.run")
def deprecated_command(spot: Spot, value: str) -> None:
    if match := DEPRECATED.search(value):
        name = match[1] or match[2]
        raise Fault("deprecated-command", f"the command {name!r} no longer works: write to $GITHUB_OUTPUT and the like")


@scalar_at("jobs.*.runs-on.group")
def runner_group(spot: Spot, value: str) -> None:
    owner, slash, group = value.partition("/")
    is_named = owner in ("organization", "org", "enterprise", "ent") and group and "/" not in group
    if OPEN not in value and slash and not is_named:
        raise Fault("runs-on", f"the runner group {value!r} is not a name, organization/name or enterprise/name")


@scalar_at("jobs.*.needs", "jobs.*.needs.*")
def needed_job(spot: Spot, value: str) -> Promises:
    """Check that a job can need another one, which may still come."""
    workflow, job = spot.workflow, spot.path[1]
    known = workflow.job_ids.get(value.lower())
    if known is not None and known != value:
        raise Fault("needs", f"the job is {known!r}, not {value!r}")
    if known is None and not workflow.jobs_may_come:
        raise Fault("needs", f"there is no job {value!r}")
    if workflow.depends(value.lower(), job.lower()):
        raise Fault("needs", f"the jobs {job!r} and {value!r} need each other")
    return set() if known else {(("jobs",), value.lower())}


@container_at("jobs.*.needs")
def distinct_needs(spot: Spot, value: list) -> None:
    seen = set()
    for need in value:
        if isinstance(need, str):
            if need.lower() in seen:
                raise Fault("needs", f"{need!r} is there twice")
            seen.add(need.lower())


# ---------------------------------------------------------------------------------------------------------
# jobs and steps


def _one_kind(value: dict, kinds: dict[str, frozenset[str]], required: dict[str, tuple[str, ...]]) -> None:
    """Check that an object has the keys of one kind only, and, if it is complete, those that the kind requires."""
    found = {kind: key for kind, keys in kinds.items() for key in value if key in keys}
    if len(found) > 1:
        (one, key), (other, other_key) = found.items()
        raise Fault("mixed-kinds", f"{key!r} is for {one}, but {other_key!r} is for {other}")
    if is_complete(value):
        kind = next(iter(found), next(iter(kinds)))
        for key in required[kind]:
            if key not in value:
                raise Fault("missing-key", f"{key!r} is missing in {kind}")


@container_at("jobs.*")
def job_kind(spot: Spot, value: dict) -> None:
    kinds = {"a job with steps": STEPS_KEYS, "a call of a workflow": CALL_KEYS}
    _one_kind(value, kinds, {"a job with steps": ("runs-on", "steps"), "a call of a workflow": ("uses",)})


@container_at("jobs.*.steps.*")
def step_kind(spot: Spot, value: dict) -> None:
    kinds = {"a script": RUN_KEYS, "an action": USES_KEYS}
    _one_kind(value, kinds, {"a script": ("run",), "an action": ("uses",)})


@container_at("jobs.*.steps.*")
def known_inputs(spot: Spot, value: dict) -> None:
    """Check that the action of a step takes the inputs that it gets, if only known actions are allowed."""
    if spot.place.known and isinstance(given := value.get("with"), dict):
        uses = value.get("uses")
        if fault := spot.place.known.fault(uses if isinstance(uses, str) else None, given):
            raise Fault("known-input", fault)


@scalar_at("jobs.*.steps.*.id")
def distinct_ids(spot: Spot, value: str) -> None:
    for step in spot.job["steps"][: spot.path[3]]:
        if isinstance(id := members(step).get("id"), str) and id.lower() == value.lower():
            raise Fault("duplicate-id", f"an earlier step has the id {id!r}: upper and lower case make no difference")


@container_at("jobs")
def exact_job_ids(spot: Spot, value: dict) -> None:
    """Check that the jobs that others need have their ids in the same case."""
    workflow = spot.workflow
    if is_complete(value):
        return  # needed_job has checked it
    wanted: dict[str, str] = {}
    for job in value:
        for need in workflow.needs_of(job):
            known = wanted.setdefault(need.lower(), workflow.job_ids.get(need.lower(), need))
            if known != need:
                raise Fault("needs", f"the job is {known!r}, not {need!r}")


def _labels(runs_on: Any) -> list[str]:
    if isinstance(runs_on, dict):
        runs_on = runs_on.get("labels")
    return (
        [runs_on]
        if isinstance(runs_on, str)
        else [x for x in runs_on if isinstance(x, str)]
        if isinstance(runs_on, list)
        else []
    )


@container_at("jobs.*")
def shells_of_job(spot: Spot, value: dict) -> None:
    """Check that the runner has the shells of the job."""
    runs_on = value.get("runs-on")
    if runs_on is None or not is_complete(runs_on):
        return
    platform = platform_of(_labels(runs_on))
    shells = [members(members(value.get("defaults")).get("run")).get("shell")]
    shells += [members(step).get("shell") for step in items(value.get("steps"))]
    for shell in shells:
        if not isinstance(shell, str) or has_expression(shell) or shell_fault(shell):
            continue  # the check of its form has found that no runner has it
        if fault := shell_fault(shell, platform):
            raise Fault("shell", fault)


# ---------------------------------------------------------------------------------------------------------
# triggers


@container_at("on.push", "on.pull_request", "on.pull_request_target", "on.workflow_run", "on.merge_group")
def exclusive_filters(spot: Spot, value: dict) -> None:
    for name in value:
        if f"{name}-ignore" in value:
            raise Fault("filters", f"{name!r} and '{name}-ignore' exclude each other: use '!' in a pattern")


@container_at("on")
def room_for_inputs(spot: Spot, value: dict) -> None:
    """Check that the inputs which are still owed fit."""
    if (owed := spot.workflow.owed_inputs) and "workflow_dispatch" in value:
        inputs = members(members(value["workflow_dispatch"]).get("inputs"))
        if len(owed | {name.lower() for name in inputs}) > MAX_INPUTS:
            raise Fault("inputs", f"there is no room for the inputs that are used: at most {MAX_INPUTS} are allowed")


@container_at("on.workflow_dispatch.inputs")
def number_of_inputs(spot: Spot, value: dict) -> None:
    if len(value) > MAX_INPUTS:
        raise Fault("inputs", f"there are {len(value)} inputs, but at most {MAX_INPUTS} are allowed")


@container_at("on.workflow_dispatch.inputs.*")
def dispatch_input(spot: Spot, value: dict) -> None:
    """Check the options and the default of an input."""
    type, options, default = value.get("type"), value.get("options"), value.get("default")
    if options is not None and not may_come(value, "type") and type != "choice":
        raise Fault("inputs", f"'options' are for inputs of type 'choice', not {type!r}")
    if type == "choice" and not may_come(value, "options") and options is None:
        raise Fault("inputs", "an input of type 'choice' needs 'options'")
    if isinstance(options, list):
        texts = [option for option in options if isinstance(option, str)]
        if len(set(texts)) < len(texts):
            raise Fault("inputs", "an option is there twice")
        if is_complete(options) and "default" in value and is_complete(default) and text_of(default) not in texts:
            raise Fault("inputs", f"the default {default!r} is not one of the options")
        if default == "":
            raise Fault("inputs", "the default is empty, but an option cannot be empty")
    elif type == "choice" and default == "":
        raise Fault("inputs", "the default is empty, but an option cannot be empty")
    if "default" in value and is_complete(default) and not may_come(value, "type"):
        _check_default(type or "string", default)


def _check_default(type: Any, default: Any) -> None:
    """Check that a default has the type of its input. A number may be written as a text."""
    if type == "number":
        fits = isinstance(default, (int, float)) and not isinstance(default, bool)
        fits = fits or isinstance(default, str) and FLOAT.match(default)
    elif type == "boolean":
        fits = isinstance(default, bool)
    else:
        fits = isinstance(default, str)
    if not fits:
        raise Fault("inputs", f"the default {default!r} is not a {type}")


@container_at("on.workflow_call.inputs.*")
def call_input(spot: Spot, value: dict) -> None:
    if "default" in value and value.get("required") is True:
        raise Fault("inputs", "a required input has no default")
    if "default" not in value or not is_complete(value["default"]):
        return
    default, type = value["default"], value.get("type")
    if not may_come(value, "type") and not (isinstance(default, str) and has_expression(default)):
        _check_default(type, default)


def text_of(value: Any) -> str:
    """Return the text of a scalar in YAML."""
    return value if isinstance(value, str) else compact(value)


# ---------------------------------------------------------------------------------------------------------
# matrix


def _contains(value: Any, part: Any) -> bool:
    """Does a value of a row have all that a value of `exclude` has, or may it still turn out so?"""
    if not is_complete(part) and not isinstance(part, (dict, list)) or isinstance(part, str) and has_expression(part):
        return True
    if isinstance(value, dict):
        return isinstance(part, dict) and all(
            key.lower() in (lowered := {k.lower(): v for k, v in value.items()})
            and _contains(lowered[key.lower()], inner)
            for key, inner in part.items()
        )
    if isinstance(value, list):
        if not isinstance(part, list):
            return False
        fits = len(part) <= len(value) if isinstance(part, OpenArray) else len(part) == len(value)
        return fits and all(map(_contains, value, part))
    if isinstance(value, str) and has_expression(value):
        return True
    return not isinstance(part, (dict, list)) and text_of(value) == text_of(part)


def _repeats(earlier: Any, value: Any) -> bool:
    """Does a value of a matrix repeat an earlier one? An object repeats one that has only some of its members."""
    if not is_complete(value) and not isinstance(value, OpenObject):
        return False
    if isinstance(earlier, dict):
        if not isinstance(value, dict):
            return False
        lowered = {key.lower(): member for key, member in value.items()}
        return all(key.lower() in lowered and _repeats(member, lowered[key.lower()]) for key, member in earlier.items())
    if isinstance(earlier, list):
        return isinstance(value, list) and len(earlier) == len(value) and all(map(_repeats, earlier, value))
    return not isinstance(value, (dict, list)) and text_of(earlier) == text_of(value)


@container_at("jobs.*.strategy.matrix")
def matrix_rows(spot: Spot, value: dict) -> None:
    """Check that no row has a value twice."""
    for name, row in value.items():
        if name.lower() in ("include", "exclude") or not isinstance(row, list):
            continue
        for earlier, later in combinations(row, 2):
            if is_complete(earlier) and _repeats(earlier, later):
                raise Fault("matrix-duplicate", f"{compact_value(later)} is twice in {name!r}")


def compact_value(value: Any) -> str:
    return compact(value) if is_complete(value) else "a value"


@container_at("jobs.*.strategy.matrix")
def matrix_exclude(spot: Spot, value: dict) -> None:
    """Check that `exclude` names values of the matrix."""
    lowered = {key.lower(): member for key, member in value.items()}
    include = lowered.pop("include", None)
    if not isinstance(lowered.pop("exclude", None), list) or isinstance(include, str):
        return
    if not lowered and not include and not isinstance(value, OpenObject):
        raise Fault("matrix-exclude", "there is nothing to exclude from")
    if may_come(value, "include") or isinstance(include, OpenArray):
        return
    for name, part in excluded_in_vain(value):
        raise Fault("matrix-exclude", f"{compact_value(part)} is not among the values of {name!r}")


def excluded_in_vain(matrix: dict) -> Iterator[tuple[str, Any]]:
    """Yield each name and value in the list `exclude` that neither its row nor the list `include` has."""
    rows = {key.lower(): member for key, member in matrix.items()}
    include, exclude = rows.pop("include", None), rows.pop("exclude")
    include = include if isinstance(include, list) else []
    if any(isinstance(combination, str) for combination in include):
        return
    for combination in exclude:
        for name, part in members(combination).items():
            row, may_follow = rows.get(name.lower()), name.lower() not in rows and isinstance(matrix, OpenObject)
            if may_follow or isinstance(row, str) or not is_complete(row):
                continue
            added = [v for c in include for k, v in members(c).items() if k.lower() == name.lower()]
            if not any(_contains(known, part) for known in [*(row or ()), *added]):
                yield name, part

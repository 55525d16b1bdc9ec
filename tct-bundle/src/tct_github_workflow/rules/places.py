"""The places of a workflow: what may stand there, and what its expressions may use.

Each place says which JSON values it takes. The table of contexts is GitHub's, without what actionlint refuses:
https://docs.github.com/en/actions/reference/workflows-and-actions/contexts#context-availability
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from .formats import ACTION, CRON, IDENTIFIERS, NAME, PATH, REF, SHELL, VARIABLE, WORKFLOW, Format, one_of
from .known import RUNNERS, KnownActions, known_actions
from .scope import Path
from .templates import Template
from .types import STATUS_FUNCTIONS

TRIGGER = frozenset(["github", "inputs", "vars"])
NEEDS = TRIGGER | {"needs"}
JOB = NEEDS | {"strategy", "matrix"}
RUNNER = JOB | {"env", "job", "runner", "secrets"}
STEP = RUNNER | {"steps"}
HASH = frozenset(["hashfiles"])
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Place:
    """What may stand in one place of a workflow. A place that takes no texts has no template, and so on."""

    template: Template | None = None
    format: Format | None = None  # of texts without expressions
    literals: frozenset[str] = NOTHING  # other scalars: "number", "boolean", "null"
    members: Mapping[str, "Place"] | None = None
    others: "Place | None" = None  # members with other keys
    key: Format | None = None  # of other keys
    item: "Place | None" = None
    may_be_empty: bool = True  # the object or array
    required: tuple[str, ...] = ()  # members
    is_script: bool = False
    is_value: bool = False  # any JSON value, as in a matrix
    shortest: Any = "a"  # a value that breaks no rule; {} and [] are filled in with what is required
    known: KnownActions | None = None  # of a step, if only known actions are allowed
    name: str = field(default="", compare=False)  # such as "jobs.*.steps.*.run"

    def takes(self, kind: str) -> bool:
        """May a value of this kind stand here: "string", "number", "boolean", "null", "object" or "array"?"""
        if kind == "object":
            return self.members is not None or self.others is not None
        return {"string": self.template is not None, "array": self.item is not None}.get(kind, kind in self.literals)

    def child(self, key: str | int) -> "Place | None":
        """Return the place of a member or item, or None if there is none."""
        if isinstance(key, int):
            return self.item
        return (self.members or {}).get(key, self.others)

    @property
    def key_template(self) -> Template | None:
        """What expressions in keys may use: what one may use that stands for the object, if there may be one."""
        template = self.others and self.others.template
        return replace(template, contexts=self.template.contexts) if template and self.template else template

    def __or__(self, other: "Place") -> "Place":
        """Return a place that takes the values of both."""
        changed = {
            name: value
            for name in ("template", "format", "members", "others", "key", "item", "may_be_empty", "required")
            if (value := getattr(other, name)) != getattr(Place, name, None)
        }
        return replace(self, **changed, literals=self.literals | other.literals)


def text(
    contexts: frozenset[str] = NOTHING,
    functions: frozenset[str] = NOTHING,
    *,
    gives: str = "text",
    empty: bool = True,
    also: str = "",
    **more: Any,
) -> Place:
    """Return a place for texts."""
    return Place(Template(contexts, functions, gives, empty), literals=frozenset(also.split()), **more)


def form(format: Format, **more: Any) -> Place:
    """Return a place for texts of a form, without expressions."""
    return Place(Template(may_be_empty=False), format, **more)


def object_of(members: dict[str, Place], required: str = "", empty: bool = True) -> Place:
    """Return a place for objects with these members."""
    return Place(members=members, required=tuple(required.split()), shortest={}, may_be_empty=empty)


def map_of(place: Place, key: Format | None = None, empty: bool = False) -> Place:
    """Return a place for objects with any keys."""
    return Place(members={}, others=place, key=key, may_be_empty=empty, shortest={})


def list_of(place: Place, empty: bool = False) -> Place:
    """Return a place for arrays."""
    return Place(item=place, may_be_empty=empty, shortest=[])


def boolean(contexts: frozenset[str] = NOTHING, functions: frozenset[str] = NOTHING) -> Place:
    template = Template(contexts, functions, "boolean") if contexts else None
    return Place(template, literals=frozenset(["boolean"]), shortest=True)


def number(contexts: frozenset[str], functions: frozenset[str] = NOTHING) -> Place:
    return Place(Template(contexts, functions, "number"), literals=frozenset(["number"]), shortest=1)


def expression(contexts: frozenset[str], gives: str) -> Place:
    """Return a place for a text that is one expression."""
    return Place(Template(contexts, gives=gives))


SCALARS = "number boolean"
WORD = text(empty=False)
ANY_WORD = text(also=SCALARS)
NULL = Place(literals=frozenset(["null"]), shortest=None)


def env(contexts: frozenset[str], functions: frozenset[str] = NOTHING) -> Place:
    return map_of(text(contexts, functions, also=SCALARS), key=VARIABLE)


def words(place: Place = WORD) -> Place:
    return place | list_of(place)


def choice(values: str) -> Place:
    """Return a place for one of some words."""
    words = values.split()
    return form(one_of("choice", words, f"is not one of {', '.join(words)}"), shortest=words[0])


# -- triggers

TYPES = {
    "branch_protection_rule": "created edited deleted",
    "check_run": "created rerequested completed requested_action",
    "check_suite": "completed",
    "discussion": "created edited deleted transferred pinned unpinned labeled unlabeled locked unlocked"
    " category_changed answered unanswered",
    "discussion_comment": "created edited deleted",
    "issue_comment": "created edited deleted",
    "issues": "opened edited deleted transferred pinned unpinned closed reopened assigned unassigned labeled unlabeled"
    " locked unlocked milestoned demilestoned",
    "label": "created edited deleted",
    "merge_group": "checks_requested",
    "milestone": "created closed opened edited deleted",
    "project": "created closed reopened edited deleted",
    "project_card": "created moved converted edited deleted",
    "project_column": "created updated moved deleted",
    "pull_request": "assigned unassigned labeled unlabeled opened edited closed reopened synchronize"
    " converted_to_draft locked unlocked enqueued dequeued milestoned demilestoned ready_for_review review_requested"
    " review_request_removed auto_merge_enabled auto_merge_disabled",
    "pull_request_review": "submitted edited dismissed",
    "pull_request_review_comment": "created edited deleted",
    "pull_request_target": "assigned unassigned labeled unlabeled opened edited closed reopened synchronize"
    " converted_to_draft ready_for_review locked unlocked review_requested review_request_removed auto_merge_enabled"
    " auto_merge_disabled",
    "registry_package": "published updated",
    "release": "published unpublished created edited deleted prereleased released",
    "watch": "started",
    "workflow_run": "completed requested in_progress",
}
WITHOUT_TYPES = "create delete deployment deployment_status fork gollum page_build public push status".split()
ONLY_NULL = frozenset(WITHOUT_TYPES) - {"push"}  # events without settings
FILTERS = {
    "push": "branches tags paths",
    "pull_request": "branches paths",
    "pull_request_target": "branches paths",
    "workflow_run": "branches",
    "merge_group": "branches",
}


def _event(event: str) -> Place:
    members = {"types": words(choice(TYPES[event]))} if event in TYPES else {}
    for filter in FILTERS.get(event, "").split():
        for name in (filter, f"{filter}-ignore"):
            members[name] = words(form(PATH if filter == "paths" else REF))
    if event in ONLY_NULL:
        return NULL
    if event == "workflow_run":
        members["workflows"] = words()
        return Place(members=members, required=("workflows",), shortest={})
    return Place(members=members, shortest={}) | NULL


DISPATCH_INPUT = object_of(
    {
        "description": text(),
        "required": boolean(),
        "default": text(also=SCALARS),
        "type": choice("string choice boolean number environment"),
        "options": list_of(WORD),
    }
)
CALL_INPUT = object_of(
    {
        "description": text(),
        "required": boolean(),
        "default": text(TRIGGER, also=SCALARS),
        "type": choice("string boolean number"),
    },
    required="type",
)
CALL_SECRET = object_of({"description": text(), "required": boolean()}) | NULL
CALL_OUTPUT = object_of({"description": text(), "value": text(TRIGGER | {"jobs"}, empty=False)}, required="value")
CALL = object_of(
    {
        "inputs": map_of(CALL_INPUT, key=NAME, empty=True),
        "secrets": map_of(CALL_SECRET, key=NAME, empty=True),
        "outputs": map_of(CALL_OUTPUT, key=NAME, empty=True),
    }
)
ON = Place(
    members={
        **{event: _event(event) for event in [*TYPES, *WITHOUT_TYPES]},
        "schedule": list_of(object_of({"cron": form(CRON, shortest="0 0 * * *")}, "cron")),
        "repository_dispatch": object_of({"types": list_of(WORD)}) | NULL,
        "workflow_call": CALL | NULL,
        "workflow_dispatch": object_of({"inputs": map_of(DISPATCH_INPUT, key=NAME, empty=True)}) | NULL,
    },
    may_be_empty=False,
)
NEED_SETTINGS = ("schedule", "workflow_run", "repository_dispatch")
ON = ON | words(choice(" ".join(name for name in ON.members if name not in NEED_SETTINGS)))

# -- jobs

PERMISSIONS = (
    "actions attestations checks contents deployments discussions id-token issues packages pages pull-requests"
    " repository-projects security-events statuses"
)
LEVEL = choice("none read write")
PERMISSION = Place(members=dict.fromkeys(PERMISSIONS.split(), LEVEL), shortest={}) | choice("read-all write-all")


def concurrency(contexts: frozenset[str]) -> Place:
    group = text(contexts, empty=False)
    return group | object_of({"group": group, "cancel-in-progress": boolean(contexts)}, "group")


def defaults(contexts: frozenset[str]) -> Place:
    shell, folder = text(contexts, empty=False, format=SHELL, shortest="bash"), text(contexts, empty=False)
    return object_of({"run": object_of({"shell": shell, "working-directory": folder}, empty=False)}, "run")


CREDENTIAL = JOB | {"secrets", "env"}
CREDENTIALS = object_of(
    {
        "username": text(CREDENTIAL, empty=False),
        "password": text(CREDENTIAL, empty=False, gives="secret", shortest="${{ secrets.a }}"),
    },
    "username password",
)
IMAGE = text(JOB, empty=False)
CONTAINER = {
    "image": IMAGE,
    "credentials": CREDENTIALS,
    "env": env(RUNNER) | expression(JOB, "object"),
    "ports": list_of(text(JOB, empty=False, also="number"), empty=True),
    "volumes": list_of(text(JOB, empty=False), empty=True),
    "options": text(JOB),
}

VALUE = Place(
    Template(NEEDS, gives="any"),
    literals=frozenset(["number", "boolean", "null"]),
    members={},
    is_value=True,
)
object.__setattr__(VALUE, "others", VALUE)
object.__setattr__(VALUE, "item", VALUE)
COMBINATIONS = list_of(Place(members={}, others=VALUE, may_be_empty=False, shortest={})) | expression(NEEDS, "array")
MATRIX = Place(
    members={"include": COMBINATIONS, "exclude": COMBINATIONS},
    others=list_of(VALUE) | expression(NEEDS, "array"),
    may_be_empty=False,
    shortest={},
) | expression(NEEDS, "object")
STRATEGY = object_of({"matrix": MATRIX, "fail-fast": boolean(NEEDS), "max-parallel": number(NEEDS)}, "matrix")

LABEL = text(JOB, empty=False, shortest="ubuntu-latest")
LABELS = replace(LABEL, template=Template(JOB, gives="labels", may_be_empty=False)) | list_of(LABEL)
CONDITION = Template(NEEDS, STATUS_FUNCTIONS, "condition", may_be_empty=False)
STEP_CONDITION = Template(STEP - {"secrets"}, STATUS_FUNCTIONS | HASH, "condition", may_be_empty=False)
STEP_TEXT = text(STEP, HASH)
STEP_WORD = text(STEP, HASH, empty=False)

STEP_PLACE = object_of(
    {
        "id": form(IDENTIFIERS),
        "if": Place(STEP_CONDITION, literals=frozenset(SCALARS.split()), shortest="true"),
        "name": STEP_TEXT,
        "uses": form(ACTION, shortest="a/a@v1"),
        "with": map_of(text(STEP, HASH, also=SCALARS)),
        "run": replace(STEP_WORD, is_script=True),
        "shell": form(SHELL, shortest="bash"),
        "working-directory": STEP_WORD,
        "env": env(STEP, HASH),
        "continue-on-error": boolean(STEP, HASH),
        "timeout-minutes": number(STEP, HASH),
    }
)
ENVIRONMENT = {"name": text(JOB, empty=False), "url": text(STEP - {"secrets"}, empty=False)}
ANY_JOB = {
    "name": text(JOB),
    "needs": words(form(IDENTIFIERS)),
    "if": Place(CONDITION, literals=frozenset(SCALARS.split()), shortest="true"),
    "permissions": PERMISSION,
    "concurrency": concurrency(JOB),
    "strategy": STRATEGY,
}
STEPS_JOB = {
    "runs-on": LABELS | object_of({"group": text(JOB, empty=False), "labels": LABELS}, empty=False),
    "environment": text(JOB, empty=False) | object_of(ENVIRONMENT, "name"),
    "outputs": map_of(text(STEP)),
    "env": env(JOB | {"secrets"}),
    "defaults": defaults(JOB | {"env"}),
    "steps": list_of(STEP_PLACE),
    "timeout-minutes": number(JOB),
    "continue-on-error": boolean(JOB),
    "container": IMAGE | object_of(CONTAINER, "image"),
    "services": map_of(IMAGE | object_of(CONTAINER, "image")),
}
CALL_JOB = {
    "uses": form(WORKFLOW, shortest="./a.yml"),
    "with": map_of(text(JOB, also=SCALARS)),
    "secrets": map_of(text(JOB | {"secrets"}, also=SCALARS)) | choice("inherit"),
}
WORKFLOW_PLACE = object_of(
    {
        "name": text(),
        "run-name": text(TRIGGER, empty=False),
        "on": ON,
        "permissions": PERMISSION,
        "env": env(TRIGGER | {"secrets"}) | expression(TRIGGER | {"secrets"}, "object"),
        "defaults": defaults(NOTHING),
        "concurrency": concurrency(TRIGGER),
        "jobs": map_of(object_of({**ANY_JOB, **STEPS_JOB, **CALL_JOB}), key=IDENTIFIERS),
    },
    "on jobs",
)


def named(place: Place, name: str = "", changes: Mapping[str, dict[str, Any]] = {}) -> Place:
    """Return a tree of places with their names, and with other fields for some names."""
    if place.is_value:
        object.__setattr__(place, "name", "jobs.*.strategy.matrix.value")
        return place

    def below(key: str, child: Place | None) -> Place | None:
        return child and named(child, f"{name}.{key}" if name else key, changes)

    fields = {
        "members": place.members and {key: below(key, child) for key, child in place.members.items()},
        "others": below("*", place.others),
        "item": below("*", place.item),
    }
    return replace(place, name=name, **(fields | changes.get(name, {})))


ROOT = named(WORKFLOW_PLACE)


@cache
def known_root() -> Place:
    """Return the places of workflows that use only actions, inputs and runners that are known."""
    known = known_actions()
    actions = one_of("known-action", known.uses, "is not an action that three owners use")
    workflows = one_of("known-action", known.workflows, "is not a workflow that three owners call")
    inputs = one_of("known-input", known.all_inputs, "is not an input that three owners use")
    runners = {"format": one_of("known-runner", RUNNERS, f"is not one of {', '.join(RUNNERS)}")}
    changes = {
        "jobs.*.uses": {"format": workflows, "shortest": known.workflows[0]},
        "jobs.*.steps.*": {"known": known},
        "jobs.*.steps.*.uses": {"format": actions, "shortest": min(known.uses, key=len)},
        "jobs.*.steps.*.with": {"key": inputs},
        "jobs.*.runs-on": runners,
        "jobs.*.runs-on.*": runners,
        "jobs.*.runs-on.labels": runners,
        "jobs.*.runs-on.labels.*": runners,
    }
    return named(WORKFLOW_PLACE, changes=changes)


def place_of(path: Path) -> Place | None:
    """Return the place of a path, or None if nothing may stand there."""
    place: Place | None = ROOT
    for key in path:
        place = place and place.child(key)
    return place

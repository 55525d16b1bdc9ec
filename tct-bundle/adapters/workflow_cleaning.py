"""From a record to a clean workflow, or to the reason why it is left out."""

import json
import re
from copy import copy
from dataclasses import dataclass, field

import tct_github_workflow as tct
from tct.errors import SchemaValidationError
from tct_github_workflow.workflow_files import FileTooLargeError, load_text, read_file
from tct_github_workflow.workflow_yaml import WorkflowSyntaxError
from workflow_sources import Record

# Text of a template engine: a line that begins with a tag, or a value that does, or a statement. Looked for only
# in what is no workflow as it stands, for `${{ }}`, and `{{version}}` in a string, are fine in one.
TEMPLATE = re.compile(r"(?m)^[ \t]*(\{\{|\{%|<%|\[%)|^[^#\n]*[:-][ \t]+\{\{|\{%-?[ \t]*[a-z]+")
# What GitHub puts a value for when a starter workflow is used: $default-branch, $cron-daily
PLACEHOLDER = re.compile(r'"(\$[a-z]+(?:-[a-z]+)+)"')


@dataclass(frozen=True)
class Workflow:
    """A schema-valid workflow."""

    value: dict
    text: str  # compact JSON
    tokens: list[int]
    repairs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Skipped:
    reason: str
    detail: str


def clean(record: Record, repair: bool = False) -> Workflow | Skipped:
    """Reads and judges a record; with `repair`, rewrites what GitHub accepts and the schema rejects."""
    if record.fault:
        return Skipped(*record.fault)
    try:
        source = record.text if record.path is None else read_file(record.path)
    except FileTooLargeError as error:
        return Skipped("too_large", str(error))
    except OSError as error:
        return Skipped("unreadable", error.strerror or str(error))
    try:
        value = load_text(source, record.name)
        if not isinstance(value, dict) or value.keys().isdisjoint(("on", "jobs")):
            return Skipped("not_a_workflow", describe(value))
        if found := PLACEHOLDER.search(compact_json(value)):
            return Skipped("template", f"placeholder {found[1]}")
        return encode(value, repair)
    except RecursionError:
        return Skipped("syntax", "nested too deeply")
    except ValueError as error:
        if is_template(source):
            return Skipped("template", str(error))
        return Skipped("syntax" if isinstance(error, WorkflowSyntaxError) else "not_schema_valid", str(error))


def encode(value: dict, repair: bool) -> Workflow:
    """The workflow that a value is; SchemaValidationError if the schema rejects it and no repair helps."""
    repairs = []
    while True:
        text = compact_json(value)
        try:
            return Workflow(value, text, tct.encode(text), repairs)
        except SchemaValidationError as error:
            name = apply_repair(value, error.steps) if repair and len(repairs) < MAX_REPAIRS else None
            if name is None:
                raise
            repairs.append(name)


def is_template(source: str | bytes) -> bool:
    text = source if isinstance(source, str) else source.decode(errors="replace")
    return TEMPLATE.search(text.removeprefix("\ufeff")) is not None


def describe(value) -> str:
    """What stands in place of a workflow."""
    if not isinstance(value, dict):
        return f"not a mapping but {json.dumps(value, ensure_ascii=False)[:40]}"
    keys = ", ".join(list(value)[:5])
    return f"neither 'on' nor 'jobs' among its keys: {keys}"


def compact_json(value, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)


# -----------------------------------------------------------------------------
# repairs: each changes the value holder[key] that the schema rejects at a place, and says whether it did. It
# writes what GitHub reads there: @actions/workflow-parser gives the same for the file as it was.

MAX_REPAIRS = 100  # of one workflow: each takes another walk through it
LISTS = ("branches", "branches-ignore", "tags", "tags-ignore", "paths", "paths-ignore", "types", "workflows")
NAMED_BY_USERS = ("jobs", "services", "inputs", "outputs", "secrets", "env", "with")  # the keys in them are
# How the places end at which GitHub takes null for the empty text. It refuses null at most others.
EMPTY_TEXTS = {
    ("name",),
    ("run-name",),
    ("*", "name"),
    ("*", "run"),
    ("*", "if"),
    ("*", "working-directory"),
    ("*", "description"),
    ("*", "default"),
    ("*", "value"),
    ("*", "options"),
    ("container", "options"),
    ("env", "*"),
    ("with", "*"),
    ("outputs", "*"),
    ("secrets", "*"),
}
# What GitHub reads as a boolean or number, or as a text that is never one.
NEVER_TEXTS = {
    "background",
    "cancel-in-progress",
    "cancel-timeout-minutes",
    "continue-on-error",
    "cron",
    "default",
    "deployment",
    "fail-fast",
    "id",
    "max-parallel",
    "required",
    "timeout-minutes",
    "type",
    "types",
    "wait-all",
}


def apply_repair(workflow: dict, steps: tuple[str | int, ...]) -> str | None:
    """Repairs the value at the end of a path, which the schema rejects; gives the repair's name, or None."""
    if not steps:
        return None
    holder = workflow
    for step in steps[:-1]:  # copied, because an alias may stand for the same object at another place
        holder[step] = holder = copy(holder[step])
    shape = shape_of(steps)
    return next((repair.__name__ for repair in REPAIRS if repair(holder, steps[-1], shape)), None)


def shape_of(steps: tuple[str | int, ...]) -> tuple[str, ...]:
    """A path with * in place of indices, and of keys that users choose.

    >>> shape_of(("jobs", "env", "steps", 0, "env", "run"))
    ('jobs', '*', 'steps', '*', 'env', '*')
    """
    shape = []
    for step in steps:
        is_open = isinstance(step, int) or shape and shape[-1] in NAMED_BY_USERS
        shape.append("*" if is_open else step)
    return tuple(shape)


def list_of_one(holder, key, shape) -> bool:
    """`branches: main` if the schema requires a list."""
    is_filter = shape[0] == "on" and len(shape) == 3 and key in LISTS
    if fits := is_filter and isinstance(holder[key], str) and holder[key] != "":
        holder[key] = [holder[key]]
    return fits


def deprecated_event(holder, key, shape) -> bool:
    """`pull_request_comment`, which GitHub replaced by `issue_comment`; left alone if both have filters."""
    old, new = "pull_request_comment", "issue_comment"
    if shape == ("on", old) and new not in holder:
        events = {new if event == old else event: filters for event, filters in holder.items()}
        holder.clear()
        holder.update(events)
    elif shape == ("on", "*") and holder[key] == old and new in holder:
        del holder[key]
    elif shape in (("on",), ("on", "*")) and holder[key] == old:
        holder[key] = new
    else:
        return False
    return True


def empty_secret(holder, key, shape) -> bool:
    """A secret of a called workflow that is named and not described."""
    if fits := shape == ("on", "workflow_call", "secrets", "*") and holder[key] is None:
        holder[key] = {}
    return fits


def empty_needs(holder, key, shape) -> bool:
    """`needs: []`, which says nothing."""
    if fits := shape == ("jobs", "*", "needs") and holder[key] == []:
        del holder[key]
    return fits


def strategy_without_matrix(holder, key, shape) -> bool:
    """A strategy that has nothing to apply to."""
    is_strategy = shape == ("jobs", "*", "strategy") and isinstance(holder[key], dict)
    if fits := is_strategy and "matrix" not in holder[key]:
        del holder[key]
    return fits


def workflow_description(holder, key, shape) -> bool:
    """`description` of the whole workflow: a text that changes nothing about its runs."""
    if fits := shape == ("description",) and is_scalar(holder[key]) and "${{" not in str(holder[key]):
        del holder[key]
    return fits


def scalar_as_text(holder, key, shape) -> bool:
    """`run: true` is the text `true`, and an `env` without a value the empty text."""
    value = holder[key]
    if value is None:
        is_boolean = shape[-1] == "default" and holder.get("type") == "boolean"
        is_text = shape[-2:] in EMPTY_TEXTS and not is_boolean
    else:
        is_text = is_scalar(value) and shape[-1] not in NEVER_TEXTS
    text = text_of(value) if is_text and "matrix" not in shape else None  # in a matrix, types matter
    if text is not None:
        holder[key] = text
    return text is not None


REPAIRS = (
    list_of_one,
    deprecated_event,
    empty_secret,
    empty_needs,
    strategy_without_matrix,
    workflow_description,
    scalar_as_text,
)


def is_scalar(value) -> bool:
    return not isinstance(value, (dict, list))


def text_of(value) -> str | None:
    """What GitHub makes of a scalar that stands for a text; None if it is one, or a number it might round.

    >>> text_of(True), text_of(3.10), text_of(None), text_of(1e20)
    ('true', '3.1', '', None)
    """
    if value is None or isinstance(value, bool):
        return {None: "", True: "true", False: "false"}[value]
    if isinstance(value, str) or abs(value) >= 1e15:  # it keeps 15 digits
        return None
    text = f"{value:.15g}"
    return text if float(text) == value and "e" not in text and text != "-0" else None

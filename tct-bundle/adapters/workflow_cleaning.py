"""From a record to a clean workflow, or to the reason why it is left out."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import tct_github_workflow as tct
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
    text: str          # compact JSON
    tokens: list[int]
    repairs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Skipped:
    reason: str
    detail: str


def clean(record: Record, repair: bool = False) -> Workflow | Skipped:
    """Reads and judges a record; with `repair`, what GitHub accepts and the schema does not is mended."""
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
        repairs = mend(value) if repair else []
        text = compact_json(value)
        if found := PLACEHOLDER.search(text):
            return Skipped("template", f"placeholder {found[1]}")
        return Workflow(value, text, tct.encode(text), repairs)
    except RecursionError:
        return Skipped("syntax", "nested too deeply")
    except ValueError as error:
        if is_template(source):
            return Skipped("template", str(error))
        return Skipped("syntax" if isinstance(error, WorkflowSyntaxError) else "not_schema_valid", str(error))


def is_template(source: str | bytes) -> bool:
    return TEMPLATE.search(source if isinstance(source, str) else source.decode(errors="replace")) is not None


def describe(value) -> str:
    """What stands in place of a workflow."""
    if not isinstance(value, dict):
        return f"not a mapping but {json.dumps(value, ensure_ascii=False)[:40]}"
    keys = ", ".join(list(value)[:5])
    return f"neither 'on' nor 'jobs' among its keys: {keys}"


def compact_json(value, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)


# -----------------------------------------------------------------------------
# repairs: each mends a workflow in place, and gives how often

LISTS = ("branches", "branches-ignore", "tags", "tags-ignore", "paths", "paths-ignore", "types", "workflows")
NUMBERS = ("timeout-minutes", "max-parallel")


def mend(workflow: dict) -> list[str]:
    """Applies all repairs; the name of each, as often as it was needed."""
    return [name for name, repair in REPAIRS.items() for _ in range(repair(workflow))]


def list_of_one(workflow: dict) -> int:
    """`branches: main` where the schema wants a list."""
    count = 0
    for filters in mappings(workflow.get("on")):
        for key in LISTS:
            if isinstance(filters.get(key), str):
                filters[key] = [filters[key]]
                count += 1
    return count


def deprecated_event(workflow: dict) -> int:
    """`on: pull_request_comment`, which GitHub replaced by `issue_comment`."""
    text = json.dumps(workflow.get("on"))
    renamed = re.sub('"pull_request_comment"(?=[],:]|$)', '"issue_comment"', text)
    if renamed != text:
        workflow["on"] = json.loads(renamed)
    return renamed != text


def empty_secret(workflow: dict) -> int:
    """A secret of a called workflow that is named and not described."""
    called = workflow["on"].get("workflow_call") if isinstance(workflow.get("on"), dict) else None
    secrets = called.get("secrets") if isinstance(called, dict) else None
    empty = [name for name, secret in secrets.items() if secret is None] if isinstance(secrets, dict) else []
    for name in empty:
        secrets[name] = {}
    return len(empty)


def empty_needs(workflow: dict) -> int:
    """`needs: []`, which says nothing."""
    empty = [job for job in mappings(workflow.get("jobs")) if job.get("needs") == []]
    for job in empty:
        del job["needs"]
    return len(empty)


def strategy_without_matrix(workflow: dict) -> int:
    """A strategy that has nothing to apply to."""
    idle = [job for job in mappings(workflow.get("jobs"))
            if isinstance(job.get("strategy"), dict) and "matrix" not in job["strategy"]]
    for job in idle:
        del job["strategy"]
    return len(idle)


def quoted_number(workflow: dict) -> int:
    """`timeout-minutes: "30"`."""
    count = 0
    for job in mappings(workflow.get("jobs")):
        steps = job.get("steps") if isinstance(job.get("steps"), list) else []
        for part in (job, job.get("strategy"), *steps):
            for key in NUMBERS if isinstance(part, dict) else ():
                if isinstance(part.get(key), str) and re.fullmatch("[0-9]{1,9}", part[key]):
                    part[key] = int(part[key])
                    count += 1
    return count


REPAIRS: dict[str, Callable[[dict], int]] = {
    repair.__name__: repair
    for repair in (list_of_one, deprecated_event, empty_secret, empty_needs, strategy_without_matrix, quoted_number)}


def mappings(parent) -> list[dict]:
    """The values of a mapping that are mappings themselves; none of anything else."""
    return [value for value in parent.values() if isinstance(value, dict)] if isinstance(parent, dict) else []

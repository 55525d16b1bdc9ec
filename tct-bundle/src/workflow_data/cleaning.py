"""Turn a record into a valid workflow, or into the reason why it is skipped."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from tct.errors import SchemaValidationError
from tct.json_text import compact
from tct_github_workflow.files import FileTooLargeError, load_text, read_file
from tct_github_workflow.rules import check
from tct_github_workflow.workflow_yaml import WorkflowSyntaxError
from workflow_data.repairs import MAX_REPAIRS, apply_repair
from workflow_data.sources import Record
from workflow_data.tokenizers import TCTTokenizer

# The text of a template engine: a line or a value that begins with a tag, or a statement. Only searched for in files
# that are not valid, because a valid workflow may contain `${{ }}`, or `{{version}}` in a string.
TEMPLATE = re.compile(r"(?m)^[ \t]*(\{\{|\{%|<%|\[%)|^[^#\n]*[:-][ \t]+\{\{|\{%-?[ \t]*[a-z]+")
# Placeholders of starter workflows, such as $default-branch or $cron-daily. GitHub replaces them.
PLACEHOLDER = re.compile(r'"(\$[a-z]+(?:-[a-z]+)+)"')


@dataclass(frozen=True)
class Workflow:
    """A schema-valid workflow, or another document."""

    value: Any
    text: str  # compact JSON
    tokens: list[int]
    repairs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Skipped:
    """The reason why a record is not used, and the detail that skipped.jsonl lists."""

    reason: str
    detail: str


def clean(
    record: Record, repair: bool = False, rules: bool = False, tokenizer: TCTTokenizer | None = None
) -> Workflow | Skipped:
    """Read and validate a record.

    With `repair`, fix what GitHub accepts and the schema rejects. With `rules`, skip what breaks GitHub's rules beyond
    the schema. A tokenizer of another schema reads its documents; both flags are then False.
    """
    tokenizer = tokenizer or TCTTokenizer()
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
        if tokenizer.is_workflow and (fault := unlike_workflow(value)):
            return fault
        workflow = encode(value, repair, tokenizer)
        broken = broken_rule(workflow) if rules else None
        return broken or workflow
    except RecursionError:
        return Skipped("syntax", "nested too deeply")
    except ValueError as error:
        text = source if isinstance(source, str) else source.decode(errors="replace")
        if TEMPLATE.search(text.removeprefix("\ufeff")):
            return Skipped("template", str(error))
        return Skipped("syntax" if isinstance(error, WorkflowSyntaxError) else "not_schema_valid", str(error))


def unlike_workflow(value) -> Skipped | None:
    """Return why a value is no workflow at all."""
    if not isinstance(value, dict) or value.keys().isdisjoint(("on", "jobs")):
        return Skipped("not_a_workflow", describe_value(value))
    found = PLACEHOLDER.search(compact(value))
    return Skipped("template", f"placeholder {found[1]}") if found else None


def encode(value: Any, repair: bool, tokenizer: TCTTokenizer) -> Workflow:
    """Encode a workflow. Raise SchemaValidationError if the schema rejects it and no repair helps."""
    repairs = []
    while True:
        text = compact(value)
        try:
            return Workflow(value, text, tokenizer.encode(text), repairs)
        except SchemaValidationError as error:
            name = apply_repair(value, error.steps) if repair and len(repairs) < MAX_REPAIRS else None
            if name is None:
                raise
            repairs.append(name)


def broken_rule(workflow: Workflow) -> Skipped | None:
    """Return the first rule that a workflow breaks, as the reason to skip it."""
    findings = check(workflow.value)
    if not findings:
        return None
    first, more = findings[0], f" (and {len(findings) - 1} more)" if findings[1:] else ""
    return Skipped(f"rule {first.rule}", f"{first.place}: {first.message}{more}")


def describe_value(value) -> str:
    """Describe a value that is not a workflow."""
    if not isinstance(value, dict):
        return f"not a mapping but {json.dumps(value, ensure_ascii=False)[:40]}"
    return f"neither 'on' nor 'jobs' among its keys: {', '.join(list(value)[:5])}"

"""Repair values that GitHub accepts and the schema rejects: replace them with what GitHub reads.

Each repair changes the value holder[key], which the schema rejects at a place with this shape, and returns whether it
did. @actions/workflow-parser returns the same for the repaired file as for the original.
"""

from copy import copy

MAX_REPAIRS = 100  # of one workflow: each needs another pass over it
LISTS = ("branches", "branches-ignore", "tags", "tags-ignore", "paths", "paths-ignore", "types", "workflows")
NAMED_BY_USERS = ("jobs", "services", "inputs", "outputs", "secrets", "env", "with")  # users choose the keys in them
# The last keys of the places at which GitHub reads null as the empty text. At most other places it rejects null.
EMPTY_TEXTS = {
    tuple(path.split("/"))
    for path in "name run-name */name */run */if */working-directory */description */default */value */options "
    "container/options env/* with/* outputs/* secrets/*".split()
}
# Keys whose values are not repaired: GitHub reads booleans or numbers there, or texts that are never written as one.
NEVER_TEXTS = set(
    "background cancel-in-progress cancel-timeout-minutes continue-on-error cron default deployment fail-fast id "
    "max-parallel required timeout-minutes type types wait-all".split()
)


def apply_repair(workflow: dict, steps: tuple[str | int, ...]) -> str | None:
    """Repair the value at the end of a path, which the schema rejects. Return the name of the repair, or None."""
    if not steps:
        return None
    holder = workflow
    for step in steps[:-1]:  # copied, because an alias may use the same object elsewhere
        holder[step] = holder = copy(holder[step])
    shape = shape_of(steps)
    return next((repair.__name__ for repair in REPAIRS if repair(holder, steps[-1], shape)), None)


def shape_of(steps: tuple[str | int, ...]) -> tuple[str, ...]:
    """Return a path with * instead of indices and of keys that users choose.

    >>> shape_of(("jobs", "env", "steps", 0, "env", "run"))
    ('jobs', '*', 'steps', '*', 'env', '*')
    """
    shape = []
    for step in steps:
        is_open = isinstance(step, int) or shape and shape[-1] in NAMED_BY_USERS
        shape.append("*" if is_open else step)
    return tuple(shape)


def list_of_one(holder, key, shape) -> bool:
    """Make a list of `branches: main`, if the schema requires one."""
    is_filter = shape[0] == "on" and len(shape) == 3 and key in LISTS
    if fits := is_filter and isinstance(holder[key], str) and holder[key] != "":
        holder[key] = [holder[key]]
    return fits


def deprecated_event(holder, key, shape) -> bool:
    """Replace `pull_request_comment` by `issue_comment`, as GitHub did; not if both have filters."""
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
    """Describe a secret of a called workflow, which has only a name, by an empty object."""
    if fits := shape == ("on", "workflow_call", "secrets", "*") and holder[key] is None:
        holder[key] = {}
    return fits


def empty_needs(holder, key, shape) -> bool:
    """Remove `needs: []`, which has no effect."""
    if fits := shape == ("jobs", "*", "needs") and holder[key] == []:
        del holder[key]
    return fits


def strategy_without_matrix(holder, key, shape) -> bool:
    """Remove a strategy that has no matrix to apply to."""
    is_strategy = shape == ("jobs", "*", "strategy") and isinstance(holder[key], dict)
    if fits := is_strategy and "matrix" not in holder[key]:
        del holder[key]
    return fits


def workflow_description(holder, key, shape) -> bool:
    """Remove the `description` of the whole workflow, which does not change its runs."""
    if fits := shape == ("description",) and is_scalar(holder[key]) and "${{" not in str(holder[key]):
        del holder[key]
    return fits


def scalar_as_text(holder, key, shape) -> bool:
    """Read `run: true` as the text `true`, and an `env` without a value as the empty text."""
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
    """Return the text that GitHub reads from a scalar. Return None for a text, or a number that it might round.

    >>> text_of(True), text_of(3.10), text_of(None), text_of(1e20)
    ('true', '3.1', '', None)
    """
    if value is None or isinstance(value, bool):
        return {None: "", True: "true", False: "false"}[value]
    if isinstance(value, str) or abs(value) >= 1e15:  # GitHub keeps 15 digits
        return None
    text = f"{value:.15g}"
    return text if float(text) == value and "e" not in text and text != "-0" else None

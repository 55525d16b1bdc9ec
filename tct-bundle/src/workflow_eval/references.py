"""Find references to jobs, steps, inputs and matrix keys that do not exist."""

import re
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

from workflow_eval.features import as_dict, as_list, jobs, steps_of

STRING = r"'(?:[^']|'')*+'"
EXPRESSION = re.compile(rf"(?s)\$\{{\{{((?:{STRING}|[^'])*?)\}}\}}")
# steps.ID or steps['ID'] and the like, but not github.steps.ID; skips quoted text
REFERENCE = re.compile(rf"(?i)(?<![\w.-])(steps|needs|matrix|inputs)(?:\.([a-z_][\w-]*)|\[\s*({STRING})\s*\])|{STRING}")


def broken_references(workflow) -> list[str]:
    """Return a sentence for each reference to something undefined.

    These are `needs` that name an undefined job or form a cycle, and names in expressions: steps that do not come
    earlier, jobs that are not among the job's needs, undefined matrix keys and inputs. What only a run can decide, such
    as a matrix that an expression computes, counts as correct.
    """
    by_name = jobs(workflow)
    faults = [*broken_needs(by_name), *broken_inputs(workflow)]
    for name, job in by_name.items():
        found = [*broken_job_needs(job), *broken_matrix(job), *broken_steps(job)]
        faults += [f"job {name}: {fault}" for fault in found]
    return list(dict.fromkeys(faults))


def broken_needs(by_name: dict[str, dict]) -> Iterator[str]:
    known = lowered(by_name)
    needs = {name.lower(): lowered(needs_of(job)) for name, job in by_name.items()}
    for name, job in by_name.items():
        for needed in needs_of(job):
            if needed.lower() == name.lower():
                yield f"job {name}: needs itself"
            elif needed.lower() not in known:
                yield f"job {name}: needs an undefined job: {needed}"
    try:
        TopologicalSorter({name: needed - {name} for name, needed in needs.items()}).prepare()
    except CycleError as error:
        yield f"jobs need each other: {' and '.join(sorted(set(error.args[1])))}"


def broken_job_needs(job: dict) -> Iterator[str]:
    known = lowered(needs_of(job))
    for name in references(job, "needs"):
        if name.lower() not in known:
            yield f"needs.{name} is not among its needs"


def broken_steps(job: dict) -> Iterator[str]:
    inside = steps_of(job)
    ids = [lowered([step.get("id")]) for step in inside]
    everything, before = set().union(*ids), set()
    for number, (step, own) in enumerate(zip(inside, ids), 1):
        for name in references(step, "steps"):
            if name.lower() not in before:
                why = "does not come earlier" if name.lower() in everything else "is not a step"
                yield f"step {number}: steps.{name} {why}"
        before |= own
    for name in references({key: value for key, value in job.items() if key != "steps"}, "steps"):
        if name.lower() not in everything:
            yield f"steps.{name} is not a step"


def broken_matrix(job: dict) -> Iterator[str]:
    known = matrix_keys(job.get("strategy"))
    if known is not None:
        for name in references(job, "matrix"):
            if name.lower() not in known:
                yield f"matrix.{name} is not a key of its matrix"


def broken_inputs(workflow) -> Iterator[str]:
    events = as_dict(as_dict(workflow).get("on"))
    known = set()
    for event in ("workflow_call", "workflow_dispatch"):
        known |= lowered(as_dict(as_dict(events.get(event)).get("inputs")))
    for name in references(as_dict(workflow), "inputs"):
        if name.lower() not in known:
            yield f"inputs.{name} is not an input"


def needs_of(job: dict) -> list[str]:
    needs = job.get("needs")
    return [needs] if isinstance(needs, str) else [name for name in as_list(needs) if isinstance(name, str)]


def matrix_keys(strategy) -> set[str] | None:
    """Return the keys of a job's matrix; None if an expression computes them."""
    matrix = as_dict(strategy).get("matrix")
    more = as_dict(matrix).get("include")
    if any(isinstance(part, str) for part in (strategy, matrix, more, *as_list(more))):
        return None
    keys = lowered(as_dict(matrix)) - {"include", "exclude"}
    return keys.union(*(lowered(as_dict(part)) for part in as_list(more)))


def references(part: dict, context: str) -> list[str]:
    """Return the names that expressions in a part of a workflow look up in a context, in order, without repetition.

    >>> references({"if": "steps.a.outcome == 'steps.b'", "run": "echo ${{ steps['c'].outputs.x }}"}, "steps")
    ['a', 'c']
    """
    found = {}
    for expression in expressions(part):
        for name_of, name, quoted in REFERENCE.findall(expression):
            if name_of.lower() == context:
                found[name or quoted[1:-1].replace("''", "'")] = None
    return list(found)


def expressions(value) -> Iterator[str]:
    """Yield the expressions in a value, in order: the contents of `${{ }}`, and the text of an `if` without it."""
    waiting = [(None, value)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += reversed(value.items())
        elif isinstance(value, list):
            waiting += [(None, part) for part in reversed(value)]
        elif isinstance(value, str):
            yield from [value] if key == "if" and "${{" not in value else EXPRESSION.findall(value)


def lowered(names: Iterable) -> set[str]:
    """Return the names in lower case, because GitHub ignores case in them."""
    return {name.lower() for name in names if isinstance(name, str)}

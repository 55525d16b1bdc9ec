"""What a workflow says and what it refers to in vain, and how two sets of workflows differ in what they say.

A workflow is a parsed value, any at all, valid or not: what does not have the expected form is not there.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from statistics import mean, median

NONE = "(none)"  # the category of a workflow that says nothing of a field
DRAWS = 20  # of real workflows, for the noise floor

# -----------------------------------------------------------------------------
# what it says


def triggers(workflow) -> list[str]:
    """The events that start it.

    >>> triggers({"on": {"push": {"branches": ["main"]}, "workflow_dispatch": None}})
    ['push', 'workflow_dispatch']
    """
    events = mapping(workflow).get("on")
    return [events] if isinstance(events, str) else [e for e in items(events) or mapping(events) if isinstance(e, str)]


def runners(workflow) -> list[str]:
    """What each job runs on: "ubuntu-latest", "self-hosted, linux", "group: large, labels: x64"."""
    return [plain(job["runs-on"]) for job in jobs(workflow).values() if job.get("runs-on")]


def actions(workflow) -> list[str]:
    """The actions and workflows that steps and jobs use, as written."""
    users = [user for job in jobs(workflow).values() for user in (job, *steps_of(job))]
    return [user["uses"] for user in users if isinstance(user.get("uses"), str)]


def action_name(uses: str) -> str:
    """An action without its version.

    >>> action_name("actions/checkout@v4")
    'actions/checkout'
    """
    return uses.partition("@")[0]


def permissions(workflow) -> list[str]:
    """What the workflow and its jobs may do, "contents: read" or "read-all"; "{}" is nothing at all."""
    allowed = []
    for level in (mapping(workflow), *jobs(workflow).values()):
        scopes = level.get("permissions")
        if isinstance(scopes, dict):
            allowed += [f"{scope}: {plain(access)}" for scope, access in scopes.items()] or ["{}"]
        elif isinstance(scopes, str):
            allowed.append(scopes)
    return allowed


def shells(workflow) -> list[str]:
    """The shells that the workflow, its jobs and its steps name."""
    levels = (mapping(workflow), *jobs(workflow).values())
    settings = [*(mapping(mapping(level.get("defaults")).get("run")) for level in levels), *steps(workflow)]
    return [plain(setting["shell"]) for setting in settings if setting.get("shell")]


def jobs(workflow) -> dict[str, dict]:
    """The jobs by their ids."""
    return {name: job for name, job in mapping(mapping(workflow).get("jobs")).items() if isinstance(job, dict)}


def steps(workflow) -> list[dict]:
    """All steps, job by job."""
    return [step for job in jobs(workflow).values() for step in steps_of(job)]


def steps_of(job: dict) -> list[dict]:
    return [step for step in items(job.get("steps")) if isinstance(step, dict)]


def canonical(value) -> str:
    """Compact JSON with sorted keys: the same text for the same value.

    >>> canonical({"run": "make", "name": "Build"})
    '{"name":"Build","run":"make"}'
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def plain(value) -> str:
    """A value on one line, as a person would write it."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {plain(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    return value if isinstance(value, str) else json.dumps(value)


def mapping(value) -> dict:
    return value if isinstance(value, dict) else {}


def items(value) -> list:
    return value if isinstance(value, list) else []


FIELDS: dict[str, Callable[[object], list[str]]] = {
    "triggers": triggers,
    "runners": runners,
    "actions": lambda workflow: list(map(action_name, actions(workflow))),
    "permissions": permissions,
    "shells": shells,
}
COUNTS: dict[str, Callable[[object], list[int]]] = {
    "jobs": lambda workflow: [len(jobs(workflow))],
    "steps": lambda workflow: [len(steps(workflow))],
    "steps a job": lambda workflow: [len(steps_of(job)) for job in jobs(workflow).values()],
}

# -----------------------------------------------------------------------------
# how sets of workflows differ


def compare(samples: list, real: list, most: int = 10, seed: int = 0) -> dict[str, dict]:
    """How sampled workflows differ from real ones, for each of FIELDS and COUNTS.

    All have a "distance", from 0 to 1, and its "noise_floor": the mean distance of as many real workflows,
    drawn at random, to the other real ones, which is what a perfect model would get with as many samples.
    With more samples than half the real workflows a draw is that half. "categories" are the `most` frequent
    ones in either set, each as [category, share of samples that have it, share of real workflows]; it counts
    once a workflow, so that a long one weighs no more than others. "median" is that of samples and that of
    real workflows. ValueError without samples, or with fewer than two real workflows.
    """
    if not samples or len(real) < 2:
        raise ValueError(f"{len(samples)} samples and {len(real)} real workflows are too few to compare")
    results = {}
    for field, say in FIELDS.items():
        ours, theirs = ([set(say(workflow)) or {NONE} for workflow in group] for group in (samples, real))
        a, b = total(ours), total(theirs)
        shares = {category: [a[category] / len(samples), b[category] / len(real)] for category in a | b}
        frequent = sorted(shares, key=lambda category: (-max(shares[category]), category))[:most]
        results[field] = {
            "distance": distance(a, b),
            "noise_floor": noise_floor(theirs, len(samples), distance, seed),
            "categories": [[category, *shares[category]] for category in frequent],
        }
    for field, say in COUNTS.items():
        ours, theirs = ([say(workflow) for workflow in group] for group in (samples, real))
        a, b = total(ours), total(theirs)
        results[field] = {
            "distance": count_distance(a, b),
            "noise_floor": noise_floor(theirs, len(samples), count_distance, seed),
            "median": [median(counts.elements()) if counts else 0 for counts in (a, b)],
        }
    return results


def distance(a: Counter, b: Counter) -> float:
    """The total variation distance of two distributions: half the sum of |share in a - share in b| over all
    categories. 0 where they are the same, 1 where they have nothing in common: the share that would have to
    move.

    >>> distance(Counter(push=3, schedule=1), Counter(push=1, schedule=1))
    0.25
    """
    if not a or not b:
        return float(bool(a) != bool(b))
    m, n = a.total(), b.total()
    return sum(abs(a[category] * n - b[category] * m) for category in a | b) / (2 * m * n)


def count_distance(a: Counter, b: Counter) -> float:
    """The Kolmogorov-Smirnov distance of two distributions of numbers: the largest difference, over all
    numbers, of the shares that are at most so large. From 0 to 1; to it 7 steps are nearly 8, to total
    variation they are as far as 70, so that a hundred samples would be mostly noise.

    >>> count_distance(Counter([1, 2, 3, 4]), Counter([2, 3, 4, 5]))
    0.25
    """
    if not a or not b:
        return float(bool(a) != bool(b))
    m, n = a.total(), b.total()
    below_a = below_b = largest = 0
    for number in sorted(a | b):
        below_a += a[number]
        below_b += b[number]
        largest = max(largest, abs(below_a * n - below_b * m))
    return largest / (m * n)


def noise_floor(real: list[Iterable], size: int, distance_of: Callable[[Counter, Counter], float], seed: int) -> float:
    """The mean distance of `size` real workflows, at most half of them, to the others. Each is given as the
    categories or numbers that it has."""
    chance, everything = random.Random(seed), total(real)
    drawn = (total(chance.sample(real, min(size, len(real) // 2))) for _ in range(DRAWS))
    return mean(distance_of(part, everything - part) for part in drawn)


def total(groups: Iterable[Iterable]) -> Counter:
    return Counter(thing for group in groups for thing in group)


# -----------------------------------------------------------------------------
# what it refers to in vain

STRING = r"'(?:[^']|'')*+'"
EXPRESSION = re.compile(rf"(?s)\$\{{\{{((?:{STRING}|[^'])*?)\}}\}}")
# steps.ID or steps['ID'] and the like, but not github.steps.ID; text in quotes is passed over
REFERENCE = re.compile(rf"(?i)(?<![\w.-])(steps|needs|matrix|inputs)(?:\.([a-z_][\w-]*)|\[\s*({STRING})\s*\])|{STRING}")


def broken_references(workflow) -> list[str]:
    """What a workflow refers to though it is not there, a sentence each: `needs` that name no job, or go in a
    circle; and in expressions steps that do not come before, needs that the job does not declare, and matrix
    keys and inputs that nothing defines. What only a run can tell, as a matrix that an expression makes, is
    taken to be right."""
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
                yield f"job {name}: it needs itself"
            elif needed.lower() not in known:
                yield f"job {name}: it needs {needed}, which is no job"
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
                why = "comes no earlier" if name.lower() in everything else "is no step"
                yield f"step {number}: steps.{name} {why}"
        before |= own
    for name in references({key: value for key, value in job.items() if key != "steps"}, "steps"):
        if name.lower() not in everything:
            yield f"steps.{name} is no step"


def broken_matrix(job: dict) -> Iterator[str]:
    known = matrix_keys(job.get("strategy"))
    if known is not None:
        for name in references(job, "matrix"):
            if name.lower() not in known:
                yield f"matrix.{name} is no key of its matrix"


def broken_inputs(workflow) -> Iterator[str]:
    events = mapping(mapping(workflow).get("on"))
    known = set()
    for event in ("workflow_call", "workflow_dispatch"):
        known |= lowered(mapping(mapping(events.get(event)).get("inputs")))
    for name in references(mapping(workflow), "inputs"):
        if name.lower() not in known:
            yield f"inputs.{name} is no input"


def needs_of(job: dict) -> list[str]:
    needs = job.get("needs")
    return [needs] if isinstance(needs, str) else [name for name in items(needs) if isinstance(name, str)]


def matrix_keys(strategy) -> set[str] | None:
    """What a job may ask of its matrix; None where an expression decides that."""
    matrix = mapping(strategy).get("matrix")
    more = mapping(matrix).get("include")
    if any(isinstance(part, str) for part in (strategy, matrix, more, *items(more))):
        return None
    return (lowered(mapping(matrix)) - {"include", "exclude"}).union(*(lowered(mapping(part)) for part in items(more)))


def references(part: dict, context: str) -> list[str]:
    """The names that expressions in a part of a workflow look up in a context, in order, each once.

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
    """The expressions in a value, in order: what is in `${{ }}`, and what stands without it after `if`."""
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
    """Names for comparison: GitHub does not distinguish capitals in them."""
    return {name.lower() for name in names if isinstance(name, str)}

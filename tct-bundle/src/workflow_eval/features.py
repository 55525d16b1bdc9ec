"""What a workflow says and what it refers to in vain, and how two sets of workflows differ in what they say.

A workflow is a parsed value, any at all, valid or not: what does not have the expected form is not there.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from statistics import mean, median

from tct.json_text import compact

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
    return compact(value, sort_keys=True)


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

"""Extract the features of workflows, such as triggers and actions, and measure how two sets of workflows differ.

A workflow is any parsed value, valid or not. A part that does not have the expected form counts as absent.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from statistics import mean, median

NONE = "(none)"  # the category of a workflow without the feature
DRAWS = 20  # of real workflows, for the noise floor

# -- features


def triggers(workflow) -> list[str]:
    """Return the events that start the workflow.

    >>> triggers({"on": {"push": {"branches": ["main"]}, "workflow_dispatch": None}})
    ['push', 'workflow_dispatch']
    """
    events = as_dict(workflow).get("on")
    names = [events] if isinstance(events, str) else as_list(events) or as_dict(events)
    return [name for name in names if isinstance(name, str)]


def runners(workflow) -> list[str]:
    """Return each job's runner: "ubuntu-latest", "self-hosted, linux", "group: large, labels: x64"."""
    return [plain(job["runs-on"]) for job in jobs(workflow).values() if job.get("runs-on")]


def actions(workflow) -> list[str]:
    """Return the actions and workflows that steps and jobs use, as written."""
    users = [user for job in jobs(workflow).values() for user in (job, *steps_of(job))]
    return [user["uses"] for user in users if isinstance(user.get("uses"), str)]


def action_name(uses: str) -> str:
    """Return the action without its version.

    >>> action_name("actions/checkout@v4")
    'actions/checkout'
    """
    return uses.partition("@")[0]


def permissions(workflow) -> list[str]:
    """Return the permissions of the workflow and its jobs: "contents: read", "read-all", or "{}" for none at all."""
    allowed = []
    for level in (as_dict(workflow), *jobs(workflow).values()):
        scopes = level.get("permissions")
        if isinstance(scopes, dict):
            allowed += [f"{scope}: {plain(access)}" for scope, access in scopes.items()] or ["{}"]
        elif isinstance(scopes, str):
            allowed.append(scopes)
    return allowed


def shells(workflow) -> list[str]:
    """Return the shells that the workflow, its jobs and its steps name."""
    levels = (as_dict(workflow), *jobs(workflow).values())
    settings = [*(as_dict(as_dict(level.get("defaults")).get("run")) for level in levels), *steps(workflow)]
    return [plain(setting["shell"]) for setting in settings if setting.get("shell")]


def jobs(workflow) -> dict[str, dict]:
    return {name: job for name, job in as_dict(as_dict(workflow).get("jobs")).items() if isinstance(job, dict)}


def steps(workflow) -> list[dict]:
    return [step for job in jobs(workflow).values() for step in steps_of(job)]


def steps_of(job: dict) -> list[dict]:
    return [step for step in as_list(job.get("steps")) if isinstance(step, dict)]


def plain(value) -> str:
    """Return a value on one line, as a person would write it."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {plain(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    return value if isinstance(value, str) else json.dumps(value)


def as_dict(value) -> dict:
    return value if isinstance(value, dict) else {}


def as_list(value) -> list:
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

# -- differences between sets of workflows


def compare_features(samples: list, real: list, most: int = 10, seed: int = 0) -> dict[str, dict]:
    """Return how sampled workflows differ from real ones, for each of FIELDS and COUNTS.

    Each has a "distance" from 0 to 1 and its "noise_floor": the mean distance of a random draw of real workflows, as
    large as the set of samples, to the rest of the real ones. A perfect model would reach about the noise floor. A draw
    contains at most half of the real workflows. FIELDS have "categories": the `most` frequent in either set, each as
    [category, share of the samples that have it, share of the real workflows]. A category counts once per workflow, so
    that a long workflow weighs no more than a short one. COUNTS have the "median" of samples and of real workflows.
    Raise ValueError without samples, or with fewer than two real workflows.
    """
    if not samples or len(real) < 2:
        raise ValueError(f"{len(samples)} samples and {len(real)} real workflows are too few to compare")
    results = {}
    for field, read in (FIELDS | COUNTS).items():
        distance = kolmogorov_smirnov if field in COUNTS else total_variation
        ours, theirs = ([read(workflow) for workflow in group] for group in (samples, real))
        if field in FIELDS:
            ours, theirs = ([set(names) or {NONE} for names in group] for group in (ours, theirs))
        a, b = total(ours), total(theirs)
        floor = noise_floor(theirs, len(samples), distance, seed)
        results[field] = {"distance": distance(a, b), "noise_floor": floor}
        if field in COUNTS:
            results[field]["median"] = [median(counts.elements()) if counts else 0 for counts in (a, b)]
        else:
            shares = {category: [a[category] / len(samples), b[category] / len(real)] for category in a | b}
            frequent = sorted(shares, key=lambda category: (-max(shares[category]), category))[:most]
            results[field]["categories"] = [[category, *shares[category]] for category in frequent]
    return results


def total_variation(a: Counter, b: Counter) -> float:
    """Return the total variation distance of two distributions: half the sum of |share in a - share in b|.

    It is 0 for equal distributions and 1 for distributions that share no category.

    >>> total_variation(Counter(push=3, schedule=1), Counter(push=1, schedule=1))
    0.25
    """
    if not a or not b:
        return float(bool(a) != bool(b))
    m, n = a.total(), b.total()
    return sum(abs(a[category] * n - b[category] * m) for category in a | b) / (2 * m * n)


def kolmogorov_smirnov(a: Counter, b: Counter) -> float:
    """Return the Kolmogorov-Smirnov distance of two distributions of numbers: the largest difference of their
    cumulative shares, from 0 to 1.

    For it 7 steps are close to 8. For total variation they are as far from 8 as from 70, so that the distance of a
    hundred samples would be mostly noise.

    >>> kolmogorov_smirnov(Counter([1, 2, 3, 4]), Counter([2, 3, 4, 5]))
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


def noise_floor(real: list[Iterable], size: int, distance: Callable[[Counter, Counter], float], seed: int) -> float:
    """Return the mean distance of random draws of `size` real workflows, at most half of all, to the rest.

    Each workflow is given as its categories or numbers.
    """
    rng, everything = random.Random(seed), total(real)
    drawn = (total(rng.sample(real, min(size, len(real) // 2))) for _ in range(DRAWS))
    return mean(distance(part, everything - part) for part in drawn)


def total(groups: Iterable[Iterable]) -> Counter:
    return Counter(thing for group in groups for thing in group)

"""Compose synthetic workflows from templates: realistic GitHub Actions workflows, equal for equal seeds.

A template is a recipe applied to a toolchain or a site, or a chore. The composer shuffles all templates and resolves
each once, and repeats that until it has enough distinct workflows.
"""

import json
import random
import re

from workflow_synth.chores import CHORES
from workflow_synth.parts import TOOLS, WithWords
from workflow_synth.recipes import SITE_RECIPES, SITES, TOOL_RECIPES

# The values of each `<word>`; a template and its parts may define others.
WORDS = {
    "app": ("atlas", "beacon", "billing-api", "courier", "harbor", "inventory", "lantern", "ledger", "mosaic",
            "notes", "orders", "pulse", "quarry", "sprout", "tidepool", "webhooks"),
    "branch": ("main", "main", "main", "master", "trunk"),
    "runner": ("ubuntu-latest", "ubuntu-latest", "ubuntu-latest", "ubuntu-24.04", "ubuntu-22.04"),
    "nightly": ("0 2 * * *", "30 3 * * *", "17 4 * * *", "0 0 * * *", "15 1 * * 1-5"),
    "weekly": ("0 6 * * 1", "23 5 * * 0", "0 0 * * 0", "45 7 * * 3", "30 1 * * 6"),
    "version": (20, 22, 24),  # of Node.js, which sites and chores use
    "dir": ...,  # nothing: the project is at the top of its repository
}
# The orders in which people write keys.
WORKFLOW_KEYS = ("name", "run-name", "on", "permissions", "concurrency", "env", "defaults", "jobs")
JOB_KEYS = (
    ("name", "needs", "if", "runs-on", "permissions", "environment", "concurrency", "timeout-minutes",
     "strategy", "container", "services", "outputs", "env", "defaults", "uses", "with", "secrets", "steps"),
    ("name", "runs-on", "needs", "if", "timeout-minutes", "environment", "concurrency", "permissions",
     "outputs", "env", "defaults", "strategy", "container", "services", "uses", "with", "secrets", "steps"),
)
STEP_KEYS = (
    ("name", "id", "if", "uses", "with", "env", "run"),
    ("name", "id", "if", "uses", "with", "run", "env"),
    ("name", "if", "id", "uses", "env", "with", "run"),
)


def compose_workflows(count: int, seed: int = 0) -> list[tuple[str, dict]]:
    """Return (file name, workflow) of `count` distinct workflows.

    A smaller count returns the beginning of a larger one. Raise ValueError if count is below 1.
    """
    if count < 1:
        raise ValueError(f"--count {count}: ask for at least 1 workflow")
    rng, workflows, seen = random.Random(seed), [], set()
    while True:
        shuffled = all_templates()
        rng.shuffle(shuffled)
        for kind, words, template in shuffled:
            workflow = apply_author_style(resolve(template, words, rng, {}), rng)
            canonical = json.dumps(workflow, sort_keys=True)
            if canonical in seen:
                continue
            seen.add(canonical)
            workflows.append((f"{kind}-{len(workflows) + 1:04d}.yml", workflow))
            if len(workflows) == count:
                return workflows


def all_templates() -> list[tuple[str, dict, object]]:
    """Return (kind, words, template) of every template."""
    of_tools = [
        (f"{tool.slug}-{recipe.__name__}", {"language": tool.language, "version": tool.fixed}, template)
        for recipe in TOOL_RECIPES
        for tool in TOOLS
        if (template := recipe(tool))
    ]
    of_sites = [
        (f"{site}-{recipe.__name__}", {}, recipe(*parts)) for recipe in SITE_RECIPES for site, parts in SITES.items()
    ]
    chores = [(kind, {}, template) for kind, template in CHORES.items()]
    return [(kind, WORDS | words, template) for kind, words, template in of_tools + of_sites + chores]


def resolve(template, words: dict, rng: random.Random, chosen: dict):
    """Return the value of a template, `...` for nothing. `chosen` stores the workflow's choices so far."""

    def again(part):
        return resolve(part, words, rng, chosen)

    match template:
        case tuple():
            key = repr(template)
            if key not in chosen:
                chosen[key] = rng.choice(template)
            return again(chosen[key])
        case WithWords():
            return resolve(template.template, words | template.words, rng, chosen)
        case dict():
            items = {}
            for key, value in template.items():
                key, value = again(key), again(value)
                if value is not ...:
                    items |= value if key is ... else {key: value}
            return items if items or not template else ...
        case list():
            items = []
            for value in map(again, template):
                if value is not ...:
                    items += value if isinstance(value, list) else [value]
            return items if items or not template else ...
        case str():
            for word in re.findall(r"<([a-z]+)>", template):
                value = again(words[word])
                if value is ... or template == f"<{word}>":
                    return value  # not as text: a number stays a number
                template = template.replace(f"<{word}>", str(value))
    return template


def apply_author_style(workflow: dict, rng: random.Random) -> dict:
    """Return the workflow in one author's style: which steps have names, time limits, short `on`, order of keys."""
    named = rng.choice(("all", "all", "scripts", "long scripts"))
    limit = rng.choice(({}, {}, *({"timeout-minutes": minutes} for minutes in (10, 20, 30))))
    job_keys, step_keys = rng.choice(JOB_KEYS), rng.choice(STEP_KEYS)
    on = workflow["on"]
    if not any(on.values()):  # events without options need no mapping
        on = rng.choice((on, list(on), next(iter(on)) if len(on) == 1 else list(on)))
    jobs = {}
    for name, job in workflow["jobs"].items():
        if "steps" in job:
            job = limit | job | {"steps": [in_order(step, step_keys) for step in job["steps"]]}
            for step in job["steps"]:
                if named != "all" and ("uses" in step or named == "long scripts" and "\n" not in step["run"]):
                    del step["name"]
        jobs[name] = in_order(job, job_keys)
    return in_order(workflow | {"on": on, "jobs": jobs}, WORKFLOW_KEYS)


def in_order(mapping: dict, keys: tuple) -> dict:
    """Return the mapping with its keys in this order."""
    return {key: mapping[key] for key in sorted(mapping, key=keys.index)}

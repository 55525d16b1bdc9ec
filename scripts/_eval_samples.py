"""Evaluation of what a model writes: workflows from scratch, held against real ones, and completions."""

import json
import os.path
from collections import Counter
from dataclasses import dataclass
from itertools import islice

import jsonschema_rs
import numpy as np
from near_copies import known_steps, longest_common_runs, share_of_novel_steps
from prepared_reader import read_split
from tct.tokenizer import compact, read_json
from tct_github_workflow import workflow_schema
from tct_github_workflow.workflow_yaml import dump_workflow
from tqdm import tqdm
from workflow_features import action_name, actions, broken_references, canonical

from nanochat.common import gather_bytes

REQUIRED = ("on", "jobs")
KINDS_ASIDE = {"runner-label", "action"}  # findings on labels and actions that the linter has not heard of
MOST_TRAINING = 20_000  # workflows that samples are compared with
MOST_COMPLETED = 256  # tokens, of a completion


# -----------------------------------------------------------------------------
# generating, shared by the ranks


def generate(generator, count: int, ranks, **options) -> list[dict]:
    """`count` samples from scratch, the same on all ranks: of each its text, YAML (None where the text is no
    workflow), tokens and finish_reason."""
    first, last = (count * part // ranks.world_size for part in (ranks.rank, ranks.rank + 1))
    stream = generator.stream(last - first, first=first, **options) if last > first else ()
    progress = tqdm(stream, "sample", last - first, unit="workflow", disable=None)
    return gather([describe(workflow) for workflow in progress])


def describe(workflow) -> dict:
    return {
        "text": workflow.json,
        "yaml": yaml_of(workflow.json),
        "tokens": workflow.tokens,
        "finish_reason": workflow.finish_reason,
    }


def complete(generator, workflows: list[tuple[str, list[int]]], prefix_text, constrained: bool, ranks) -> list[dict]:
    """What the model makes of workflows (text, tokens) of which it sees the first half of the tokens, on all ranks.
    prefix_text(tokens) is how the first tokens of a workflow begin its text."""
    first, last = (len(workflows) * part // ranks.world_size for part in (ranks.rank, ranks.rank + 1))
    found = []
    for text, tokens in tqdm(workflows[first:last], "complete", unit="workflow", disable=None):
        half = tokens[: len(tokens) // 2]
        [completion] = generator.generate(
            1, tokens=half, constrained=constrained, max_tokens=MOST_COMPLETED, temperature=0
        )
        cut = len(os.path.commonprefix([prefix_text(half), text]))
        found.append(compare_continuations(text, completion.json, cut))
    return gather(found)


def gather(mine: list) -> list:
    """The lists of all ranks, joined."""
    return [item for part in gather_bytes(json.dumps(mine).encode()) for item in json.loads(part)]


# -----------------------------------------------------------------------------
# judging


@dataclass(frozen=True)
class Corpus:
    """What is known of the training workflows."""

    tokens: np.ndarray  # of all, a PAD after each
    texts: set[str]  # canonical JSON
    steps: set[str]  # canonical JSON of every step
    actions: set[str]  # without version
    versions: set[str]  # with version
    left_out: int  # workflows that were not looked at

    @classmethod
    def read(cls, data_dir, metadata: dict, tokenizer) -> "Corpus":
        total = metadata["splits"]["train"]["workflows"]
        count = min(total, MOST_TRAINING)
        split = tqdm(
            islice(read_split(data_dir, "train", metadata), count),
            "read training",
            count,
            unit="workflow",
            disable=None,
        )
        tokens = [workflow.tokens for workflow in split]
        values = [json.loads(tokenizer.decode(ids.tolist())) for ids in tokens]
        versions = {uses for value in values for uses in actions(value)}
        line = np.concatenate([part for ids in tokens for part in (ids, np.zeros(1, np.int16))])
        return cls(
            line,
            set(map(canonical, values)),
            known_steps(values),
            set(map(action_name, versions)),
            versions,
            total - count,
        )


def judge(texts: list[str], tokens: list[np.ndarray], corpus: Corpus | None, linter, parser) -> tuple[dict, Counter]:
    """(figures, in how many there is a finding of each kind) of workflows, samples or real ones. A text that is no
    JSON object counts as failing whatever asks for one. Without corpus, linter or parser what they tell is left out."""
    count, values = len(texts), [parse(text) for text in texts]
    objects = [value for value in values if isinstance(value, dict)]
    is_valid = jsonschema_rs.validator_for(workflow_schema()).is_valid
    figures = {
        "count": count,
        "json_valid": sum(value is not None for value in values) / count,
        "schema_valid": sum(map(is_valid, objects)) / count,
        "required_fields": sum(all(key in value for key in REQUIRED) for value in objects) / count,
        "references_intact": sum(not broken_references(value) for value in objects) / count,
        "distinct": len(set(texts)) / count,
        "tokens": quantiles([len(ids) for ids in tokens]),
        "characters": quantiles([len(text) for text in texts]),
    }
    if corpus:
        uses = [use for value in objects for use in actions(value) if not use.startswith(".")]
        novel = [share for share in share_of_novel_steps(objects, corpus.steps) if share is not None]
        figures |= {
            "copies": sum(canonical(value) in corpus.texts for value in objects) / count,
            "novel_steps": float(np.mean(novel)) if novel else None,
            "known_actions": sum(action_name(use) in corpus.actions for use in uses) / len(uses) if uses else None,
            "known_versions": sum(use in corpus.versions for use in uses) / len(uses) if uses else None,
            "longest_common_run": quantiles(longest_common_runs(tokens, corpus.tokens)),
        }
    kinds, yamls = Counter(), [text for text in map(yaml_of, texts) if text is not None]
    if linter:
        findings = [{finding.kind for finding in found} for found in linter.lint_all(yamls)]
        kinds.update(kind for found in findings for kind in found)
        figures["lint_clean"] = sum(not found - KINDS_ASIDE for found in findings) / count
    if parser:
        figures["github_parser_clean"] = sum(not errors for errors in parser(yamls)) / count
    return figures, kinds


def parse(text: str):
    """The value of a JSON text, None where it is none."""
    try:
        return read_json(text)
    except (ValueError, RecursionError):
        return None


def yaml_of(text: str) -> str | None:
    value = parse(text)
    return dump_workflow(value) if isinstance(value, dict) else None


def quantiles(values) -> dict:
    low, median, high = np.percentile(values, [10, 50, 90])
    return {"low": float(low), "median": float(median), "high": float(high), "mean": float(np.mean(values))}


# -----------------------------------------------------------------------------
# completions: what comes first after the cut


def compare_continuations(text: str, completed: str, cut: int) -> dict:
    """Whether a completion has the same next key, action and step as the workflow, whose first `cut` characters it
    shares; None where the workflow has no further one."""
    real, value = json.loads(text), parse(completed)
    expected = first_after(real, cut)
    found = first_after(value, cut) if isinstance(value, dict) else {}
    return {name: found.get(name) == thing for name, thing in expected.items()} | {
        name: None for name in ("key", "action", "step") if name not in expected
    }


def first_after(value: dict, cut: int) -> dict:
    """The first key and the first action that end after so many characters of the compact JSON text of a value, and
    the first step that begins after them."""
    found = {}
    for kind, place, thing in parts(value):
        if place >= cut:
            found.setdefault(kind, thing)
    return found


def parts(value, path: tuple = (), at: int = 0):
    """The ("key", place, path) of each key of a value, ("action", place, reference) and ("step", place, step): places
    in its compact JSON text, of steps where they begin, of others where they end."""
    if path[-2:-1] == ("steps",) and isinstance(path[-1], int):
        yield "step", at, value
    if isinstance(value, dict):
        for key, child in value.items():
            at += 1 + len(compact(key))  # after a brace or comma
            yield "key", at, (*path, key)
            at += 1  # the colon
            yield from parts(child, (*path, key), at)
            at += len(compact(child))
    elif isinstance(value, list):
        for i, child in enumerate(value):
            at += 1
            yield from parts(child, (*path, i), at)
            at += len(compact(child))
    elif path[-1:] == ("uses",):
        yield "action", at + len(compact(value)), value


def summarize_completions(found: list[dict]) -> dict:
    results = {"workflows": len(found)}
    for name in ("key", "action", "step"):
        answers = [answer[name] for answer in found if answer[name] is not None]
        results[name] = {
            "asked": len(answers),
            "right": sum(answers),
            "share": sum(answers) / len(answers) if answers else None,
        }
    return results

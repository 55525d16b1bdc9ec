"""Evaluation of what a model writes: workflows from scratch, held against real ones, and completions."""

import json
from collections import Counter
from dataclasses import dataclass
from itertools import islice

import jsonschema_rs
import numpy as np
from tqdm import tqdm

from tct.json_text import read_json
from tct_github_workflow import workflow_schema
from tct_github_workflow.workflow_yaml import dump_workflow
from workflow_data.reader import read_split
from workflow_eval.features import action_name, actions, canonical
from workflow_eval.memorization import known_steps, longest_common_runs, share_of_novel_steps
from workflow_eval.references import broken_references

REQUIRED = ("on", "jobs")
KINDS_ASIDE = {"runner-label", "action"}  # findings on labels and actions that the linter has not heard of
MOST_TRAINING = 20_000  # workflows that samples are compared with


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

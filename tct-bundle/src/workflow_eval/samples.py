"""Evaluate sets of workflows or other documents, generated or real, by the same metrics."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import jsonschema_rs
import numpy as np
from tqdm import tqdm

from tct.json_text import canonical, read_json
from tct_github_workflow.rules import check
from workflow_data.reader import iter_workflows
from workflow_data.tokenizers import TCTTokenizer
from workflow_eval.actionlint import Linter, find_linter
from workflow_eval.features import action_name, actions, compare_features
from workflow_eval.github_parser import GitHubParser, find_parser
from workflow_eval.memorization import known_steps, longest_copied_spans, novel_step_shares
from workflow_eval.repetition import has_loop

REQUIRED = {"on", "jobs"}
IGNORED_KINDS = {"runner-label", "action"}  # of findings: labels and actions that the linter does not know
MAX_TRAINING = 20_000  # training workflows that samples are compared with


@dataclass(frozen=True)
class TrainingIndex:
    """The contents of the training workflows."""

    tokens: np.ndarray  # of all workflows, a PAD after each
    texts: set[str]  # canonical JSON
    steps: set[str]  # canonical JSON of every step
    actions: set[str]  # without version
    versions: set[str]  # with version
    left_out: int  # training workflows beyond MAX_TRAINING

    @classmethod
    def read(cls, data_dir, metadata: dict, tokenizer) -> "TrainingIndex":
        """Read a prepared folder. Raise ValueError if its windows omit tokens."""
        total = metadata["splits"]["train"]["workflows"]
        count = min(total, MAX_TRAINING)
        workflows = islice(iter_workflows(data_dir, "train", metadata), count)
        tokens = [
            workflow.tokens for workflow in tqdm(workflows, "read training", count, unit="workflow", disable=None)
        ]
        values = [json.loads(tokenizer.decode(ids.tolist())) for ids in tokens]
        versions = {uses for value in values for uses in actions(value)}
        return cls(
            np.concatenate([part for ids in tokens for part in (ids, np.zeros(1, np.int16))]),
            set(map(canonical, values)),
            known_steps(values),
            set(map(action_name, versions)),
            versions,
            total - count,
        )


@dataclass(frozen=True)
class SampleSet:
    """Texts that may be documents, and what to evaluate them with. Each text is parsed once."""

    texts: list[str]
    tokens: list[np.ndarray]
    finish_reasons: list[str] | None = None  # if a model generated the texts
    accepted: list[float | None] | None = None  # of each text, the share of the draws that the rules accepted
    training: TrainingIndex | None = None
    linter: Linter | None = None
    parser: GitHubParser | None = None
    documents: TCTTokenizer = field(default_factory=TCTTokenizer)  # of workflows, or of another schema

    @cached_property
    def values(self) -> list:
        """The JSON value of each text, None if it is not JSON."""
        return list(map(parse, self.texts))

    @cached_property
    def objects(self) -> list:
        """The values that may be documents: a workflow is a JSON object."""
        return [value for value in self.values if self.may_be_document(value)]

    def may_be_document(self, value) -> bool:
        return isinstance(value, dict) or not self.documents.is_workflow

    @cached_property
    def yamls(self) -> list[str | None]:
        """The YAML of each text, None if it is not JSON, or not an object."""
        return [self.documents.dump(value) if self.may_be_document(value) else None for value in self.values]

    @property
    def yamls_of_objects(self) -> list[str]:
        return [yaml for yaml in self.yamls if yaml is not None]

    @cached_property
    def findings(self) -> list[set[str]]:
        """The kinds of the linter's findings in each object."""
        return [{finding.kind for finding in found} for found in self.linter.lint_all(self.yamls_of_objects)]

    @cached_property
    def uses(self) -> list[str]:
        """The actions that the objects use, local ones excluded."""
        return [use for value in self.objects for use in actions(value) if not use.startswith(".")]

    def share(self, answers: Iterable[bool]) -> float:
        """Return the share of the texts with the answer yes. Texts without an answer count as no."""
        return sum(answers) / len(self.texts)


# the field of SampleSet that metrics need -> name in eval.json -> metric
METRICS: dict[str, dict[str, Callable[[SampleSet], object]]] = {
    "texts": {
        "count": lambda s: len(s.texts),
        "json_valid": lambda s: s.share(value is not None for value in s.values),
        "schema_valid": lambda s: s.share(map(validator(s.documents.library.schema).is_valid, s.objects)),
        "required_fields": lambda s: s.share(value.keys() >= REQUIRED for value in s.objects),
        "rules_clean": lambda s: s.share(not check(value) for value in s.objects),
        "references_intact": lambda s: s.share(map(has_intact_references, s.objects)),
        "loops": lambda s: s.share(map(has_loop, s.tokens)),
        "distinct": lambda s: len(set(s.texts)) / len(s.texts),
        "tokens": lambda s: quantiles(list(map(len, s.tokens))),
        "characters": lambda s: quantiles(list(map(len, s.texts))),
    },
    "training": {
        "copies": lambda s: s.share(canonical(value) in s.training.texts for value in s.objects),
        "novel_steps": lambda s: mean(novel_step_shares(s.objects, s.training.steps)),
        "known_actions": lambda s: mean(action_name(use) in s.training.actions for use in s.uses),
        "known_versions": lambda s: mean(use in s.training.versions for use in s.uses),
        "longest_common_run": lambda s: quantiles(longest_copied_spans(s.tokens, s.training.tokens)),
    },
    "linter": {"lint_clean": lambda s: s.share(kinds <= IGNORED_KINDS for kinds in s.findings)},
    "parser": {"github_parser_clean": lambda s: s.share(not errors for errors in s.parser(s.yamls_of_objects))},
    "accepted": {"accepted_tokens": lambda s: mean(share for share in s.accepted if share is not None)},
    "finish_reasons": {"ended_by_model": lambda s: s.share(reason == "complete" for reason in s.finish_reasons)},
}


OF_WORKFLOWS = {
    *("required_fields", "rules_clean", "references_intact", "accepted_tokens"),
    *("novel_steps", "known_actions", "known_versions"),
}


def evaluate_samples(samples: SampleSet) -> dict:
    """Return all metrics for which the set has the data, by their names in eval.json."""
    available = [metrics for needed, metrics in METRICS.items() if getattr(samples, needed) is not None]
    named = {name: metric for metrics in available for name, metric in metrics.items()}
    omitted = set() if samples.documents.is_workflow else OF_WORKFLOWS
    return {name: metric(samples) for name, metric in named.items() if name not in omitted}


def compare_with_real(samples: SampleSet, real: SampleSet, all_real: list[dict], seed: int) -> dict:
    """Return the figures of eval.json about samples: the metrics of both sets, and how their contents differ.

    `real` has as many workflows as there are samples. `all_real` are the values of all real workflows.
    """
    figures: dict = {"samples": evaluate_samples(samples), "real": evaluate_samples(real)}
    if samples.linter:
        figures["findings"] = {
            kind: [side.share(kind in kinds for kinds in side.findings) for side in (samples, real)]
            for kind in sorted(set().union(*samples.findings, *real.findings))
        }
    if samples.objects and len(all_real) > 1 and samples.documents.is_workflow:
        figures["fields"] = compare_features(samples.objects, all_real, seed=seed)
    return figures


def has_intact_references(workflow: dict) -> bool:
    """Does everything exist that a workflow refers to: jobs, steps, outputs, inputs, matrix keys and properties?"""
    return not any(finding.rule in ("needs", "undefined-property") for finding in check(workflow))


def find_tools() -> tuple[Linter | None, GitHubParser | None, list[str]]:
    """Return the linter and the parser, each None if it is not installed, and the reasons for what is missing."""
    found, missing = [], []
    for name, find in (("actionlint", find_linter), ("GitHub's parser", find_parser)):
        try:
            found.append(find())
        except FileNotFoundError as error:
            found.append(None)
            missing.append(f"{name}: {error}")
    return *found, missing


def validator(schema):
    """Return the judge of a schema. Without `$schema` it is read as draft-07, as tct reads it."""
    is_named = not isinstance(schema, dict) or "$schema" in schema
    return jsonschema_rs.validator_for(schema) if is_named else jsonschema_rs.Draft7Validator(schema)


def parse(text: str):
    """Return the value of a JSON text, None if it is not JSON."""
    try:
        return read_json(text)
    except (ValueError, RecursionError):
        return None


def mean(values: Iterable) -> float | None:
    values = list(values)
    return float(np.mean(values)) if values else None


def quantiles(values: list) -> dict:
    low, median, high = np.percentile(values, [10, 50, 90])
    return {"low": float(low), "median": float(median), "high": float(high), "mean": float(np.mean(values))}

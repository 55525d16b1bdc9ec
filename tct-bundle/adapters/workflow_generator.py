"""From a checkpoint to workflows: the model's engine under the tokenizer's constraint.

>>> generator = WorkflowGenerator.load("out/tiny")                     # doctest: +SKIP
>>> for workflow in generator.generate(3, temperature=0.8, seed=1):    # doctest: +SKIP
...     print(workflow.yaml)
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tct_github_workflow as tct
from nanochat.checkpoint_manager import load_model
from nanochat.engine import Engine, Sample
from tct_github_workflow.workflow_yaml import dump_workflow

MAX_TOKENS = 1024  # tokens of a sample unless told otherwise; four of five real workflows are shorter


@dataclass(frozen=True)
class GeneratedWorkflow:
    """A complete, schema-valid workflow; `tokens` includes those of the prompt."""

    tokens: list[int]
    json: str  # compact
    finish_reason: str  # "complete": ended by the model; "closed": by the shortest ending, at max_tokens
    logprob: float  # nats, of the sampled tokens among the allowed ones

    @cached_property
    def value(self) -> dict[str, Any]:
        return json.loads(self.json)

    @cached_property
    def yaml(self) -> str:
        return dump_workflow(self.value)


class WorkflowGenerator:
    """A trained model that writes workflows. Nothing in it changes: threads may share one."""

    def __init__(self, model, stride: int):
        self.engine = Engine(model, stride=stride)

    @classmethod
    def load(cls, checkpoint, device="cpu") -> "WorkflowGenerator":
        """The model of a checkpoint: a file model_NNNNNN.pt or a folder. ValueError or OSError where there is
        none, or where it was trained with another tokenizer."""
        model, meta = load_model(checkpoint, device)
        check_tokenizer(meta["data"]["tokenizer"], f"the checkpoint {checkpoint}")
        return cls(model, meta["data"]["stride"])

    def generate(
        self, num_samples: int = 1, prompt: str | dict | None = None, **options
    ) -> list[GeneratedWorkflow]:
        """`num_samples` workflows; the arguments are those of `stream`."""
        return list(self.stream(num_samples, prompt, **options))

    def stream(
        self,
        num_samples: int = 1,
        prompt: str | dict | None = None,
        *,
        max_tokens: int = MAX_TOKENS,
        **options,
    ) -> Iterator[GeneratedWorkflow]:
        """Yields workflows in order, each once it and those before it are complete.

        A prompt is a partial workflow, YAML or JSON text cut anywhere or a value: what it says is kept, and goes
        on where it ends. Its last tokens are left to the model to spell, since they may merge with what follows.
        `options` are the engine's: temperature, top_k, top_p, seed, batch_size. ValueError where no workflow
        starts as the prompt does, with the line or the JSON path, or where an option makes no sense.
        """
        prefix = tct.encode_prefix(prompt or "")
        tokens = prefix[: prefix.kept]
        started = tct.matcher()
        assert started.accept_prefix(prefix)
        steps = self.engine.stream(
            tokens, num_samples, max_tokens=max_tokens, constraint_factory=started.fork, **options
        )
        complete, turn = {}, 0
        for step in steps:
            if step.sample:
                complete[step.index] = step.sample
            while turn in complete:
                yield _generated(tokens, complete.pop(turn))
                turn += 1


def is_installed(tokenizer: dict[str, str]) -> bool:
    """Whether this is the tokenizer that the generator works with."""
    return tokenizer == {"name": tct.NAME, "fingerprint": tct.fingerprint()}


def check_tokenizer(trained_with: dict[str, str], what: str) -> None:
    """ValueError where `what` was made with another tokenizer than the one installed."""
    if not is_installed(trained_with):
        theirs, ours = f"{trained_with['name']} {trained_with['fingerprint']}", f"{tct.NAME} {tct.fingerprint()}"
        raise ValueError(f"{what} was made with tokenizer {theirs}, but {ours} is installed: make it again")


def _generated(prompt: list[int], sample: Sample) -> GeneratedWorkflow:
    tokens = prompt + sample.tokens
    return GeneratedWorkflow(tokens, tct.decode(tokens)[0], sample.finish_reason, sample.logprob)

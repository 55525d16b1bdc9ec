"""From a checkpoint to workflows: the model's engine under the tokenizer's constraint.

>>> generator = WorkflowGenerator.load("out/tiny")                     # doctest: +SKIP
>>> for workflow in generator.generate(3, temperature=0.8, seed=1):    # doctest: +SKIP
...     print(workflow.yaml)
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tct_github_workflow as tct
from nanochat.checkpoint_manager import load_model
from nanochat.common import choose_dtype
from nanochat.engine import Engine, Sample
from nanochat.inference import prepare_for_inference
from tct_github_workflow.workflow_yaml import dump_workflow

MAX_TOKENS = 1024  # tokens of a sample unless told otherwise; four of five real workflows are shorter


@dataclass(frozen=True)
class GeneratedWorkflow:
    """A workflow, complete and schema-valid unless its finish_reason is "invalid" or "length"."""

    tokens: list[int]  # those of the prompt too
    json: str  # compact; of an unfinished one what its tokens say, closed so that it parses
    finish_reason: str  # "complete": ended by the model; "closed": by the shortest ending, at max_tokens;
    # "repeating": by max_repeats; only without constraint "invalid": at a token that is not allowed, and "length"
    logprob: float  # nats, of the sampled tokens among the allowed ones
    mean_logprob: float  # per token
    allowed: float | None  # the probability that the model gave to allowed tokens, on average, if measured
    seconds: float  # from its first step to its last; those of a batch are made at the same time

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
    def load(cls, checkpoint, device="cpu", dtype: str = "auto") -> "WorkflowGenerator":
        """The model of a checkpoint: a file model_NNNNNN.pt or a folder. ValueError or OSError where there is
        none, or where it was trained with another tokenizer. dtype is "float32", "bfloat16", or the faster."""
        model, meta = load_model(checkpoint, device)
        check_tokenizer(meta["data"]["tokenizer"], f"the checkpoint {checkpoint}")
        return cls(prepare_for_inference(model, choose_dtype(dtype, model.get_device())), meta["data"]["stride"])

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
        best_of: int = 1,
        constrained: bool = True,
        **options,
    ) -> Iterator[GeneratedWorkflow]:
        """Yields workflows in order, each once it and those before it are complete.

        A prompt is a partial workflow, YAML or JSON text cut anywhere or a value: what it says is kept, and goes
        on where it ends. Its last tokens are left to the model to spell, since they may merge with what follows.
        With `best_of` each is the one of so many that has the highest mean log-probability. Without the constraint
        the raw model writes, until its workflow is complete or no longer valid. `options` are the engine's:
        temperature, top_k, top_p, min_p, seed, batch_size, max_repeats, measure_allowed. ValueError where no
        workflow starts as the prompt does, with the line or the JSON path, or where an option makes no sense.
        """
        if best_of < 1:
            raise ValueError(f"best_of must be at least 1, not {best_of}")
        prefix = tct.encode_prefix(prompt or "")
        tokens = prefix[: prefix.kept]
        started = tct.matcher()
        assert started.accept_prefix(prefix)
        constraint = started.fork if constrained else lambda: Observer(started.fork())
        steps = self.engine.stream(
            tokens, num_samples * best_of, max_tokens=max_tokens, constraint_factory=constraint, **options
        )
        begun, finished, turn = {}, {}, 0
        for step in steps:
            begun.setdefault(step.index, time.perf_counter())
            if step.sample:
                seconds = time.perf_counter() - begun.pop(step.index)
                finished[step.index] = _generated(tokens, step.sample, seconds, constrained)
            while all(index in finished for index in range(turn, turn + best_of)):
                candidates = [finished.pop(index) for index in range(turn, turn + best_of)]
                yield max(candidates, key=lambda workflow: workflow.mean_logprob)
                turn += best_of


class Observer:
    """A constraint that allows everything, and ends a sample that is complete or can no longer be."""

    def __init__(self, matcher):
        self._matcher, self._is_valid = matcher, True

    def fill_next_token_bitmask(self, bitmask, index: int = 0) -> bool:
        bitmask[index] = -1
        return True

    def accept_token(self, token: int) -> bool:
        self._is_valid = self._matcher.accept_token(token)
        return True

    def is_terminated(self) -> bool:
        return not self._is_valid or self._matcher.is_terminated()


def is_installed(tokenizer: dict[str, str]) -> bool:
    """Whether this is the tokenizer that the generator works with."""
    return tokenizer == {"name": tct.NAME, "fingerprint": tct.fingerprint()}


def check_tokenizer(trained_with: dict[str, str], what: str) -> None:
    """ValueError where `what` was made with another tokenizer than the one installed."""
    if not is_installed(trained_with):
        theirs, ours = f"{trained_with['name']} {trained_with['fingerprint']}", f"{tct.NAME} {tct.fingerprint()}"
        raise ValueError(f"{what} was made with tokenizer {theirs}, but {ours} is installed: make it again")


def _generated(prompt: list[int], sample: Sample, seconds: float, constrained: bool) -> GeneratedWorkflow:
    tokens, reason = prompt + sample.tokens, sample.finish_reason
    if not constrained and reason == "complete":  # or ended by the last token, which is not allowed
        matcher = tct.matcher()
        if not (matcher.accept_tokens(tokens) and matcher.is_terminated()):
            tokens, reason = tokens[:-1], "invalid"
    is_whole = constrained or reason == "complete"
    text = tct.decode(tokens)[0] if is_whole else tct.decode_prefix(tokens)[0]
    mean = sample.logprob / max(1, len(sample.tokens))
    return GeneratedWorkflow(tokens, text, reason, sample.logprob, mean, sample.allowed, seconds)

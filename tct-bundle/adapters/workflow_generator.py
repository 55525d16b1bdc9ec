"""Generate workflows, or documents of another schema, from a model: the engine draws tokens, and a TokenLanguage knows
what they mean.

>>> generator = WorkflowGenerator.load()    # the model that ships; or load("out/tiny")
>>> for workflow in generator.generate(3, temperature=0.8, seed=1):    # doctest: +SKIP
...     print(workflow.yaml)
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import tct_github_workflow as tct
import workflow_model
from nanochat.checkpoint_manager import load_model
from nanochat.device import choose_dtype
from nanochat.engine import Engine
from nanochat.inference import prepare_for_inference
from nanochat.sample import Constraint
from nanochat.sampling import SamplingParams
from tct.json_text import compact
from tct_github_workflow.files import load_text
from tct_github_workflow.workflow_yaml import load_json
from workflow_data.tokenizers import END, FILE, NAMES, ArtifactTokenizer, BPETokenizer, TCTTokenizer, load_tokenizer


@dataclass(frozen=True)
class GeneratedWorkflow:
    """One sample. With TCT tokens and the constraint it is a complete, schema-valid workflow that fulfils the rules.

    The finish_reason is "complete" (the model ended it), "closed" (it reached max_tokens and got the shortest
    ending), "length" (cut at max_tokens) or "invalid" (ended by a token that is not allowed). With TCT tokens, the
    last two occur only without the constraint. BPE tokens have neither "closed" nor "invalid".
    """

    tokens: list[int]  # with those of the prompt
    json: str  # TCT: compact JSON, closed so that it parses if the sample is unfinished; BPE: the text as it is
    finish_reason: str
    logprob: float  # nats, of the sampled tokens among the allowed ones
    mean_logprob: float  # per token
    allowed: float | None  # mean probability that the model gave to the tokens that the schema allows, if measured
    seconds: float  # from its first step to its last; samples of a batch run at the same time
    accepted: float | None = None  # share of the draws that the rules accepted at once
    documents: TCTTokenizer = field(default_factory=TCTTokenizer, repr=False, compare=False)  # of the language

    @cached_property
    def value(self) -> Any:
        """The parsed JSON. ValueError if `json` is not valid JSON, which is possible with BPE tokens."""
        return load_json(self.json)

    @cached_property
    def yaml(self) -> str:
        """The workflow as YAML. ValueError as in `value`."""
        return self.documents.dump(self.value)


class TokenLanguage(Protocol):
    """What the tokens of a model mean."""

    documents: TCTTokenizer  # says which documents the model writes: workflows, or those of another schema

    def start(
        self, prompt: Any, tokens: list[int] | None, constrained: bool, rules: str
    ) -> tuple[list[int], Callable[[], Constraint]]:
        """Return (tokens, a factory of constraints that stand right after them) for samples that begin as the prompt
        does, or with exactly the tokens given. ValueError if no workflow begins so, or none that fulfils the rules."""

    def read(self, tokens: list[int], reason: str, constrained: bool) -> tuple[list[int], str, str]:
        """Return (tokens, text, finish_reason) of a sample with its prompt that the engine ended for a reason."""


class WorkflowGenerator:
    """A trained model that generates workflows. Generators are immutable, so threads may share one."""

    def __init__(self, model, stride: int, language: TokenLanguage | None = None):
        self.engine = Engine(model, stride=stride)
        self.language = language or TctLanguage()

    @classmethod
    def load(cls, checkpoint=workflow_model.PATH, device="cpu", dtype: str = "auto") -> "WorkflowGenerator":
        """Load a model: a checkpoint's file model_NNNNNN.pt, a folder of checkpoints, or a compact model such as the
        one that ships. dtype is "float32", "bfloat16", or "auto": the faster. ValueError or OSError if the model, or
        the tokenizer that it was trained with, is missing."""
        model, meta = load_model(checkpoint, device)
        language = find_language(meta["data"]["tokenizer"], checkpoint, model.config.n_states)
        model = prepare_for_inference(model, choose_dtype(dtype, model.get_device()))
        return cls(model, meta["data"]["stride"], language)

    def generate(self, num_samples: int = 1, prompt: Any = None, **options) -> list[GeneratedWorkflow]:
        """Return `num_samples` workflows. The arguments are those of `stream`."""
        return list(self.stream(num_samples, prompt, **options))

    def stream(
        self,
        num_samples: int = 1,
        prompt: Any = None,
        *,
        tokens: list[int] | None = None,
        constrained: bool = True,
        rules: str | None = None,
        best_of: int = 1,
        choose: Callable[[list[GeneratedWorkflow]], GeneratedWorkflow] | None = None,
        first: int = 0,
        batch_size: int = 16,
        measure_allowed: bool = False,
        **sampling,
    ) -> Iterator[GeneratedWorkflow]:
        """Yield workflows in order, each as soon as it and those before it are complete.

        Samples continue the prompt, a partial workflow as YAML or JSON text or as a value. Its content is kept. With
        TCT tokens the text may be cut anywhere, and the model may spell its end with other tokens, because they may
        merge with what follows. With BPE tokens the text must parse, and is left open at its end. Alternatively,
        samples continue exactly the `tokens` given, those of a workflow cut after any of them.

        With TCT tokens, workflows are schema-valid, and with `rules` "github", the default, they have no findings of
        tct_github_workflow.rules either. Documents of another schema have the rules "schema" only.

        If `best_of` is above 1, each workflow is the one that `choose` (default: most_likely) takes from that many
        candidates. Without the constraint the raw model generates, until its workflow is complete or, with TCT
        tokens, no longer valid. Samples are numbered from `first`, so that several processes can share those of one
        seed. The fields of SamplingParams are keyword arguments too: max_tokens, temperature, top_k, top_p, min_p,
        max_repeats, max_repetition, seed. ValueError if no workflow begins so, or if an argument is out of range.
        """
        if best_of < 1:
            raise ValueError(f"best_of must be at least 1, not {best_of}")
        if prompt and tokens is not None:
            raise ValueError("a prompt and tokens both say how samples begin: give one of them")
        documents = self.language.documents
        start, factory = self.language.start(prompt, tokens, constrained, rules or documents.default_rules)
        steps = self.engine.stream(
            start,
            num_samples * best_of,
            SamplingParams(**sampling),
            constraint_factory=factory,
            measure_allowed=measure_allowed,
            batch_size=batch_size,
            first=first * best_of,
        )
        begun, finished, turn = {}, {}, first * best_of
        for step in steps:
            begun.setdefault(step.index, time.perf_counter())
            if sample := step.sample:
                seconds = time.perf_counter() - begun.pop(step.index)
                read = self.language.read(start + sample.tokens, sample.finish_reason, constrained)
                mean = sample.logprob / max(1, len(sample.tokens))
                finished[step.index] = GeneratedWorkflow(
                    *read, sample.logprob, mean, sample.allowed, seconds, sample.accepted, documents
                )
            while all(index in finished for index in range(turn, turn + best_of)):
                candidates = [finished.pop(index) for index in range(turn, turn + best_of)]
                yield (choose or most_likely)(candidates)
                turn += best_of


def most_likely(workflows: list[GeneratedWorkflow]) -> GeneratedWorkflow:
    """Return the workflow with the highest mean log-probability, of those that the model ended if there are any.

    Without this preference the choice would often be a sample that repeats itself, because repetition is likely.
    """
    return max(workflows, key=lambda workflow: (workflow.finish_reason == "complete", workflow.mean_logprob))


class Unconstrained:
    """Allow every token."""

    def fill_next_token_bitmask(self, bitmask, index: int = 0) -> bool:
        bitmask[index] = -1
        return True


# -----------------------------------------------------------------------------
# TCT tokens


class TctLanguage:
    """Our tokens. The matcher decides which may come next, and when a document is complete."""

    def __init__(self, documents: TCTTokenizer | None = None):
        self.documents = documents or TCTTokenizer()

    def start(self, prompt, tokens, constrained, rules):
        started = self.documents.matcher(rules if constrained else "schema")
        if tokens is None:
            prefix = self.documents.encode_prefix(prompt or "")
            tokens = prefix[: prefix.n_stable]
            if not started.accept_prefix(prefix):
                raise ValueError(f"the prompt breaks a rule of GitHub: {started.fault(prefix)}")
        else:
            accept_all(started, tokens)
        return list(tokens), started.fork if constrained else lambda: ValidityMonitor(started.fork())

    def read(self, tokens, reason, constrained):
        if not constrained and reason == "complete":  # or ended by its last token, which is not allowed
            matcher = self.documents.matcher()
            if not (matcher.accept_tokens(tokens) and matcher.is_terminated()):
                tokens, reason = tokens[:-1], "invalid"
        is_whole = constrained or reason == "complete"
        return tokens, self.documents.decode(tokens) if is_whole else self.documents.decode_prefix(tokens), reason


class ValidityMonitor(Unconstrained):
    """End a sample that is complete, or that can no longer become a valid document."""

    def __init__(self, matcher):
        self._matcher, self._is_valid = matcher, True

    def accept_token(self, token: int) -> bool:
        self._is_valid = self._matcher.accept_token(token)
        return True

    def is_terminated(self) -> bool:
        return not self._is_valid or self._matcher.is_terminated()

    def state_id(self) -> int:
        return self._matcher.state_id()

    def state_ids(self) -> list[int]:
        return self._matcher.state_ids()


# -----------------------------------------------------------------------------
# BPE tokens


class BpeLanguage:
    """The tokens of the baseline. llguidance decides which may come next, and END ends a text."""

    def __init__(self, tokenizer: BPETokenizer):
        self.tokenizer, self.documents = tokenizer, TCTTokenizer()

    @cached_property
    def constraint(self) -> Constraint:
        """One at the start of a workflow, to be forked. ValueError if llguidance is not installed."""
        try:
            from tct.contrib.llguidance import LLGuidanceConstraint  # an optional dependency
        except ImportError as error:
            raise ValueError(
                "a model of BPE tokens is constrained by llguidance: pip install llguidance, or sample "
                f"without constraint ({error})"
            ) from None
        return LLGuidanceConstraint.compile(self.tokenizer.library, tct.workflow_schema(), END)

    def start(self, prompt, tokens, constrained, rules):
        if tokens is None:
            tokens = self.tokenizer.encode_prefix(left_open(prompt)) if prompt else []
        tokens = list(tokens)
        if not constrained:
            return tokens, lambda: StopAtEndToken(tokens)
        started = self.constraint.fork()
        accept_all(started, tokens)
        return tokens, started.fork

    def read(self, tokens, reason, constrained):
        return tokens, self.tokenizer.decode_prefix(tokens), reason


class StopAtEndToken(Unconstrained):
    """End a sample at END."""

    def __init__(self, tokens: list[int]):
        self._ended = END in tokens

    def accept_token(self, token: int) -> bool:
        self._ended = token == END
        return True

    def is_terminated(self) -> bool:
        return self._ended


def left_open(prompt: str | dict) -> str:
    """Return a workflow, a value or YAML or JSON text, as compact JSON that can be continued.

    >>> left_open("on: push\\njobs: {}")
    '{"on":"push","jobs":{'
    """
    value = load_text(prompt, "") if isinstance(prompt, str) else prompt
    return compact(value).rstrip("}]")  # removes brackets only: a string ends with its quote


# -----------------------------------------------------------------------------
# the language of a checkpoint


def find_language(trained_with: dict[str, str], checkpoint, n_states: int = 0) -> TokenLanguage:
    """Return the language of the tokenizer that a checkpoint was trained with, perhaps with n_states schema positions.

    Any tokenizer but that of workflows is the file tokenizer.json next to the checkpoint, or in the folder above.
    ValueError if the tokenizer is missing or a different one.
    """
    if trained_with["name"] in (*NAMES, ArtifactTokenizer.name):
        tokenizer = find_tokenizer(trained_with, checkpoint)
    else:
        check_tokenizer(trained_with, f"the checkpoint {checkpoint}")
        tokenizer = TCTTokenizer()
    if isinstance(tokenizer, BPETokenizer):
        return BpeLanguage(tokenizer)
    if n_states not in (0, tokenizer.library.n_states()):
        raise ValueError(
            f"the checkpoint {checkpoint} was trained with {n_states} schema positions, but the installed "
            f"tokenizer has {tokenizer.library.n_states()}: train it again"
        )
    return TctLanguage(tokenizer)


def find_tokenizer(trained_with: dict[str, str], checkpoint) -> ArtifactTokenizer | BPETokenizer:
    """Return the tokenizer next to a checkpoint, or in the folder above. ValueError as in find_language."""
    path = Path(checkpoint).expanduser()
    folder = path if path.is_dir() else path.parent
    remedy = f"copy that of the prepared folder it was trained on to {folder}"
    path = next((p for p in (folder / FILE, folder.parent / FILE) if p.is_file()), None)
    if not path:
        raise ValueError(f"the checkpoint {checkpoint} has no {FILE} next to it or in the folder above: {remedy}")
    tokenizer = load_tokenizer(path)
    if tokenizer.fingerprint != trained_with["fingerprint"]:
        raise ValueError(f"{path} is not the tokenizer that the checkpoint {checkpoint} was trained with: {remedy}")
    return tokenizer


def check_tokenizer(trained_with: dict[str, str], what: str) -> None:
    """Raise ValueError if `what` was made with a tokenizer other than the installed one."""
    if trained_with != {"name": tct.NAME, "fingerprint": tct.fingerprint()}:
        theirs, ours = f"{trained_with['name']} {trained_with['fingerprint']}", f"{tct.NAME} {tct.fingerprint()}"
        raise ValueError(f"{what} was made with tokenizer {theirs}, but {ours} is installed: make it again")


def accept_all(constraint, tokens: list[int]) -> None:
    """Advance a constraint past tokens. ValueError with the first that is not allowed."""
    count = constraint.validate_tokens(tokens)
    if count < len(tokens):
        raise ValueError(
            f"token {count} of the {len(tokens)} that samples begin with, {tokens[count]}, is not allowed there"
        )
    assert constraint.accept_tokens(tokens)

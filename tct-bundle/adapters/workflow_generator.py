"""From a checkpoint to workflows: the model's engine, and the language of its tokens.

>>> generator = WorkflowGenerator.load("out/tiny")                     # doctest: +SKIP
>>> for workflow in generator.generate(3, temperature=0.8, seed=1):    # doctest: +SKIP
...     print(workflow.yaml)
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import tct_github_workflow as tct
from nanochat.checkpoint_manager import load_model
from nanochat.device import choose_dtype
from nanochat.engine import Constraint, Engine
from nanochat.inference import prepare_for_inference
from tct.json_text import compact
from tct_github_workflow.files import load_text
from tct_github_workflow.workflow_yaml import dump_workflow, load_json
from workflow_data.llguidance_constraint import LLGuidanceConstraint
from workflow_data.tokenizers import END, NAMES, BPETokenizer

FILE = "tokenizer.json"
MAX_TOKENS = 1024  # tokens of a sample unless told otherwise; four of five real workflows are shorter


@dataclass(frozen=True)
class GeneratedWorkflow:
    """What one sample says. With the constraint of TCT tokens a workflow, complete and schema-valid."""

    tokens: list[int]  # those of the prompt too
    json: str  # of TCT tokens compact, of an unfinished one closed so that it parses; of BPE tokens their text as it is
    finish_reason: str  # "complete": ended by the model; "closed": by the shortest ending, at max_tokens;
    # "length": cut at max_tokens; "invalid": at a token that is not allowed. With TCT tokens the last two come
    # without constraint only; BPE tokens have no "closed" and no "invalid"
    logprob: float  # nats, of the sampled tokens among the allowed ones
    mean_logprob: float  # per token
    allowed: float | None  # the probability that the model gave to allowed tokens, on average, if measured
    seconds: float  # from its first step to its last; those of a batch are made at the same time

    @cached_property
    def value(self) -> Any:
        """ValueError where `json` is no JSON, which BPE tokens may be."""
        return load_json(self.json)

    @cached_property
    def yaml(self) -> str:
        """ValueError as in `value`."""
        return dump_workflow(self.value)


class Language(Protocol):
    """What the tokens of a model mean."""

    def start(
        self, prompt: str | dict | None, tokens: list[int] | None, constrained: bool
    ) -> tuple[list[int], Callable[[], Constraint]]:
        """(tokens, a factory of constraints that stand right after them) of samples that begin as the prompt does,
        or with exactly these tokens. ValueError where no workflow does."""

    def read(self, tokens: list[int], reason: str, constrained: bool) -> tuple[list[int], str, str]:
        """(tokens, text, finish_reason) of a sample with its prompt, and of the reason why the engine ended it."""


class WorkflowGenerator:
    """A trained model that writes workflows. Nothing in it changes: threads may share one."""

    def __init__(self, model, stride: int, language: Language | None = None):
        self.engine = Engine(model, stride=stride)
        self.language = language or TctLanguage()

    @classmethod
    def load(cls, checkpoint, device="cpu", dtype: str = "auto") -> "WorkflowGenerator":
        """The model of a checkpoint: a file model_NNNNNN.pt or a folder. ValueError or OSError where there is
        none, or not the tokenizer that it was trained with. dtype is "float32", "bfloat16", or the faster."""
        model, meta = load_model(checkpoint, device)
        language = find_language(meta["data"]["tokenizer"], checkpoint, model.config.n_states)
        model = prepare_for_inference(model, choose_dtype(dtype, model.get_device()))
        return cls(model, meta["data"]["stride"], language)

    def generate(self, num_samples: int = 1, prompt: str | dict | None = None, **options) -> list[GeneratedWorkflow]:
        """`num_samples` workflows; the arguments are those of `stream`."""
        return list(self.stream(num_samples, prompt, **options))

    def stream(
        self,
        num_samples: int = 1,
        prompt: str | dict | None = None,
        *,
        tokens: list[int] | None = None,
        max_tokens: int = MAX_TOKENS,
        best_of: int = 1,
        choose: Callable[[list[GeneratedWorkflow]], GeneratedWorkflow] | None = None,
        constrained: bool = True,
        first: int = 0,
        **options,
    ) -> Iterator[GeneratedWorkflow]:
        """Yields workflows in order, each once it and those before it are complete.

        A prompt is a partial workflow, YAML or JSON text or a value: what it says is kept, and goes on where it
        ends. `tokens` in its place are those of a workflow, cut at any of them; samples begin with exactly these.
        For TCT tokens a text may be cut anywhere, and its last tokens are left to the model to spell, since they may
        merge with what follows; for BPE tokens a text must parse, and is left open at its end.

        With `best_of` each is the one of so many that `choose` takes, `likeliest` unless told otherwise. Without the
        constraint the raw model writes, until its workflow is complete or, where TCT tokens show that, no longer
        valid. Samples are numbered from `first` on, so that several processes can share those of one seed. `options`
        are the engine's: temperature, top_k, top_p, min_p, seed, batch_size, max_repeats, measure_allowed. ValueError
        where the constraint takes no workflow that starts so, or where an option makes no sense.
        """
        if best_of < 1:
            raise ValueError(f"best_of must be at least 1, not {best_of}")
        if prompt and tokens is not None:
            raise ValueError("a prompt and tokens both say how samples begin: give one of them")
        start, factory = self.language.start(prompt, tokens, constrained)
        steps = self.engine.stream(
            start,
            num_samples * best_of,
            first=first * best_of,
            max_tokens=max_tokens,
            constraint_factory=factory,
            **options,
        )
        begun, finished, turn = {}, {}, first * best_of
        for step in steps:
            begun.setdefault(step.index, time.perf_counter())
            if sample := step.sample:
                seconds = time.perf_counter() - begun.pop(step.index)
                read = self.language.read(start + sample.tokens, sample.finish_reason, constrained)
                mean = sample.logprob / max(1, len(sample.tokens))
                finished[step.index] = GeneratedWorkflow(*read, sample.logprob, mean, sample.allowed, seconds)
            while all(index in finished for index in range(turn, turn + best_of)):
                candidates = [finished.pop(index) for index in range(turn, turn + best_of)]
                yield (choose or likeliest)(candidates)
                turn += best_of


def likeliest(workflows: list[GeneratedWorkflow]) -> GeneratedWorkflow:
    """The one of the highest mean log-probability."""
    return max(workflows, key=lambda workflow: workflow.mean_logprob)


# ---------------------------------------------------------------------------------------------------------
# TCT tokens


class TctLanguage:
    """Our tokens: the matcher knows which may come next, and when a workflow is complete."""

    def start(self, prompt, tokens, constrained):
        started = tct.matcher()
        if tokens is None:
            prefix = tct.encode_prefix(prompt or "")
            tokens = prefix[: prefix.n_stable]
            assert started.accept_prefix(prefix)
        else:
            accept(started, tokens)
        return list(tokens), started.fork if constrained else lambda: Observer(started.fork())

    def read(self, tokens, reason, constrained):
        if not constrained and reason == "complete":  # or ended by the last token, which is not allowed
            matcher = tct.matcher()
            if not (matcher.accept_tokens(tokens) and matcher.is_terminated()):
                tokens, reason = tokens[:-1], "invalid"
        is_whole = constrained or reason == "complete"
        return tokens, tct.decode(tokens)[0] if is_whole else tct.decode_prefix(tokens)[0], reason


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

    def state_id(self) -> int:
        return self._matcher.state_id()

    def state_ids(self) -> list[int]:
        return self._matcher.state_ids()


# ---------------------------------------------------------------------------------------------------------
# BPE tokens


class BpeLanguage:
    """The baseline's tokens: text of which llguidance knows what may come next, and which ends with END."""

    def __init__(self, tokenizer: BPETokenizer):
        self.tokenizer = tokenizer

    @cached_property
    def constraint(self) -> LLGuidanceConstraint:
        return LLGuidanceConstraint.compile(self.tokenizer.library)

    def start(self, prompt, tokens, constrained):
        if tokens is None:
            tokens = self.tokenizer.encode_prefix(left_open(prompt)) if prompt else []
        tokens = list(tokens)
        if not constrained:
            return tokens, lambda: UntilEnd(tokens)
        started = self.constraint.fork()
        accept(started, tokens)
        return tokens, started.fork

    def read(self, tokens, reason, constrained):
        return tokens, self.tokenizer.decode_prefix(tokens), reason


class UntilEnd:
    """A constraint that allows everything, and ends a sample at END."""

    def __init__(self, tokens: list[int]):
        self._ended = END in tokens

    def fill_next_token_bitmask(self, bitmask, index: int = 0) -> bool:
        bitmask[index] = -1
        return True

    def accept_token(self, token: int) -> bool:
        self._ended = token == END
        return True

    def is_terminated(self) -> bool:
        return self._ended


def left_open(prompt: str | dict) -> str:
    """A whole workflow, a value or YAML or JSON text, as compact JSON to which members and items may be added.

    >>> left_open("on: push\\njobs: {}")
    '{"on":"push","jobs":{'
    """
    value = load_text(prompt, "") if isinstance(prompt, str) else prompt
    return compact(value).rstrip("}]")  # no more than brackets: a string ends with its quote


# ---------------------------------------------------------------------------------------------------------
# which of them


def find_language(trained_with: dict[str, str], checkpoint, n_states: int = 0) -> Language:
    """That of the tokenizer which a checkpoint was trained with, perhaps told n_states of it; one of BPE tokens is a
    file tokenizer.json beside the checkpoint, or in the folder above. ValueError where it is another, or not there."""
    if trained_with["name"] not in NAMES:
        check_tokenizer(trained_with, f"the checkpoint {checkpoint}")
        if n_states not in (0, tct.n_states()):
            raise ValueError(
                f"the checkpoint {checkpoint} was trained with {n_states} states, but the installed "
                f"tokenizer has {tct.n_states()}: train it again"
            )
        return TctLanguage()
    path = Path(checkpoint).expanduser()
    folder = path if path.is_dir() else path.parent
    remedy = f"copy that of the prepared folder it was trained on to {folder}"
    path = next((p for p in (folder / FILE, folder.parent / FILE) if p.is_file()), None)
    if not path:
        raise ValueError(f"the checkpoint {checkpoint} has no {FILE} beside it or in the folder above: {remedy}")
    tokenizer = BPETokenizer.load(path)
    if tokenizer.fingerprint != trained_with["fingerprint"]:
        raise ValueError(f"{path} is not the tokenizer that the checkpoint {checkpoint} was trained with: {remedy}")
    return BpeLanguage(tokenizer)


def is_installed(tokenizer: dict[str, str]) -> bool:
    """Whether this is the tokenizer that the generator works with."""
    return tokenizer == {"name": tct.NAME, "fingerprint": tct.fingerprint()}


def check_tokenizer(trained_with: dict[str, str], what: str) -> None:
    """ValueError where `what` was made with another tokenizer than the one installed."""
    if not is_installed(trained_with):
        theirs, ours = f"{trained_with['name']} {trained_with['fingerprint']}", f"{tct.NAME} {tct.fingerprint()}"
        raise ValueError(f"{what} was made with tokenizer {theirs}, but {ours} is installed: make it again")


def accept(constraint, tokens: list[int]) -> None:
    """Takes a constraint past tokens; ValueError with the first that is not allowed."""
    count = constraint.validate_tokens(tokens)
    if count < len(tokens):
        raise ValueError(
            f"token {count} of the {len(tokens)} that samples begin with, {tokens[count]}, is not allowed there"
        )
    assert constraint.accept_tokens(tokens)

"""Complete the YAML of a workflow at the caret with a model, and say what may come next there.

>>> completer = Completer.load()    # the model that ships
>>> completer.candidates("on: push\\njobs:\\n  test:\\n    runs-on: ", count=1)    # doctest: +SKIP
[Candidate(edit=Edit(start=40, text='ubuntu-latest\\n'), logprob=-0.4)]
"""

from collections.abc import Iterator
from dataclasses import dataclass

import workflow_model
from workflow_generator import WorkflowGenerator


@dataclass(frozen=True)
class Edit:
    """A change of the text before the caret: what stands from `start` to the caret is replaced by `text`.

    Usually nothing is replaced. The blanks of the last line are, if the text goes on at another indentation.
    """

    start: int  # characters before it are kept
    text: str


@dataclass(frozen=True)
class Candidate:
    """A completion, and its log-probability in nats."""

    edit: Edit
    logprob: float


@dataclass(frozen=True)
class NextToken:
    """A token that the model thinks likely at the caret."""

    text: str  # readable: free text as it is, everything else in angle brackets
    probability: float  # under the model alone
    kind: str  # one of workflow_eval.token_kinds.KINDS
    fault: str  # why the schema or the rules forbid it; empty if it is allowed


@dataclass(frozen=True)
class Outlook:
    """What may come next at the caret."""

    tokens: list[NextToken]  # the likeliest first
    owed: list[str]  # what the text refers to and what is still to come, one sentence each
    ending: Edit  # the shortest ending of the workflow


@dataclass(frozen=True)
class SpelledToken:
    """A token of a text, and how probable it was after those before it."""

    text: str
    probability: float
    kind: str


class Completer:
    """A model that completes texts. The arguments `text` are what stands before the caret.

    All methods raise ValueError with one sentence if no workflow begins so. Threads may share a completer.
    """

    def __init__(self, generator: WorkflowGenerator):
        self.generator = generator

    @classmethod
    def load(cls, checkpoint=workflow_model.PATH, device="cpu", dtype: str = "auto") -> "Completer":
        """Load a model. The arguments and errors are those of WorkflowGenerator.load."""
        return cls(WorkflowGenerator.load(checkpoint, device, dtype))

    def stream(self, text: str, until: str = "document", rules: str = "github", **sampling) -> Iterator[Edit]:
        """Yield the completion of a text while it grows: each edit takes the place of the one before.

        It ends with the value at the caret (`until` "value"), the key with its value or the item ("entry"), or the
        whole workflow ("document"). Close the iterator to stop. `sampling` are the fields of SamplingParams.
        """
        raise NotImplementedError

    def candidates(
        self, text: str, count: int = 4, until: str = "entry", rules: str = "github", **sampling
    ) -> list[Candidate]:
        """Return at most `count` different completions, the likeliest first."""
        raise NotImplementedError

    def outlook(self, text: str, count: int = 12, rules: str = "github") -> Outlook:
        """Return what may come next."""
        raise NotImplementedError

    def spell(self, text: str) -> list[SpelledToken]:
        """Return the tokens of a text with their probabilities."""
        raise NotImplementedError

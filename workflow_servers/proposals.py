"""Complete a text in an editor with a model: only if what follows the caret stays right."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from tct_github_workflow.lint import lint

from .completion import Candidate, Completer, Edit

N_CANDIDATES = 4
MAX_TOKENS = 24  # of a candidate
MAX_TOKENS_INLINE = 48  # of the text in gray at the caret
_NOTHING = re.compile(r"[ \t]*(?:[\]},#]|\r?\n|\Z)")  # what may follow the caret in its line
_RULES = ("github", "schema")  # the second one is for texts that break a rule of GitHub already


@dataclass(frozen=True)
class Proposer:
    """A model that completes texts at any place. It proposes nothing if no workflow begins so."""

    completer: Completer

    def candidates(self, text: str, offset: int, until: str) -> Iterator[list[Candidate]]:
        """Yield completions, the likeliest first."""
        for rules in _rules_at(text, offset):
            try:
                found = self.completer.candidates(text[:offset], N_CANDIDATES, until, rules, max_tokens=MAX_TOKENS)
            except ValueError:
                continue
            logprobs = {_without_line_end(candidate.edit): candidate.logprob for candidate in reversed(found)}
            yield [Candidate(edit, logprobs[edit]) for edit in _suitable(reversed(logprobs), text, offset)]
            return

    def entry(self, text: str, offset: int) -> Iterator[Edit | None]:
        """Yield None for each step of the likeliest completion, and at last the completion, if it is suitable."""
        sampling = {"max_tokens": MAX_TOKENS_INLINE, "temperature": 0}
        for rules in _rules_at(text, offset):
            edit = Edit(offset, "")
            try:
                with closing(self.completer.stream(text[:offset], "entry", rules, **sampling)) as growing:
                    for edit in growing:
                        yield None
            except ValueError:
                continue
            yield from _suitable([_without_line_end(edit)], text, offset)
            return


def load_proposer(checkpoint) -> Proposer:
    """Load a model. The errors are those of Completer.load."""
    return Proposer(Completer.load(checkpoint))


def _rules_at(text: str, offset: int) -> tuple[str, ...]:
    return _RULES if _NOTHING.match(text, offset) else ()


def _without_line_end(edit: Edit) -> Edit:
    """Return an edit without its last line end, because the text or the user continues with one."""
    return replace(edit, text=edit.text.rstrip("\n"))


def _suitable(edits: Iterable[Edit], text: str, offset: int) -> Iterator[Edit]:
    """Yield the edits that bring no findings. At the end of a text all are suitable, because it is not complete."""
    after = text[offset:]
    line = text.rfind("\n", 0, offset) + 1
    accepted = _findings(text) | _findings(text[:line] + after.partition("\n")[2])  # the line may hide others
    for edit in edits:
        if edit.text and not (after.strip() and _findings(text[: edit.start] + edit.text + after) - accepted):
            yield edit


def _findings(text: str) -> Counter:
    return Counter((problem.rule, problem.message) for problem in lint(text))

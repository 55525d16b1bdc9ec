"""Complete a text in an editor with a model: only if what follows the caret stays right."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from tct_github_workflow.lint import lint

from .completion import Candidate, Completer, Edit

N_CANDIDATES = 4
SAMPLING = {"max_tokens": 20, "temperature": 0.6, "min_p": 0.1}  # of candidates
ENTRY_SECONDS = 0.4  # for an entry; what is not written by then is left out
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
                found = self.completer.candidates(text[:offset], N_CANDIDATES, until, rules, **SAMPLING)
            except ValueError:
                continue
            suits = _suitability(text, offset)
            yield [candidate for candidate in found if suits(candidate.edit)]
            return

    def entry(self, text: str, offset: int) -> Iterator[Edit | None]:
        """Yield None for each step of the likeliest completion, and at last the completion, if it is suitable.

        If it takes too long, it ends with the last line that is whole.
        """
        for rules in _rules_at(text, offset):
            edit, deadline = Edit(offset, ""), time.monotonic() + ENTRY_SECONDS
            try:
                with closing(self.completer.stream(text[:offset], "entry", rules, temperature=0)) as growing:
                    for edit in growing:
                        yield None
                        if time.monotonic() > deadline:
                            edit = replace(edit, text=edit.text.rpartition("\n")[0])
                            break
            except ValueError:
                continue
            if _suitability(text, offset)(edit):
                yield edit
            return


def load_proposer(checkpoint) -> Proposer:
    """Load a model. The errors are those of Completer.load."""
    return Proposer(Completer.load(checkpoint))


def _rules_at(text: str, offset: int) -> tuple[str, ...]:
    return _RULES if _NOTHING.match(text, offset) else ()


def _suitability(text: str, offset: int) -> Callable[[Edit], bool]:
    """Return a function that says whether an edit stays in its line and brings no findings.

    At the end of a text findings do not count, because something is always missing there.
    """
    after, line = text[offset:], text.rfind("\n", 0, offset) + 1
    accepted = _findings(text) | _findings(text[:line] + after.partition("\n")[2])  # the line may hide others

    def suits(edit: Edit) -> bool:
        if not edit.text or edit.start < line:
            return False
        return not (after.strip() and _findings(edit.apply(text[:offset]) + after) - accepted)

    return suits


def _findings(text: str) -> Counter:
    return Counter((problem.rule, problem.message) for problem in lint(text))

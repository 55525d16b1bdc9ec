"""Complete a text in an editor with a model: only if what follows the caret stays right."""

import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from itertools import takewhile

from tct_github_workflow.lint import lint

from .completion import Candidate, Completer, Edit

N_CANDIDATES = 3
SAMPLING = {"temperature": 0.6, "min_p": 0.1}  # of candidates
SECONDS = 0.35  # for a request, before the answer is checked
_NOTHING = re.compile(r"[ \t]*(?:[\]},#]|\r?\n|\Z)")  # what may follow the caret in its line
_RULES = ("github", "schema")  # the second one is for texts that break a rule of GitHub already


@dataclass(frozen=True)
class Proposer:
    """A model that completes texts at any place, in a limited time.

    It proposes nothing if no workflow begins so. `is_over` returns True if the answer is not needed any more.
    """

    completer: Completer

    def candidates(self, text: str, offset: int, until: str, is_over: Callable[[], bool]) -> list[Candidate]:
        """Return the completions that are whole in time, the likeliest first."""
        stop, prompt = _after(SECONDS, is_over), prompt_at(text, offset)
        for rules in _rules_at(text, offset):
            if stop():
                break
            try:
                found = self.completer.candidates(prompt, N_CANDIDATES, until, rules, stop, **SAMPLING)
            except ValueError:
                continue
            suits, moved = _suitability(text, offset), offset - len(prompt)
            found = [replace(each, edit=replace(each.edit, start=each.edit.start + moved)) for each in found]
            return [candidate for candidate in found if suits(candidate.edit)]
        return []

    def entry(self, text: str, offset: int, is_over: Callable[[], bool]) -> Edit | None:
        """Return the likeliest member or item. If it takes too long, it ends with its last line that is whole."""
        stop, prompt = _after(SECONDS, is_over), prompt_at(text, offset)
        for rules in _rules_at(text, offset):
            edit = Edit(len(prompt), "")
            try:
                with closing(self.completer.stream(prompt, "entry", rules, temperature=0)) as growing:
                    for growth in growing:
                        edit = growth.edit
                        if stop():
                            edit = replace(edit, text=edit.text.rpartition("\n")[0])
                            break
            except ValueError:
                continue
            edit = replace(edit, start=edit.start + offset - len(prompt))
            return edit if _suitability(text, offset)(edit) else None
        return None


def load_proposer(checkpoint) -> Proposer:
    """Load a model. The errors are those of Completer.load."""
    completer = Completer.load(checkpoint)
    completer.candidates("", stop=lambda: True)  # the first call is slow: nobody waits for this one
    return Proposer(completer)


def prompt_at(text: str, offset: int) -> str:
    """Return what the model reads: the text before the caret, but in an empty line before keys the keys come first.

    So the model knows them, and their order has no meaning.

    >>> prompt_at("on: push\\njobs:\\n  a:\\n    \\n    steps: []\\n  b: {}\\n", 24)
    'on: push\\njobs:\\n  a:\\n    steps: []\\n    '
    """
    line = text.rfind("\n", 0, offset) + 1
    indent = text[line:offset]
    following = text[offset:].partition("\n")[2].splitlines(keepends=True)
    block = "".join(takewhile(lambda line: line.startswith(indent) or not line.strip(), following))
    if not indent or indent.strip(" ") or not re.match(rf"\s*^{indent}[^\s#-]", block, re.M):
        return text[:offset]
    return text[:line] + block.rstrip() + "\n" + indent


def _after(seconds: float, is_over: Callable[[], bool]) -> Callable[[], bool]:
    """Return a function that returns True some time from now, or when `is_over` does."""
    deadline = time.monotonic() + seconds
    return lambda: is_over() or time.monotonic() > deadline


def _rules_at(text: str, offset: int) -> tuple[str, ...]:
    return _RULES if _NOTHING.match(text, offset) else ()


def _suitability(text: str, offset: int) -> Callable[[Edit], bool]:
    """Return a function that says whether an edit stays in its line and brings no findings.

    At the end of a text findings do not count, because something is always missing there.
    """
    after, line = text[offset:], text.rfind("\n", 0, offset) + 1

    @cache
    def accepted() -> Counter:
        return _findings(text) | _findings(text[:line] + after.partition("\n")[2])  # the line may hide others

    def suits(edit: Edit) -> bool:
        if not edit.text or edit.start < line:
            return False
        return not (after.strip() and _findings(edit.apply(text[:offset]) + after) - accepted())

    return suits


def _findings(text: str) -> Counter:
    return Counter((problem.rule, problem.message) for problem in lint(text))

"""Complete the YAML of a workflow at the caret with a model, and say what may come next there.

>>> completer = Completer.load()    # the model that ships
>>> completer.candidates("on: push\\njobs:\\n  test:\\n    runs-on: ", count=1)    # doctest: +SKIP
[Candidate(edit=Edit(start=40, text='ubuntu-latest'), logprob=-0.4)]
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

import workflow_model
from nanochat.sample import Constraint, Step
from nanochat.sampling import SamplingParams
from script_tools.bitmask import allowed_tokens
from tct.matcher import Prefix
from tct.symbols import END_ARRAY, END_OBJECT, FIRST_BYTE
from workflow_data.tokenizers import TCTTokenizer
from workflow_eval.token_kinds import KINDS, kind_at
from workflow_generator import TctLanguage, WorkflowGenerator

from .placement import Edit, Placement, spine

UNTIL = ("value", "entry", "document")
# The share of time that is spent on texts while tokens are drawn. A page then shows about ten a second. The end of a
# value or an entry is found only in its text, so that is looked at more often.
SHARE_OF_TIME, SHARE_TO_FIND_AN_END = 0.03, 0.2
MOST_TOKENS = 64  # of a candidate


@dataclass(frozen=True)
class Candidate:
    """A completion, and its log-probability in nats."""

    edit: Edit
    logprob: float


@dataclass(frozen=True)
class Growth:
    """A completion so far."""

    edit: Edit
    tokens: int  # that the model has added, including those that an edit of one value or entry leaves out


@dataclass(frozen=True)
class NextToken:
    """A token that the model thinks likely at the caret."""

    text: str  # readable: free text as it is, everything else in angle brackets
    kind: str  # one of workflow_eval.token_kinds.KINDS
    probability: float  # under the model alone
    fault: str  # why the schema or the rules forbid it; empty if it is allowed


@dataclass(frozen=True)
class Outlook:
    """What may come next at the caret."""

    tokens: list[NextToken]  # the likeliest first
    owed: list[str]  # what the text refers to and what is still to come, one sentence each
    ending: Edit  # a short ending of the workflow


@dataclass(frozen=True)
class SpelledToken:
    """A token of a text, and how probable it was after those before it."""

    text: str
    kind: str
    probability: float


class Completer:
    """A model that completes texts. The arguments `text` are what stands before the caret.

    All methods raise ValueError with one sentence if no workflow begins so. `rules` are those of the tokenizer:
    "schema", "github" (the default for workflows) or "known". Threads may share a completer.
    """

    def __init__(self, generator: WorkflowGenerator):
        if not isinstance(generator.language, TctLanguage):
            raise ValueError("a model of BPE tokens cannot complete at the caret: choose one of TCT tokens")
        self.generator = generator
        self.documents = generator.language.documents

    @classmethod
    def load(cls, checkpoint=workflow_model.PATH, device="cpu", dtype: str = "auto") -> "Completer":
        """Load a model. The arguments and errors are those of WorkflowGenerator.load."""
        return cls(WorkflowGenerator.load(checkpoint, device, dtype))

    def stream(self, text: str, until: str = "document", rules: str | None = None, **sampling) -> Iterator[Growth]:
        """Yield the completion of a text while it grows. Each edit takes the place of the one before.

        It ends with the value at the caret (`until` "value"), the member or item that has it ("entry"), or the whole
        workflow ("document"). Close the iterator to stop. `sampling` are the fields of SamplingParams.
        """
        tokens, factory = self._start(text, rules)
        growing, last = Growing(text, until, self.documents, tokens), None
        share = SHARE_OF_TIME if until == "document" else SHARE_TO_FIND_AN_END
        spent, started = 0.0, time.perf_counter()
        for step in self.generator.engine.stream(tokens, 1, SamplingParams(**sampling), constraint_factory=factory):
            growing.read(step)
            now = time.perf_counter()
            if step.sample or spent <= share * (now - started):
                edit = growing.edit()
                if edit != last:
                    yield Growth(edit, len(growing.tokens) - len(tokens))
                if growing.is_whole:
                    return
                last, spent = edit, spent + time.perf_counter() - now

    def candidates(
        self,
        text: str,
        count: int = 4,
        until: str = "entry",
        rules: str | None = None,
        stop: Callable[[], bool] = lambda: False,
        **sampling,
    ) -> list[Candidate]:
        """Return at most `count` different completions, the likeliest first.

        A completion is left out if it is not whole after MOST_TOKENS tokens, or if it needs another indentation than
        that of the caret. `stop` is called at each token; if it returns True, those that are whole are returned.
        """
        tokens, factory = self._start(text, rules)
        growing = [Growing(text, until, self.documents, tokens) for _ in range(count)]
        options = {"constraint_factory": factory, "batch_size": count}
        found, is_indented = {}, text.endswith(" ") and not text.rpartition("\n")[2].strip()
        for step in self.generator.engine.stream(tokens, count, SamplingParams(**sampling), **options):
            each = growing[step.index]
            if each.is_whole or len(each.tokens) > len(tokens) + MOST_TOKENS:
                continue
            each.read(step)
            edit = each.edit()
            if (
                each.is_whole
                and edit.text
                and (not is_indented or edit.start == len(text) and edit.text[0] not in " \n")
            ):
                found[edit] = max(step.logprob, found.get(edit, step.logprob))
            if stop() or all(other.is_whole or len(other.tokens) > len(tokens) + MOST_TOKENS for other in growing):
                break
        return [Candidate(*pair) for pair in sorted(found.items(), key=lambda pair: -pair[1])]

    def outlook(self, text: str, count: int = 12, rules: str | None = None) -> Outlook:
        """Return what may come next. If the text ends within a token, that is how the likeliest token goes on."""
        tokens, factory = self._start(text, rules)
        matcher, spelled = factory(), ()
        ending = json.loads(self.documents.decode([*tokens, *matcher.closing_tokens()]))
        typed = self.documents.encode_prefix(text).pending
        probs = self._next_probs(tokens, matcher)
        while matcher.is_spelling():
            token = int(probs.argmax())
            spelled += self.documents.library.bpe.symbols_of[token]
            if not any(rest[: len(spelled)] == spelled for rest in typed):
                break  # it goes beyond the text
            assert matcher.accept_token(token)
            tokens = [*tokens, token]
            probs = self._next_probs(tokens, matcher)
        position, likeliest = matcher.state_id(), np.argsort(-probs)[:count].tolist()
        next_ones = [
            NextToken(*self._describe(token, position), float(probs[token]), matcher.refusal(token))
            for token in likeliest
            if probs[token]
        ]
        owed = matcher.owed() if hasattr(matcher, "owed") else []
        return Outlook(next_ones, owed, Placement(text, self.documents.dump).edit(ending))

    def spell(self, text: str) -> list[SpelledToken]:
        """Return the tokens of a text with their probabilities."""
        tokens = list(self.documents.encode_prefix(text))
        matcher = self.documents.matcher("schema")
        assert matcher.accept_tokens(tokens)
        positions = matcher.state_ids()
        probs = self.generator.engine.logprobs(tokens, positions).exp().tolist()
        return [SpelledToken(*self._describe(*pair), prob) for *pair, prob in zip(tokens, positions, probs)]

    def _next_probs(self, tokens: list[int], matcher) -> np.ndarray:
        """Return the probability of each token (V,) after some. If the text's end must be spelled, others have none."""
        probs = self.generator.engine.next_logits(tokens, matcher.fork()).softmax(-1).cpu().numpy()
        if matcher.is_spelling():
            bitmask = matcher.allocate_token_bitmask()
            matcher.fill_next_token_bitmask(bitmask)
            spelled = np.zeros_like(probs)
            chosen = allowed_tokens(bitmask[0])
            spelled[chosen] = probs[chosen] / max(probs[chosen].sum(), np.finfo(probs.dtype).tiny)
            probs = spelled
        return probs

    def _start(self, text: str, rules: str | None) -> tuple[list[int], Callable[[], Constraint]]:
        """Return the tokens of a text, and a factory of constraints that stand after them.

        If the text ends with the blanks of an empty line, another member or item comes at that indentation, if that is
        possible.
        """
        rules = rules or self.documents.default_rules
        tokens, factory = self.generator.language.start(text, None, True, rules)
        if (ends := ends_of_deeper(text)) is not None:
            matcher, size = self.documents.matcher(rules), self.documents.library.machine.symbols.size
            more = [(symbol,) for symbol in range(FIRST_BYTE, size) if symbol not in (END_OBJECT, END_ARRAY)]
            if matcher.accept_prefix(Prefix([*tokens, *ends], len(tokens) + len(ends), more)):
                return [*tokens, *ends], matcher.fork
        return tokens, factory

    def _describe(self, token: int, position: int) -> tuple[str, str]:
        """Return the readable text and the kind of a token at a schema position."""
        return self.documents.id_to_token(token), KINDS[kind_at(self.documents, token, position)]


class Growing:
    """A text, and what a model adds to it."""

    def __init__(self, text: str, until: str, documents: TCTTokenizer, tokens: list[int]):
        if until not in UNTIL:
            raise ValueError(f"until must be {', '.join(UNTIL[:-1])} or {UNTIL[-1]}, not {until!r}")
        self.text, self.until, self.tokens, self.is_whole = text, until, list(tokens), False
        self._documents, self._n_given, self._placement = documents, len(tokens), Placement(text, documents.dump)

    def read(self, step: Step) -> None:
        """Add the tokens of a step, after those that it takes back are gone."""
        self.tokens[len(self.tokens) - step.n_removed :] = step.tokens
        if step.sample:
            self.tokens[self._n_given :] = step.sample.tokens
            self.is_whole = True

    def edit(self) -> Edit:
        """Return what has been added so far, cut to what is asked for."""
        edit = self._placement.edit(json.loads(self._documents.decode_prefix(self.tokens)))
        if self.until == "document":
            return edit
        changed = edit.apply(self.text)
        end = end_of_entry(changed, min(edit.start, len(self.text)), self.until == "value")
        self.is_whole |= end < len(changed)
        return Edit(edit.start, changed[edit.start : max(end, edit.start)].rstrip("\n"))


def end_of_entry(text: str, at: int, is_value: bool) -> int:
    """Return where the member or item ends that begins in the line at an index, or its first value: the start of the
    next line that is not indented more, or the end of the text.

    >>> text = "steps:\n  - run: make\n    id: a\n  - run: test\n"
    >>> text[:end_of_entry(text, 10, False)]
    'steps:\n  - run: make\n    id: a\n'
    """
    start = text.rfind("\n", 0, at) + 1
    first = re.compile(r"\s*^( *)((?:- +)*)", re.M).match(text, start)
    column = len(first[1]) + (len(first[2]) if is_value else 0)
    for line in re.compile(r"^( *)(- )?\S.*", re.M).finditer(text, text.find("\n", first.end()) + 1 or len(text)):
        is_item_of_key = line[2] and not first[2] and len(line[1]) == column
        if len(line[1]) <= column and not is_item_of_key:
            return line.start()
    return len(text)


def ends_of_deeper(text: str) -> list[int] | None:
    """Return the tokens that end the containers which are indented more than the caret in an empty line of a text.

    None if the caret is not in an empty line, or if no container has its indentation.
    """
    kept, _, blanks = text.rpartition("\n")
    if blanks.strip(" "):
        return None
    try:
        levels, leaf = spine(kept + "\n")
    except ValueError:
        return None
    if not blanks or leaf is None or len(blanks) not in (level.column for level in levels):
        return None
    deeper = [level for level in levels if level.column > len(blanks)]
    return [END_ARRAY if level.is_list else END_OBJECT for level in reversed(deeper)]

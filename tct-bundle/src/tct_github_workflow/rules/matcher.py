"""A matcher that also follows the rules of GitHub."""

from contextlib import suppress
from typing import NamedTuple

import numpy as np

from script_tools.bitmask import allowed_tokens
from tct.matcher import Matcher, Pending, Prefix, Vocabulary
from tct.state import State
from tct.symbols import END_NUMBER, END_STRING

from .closing import closing_symbols
from .following import implied, write_symbol, write_text
from .places import ROOT, Place
from .state import RulesState
from .types import Fault


class RulesStep(NamedTuple):
    """The state after a token: of the schema, of what must come next, and of the rules."""

    state: State
    pending: Pending
    rules: RulesState


class RulesMatcher(Matcher):
    """Follow one workflow: a token is allowed only if the workflow can still become one without findings.

    A mask of the whole vocabulary needs a check of each token. It is cheaper to draw from what the schema allows
    (`fill_candidate_bitmask`), and to draw again if a token is refused, without all that are refused like it
    (`refused_like`). The distribution is the same.
    """

    def __init__(self, vocabulary: Vocabulary, root: Place = ROOT):
        self._root = root
        super().__init__(vocabulary)

    def _start(self) -> RulesStep:
        step = super()._start()
        return RulesStep(*step, implied(RulesState(root_place=self._root), step.state))

    def _after(self, step: RulesStep, token: int) -> RulesStep | None:
        then = super()._after(step, token)
        if then is None:
            return None
        try:
            return RulesStep(*then, self._rules_after(step, token))
        except Fault:
            return None

    def refusal(self, token: int) -> str:
        step = self._history[-1]
        if super()._after(step, token) is None:
            return super().refusal(token)
        try:
            self._rules_after(step, token)
        except Fault as fault:
            return f"{fault} [{fault.rule}]"
        return ""

    def owed(self) -> list[str]:
        """Return what the workflow refers to, and does not have yet: a sentence for each text that refers to it."""
        return [
            f"{'.'.join(map(str, owing.path))}: what {owing.text!r} refers to is still to come"
            for owing in self._history[-1].rules.owing
        ]

    def _rules_after(self, step: RulesStep, token: int) -> RulesState:
        text, symbols = self._bpe.spelled[token]
        return self._write(step.state, step.rules, text, symbols)

    def _write(self, state: State, rules: RulesState, text: bytes, symbols: tuple[int, ...]) -> RulesState:
        if text:
            after = state.run(text)
            ends = bool(symbols) and symbols[0] in (END_STRING, END_NUMBER)
            rules, state = write_text(rules, state, text, after, ends), after
        for symbol in symbols:
            after = state.step(symbol)
            rules, state = write_symbol(rules, state, symbol, after, self._vocabulary.machine.symbols), after
        return rules

    def fault(self, prefix: Prefix) -> str:
        """Return what is wrong with the start of a workflow and where, or an empty string if it breaks no rule."""
        step = self._history[-1]
        for token in prefix[: prefix.n_stable]:
            try:
                step = RulesStep(*Matcher._after(self, step, token), self._rules_after(step, token))
            except Fault as fault:
                return f"{'.'.join(map(str, step.rules.path)) or 'workflow'}: {fault} [{fault.rule}]"
        faults = []
        for symbols in prefix.pending:
            try:
                self._run_pending(step, symbols)
                return ""
            except Fault as fault:
                faults.append(f"{'.'.join(map(str, step.rules.path)) or 'workflow'}: {fault} [{fault.rule}]")
        return faults[0] if faults else ""

    def fill_candidate_bitmask(self, bitmask, index: int = 0) -> bool:
        """Write the tokens that the schema allows next: all that the rules allow, and more."""
        return super().fill_next_token_bitmask(bitmask, index)

    def fill_next_token_bitmask(self, bitmask, index: int = 0) -> bool:
        row = bitmask[index] if isinstance(bitmask, np.ndarray) else bitmask[index].numpy()
        may_follow, step = self.fill_candidate_bitmask(bitmask, index), self._history[-1]
        candidates = allowed_tokens(row)
        if step.pending:
            allowed = [token for token in map(int, candidates) if self._after(step, token)]
        else:
            allowed = self._walk(step)
        bits = np.zeros(len(row) * 32, bool)
        bits[allowed] = True
        row[:] = np.packbits(bits, bitorder="little").view(np.int32)
        return may_follow

    def _walk(self, step: RulesStep) -> list[int]:
        """Return the allowed tokens. Those that start with the same symbols are refused together."""
        tokens, todo = [], [(self._masks.root, step.state, step.rules)]
        while todo:
            node, state, rules = todo.pop()
            for symbol, child in node.items():
                if symbol is None:
                    tokens.append(child)
                elif state.step(symbol) is not None:
                    with suppress(Fault):
                        todo.append((child, *self._write_symbol(state, rules, symbol)))
        return tokens

    def _write_symbol(self, state: State, rules: RulesState, symbol: int) -> tuple[State, RulesState]:
        text, symbols = (bytes([symbol - 1]), ()) if symbol < END_STRING else (b"", (symbol,))
        return state.step(symbol), self._write(state, rules, text, symbols)

    def refused_like(self, token: int) -> np.ndarray:
        """Return the tokens, int64 (n,), that are refused because they start like `token`, which is one of them.

        `token` is one that the schema allows and the rules refuse.
        """
        step = self._history[-1]
        node, state, rules = self._masks.root, step.state, step.rules
        for symbol in () if step.pending else self._bpe.symbols_of[token]:
            try:
                state, rules = self._write_symbol(state, rules, symbol)
            except Fault:
                is_text = rules.kind in ("string", "key") and symbol < END_STRING
                alike = [byte + 1 for byte in rules.refused_like(symbol - 1)] if is_text else [symbol]
                return np.concatenate([self._masks.tokens_below(node[other]) for other in alike if other in node])
            node = node[symbol]
        return np.array([token])

    def closing_tokens(self) -> list[int]:
        """Return tokens that complete the workflow in a short way, without findings."""
        step = self._history[-1]
        symbols = min(step.pending, key=len, default=())
        state, rules = self._run_pending(step, symbols)
        return self._bpe.tokens_of_symbols([*symbols, *closing_symbols(state, rules, self._vocabulary.machine.symbols)])

    def _run_pending(self, step: RulesStep, symbols: tuple[int, ...]) -> tuple[State, RulesState]:
        """Return the states after symbols. Raises Fault."""
        state, rules, at = step.state, step.rules, 0
        while at < len(symbols):
            end_of_text = next((i for i in range(at, len(symbols)) if symbols[i] >= END_STRING), len(symbols))
            end = next((i for i in range(end_of_text, len(symbols)) if symbols[i] < END_STRING), len(symbols))
            text = bytes(symbol - 1 for symbol in symbols[at:end_of_text])
            rules = self._write(state, rules, text, symbols[end_of_text:end])
            for symbol in symbols[at:end]:
                state = state.step(symbol)
            at = end
        return state, rules

    def accept_prefix(self, prefix: Prefix) -> bool:
        """Accept the start of a workflow (see `Matcher.accept_prefix`). Return False if it breaks a rule already."""
        if not super().accept_prefix(prefix):
            return False
        step = self._history[-1]
        pending = []
        for symbols in step.pending:
            try:
                self._run_pending(step, symbols)
                pending.append(symbols)
            except Fault:
                continue
        if step.pending and not pending:
            self.rollback(prefix.n_stable)
            return False
        self._history[-1] = step._replace(pending=tuple(pending))
        return True

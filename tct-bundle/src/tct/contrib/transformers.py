"""Constrained generation with Hugging Face transformers, for models over the tokens of a tct tokenizer.

    constraint = TctLogitsProcessor(tokenizer, max_length=512)
    model.generate(..., max_length=512, logits_processor=[constraint], eos_token_id=0, pad_token_id=0)

Only torch is needed here, because transformers accepts any callable of this form.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from script_tools.bitmask import allowed_tokens
from tct.matcher import Matcher
from tct.symbols import PAD
from tct.tokenizer import Tokenizer

MARGIN = 32  # tokens that remain when a row is led to its end: one token lengthens the shortest ending by far fewer


class Row(NamedTuple):
    """What is known of a row."""

    matcher: Matcher
    ending: list[int] = []  # the tokens that must follow, if the row is near max_length


class TctLogitsProcessor:
    """Keep the scores of tokens that can still lead to a valid document; after its end, only the score of PAD.

    The first argument is a tokenizer, or a function that returns a new matcher, such as
    `partial(tct_github_workflow.matcher, "github")`. `skip` tokens at the start of each row, such as a position token,
    do not belong to the document. If `max_length` is given, that of generate, every document ends within it.

    A matcher whose mask is slow, such as that of GitHub's rules, checks the likeliest tokens only, and keeps the first
    `top_k` that it accepts. Sampling with this `top_k`, which is the default of generate, makes no difference.

    Rows may change their order between steps, as in beam search. Rows of a batch may be padded on the left. Use one
    processor for one call of generate at a time.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | Callable[[], Matcher],
        skip: int = 0,
        *,
        max_length: int | None = None,
        top_k: int = 50,
    ):
        self.new_matcher = tokenizer if callable(tokenizer) else tokenizer.matcher
        self.skip, self.max_length, self.top_k = skip, max_length, top_k
        self._rows: dict[tuple[int, ...], Row] = {}  # by the tokens of the rows of the last step

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores (B, V) with -inf for tokens that are not allowed after the rows of input_ids (B, T).

        Raises ValueError if a row is not the start of a valid document, or cannot become one within max_length.
        """
        rows = [tuple(row) for row in input_ids[:, self.skip :].tolist()]
        self._rows = {row: self._row(row, input_ids.shape[1]) for row in rows}
        allowed = np.zeros(scores.shape, bool)  # (B, V)
        for index, row in enumerate(rows):
            allowed[index, self._allowed(self._rows[row], scores[index])] = True
        return scores.masked_fill(~torch.from_numpy(allowed).to(scores.device), float("-inf"))

    def _row(self, tokens: tuple[int, ...], length: int) -> Row:
        """Return the row of some tokens, which has this length with what is skipped."""
        before = self._rows.get(tokens[:-1])
        matcher = before.matcher.fork() if before else self.new_matcher()
        new = tokens[-1:] if before else tokens
        if not matcher.accept_tokens([token for token in new if token != PAD]):
            raise ValueError(f"the tokens {[*tokens[:8]]} ... are not the start of a valid document")
        if self.max_length is None or matcher.is_terminated():
            return Row(matcher)
        if before and before.ending:
            return Row(matcher, before.ending[1:])
        ending, left = matcher.closing_tokens(), self.max_length - length
        if len(ending) > left:
            raise ValueError(f"max_length leaves {left} tokens, but the shortest ending has {len(ending)}: raise it")
        return Row(matcher, ending if len(ending) + MARGIN > left else [])

    def _allowed(self, row: Row, scores: torch.Tensor) -> np.ndarray | list[int]:
        """Return the tokens that may follow a row with scores (V,)."""
        if row.matcher.is_terminated():
            return [PAD]
        if row.ending:
            return row.ending[:1]
        bitmask = row.matcher.allocate_token_bitmask()
        if hasattr(row.matcher, "fill_candidate_bitmask"):
            row.matcher.fill_candidate_bitmask(bitmask)
            return self._likeliest(row.matcher, scores, allowed_tokens(bitmask[0]))
        row.matcher.fill_next_token_bitmask(bitmask)
        return allowed_tokens(bitmask[0])

    def _likeliest(self, matcher: Matcher, scores: torch.Tensor, candidates: np.ndarray) -> list[int]:
        """Return the `top_k` tokens with the highest scores (V,) of those candidates that the matcher accepts."""
        order = scores.cpu()[candidates].argsort(descending=True).numpy()
        likeliest, refused = [], set()
        for token in candidates[order].tolist():
            if token in refused:
                continue
            if matcher.validate_tokens([token]):
                likeliest.append(token)
            else:
                refused.update(matcher.refused_like(token).tolist())
            if len(likeliest) == self.top_k:
                break
        return likeliest

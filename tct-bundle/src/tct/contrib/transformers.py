"""Constrained generation with Hugging Face transformers, for models over the tokens of a tct tokenizer.

    constraint = TctLogitsProcessor(tokenizer)
    model.generate(..., logits_processor=[constraint], eos_token_id=0, pad_token_id=0)

Only torch is needed here, because transformers accepts any callable of this form.
"""

import numpy as np
import torch

from script_tools.bitmask import unpack_bitmask
from tct.matcher import Matcher
from tct.symbols import PAD
from tct.tokenizer import Tokenizer


class TctLogitsProcessor:
    """Keep the scores of tokens that can still lead to a valid document; after its end, only the score of PAD.

    `skip` tokens at the start of each row, such as a position token, do not belong to the document. Rows may change
    their order between steps, as in beam search. Use one processor for one call of generate at a time.
    """

    def __init__(self, tokenizer: Tokenizer, skip: int = 0):
        self.tokenizer, self.skip = tokenizer, skip
        self._matchers: dict[tuple[int, ...], Matcher] = {}  # by the tokens of the rows of the last step

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores (B, V) with -inf for tokens that are not allowed after the rows of input_ids (B, T).

        Raises ValueError if a row is not the start of a valid document.
        """
        rows = [tuple(row) for row in input_ids[:, self.skip :].tolist()]
        self._matchers = {row: self._matcher(row) for row in rows}
        bitmask = np.zeros((len(rows), (scores.shape[1] + 31) // 32), np.int32)
        for index, row in enumerate(rows):
            if not self._matchers[row].fill_next_token_bitmask(bitmask, index):
                bitmask[index, 0] = 1 << PAD
        allowed = torch.from_numpy(unpack_bitmask(bitmask, scores.shape[1])).to(scores.device)  # (B, V)
        return scores.masked_fill(~allowed, float("-inf"))

    def _matcher(self, row: tuple[int, ...]) -> Matcher:
        before = self._matchers.get(row[:-1])
        matcher = before.fork() if before else self.tokenizer.matcher()
        tokens = [token for token in (row[-1:] if before else row) if token != PAD]
        if not matcher.accept_tokens(tokens):
            raise ValueError(f"the tokens {[*row[:8]]} ... are not the start of a valid document")
        return matcher

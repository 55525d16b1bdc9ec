"""llguidance as a constraint of generation: a JSON Schema in the tokens of a byte-level BPE tokenizer.

llguidance rejects the workflow schema in its strict mode. The lenient mode enforces less than the schema, because it
ignores `not` and `dependencies` and reads oneOf as anyOf. It also enforces more, because the keys of an object must
come in the schema's order.
"""

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer

OPTIONS = {"whitespace_flexible": False, "lenient": True}


class LLGuidanceConstraint:
    """Which tokens may come next in one sequence. If the document may end here, the end token is allowed."""

    def __init__(self, matcher, end: int, ended: bool = False):
        self._matcher, self._end, self._ended = matcher, end, ended

    @classmethod
    def compile(cls, tokenizer: Tokenizer, schema: dict, end: int) -> "LLGuidanceConstraint":
        """Return a constraint at the start of a document."""
        matcher = LLMatcher(tokenizer_info(tokenizer, end), grammar_of(schema), log_level=0)
        assert not matcher.is_error(), matcher.get_error()
        return cls(matcher, end)

    def fork(self) -> "LLGuidanceConstraint":
        """Return an independent copy."""
        return LLGuidanceConstraint(self._matcher.deep_copy(), self._end, self._ended)

    def validate_tokens(self, tokens: list[int]) -> int:
        """Return how many of the tokens could be accepted, one after the other. Nothing changes."""
        return self._matcher.validate_tokens(tokens)

    def accept_token(self, token: int) -> bool:
        """Advance by one token. If it is not allowed, return False: the constraint is unusable from then on."""
        self._ended = token == self._end
        return self._matcher.consume_token(token)

    def accept_tokens(self, tokens: list[int]) -> bool:
        return all(self.accept_token(token) for token in tokens)

    def fill_next_token_bitmask(self, bitmask: np.ndarray, index: int = 0) -> bool:
        """Write which tokens may come next to bitmask[index]. Tokens that the tokenizer lacks are not allowed."""
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.int32)
        if self._matcher.is_error():
            raise RuntimeError(f"llguidance: {self._matcher.get_error()}")
        words = min(len(mask), bitmask.shape[1])  # its mask may have one more word, which is empty
        bitmask[index, :words], bitmask[index, words:] = mask[:words], 0
        return True

    def is_terminated(self) -> bool:
        return self._ended


def tokenizer_info(tokenizer: Tokenizer, end: int) -> LLTokenizer:
    return LLTokenizer(tokenizer.to_str(), n_vocab=tokenizer.get_vocab_size(), eos_token=end)


def grammar_of(schema: dict) -> str:
    return LLMatcher.grammar_from_json_schema(schema, overrides=OPTIONS)

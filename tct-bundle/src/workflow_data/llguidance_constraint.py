"""llguidance as the engine's constraint: the workflow schema in byte-level BPE tokens.

In its strict mode llguidance refuses the schema. The lenient mode enforces less than the schema, for it passes over
`not` and `dependencies` and takes oneOf for anyOf; and more, for the keys of an object come in the schema's order.
"""

import numpy as np
from tokenizers import Tokenizer

from tct_github_workflow import workflow_schema
from workflow_data.tokenizers import END

OPTIONS = {"whitespace_flexible": False, "lenient": True}


class LLGuidanceConstraint:
    """What may come next in one sequence. Where the grammar accepts, END is allowed, and ends it."""

    def __init__(self, matcher, ended: bool = False):
        self._matcher, self._ended = matcher, ended

    @classmethod
    def compile(cls, tokenizer: Tokenizer) -> "LLGuidanceConstraint":
        """One at the start of a workflow. ValueError where llguidance is not installed."""
        try:
            from llguidance import LLMatcher
        except ImportError as error:
            raise ValueError(
                "a model of BPE tokens is constrained by llguidance: pip install -e '.[bench]', or sample "
                f"without constraint ({error})"
            ) from None
        matcher = LLMatcher(tokenizer_info(tokenizer), grammar_of(workflow_schema()), log_level=0)
        assert not matcher.is_error(), matcher.get_error()
        return cls(matcher)

    def fork(self) -> "LLGuidanceConstraint":
        """An independent one at the same place."""
        return LLGuidanceConstraint(self._matcher.deep_copy(), self._ended)

    def validate_tokens(self, tokens: list[int]) -> int:
        """How many of the tokens could be accepted, one after the other; nothing changes."""
        return self._matcher.validate_tokens(tokens)

    def accept_token(self, token: int) -> bool:
        """Go on by one token; False, and of no use any more, where it is not allowed."""
        self._ended = token == END
        return self._matcher.consume_token(token)

    def accept_tokens(self, tokens: list[int]) -> bool:
        return all(self.accept_token(token) for token in tokens)

    def fill_next_token_bitmask(self, bitmask: np.ndarray, index: int = 0) -> bool:
        """Write what may come next to bitmask[index]: tokens that the tokenizer does not have never may."""
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.int32)
        if self._matcher.is_error():
            raise RuntimeError(f"llguidance: {self._matcher.get_error()}")
        words = min(len(mask), bitmask.shape[1])  # its mask may have one more, in which nothing is set
        bitmask[index, :words], bitmask[index, words:] = mask[:words], 0
        return True

    def is_terminated(self) -> bool:
        return self._ended


def tokenizer_info(tokenizer: Tokenizer):
    """What llguidance has to know of a tokenizer, its LLTokenizer."""
    from llguidance import LLTokenizer

    return LLTokenizer(tokenizer.to_str(), n_vocab=tokenizer.get_vocab_size(), eos_token=END)


def grammar_of(schema: dict) -> str:
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_json_schema(schema, overrides=OPTIONS)

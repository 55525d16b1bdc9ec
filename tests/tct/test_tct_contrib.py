"""The bridges to other libraries."""

import json

import pytest
import torch

from tct import Tokenizer
from tct.contrib.transformers import TctLogitsProcessor

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[ab]{2}$"}, "on": {"enum": ["push", "release"]}},
    "required": ["on"],
    "additionalProperties": False,
}


@pytest.fixture
def tokenizer():
    return Tokenizer(SCHEMA)


def test_whatever_the_model_prefers_rows_end_as_valid_documents_and_then_in_padding(tokenizer):
    process = TctLogitsProcessor(tokenizer, skip=1)
    torch.manual_seed(0)
    rows = torch.full((8, 1), 5)  # a position token, which is skipped
    for step in range(16):
        scores = process(rows, torch.randn(8, tokenizer.vocab_size()))
        if step % 3 == 2:  # as beam search does: rows change places, and one may be doubled
            order = torch.tensor([3, 3, 0, 1, 7, 6, 5, 4])
            rows, scores = rows[order], scores[order]
        rows = torch.cat([rows, scores.softmax(dim=1).multinomial(1)], dim=1)
    for row in rows[:, 1:].tolist():
        text, consumed, total = tokenizer.decode(row)
        assert json.loads(text)["on"] in ("push", "release")
        assert row[consumed:] == [0] * (total - consumed)


def test_scores_of_allowed_tokens_stay_as_they_are(tokenizer):
    scores = torch.randn(1, tokenizer.vocab_size())
    left = TctLogitsProcessor(tokenizer)(torch.zeros((1, 0), dtype=torch.long), scores)
    mask = tokenizer.matcher().allocate_token_bitmask()
    tokenizer.matcher().fill_next_token_bitmask(mask)
    allowed = [i for i in range(tokenizer.vocab_size()) if mask[0, i // 32] >> i % 32 & 1]
    assert left[0].isfinite().nonzero().flatten().tolist() == allowed
    assert torch.equal(left[0, allowed], scores[0, allowed])


def test_a_prompt_that_starts_no_document_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="not the start"):
        TctLogitsProcessor(tokenizer)(torch.tensor([[3, 3]]), torch.zeros(1, tokenizer.vocab_size()))


def test_a_torch_bit_mask_is_filled_as_that_of_numpy(tokenizer):
    matcher = tokenizer.matcher()
    mask = matcher.allocate_token_bitmask(2)
    tensor = torch.zeros(mask.shape, dtype=torch.int32)
    assert matcher.fill_next_token_bitmask(mask, 1) and matcher.fill_next_token_bitmask(tensor, 1)
    assert tensor.numpy().tolist() == mask.tolist() and mask.any()

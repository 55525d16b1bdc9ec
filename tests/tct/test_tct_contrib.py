"""The bridges to other libraries."""

import json
from functools import partial

import pytest
import torch
from helpers import allowed

import tct_github_workflow as tct
from tct import Tokenizer
from tct.contrib.transformers import MARGIN, TctLogitsProcessor

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


def draw_rows(process, count: int, length: int):
    """Draw rows from random scores until they have a length."""
    rows = torch.zeros((count, 0), dtype=torch.long)
    while rows.size(1) < length:
        scores = process(rows, torch.randn(count, tct.vocab_size()))
        rows = torch.cat([rows, scores.softmax(dim=1).multinomial(1)], dim=1)
    return rows


@pytest.mark.parametrize("length", [10, 40, 70])
def test_documents_end_within_the_maximal_length(length):
    torch.manual_seed(0)
    rows = draw_rows(TctLogitsProcessor(tct.tokenizer(), max_length=length), 6, length)
    assert all(tct.decode(row)[0] for row in rows.tolist())


def test_one_token_lengthens_the_ending_by_less_than_the_margin():
    torch.manual_seed(0)
    for row in draw_rows(TctLogitsProcessor(partial(tct.matcher, "github")), 2, 30).tolist():
        matcher, lengths = tct.matcher("github"), []
        for token in [token for token in row if token]:
            lengths.append(len(matcher.closing_tokens()))
            assert matcher.accept_token(token)
        assert max(after - before for before, after in zip(lengths, lengths[1:])) < MARGIN


def test_too_short_a_maximal_length_is_an_error():
    with pytest.raises(ValueError, match="max_length leaves 3 tokens"):
        draw_rows(TctLogitsProcessor(tct.tokenizer(), max_length=3), 1, 3)


def test_a_slow_matcher_keeps_the_likeliest_of_all_allowed_tokens():
    matcher = tct.matcher("github")
    assert matcher.accept_tokens(tokens := tct.encode_prefix('{"on":"push","jobs":{"a":{"runs-on":"x","needs":'))
    scores = torch.randn(1, tct.vocab_size())
    left = TctLogitsProcessor(partial(tct.matcher, "github"), top_k=5)(torch.tensor([tokens]), scores)
    assert set(left[0].isfinite().nonzero().flatten().tolist()) == set(
        sorted(allowed(matcher), key=scores[0].tolist().__getitem__)[-5:]
    )


def test_padding_on_the_left_belongs_to_no_document():
    tokens, scores = tct.encode_prefix('{"on":"push"'), torch.randn(1, tct.vocab_size())
    padded = TctLogitsProcessor(tct.tokenizer(), skip=1)(torch.tensor([[0, 0, 0, *tokens]]), scores)
    assert torch.equal(padded, TctLogitsProcessor(tct.tokenizer())(torch.tensor([tokens]), scores))

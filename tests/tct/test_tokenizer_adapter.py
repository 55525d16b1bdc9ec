"""TCTTokenizer is the workflow tokenizer with the methods that a training loop calls."""

import json

import pytest

import tct_github_workflow
from workflow_data.tokenizers import TCTTokenizer

TEXTS = [
    json.dumps(
        {"on": "push", "jobs": {name: {"runs-on": "ubuntu-latest", "steps": [{"run": "make"}]}}}, separators=(",", ":")
    )
    for name in ("build", "test")
]


def test_decode_inverts_encode():
    tokenizer = TCTTokenizer()
    assert tokenizer.decode(tokenizer.encode(TEXTS[0])) == TEXTS[0]
    assert [tokenizer.decode(ids) for ids in tokenizer.encode(TEXTS)] == TEXTS
    assert [list(ids) for ids in tokenizer.encode_batch(TEXTS)] == tokenizer.encode(TEXTS)


def test_only_padding_may_follow_the_document():
    tokenizer = TCTTokenizer()
    ids = tokenizer.encode(TEXTS[0])
    assert tokenizer.decode(ids + [tokenizer.pad_token] * 3) == TEXTS[0]
    with pytest.raises(ValueError, match="follow the complete document"):
        tokenizer.decode(ids + ids)
    with pytest.raises(ValueError):
        tokenizer.decode(ids[:-1])


def test_it_agrees_with_the_module():
    tokenizer = TCTTokenizer()
    assert tokenizer.get_vocab_size() == 8192
    assert tokenizer.get_pad_token_id() == tokenizer.pad_token == 0
    assert tokenizer.fingerprint == tct_github_workflow.fingerprint()
    ids = tokenizer.encode(TEXTS[0])
    assert tokenizer.extract_window(ids, 32, 40, stride=32) == [1, *ids[32:40]]
    assert tokenizer.id_to_token(ids[0]) == tct_github_workflow.id_to_token(ids[0])
    assert tokenizer.matcher().accept_tokens(ids)

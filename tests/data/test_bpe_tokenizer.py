"""The baseline tokenizers decode exactly, end each document, and have the methods of TCTTokenizer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_data.tokenizers import END, NAMES, BPETokenizer, TCTTokenizer, pieces

TEXTS = [json.dumps({"on": "push", "jobs": {f"job-{i}": {"runs-on": "ubuntu-latest"}}}) for i in range(50)]
BPE, UNSPLIT = (BPETokenizer.train(TEXTS, 400, name) for name in NAMES)
CHARACTERS = st.text(st.characters(exclude_categories=["Cs"]))


@given(CHARACTERS)
def test_every_text_is_decoded(text):
    for tokenizer in (BPE, UNSPLIT):
        for wrapped in (text, f"<end>{text}<pad>"):
            ids = tokenizer.encode(wrapped)
            assert tokenizer.decode([*ids, 0, 0]) == wrapped
            assert ids[-1] == END and END not in ids[:-1] and 0 not in ids


def test_unsplit_merges_cross_word_boundaries():
    assert len(UNSPLIT.encode(TEXTS[0])) < len(BPE.encode(TEXTS[0])) / 2
    assert max(len(UNSPLIT.id_to_token(token).split('"')) for token in UNSPLIT.encode(TEXTS[0])) > 4
    assert (BPE.name, UNSPLIT.name) == NAMES


@given(CHARACTERS, st.integers(4, 9))
def test_pieces_join_to_the_text_and_keep_the_limit(text, size):
    parts = list(pieces(text, size))
    assert "".join(parts) == text and all(0 < len(piece.encode()) <= size for piece in parts)
    assert all(len(piece.encode()) > size - 4 for piece in parts[:-1])


def test_training_text_is_merged():
    assert 257 < BPE.get_vocab_size() <= 400
    assert len(BPE.encode(TEXTS[0])) < len(TEXTS[0]) / 2.5
    assert BPE.id_to_token(0) == "<pad>" and BPE.id_to_token(END) == "<end>"
    assert "".join(map(BPE.id_to_token, BPE.encode(TEXTS[0])[:-1])) == TEXTS[0]


def test_a_batch_equals_single_texts():
    assert BPE.encode_batch(TEXTS) == BPE.encode(TEXTS) == [BPE.encode(text) for text in TEXTS]


def test_incomplete_and_surplus_documents_are_refused():
    ids = BPE.encode("{}")
    with pytest.raises(ValueError, match="no end token"):
        BPE.decode(ids[:-1])
    with pytest.raises(ValueError, match="1 tokens follow"):
        BPE.decode([*ids, 7])


def test_training_again_and_loading_give_the_same_tokenizer(tmp_path):
    for tokenizer, name in zip((BPE, UNSPLIT), NAMES):
        tokenizer.save(tmp_path / "tokenizer.json")
        again, loaded = BPETokenizer.train(TEXTS, 400, name), BPETokenizer.load(tmp_path / "tokenizer.json")
        assert tokenizer.fingerprint == again.fingerprint == loaded.fingerprint
        assert loaded.name == tokenizer.name
        assert loaded.encode("<end>" + TEXTS[0]) == tokenizer.encode("<end>" + TEXTS[0])
        assert BPETokenizer.train(TEXTS, 300, name).fingerprint != tokenizer.fingerprint


@pytest.mark.parametrize(
    "text, message",
    [("{}", "is not a tokenizer"), ("not json", "is not a tokenizer"), (None, "must have <pad> and <end>")],
)
def test_other_files_are_refused(tmp_path, text, message):
    from tokenizers import Tokenizer, models

    (tmp_path / "x.json").write_text(Tokenizer(models.BPE()).to_str() if text is None else text)
    with pytest.raises(ValueError, match=message):
        BPETokenizer.load(tmp_path / "x.json")


def test_more_tokens_than_int16_holds_are_refused(tmp_path):
    from tokenizers import Tokenizer, models

    vocabulary = {"<pad>": 0, "<end>": 1} | {str(i): i for i in range(2, 2**15 + 1)}
    (tmp_path / "x.json").write_text(Tokenizer(models.BPE(vocabulary, [])).to_str())
    with pytest.raises(ValueError, match="32,769 tokens, but int16 holds 32,768"):
        BPETokenizer.load(tmp_path / "x.json")


def test_both_adapters_have_the_same_methods():
    public = [{name for name in dir(kind) if not name.startswith("_")} for kind in (TCTTokenizer, BPETokenizer)]
    assert public[0] - public[1] == {"matcher", "rules", "default_rules", "is_workflow", "kind", "dump"}

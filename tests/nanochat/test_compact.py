"""Compact models: a byte for each weight, the meta of the checkpoint, and errors that name the file."""

from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanochat.checkpoint_manager import load_model
from nanochat.compact import load_compact, quantize_rows, save_compact
from nanochat.gpt import GPT, GPTConfig

CONFIG = GPTConfig(
    sequence_len=16, vocab_size=64, n_layer=2, n_head=2, n_kv_head=2, n_embd=32,
    previous_token=True, n_states=5, state_attention=True,
)  # fmt: skip
META = {"step": 7, "model_config": asdict(CONFIG), "data": {"tokenizer": {"name": "a", "fingerprint": "b"}}}


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = GPT(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def test_a_compact_model_is_nearly_the_same_in_a_fourth_of_the_space(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_compact(path, model.state_dict(), META)
    loaded, meta = load_model(path)
    assert meta == META and loaded.config == CONFIG and not loaded.training
    for name, tensor in model.state_dict().items():
        near = loaded.state_dict()[name]
        if tensor.dim() == 2:
            assert ((near - tensor).abs() <= tensor.abs().amax(1, keepdim=True) / 253).all()
        else:
            assert torch.equal(near, tensor)
    assert path.stat().st_size < model.num_parameters() * 1.5 + 10_000


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
def test_rounding_keeps_zeros_and_errs_by_at_most_half_a_step(rows):
    matrix = torch.tensor(rows)
    quantized, scale = quantize_rows(matrix)
    assert quantized.dtype == torch.int8 and scale.shape == (len(rows), 1)
    assert ((quantized * scale - matrix).abs() <= scale * 0.501).all()
    assert (quantized[matrix == 0] == 0).all()


def test_a_model_saved_twice_does_not_change_again(model, tmp_path):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    save_compact(first, model.state_dict(), META)
    save_compact(second, *load_compact(first))
    states = [load_compact(path)[0] for path in (first, second)]
    assert all(torch.allclose(a, b, rtol=1e-6) for a, b in zip(*(state.values() for state in states)))


def test_a_missing_or_damaged_file_is_named(model, tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        load_model(path)
    save_compact(path, model.state_dict(), META)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model.safetensors is damaged"):
        load_model(path)
    path.write_bytes(b"no model")
    with pytest.raises(ValueError, match="model.safetensors is damaged"):
        load_model(path)

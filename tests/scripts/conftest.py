"""Fixtures of the tests of scripts."""

from pathlib import Path

import pytest
import torch

import tct_github_workflow as tct
from nanochat.checkpoint_manager import save_checkpoint
from nanochat.gpt import GPT, GPTConfig

TOKENIZER = {"name": tct.NAME, "fingerprint": tct.fingerprint()}


@pytest.fixture(scope="module")
def tct_checkpoint(tmp_path_factory) -> Path:
    """An untrained model of one layer: its samples are valid because of the constraint alone."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(sequence_len=64, n_layer=1, n_head=1, n_kv_head=1, n_embd=16))
    folder = tmp_path_factory.mktemp("checkpoint")
    meta = {"model_config": vars(model.config), "data": {"stride": 32, "tokenizer": TOKENIZER}}
    save_checkpoint(folder, 3, model.state_dict(), {}, meta)
    return folder

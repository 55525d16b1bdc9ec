"""The presets: their shapes, their sizes, and unknown names."""

import subprocess
import sys

import pytest
import torch

from model_config import PRESET_NAMES, get_config, gpt_fields
from nanochat.gpt import GPT, GPTConfig

SIZES = {"tiny": 2_883_584, "mini": 8_912_896, "small": 20_447_232, "medium": 69_206_016, "large": 167_772_160}


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_a_preset_makes_a_model_of_the_documented_size(name):
    config = get_config(name)
    with torch.device("meta"):
        model = GPT(GPTConfig(**gpt_fields(config)))
    assert model.num_parameters() == SIZES[name]
    assert (config["vocab_size"], config["context_size"]) == (8192, 512)


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_a_preset_has_every_training_default(name):
    config = get_config(name)
    for key in (
        "device_batch_size",
        "gradient_accumulation",
        "num_iterations",
        "learning_rate",
        "warmup_iters",
        "weight_decay",
        "grad_clip",
    ):
        assert config[key] > 0, key
    assert config["warmup_iters"] < config["num_iterations"]


def test_the_caller_may_change_the_dict_it_got():
    get_config("tiny")["d_model"] = 1
    assert get_config("tiny")["d_model"] == 128


def test_an_unknown_name_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match="'huge'.*tiny, mini, small, medium, large"):
        get_config("huge")


def test_presets_do_not_import_torch():
    code = "import sys, model_config; model_config.get_config('small'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

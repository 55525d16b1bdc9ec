"""Convert checkpoints to the architecture `nanochat` of Hugging Face transformers, and back.

The weights are the same, tensor for tensor, under other names. Nothing here needs transformers. The metadata of the
checkpoint is in config.json, because transformers keeps it there when it saves a model that it has trained further.
Models with inputs that the architecture lacks are of the class in hf_model.py, which travels with them.

The logits differ a little in float32: our rotary tables are rounded to bfloat16, as nanochat's were when it trained,
and transformers rounds them to the dtype of the model.
"""

import json
from pathlib import Path
from string import Template

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

import tct_github_workflow as tct
from nanochat.checkpoint_manager import load_model, save_checkpoint
from nanochat.functional import LOGIT_CAP
from nanochat.gpt import GPT, NORM_EPS, ROTARY_BASE, GPTConfig
from script_tools.files import refuse_to_replace
from tct.symbols import PAD
from workflow_generator import check_tokenizer

CODE = Path(__file__).with_name("hf_model.py")
CONFIG, WEIGHTS, META = "config.json", "model.safetensors", "nanochat_tct"  # files, and a key of the config
SHAPE = {  # fields of GPTConfig, and what transformers calls them
    "vocab_size": "vocab_size",
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_kv_head": "num_key_value_heads",
    "sequence_len": "max_position_embeddings",
}
NAMES = {"transformer.wte": "model.embed_tokens", "lm_head": "lm_head"}  # modules, and what transformers calls them
NAMES_IN_BLOCK = {
    "attn.c_q": "self_attn.q_proj",
    "attn.c_k": "self_attn.k_proj",
    "attn.c_v": "self_attn.v_proj",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
EXTRA_INPUTS = ("previous_token", "n_states", "state_attention", "value_embedding")  # fields of GPTConfig
TEMPERATURE = 0.8  # as generate_workflow

CARD = Template("""\
---
library_name: transformers
pipeline_tag: text-generation
tags: [github-actions, nanochat, tct]
---

# A model that writes GitHub Actions workflows

A GPT of $parameters parameters ($shape, context of $context tokens), trained with nanochat-tct for $step updates, in
the architecture $architecture. Its tokens are those of the package tct-github-workflow with fingerprint
`$fingerprint`. With the constraint below, every workflow is valid under the schema of GitHub workflows, and has
no findings of that package's rules.

## Use

Install transformers 5 or later, and $package from the repository of nanochat-tct. Then, in this folder:

```python
from functools import partial

import tct_github_workflow as tct
from tct.contrib.transformers import TctLogitsProcessor
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # or the name of a repository on the hub
model = AutoModelForCausalLM.from_pretrained(folder$trust)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
inputs = tokenizer(["name: CI\\non: push", ""], padding=True, return_tensors="pt")
constraint = TctLogitsProcessor(partial(tct.matcher, "github"), skip=1, max_length=model.generation_config.max_length)
for row in model.generate(**inputs, logits_processor=[constraint]):
    print(tokenizer.decode(row))
```

`trust_remote_code=True` runs the Python files in this folder. `hf_tokenizer.py` follows the schema to encode and
decode, which no fast tokenizer can do. Without it, `AutoTokenizer` loads one that shows tokens but refuses to encode.

## Limits

The constraint ensures the form of a workflow, not its sense: read each workflow before you run it. The model may name
actions and versions that do not exist. Its context ends at $context tokens, and the constraint closes workflows
before that.
""")


# -----------------------------------------------------------------------------
# to transformers


def hf_files(checkpoint) -> dict[str, bytes]:
    """Return the files of a checkpoint for transformers by their names.

    OSError or ValueError if the checkpoint cannot be read, or if its tokens are not those of the installed workflow
    tokenizer.
    """
    model, meta = load_model(checkpoint)
    tokenizer = meta["data"]["tokenizer"]
    if tokenizer["name"] != tct.NAME:
        raise ValueError(f"only models over the tokens of workflows are exported, but {checkpoint} has other tokens")
    check_tokenizer(tokenizer, f"the checkpoint {checkpoint}")
    names = hf_names(model.config)
    weights = {names[name]: tensor.contiguous() for name, tensor in model.state_dict().items()}
    config = hf_config(model.config, model.lm_head.weight.dtype)
    config[META] = {name: value for name, value in meta.items() if name != "sha256"}
    return {
        CONFIG: to_json(config),
        WEIGHTS: save(weights, {"format": "pt"}),
        "generation_config.json": to_json(generation_config(model.config)),
        "README.md": model_card(model, meta).encode(),
        **tokenizer_files(model.config.sequence_len),
        **({CODE.name: CODE.read_bytes()} if has_extra_inputs(model.config) else {}),
    }


def has_extra_inputs(config: GPTConfig) -> bool:
    """Return whether a model has inputs that the architecture of transformers lacks."""
    return any(getattr(config, name) for name in EXTRA_INPUTS)


def to_json(value) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


def hf_names(config: GPTConfig) -> dict[str, str]:
    """Return what transformers calls the tensors of a model, by our names."""
    if has_extra_inputs(config):
        with torch.device("meta"):
            return {name: f"gpt.{name}" for name in GPT(config).state_dict()}
    names = dict(NAMES)
    for layer in range(config.n_layer):
        for ours, theirs in NAMES_IN_BLOCK.items():
            names[f"transformer.h.{layer}.{ours}"] = f"model.layers.{layer}.{theirs}"
    return {f"{ours}.weight": f"{theirs}.weight" for ours, theirs in names.items()}


def hf_config(config: GPTConfig, dtype: torch.dtype) -> dict:
    """Return the content of config.json."""
    classes = {"AutoConfig": f"{CODE.stem}.WorkflowGPTConfig", "AutoModelForCausalLM": f"{CODE.stem}.WorkflowGPT"}
    is_extra = has_extra_inputs(config)
    return {
        "architectures": ["WorkflowGPT" if is_extra else "NanoChatForCausalLM"],
        **({"auto_map": classes} if is_extra else {}),
        "dtype": str(dtype).removeprefix("torch."),
        "bos_token_id": PAD,  # the position token of a window at the start of a workflow
        "eos_token_id": PAD,
        "pad_token_id": None,  # training in transformers would leave the embedding of PAD, the first position, as it is
        **hf_architecture(config),
    }


def hf_architecture(config: GPTConfig) -> dict:
    """Return the part of config.json that a model of our GPT must have."""
    return {
        "model_type": "nanochat_tct" if has_extra_inputs(config) else "nanochat",
        **{theirs: getattr(config, ours) for ours, theirs in SHAPE.items()},
        "intermediate_size": 4 * config.n_embd,
        "hidden_act": "relu2",
        "rms_norm_eps": NORM_EPS,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROTARY_BASE},
        "final_logit_softcapping": LOGIT_CAP,
        "attention_bias": False,
        "tie_word_embeddings": False,
    }


def generation_config(config: GPTConfig) -> dict:
    """Return the content of generation_config.json. A workflow ends by itself, so PAD after it is its end."""
    ids = {"bos_token_id": PAD, "eos_token_id": PAD, "pad_token_id": PAD}
    return {**ids, "do_sample": True, "temperature": TEMPERATURE, "max_length": config.sequence_len}


def tokenizer_files(max_length: int) -> dict[str, bytes]:
    """Return the files that AutoTokenizer loads.

    Encoding follows the schema, and a fast tokenizer cannot do that. So the one in tokenizer.json only shows tokens,
    and the one in Python, which needs `trust_remote_code`, also encodes.
    """
    code = Path(tct.__file__).with_name("hf_tokenizer.py")
    pad = tct.id_to_token(PAD)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "auto_map": {"AutoTokenizer": [f"{code.stem}.WorkflowTokenizer", None]},
        "fingerprint": tct.fingerprint(),
        "model_max_length": max_length,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        **dict.fromkeys(("bos_token", "eos_token", "pad_token"), pad),
    }
    names = {tct.id_to_token(token): token for token in range(tct.vocab_size())}
    special = {"id": PAD, "content": pad, "special": True, "normalized": False}
    prefix = " " * (max(map(len, names)) + 1)  # makes every text longer than any token, so that encoding it is an error
    reader = {
        "version": "1.0",
        "added_tokens": [special | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)],
        "normalizer": {"type": "Prepend", "prepend": prefix},
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": names, "unk_token": "not a token"},
    }
    return {"tokenizer_config.json": to_json(config), "tokenizer.json": to_json(reader), code.name: code.read_bytes()}


def model_card(model: GPT, meta: dict) -> str:
    """Return the README.md of a model."""
    is_extra = has_extra_inputs(model.config)
    return CARD.substitute(
        architecture="of `hf_model.py` in this folder" if is_extra else "`nanochat` of transformers",
        trust=", trust_remote_code=True" if is_extra else "",
        package="nanochat-tct" if is_extra else "tct-github-workflow",
        parameters=f"{model.num_parameters():,}",
        shape=f"{model.config.n_embd} x {model.config.n_layer} layers x {model.config.n_head} heads",
        context=model.config.sequence_len,
        step=f"{meta['step']:,}",
        fingerprint=tct.fingerprint(),
    )


# -----------------------------------------------------------------------------
# from transformers


def import_hf(folder, output) -> Path:
    """Write the model in a folder of transformers as a checkpoint, and return the path of its model file.

    OSError or ValueError if it is not a model of this architecture that was once exported from here, or if the
    checkpoint exists already.
    """
    folder, output = Path(folder).expanduser(), Path(output).expanduser()
    found, meta = read_config(folder / CONFIG)
    config = GPTConfig.from_dict(meta["model_config"])
    for name, value in hf_architecture(config).items():
        if found.get(name) != value:
            raise ValueError(f"{folder / CONFIG} has {name} {found.get(name)!r}, but the exported model had {value!r}")
    state = read_weights(folder / WEIGHTS, hf_names(config))
    file = output / f"model_{meta['step']:06d}.pt"
    refuse_to_replace(output, [file.name, f"meta_{meta['step']:06d}.json"])
    save_checkpoint(output, meta["step"], state, None, meta)
    return file


def read_config(path: Path) -> tuple[dict, dict]:
    """Return (the config, the metadata of the checkpoint in it). OSError or ValueError as in import_hf."""
    try:
        config = json.loads(path.read_bytes())
        return config, config[META]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} does not say which tokenizer the model was trained with: it is not the config of a model that "
            "scripts.export_to_hf wrote, or that transformers has saved from one"
        ) from None


def read_weights(path: Path, names: dict[str, str]) -> dict:
    """Return the state of a model whose tensors have these names in a file. OSError or ValueError as in import_hf."""
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}: the weights must be in one file, not in several or of another format"
        )
    try:
        with safe_open(path, "pt") as file:
            return {ours: file.get_tensor(theirs) for ours, theirs in names.items()}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, or has other tensors than the exported model: {error}") from None

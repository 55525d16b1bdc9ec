"""The GPT: equal to its formulas, with nanochat's tensor names, causal, correctly initialized."""

import math
from dataclasses import replace

import pytest
import torch

from nanochat.functional import PackedDocuments
from nanochat.gpt import GPT, GPTConfig

SHAPES = {
    "a kv head each": GPTConfig(sequence_len=24, vocab_size=50, n_layer=3, n_head=4, n_kv_head=4, n_embd=32),
    "grouped queries": GPTConfig(sequence_len=24, vocab_size=50, n_layer=2, n_head=4, n_kv_head=2, n_embd=32),
    "one kv head": GPTConfig(sequence_len=24, vocab_size=50, n_layer=2, n_head=3, n_kv_head=1, n_embd=24),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_model(config: GPTConfig, seed: int = 0) -> GPT:
    """Return a model whose every tensor matters: matrices that start as zeros are drawn too."""
    torch.manual_seed(seed)
    model = GPT(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def random_batch(config: GPTConfig, batch: int, length: int):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, config.vocab_size, (2, batch, length), generator=generator)


def reference_logits(config: GPTConfig, weights: dict, tokens: list[int], states: list[int] | None = None):
    """Compute the architecture for one sequence, position by position and head by head, in float64, perhaps with
    the schema positions that its tokens lead to."""
    w = {name: tensor.double() for name, tensor in weights.items()}
    D, group = config.n_embd // config.n_head, config.n_head // config.n_kv_head

    def rms(x):
        return x / (x.pow(2).mean() + 1.1920929e-07).sqrt()

    def turn(x, t):
        half, out = D // 2, torch.empty_like(x)
        for i in range(half):
            angle = torch.tensor(t, dtype=torch.float32) / torch.tensor(10000.0) ** (2 * i / D)
            c, s = angle.cos().bfloat16().double(), angle.sin().bfloat16().double()
            out[i] = x[i] * c + x[i + half] * s
            out[i + half] = -x[i] * s + x[i + half] * c
        return out

    def bias(layer, h, t, s):  # of the score of the key at s
        query, before, after = (w[f"state_attention.{name}"] for name in ("query", "key_before", "key_after"))
        key = before[states[s - 1] if s else 0] + after[states[s]]
        return (w["state_attention.weight"][layer, h] * query[states[t]] * key).sum() / math.sqrt(D + len(key))

    def brought(layer, g, s):  # to the values of a head by the token at s
        if not config.value_embedding or (config.n_layer - 1 - layer) % 2:
            return 0
        weights = w["value_embedding.gates"][layer // 2, g]
        opened = weights @ inputs[s][: len(weights)]
        return (1 + opened / (1 + opened.abs())) * w[f"value_embedding.tables.{layer // 2}.weight"][tokens[s]]

    stream = words = [w["transformer.wte.weight"][token] for token in tokens]
    if config.previous_token:
        stream = [words[0], *(x + w["previous_weight"] * before for x, before in zip(words[1:], words))]
    if states:
        stream = [x + w["state_embedding.weight"][state] for x, state in zip(stream, states)]
    stream = [rms(x) for x in stream]
    for layer in range(config.n_layer):

        def of(name, layer=layer):
            return w[f"transformer.h.{layer}.{name}.weight"]

        inputs = [rms(x) for x in stream]
        for t in range(len(tokens)):
            heads = []
            for h in range(config.n_head):
                g = h // group
                q = rms(turn((of("attn.c_q") @ inputs[t])[h * D : (h + 1) * D], t))
                keys = [rms(turn((of("attn.c_k") @ inputs[s])[g * D : (g + 1) * D], s)) for s in range(t + 1)]
                values = [
                    (of("attn.c_v") @ inputs[s] + brought(layer, g, s))[g * D : (g + 1) * D] for s in range(t + 1)
                ]
                scores = torch.stack([q @ key / math.sqrt(D) for key in keys])
                if states:
                    scores = scores + torch.stack([bias(layer, h, t, s) for s in range(t + 1)])
                heads.append(scores.softmax(0) @ torch.stack(values))
            stream[t] = stream[t] + of("attn.c_proj") @ torch.cat(heads)
        for t, x in enumerate(stream):
            stream[t] = x + of("mlp.c_proj") @ (of("mlp.c_fc") @ rms(x)).clamp(min=0).pow(2)
    return torch.stack([15 * torch.tanh(w["lm_head.weight"] @ rms(x) / 15) for x in stream])


@pytest.mark.parametrize("previous_token", [False, True])
@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_logits_equal_the_formulas(config, previous_token):
    config = replace(config, previous_token=previous_token, value_embedding=previous_token)
    model = random_model(config)
    x, _ = random_batch(config, 2, 11)
    expected = torch.stack([reference_logits(config, model.state_dict(), row.tolist()) for row in x])
    torch.testing.assert_close(model(x), expected.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_schema_positions_enter_as_in_the_formulas(config):
    fields = {"n_states": 5, "state_attention": True, "previous_token": True, "value_embedding": True}
    model = random_model(replace(config, **fields))
    x, states = (tensor[0] for tensor in random_batch(replace(config, vocab_size=5), 1, 18))
    lengths = [11, 7]
    got = model(x[None], layout=PackedDocuments.of(lengths, 11, schema_positions=states[None]))[0].split(lengths)
    for tokens, told, logits in zip(x.split(lengths), states.split(lengths), got):
        expected = reference_logits(model.config, model.state_dict(), tokens.tolist(), told.tolist())
        torch.testing.assert_close(logits, expected.float(), rtol=0, atol=1e-5)


def test_added_features_start_without_effect():
    config = replace(SHAPES["grouped queries"], n_states=5)
    models = []
    for is_on in (False, True):
        torch.manual_seed(0)
        models.append(GPT(replace(config, state_attention=is_on, previous_token=is_on)))
    models[1].load_state_dict(models[0].state_dict(), strict=False)
    for model in models:
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "proj" in name or "head" in name:  # zero at first
                torch.nn.init.normal_(parameter)
    x, states = random_batch(replace(config, vocab_size=5), 1, 9)
    plain, told = (model(x, layout=PackedDocuments.of([9], 9, schema_positions=states)) for model in models)
    torch.testing.assert_close(told, plain)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_the_state_dict_has_exactly_nanochats_tensors(config):
    C, kv = config.n_embd, config.n_kv_head * config.n_embd // config.n_head
    expected = {"transformer.wte.weight": (config.vocab_size, C), "lm_head.weight": (config.vocab_size, C)}
    matrices = {
        "attn.c_q": (C, C),
        "attn.c_k": (kv, C),
        "attn.c_v": (kv, C),
        "attn.c_proj": (C, C),
        "mlp.c_fc": (4 * C, C),
        "mlp.c_proj": (C, 4 * C),
    }
    for i in range(config.n_layer):
        expected |= {f"transformer.h.{i}.{name}.weight": shape for name, shape in matrices.items()}
    model = GPT(config)
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == expected
    assert len(expected) == 2 + 6 * config.n_layer
    assert model.num_parameters() == sum(math.prod(shape) for shape in expected.values())


def test_the_first_loss_is_the_log_of_the_vocabulary_size():
    config = GPTConfig(sequence_len=32, vocab_size=8192, n_layer=2, n_head=2, n_kv_head=2, n_embd=32)
    x, y = random_batch(config, 4, 32)
    assert GPT(config)(x, y).item() == pytest.approx(math.log(8192), abs=1e-4)


def test_weights_start_as_documented():
    config = GPTConfig(sequence_len=8, vocab_size=500, n_layer=2, n_head=4, n_kv_head=2, n_embd=128)
    torch.manual_seed(0)
    for name, tensor in GPT(config).state_dict().items():
        if name == "lm_head.weight" or "c_proj" in name:
            assert not tensor.any(), name
        elif "wte" in name:
            assert tensor.std().item() == pytest.approx(1.0, rel=0.05)
        else:
            fan_out, fan_in = tensor.shape
            std = min(1, math.sqrt(fan_out / fan_in)) / math.sqrt(fan_in)
            assert tensor.std().item() == pytest.approx(std, rel=0.05), name


def test_init_weights_completes_a_model_from_the_meta_device():
    config = SHAPES["grouped queries"]
    with torch.device("meta"):
        model = GPT(config)
    model.to_empty(device="cpu")
    model.init_weights()
    other = random_model(config)
    model.load_state_dict(other.state_dict(), strict=True)
    x, _ = random_batch(config, 2, 24)
    torch.testing.assert_close(model(x), other(x), rtol=0, atol=0)


def test_a_token_does_not_change_earlier_logits():
    config = SHAPES["grouped queries"]
    model = random_model(config)
    x, _ = random_batch(config, 1, 20)
    changed = x.clone()
    changed[0, 13] = (x[0, 13] + 1) % config.vocab_size
    before, after = model(x)[0], model(changed)[0]
    torch.testing.assert_close(after[:13], before[:13], rtol=0, atol=1e-6)
    assert ((after[13:] - before[13:]).abs().amax(dim=-1) > 1e-3).all()


def test_no_reduction_counts_ignored_targets():
    config = SHAPES["a kv head each"]
    model = random_model(config)
    x, y = random_batch(config, 3, 10)
    log_probs = model(x).log_softmax(-1)
    each = -log_probs.gather(-1, y[..., None])[..., 0]  # (B, T)
    y[0, 4:] = y[2] = -1
    valid = y != -1
    torch.testing.assert_close(model(x, y), each[valid].mean())
    torch.testing.assert_close(model(x, y, loss_reduction="sum"), each[valid].sum())
    torch.testing.assert_close(model(x, y, loss_reduction="none"), each * valid)


def test_gradient_checkpointing_changes_no_gradient():
    model = random_model(SHAPES["grouped queries"])
    x, y = random_batch(model.config, 2, 16)
    model(x, y).backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing = True
    model(x, y).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name], rtol=0, atol=0, msg=name)


def test_bfloat16_agrees_with_float32_to_its_precision():
    model = random_model(SHAPES["grouped queries"])
    x, y = random_batch(model.config, 2, 24)
    full = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, loss = model(x), model(x, y)
    low = model.bfloat16()(x)
    for logits in (mixed, low):
        assert logits.dtype == torch.float32
        assert (logits - full).abs().max() < 0.02 * full.abs().max()
    assert loss.dtype == torch.float32


def test_flops_are_counted_as_in_palm():
    config = GPTConfig(sequence_len=512, vocab_size=8192, n_layer=8, n_head=6, n_kv_head=6, n_embd=384)
    with torch.device("meta"):
        model = GPT(config)
    products = 8 * (4 * 384**2 + 2 * 4 * 384**2) + 384 * 8192  # weights in matrix products
    assert model.estimate_flops() == 6 * products + 12 * 8 * 384 * 512
    with torch.device("meta"):
        model = GPT(replace(config, n_states=1000, state_attention=True))
    assert model.estimate_flops() == 6 * products + 12 * 8 * 384 * 512 + 6 * 8 * (6 * 16) * 512


@pytest.mark.parametrize(
    "change, named",
    [
        ({"n_embd": 30}, "n_embd 30"),
        ({"n_kv_head": 3}, "n_kv_head 3"),
        ({"n_layer": 0}, "n_layer"),
        ({"vocab_size": 1.5}, "vocab_size"),
        ({"state_attention": True}, "n_states"),
    ],
)
def test_an_inconsistent_shape_is_an_error(change, named):
    with pytest.raises(ValueError, match=named):
        GPTConfig(**{"n_head": 4, "n_kv_head": 4, "n_embd": 32, **change})


def test_more_tokens_than_the_context_are_an_error():
    model = GPT(SHAPES["one kv head"])
    with pytest.raises(ValueError, match="25 tokens.*context of 24"):
        model(torch.zeros(1, 25, dtype=torch.long))

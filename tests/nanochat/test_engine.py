"""Generation: the cache and the batch change nothing, the constraint always holds, samples are complete."""

import copy
import math
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version
from test_repeated_text import in_loop, repeated_share
from test_sampling import brute_force, chi_square

from nanochat.engine import Engine
from nanochat.functional import PackedDocuments
from nanochat.gpt import GPT, GPTConfig
from nanochat.inference import prepare_for_inference
from nanochat.kv_cache import KVCache, NewTokens, window_start
from nanochat.repetition import WINDOWS
from nanochat.sample import MOST_TAKEN_BACK
from nanochat.sampling import SamplingParams, sample_tokens

VOCAB = 45  # not a multiple of 32, so that the last word of a bitmask is partly used
CONFIG = GPTConfig(sequence_len=32, vocab_size=VOCAB, n_layer=2, n_head=4, n_kv_head=2, n_embd=32)
SCHEMA_FIELDS = {"n_states": 6, "state_attention": True, "previous_token": True, "value_embedding": True}
STRIDE = 8
OPEN, OPEN_THREE, CLOSE, HEAD, FIRST, SECOND = 1, 2, 3, 4, 5, 40
WORDS = (6, 7, 8, 31, 32, 33, 44)


class Brackets:
    """A toy constraint: OPEN, then words and nested brackets, until the outermost closes. OPEN_THREE opens
    three at once. FIRST, SECOND must follow HEAD."""

    def __init__(self):
        self.depth, self.begun, self.forced = 0, False, []

    def allowed(self) -> list[int]:
        if self.forced:
            return self.forced[:1]
        if not self.begun:
            return [OPEN]
        return [OPEN, OPEN_THREE, CLOSE, HEAD, *WORDS] if self.depth else []

    def accept_token(self, token):
        if token not in self.allowed():
            return False
        self.begun = True
        self.depth += {OPEN: 1, OPEN_THREE: 3, CLOSE: -1}.get(token, 0)
        self.forced = [FIRST, SECOND] if token == HEAD else self.forced[1:]
        return True

    def fill_next_token_bitmask(self, bitmask, index=0):
        bits = np.zeros(64, dtype=np.uint8)
        bits[self.allowed()] = 1
        bitmask[index] = np.packbits(bits, bitorder="little").view(np.int32)
        return True

    def is_terminated(self):
        return self.begun and self.depth == 0


class ClosableBrackets(Brackets):
    def closing_tokens(self):
        return self.forced + [CLOSE] * self.depth if self.begun else [OPEN, CLOSE]


class PositionedBrackets(ClosableBrackets):
    """Its schema positions are the depths of the brackets, up to 5."""

    def __init__(self):
        super().__init__()
        self.trail = [0]

    def accept_token(self, token):
        accepted = super().accept_token(token)
        if accepted:
            self.trail.append(min(self.depth, 5))
        return accepted

    def state_id(self):
        return self.trail[-1]

    def state_ids(self):
        return list(self.trail)


def is_complete(tokens: list[int]) -> bool:
    brackets = Brackets()
    return all(brackets.accept_token(token) for token in tokens) and brackets.is_terminated()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    model = GPT(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    return model


@pytest.fixture(scope="module")
def engine(model) -> Engine:
    return Engine(model, stride=STRIDE)


def stream(engine, prompt, num_samples, **options):
    """Engine.stream with the fields of SamplingParams as keyword arguments too."""
    names = {field.name for field in fields(SamplingParams)} & options.keys()
    sampling = SamplingParams(**{name: options.pop(name) for name in names})
    return engine.stream(prompt, num_samples, sampling, **options)


def generate(engine, prompt, num_samples, **options):
    """Engine.generate with the fields of SamplingParams as keyword arguments too."""
    ended = {step.index: step.sample for step in stream(engine, prompt, num_samples, **options) if step.sample}
    return [ended[index] for index in sorted(ended)]


def twin(model, prompt, index, max_tokens, temperature=1.0, seed=0, constraint=None) -> list[int]:
    """Generate as the engine, but slowly: one sample, one token at a time, reading the whole window for each."""
    tokens, random = list(prompt), np.random.default_rng((seed, index))
    while len(tokens) < len(prompt) + max_tokens and not (constraint and constraint.is_terminated()):
        if constraint and len(constraint.allowed()) == 1:
            token = constraint.allowed()[0]
        else:
            start = window_start(len(tokens), CONFIG.sequence_len, STRIDE)
            window = [start // STRIDE] + tokens[start:]
            with torch.no_grad():
                logits = model(torch.tensor([window]))[:, -1]
            if constraint:
                refused = [token for token in range(VOCAB) if token not in constraint.allowed()]
                logits[:, refused] = -math.inf
            uniform = torch.tensor([random.random(dtype=np.float32)])
            token = sample_tokens(logits, uniform, SamplingParams(temperature=temperature))[0].item()
        if constraint:
            assert constraint.accept_token(token)
        tokens.append(token)
    return tokens[len(prompt) :]


# -----------------------------------------------------------------------------
# The cache


@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
def test_cached_logits_equal_uncached_logits(n_kv_head):
    torch.manual_seed(n_kv_head)
    model = GPT(replace(CONFIG, n_layer=3, n_kv_head=n_kv_head))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    texts = torch.randint(0, VOCAB, (3, 32))
    cache = KVCache(model.config, 3, torch.float32, torch.device("cpu"))
    held = [0, 0, 0]
    with torch.inference_mode():
        full = model(texts)  # (B, T, V)
        for rows, counts in (
            ([0], [5]),
            ([1, 2], [1, 9]),
            ([0, 1, 2], [1, 1, 1]),
            ([0, 1, 2], [3, 1, 4]),
            ([0, 2], [1, 1]),
            ([1], [1]),
            ([2], [1]),
            ([0, 1], [20, 2]),
            ([0, 1, 2], [1, 3, 1]),
            ([0], [1]),
        ):
            new = {row: NewTokens(texts[row, held[row] : held[row] + n].tolist()) for row, n in zip(rows, counts)}
            batch = cache.reserve(new)
            got = model(batch.tokens, layout=batch)[0].split(counts)
            for row, count, logits in zip(rows, counts, got):
                torch.testing.assert_close(logits, full[row, held[row] : held[row] + count], rtol=0, atol=1e-5)
                held[row] += count
    assert held == cache.lengths == [32, 9, 17]  # row 0 is full


@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_cached_logits_equal_uncached_with_schema_positions(dtype):
    torch.manual_seed(0)
    model = GPT(replace(CONFIG, **SCHEMA_FIELDS))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    texts, states = torch.randint(0, VOCAB, (2, 32)), torch.randint(0, 6, (2, 32))
    with torch.inference_mode():
        full = [
            model(text[None], layout=PackedDocuments.of([32], 32, schema_positions=told[None]))[0]
            for text, told in zip(texts, states)
        ]
        if dtype:
            model = prepare_for_inference(model, dtype)
        cache, held = KVCache(model.config, 2, torch.float32, torch.device("cpu")), [0, 0]
        for rows, counts in ([0], [5]), ([0, 1], [1, 9]), ([0, 1], [1, 1]), ([0, 1], [3, 1]), ([1], [1]):
            parts = [slice(held[row], held[row] + count) for row, count in zip(rows, counts)]
            told = [[0, *states[row].tolist()][part.start : part.stop + 1] for row, part in zip(rows, parts)]
            batch = cache.reserve(
                {
                    row: NewTokens(texts[row, part].tolist(), int(texts[row, part.start - 1]), positions)
                    for row, part, positions in zip(rows, parts, told)
                }
            )
            for row, part, logits in zip(rows, parts, model(batch.tokens, layout=batch)[0].split(counts)):
                torch.testing.assert_close(logits, full[row][part], rtol=0, atol=1e-5)
                held[row] = part.stop


def test_a_copied_row_continues_as_its_source(model):
    texts = torch.randint(0, VOCAB, (2, 12), generator=torch.Generator().manual_seed(0))
    cache = KVCache(CONFIG, 2, torch.float32, torch.device("cpu"))
    with torch.inference_mode():
        batch = cache.reserve({0: NewTokens(texts[0, :8].tolist()), 1: NewTokens(texts[1, :11].tolist())})
        model(batch.tokens, layout=batch)
        cache.copy(1, 0)
        batch = cache.reserve({0: NewTokens(texts[1, 11:].tolist())})
        got = model(batch.tokens, layout=batch)[0, 0]
        torch.testing.assert_close(got, model(texts[1:])[0, 11], rtol=0, atol=1e-5)


# -----------------------------------------------------------------------------
# Windows


@given(length=st.integers(0, 100_000), context=st.integers(2, 1024), data=st.data())
def test_a_window_fits_and_starts_at_a_stride_multiple(length, context, data):
    stride = data.draw(st.integers(1, context))
    start = window_start(length, context, stride)
    assert start % stride == 0 and 0 <= start <= length
    assert 1 + length - start <= context
    if length >= context:  # at least half of what is possible is kept, or as much as the stride lets
        assert length - start >= min(context // 2 - stride, context - stride)
    else:
        assert start == 0


@pytest.mark.parametrize("prompt_length", [0, 31, 32, 75])
def test_generation_past_the_context_equals_the_slow_twin(model, engine, prompt_length):
    prompt = np.random.default_rng(5).integers(0, VOCAB, prompt_length).tolist()
    samples = generate(engine, prompt, 2, max_tokens=70, seed=2)
    for index, sample in enumerate(samples):
        assert sample.tokens == twin(model, prompt, index, 70, seed=2)
        assert sample.finish_reason == "length"


def test_a_model_reads_the_schema_positions_of_its_window():
    class Long(PositionedBrackets):
        def allowed(self):
            return [token for token in super().allowed() if token != CLOSE or len(self.trail) > 90]

    torch.manual_seed(0)
    model = GPT(replace(CONFIG, **SCHEMA_FIELDS))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    [sample] = generate(Engine(model, stride=STRIDE), [], 1, max_tokens=360, constraint_factory=Long)
    tokens, random, brackets = sample.tokens, np.random.default_rng((0, 0)), Long()
    for count, token in enumerate(tokens[:90]):
        allowed = brackets.allowed()
        if len(allowed) > 1:
            start = window_start(count, CONFIG.sequence_len, STRIDE)
            window = [start // STRIDE, *tokens[start:count]]
            states = torch.tensor([brackets.trail[start:]])
            with torch.no_grad():
                logits = model(
                    torch.tensor([window]), layout=PackedDocuments.of([len(window)], 32, schema_positions=states)
                )[:, -1]
            logits[:, [token for token in range(VOCAB) if token not in allowed]] = -math.inf
            assert (
                token
                == sample_tokens(logits, torch.tensor([random.random(dtype=np.float32)]), SamplingParams())[0].item()
            )
        assert brackets.accept_token(token)
    assert count == 89


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_forced_tokens_equal_sampled_tokens(model, engine, temperature):
    samples = generate(engine, [], 5, max_tokens=100, temperature=temperature, constraint_factory=Brackets)
    for index, sample in enumerate(samples):
        assert sample.tokens == twin(model, [], index, 100, temperature, constraint=Brackets())
    if temperature:
        assert any(SECOND in sample.tokens for sample in samples)
        assert any(len(sample.tokens) > CONFIG.sequence_len for sample in samples)


# -----------------------------------------------------------------------------
# Rows, seeds, threads


@pytest.mark.slow
@pytest.mark.parametrize("constraint", [None, Brackets, ClosableBrackets])
def test_a_sample_depends_only_on_seed_and_index(engine, constraint):
    def tokens(num_samples, batch_size, seed=0):
        samples = generate(
            engine, [], num_samples, max_tokens=50, seed=seed, batch_size=batch_size, constraint_factory=constraint
        )
        return [sample.tokens for sample in samples]

    expected = tokens(7, 7)
    for batch_size in (1, 4, 64):
        assert tokens(7, batch_size) == expected
    assert tokens(5, 3) == expected[:5]
    assert tokens(7, 7, seed=1) != expected
    assert len({tuple(sample) for sample in expected}) > 3


def test_processes_can_share_the_samples_of_one_seed(engine):
    options = dict(max_tokens=40, seed=2, batch_size=3, constraint_factory=ClosableBrackets)
    halves = generate(engine, [], 4, **options) + generate(engine, [], 4, first=4, **options)
    assert [sample.tokens for sample in halves] == [sample.tokens for sample in generate(engine, [], 8, **options)]
    assert {step.index for step in stream(engine, [], 4, first=4, **options)} == {4, 5, 6, 7}


@pytest.mark.slow
@pytest.mark.skipif(
    Version(torch.__version__) < Version("2.13"),
    reason="oneDNN of older torch may add up in another order for another number of rows",
)
@pytest.mark.parametrize("schema_fields", [{}, SCHEMA_FIELDS], ids=["plain", "schema positions"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_batch_changes_no_bit_on_a_cpu(dtype, schema_fields):
    torch.manual_seed(1)
    model = GPT(
        GPTConfig(sequence_len=96, vocab_size=VOCAB, n_layer=3, n_head=4, n_kv_head=2, n_embd=64, **schema_fields)
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    engine = Engine(prepare_for_inference(model, dtype), stride=STRIDE)

    def samples(batch_size):
        return generate(
            engine,
            [OPEN],
            24,
            max_tokens=150,
            batch_size=batch_size,
            constraint_factory=lambda: opened(PositionedBrackets()),
        )

    def opened(brackets):
        assert brackets.accept_token(OPEN)
        return brackets

    expected = samples(1)
    assert max(len(sample.tokens) for sample in expected) > 96
    for batch_size in (2, 7, 24):
        assert samples(batch_size) == expected  # log-probabilities too


def test_log_probabilities_do_not_depend_on_the_batch(engine):
    one, many = (
        generate(engine, [], 8, max_tokens=60, batch_size=size, constraint_factory=Brackets) for size in (1, 8)
    )
    assert [s.logprob for s in one] == pytest.approx([s.logprob for s in many], abs=1e-3)


def test_threads_share_an_engine(engine):
    def run(seed):
        return generate(engine, [OPEN], 4, max_tokens=40, seed=seed)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(4))) == [run(seed) for seed in range(4)]


@pytest.mark.parametrize("max_tokens, max_repetition", [(40, 1.0), (150, 0.3)])
def test_the_stream_adds_up_to_the_samples(engine, max_tokens, max_repetition):
    options = dict(max_tokens=max_tokens, seed=3, batch_size=3, constraint_factory=ClosableBrackets)
    options |= dict(max_repetition=max_repetition, temperature=0.6)
    streamed, ended = {}, {}
    for step in stream(engine, [], 10, **options):
        assert step.index not in ended
        tokens = streamed.setdefault(step.index, [])
        tokens[len(tokens) - step.n_removed :] = step.tokens
        if step.sample:
            ended[step.index] = step.sample
    assert [ended[index] for index in range(10)] == generate(engine, [], 10, **options)
    assert all(streamed[index] == sample.tokens for index, sample in ended.items())


# -----------------------------------------------------------------------------
# Sampling


def log_probability(model, tokens: list[int]) -> float:
    """Return that of tokens within one context from an empty prompt, each among the tokens that Brackets allows."""
    brackets, total = Brackets(), 0.0
    with torch.no_grad():
        logits = model(torch.tensor([[0] + tokens]))[0]
    for token, row in zip(tokens, logits):
        total += math.log(brute_force(row.tolist(), brackets.allowed(), 1.0, None, None)[token])
        brackets.accept_token(token)
    return total


@pytest.mark.parametrize("schema_fields", [{}, SCHEMA_FIELDS])
def test_the_logprobs_of_a_sequence_are_those_of_each_next_token(schema_fields):
    torch.manual_seed(1)
    engine = Engine(GPT(replace(CONFIG, **schema_fields)), stride=STRIDE)
    for parameter in engine.model.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    tokens = np.random.default_rng(0).integers(0, VOCAB, 3 * CONFIG.sequence_len).tolist()
    positions = np.random.default_rng(1).integers(0, 6, len(tokens) + 1).tolist() if schema_fields else []

    class At:
        def __init__(self, count):
            self.count = count

        def state_ids(self):
            return positions[: self.count + 1]

    constraints = [At(count) if schema_fields else None for count in range(len(tokens))]
    expected = [engine.next_logits(tokens[:i], constraints[i]).log_softmax(-1)[tokens[i]] for i in range(len(tokens))]
    torch.testing.assert_close(engine.logprobs(tokens, positions), torch.stack(expected), rtol=1e-4, atol=1e-4)
    assert engine.logprobs([]).shape == (0,)


def test_samples_follow_the_renormalized_model(model, engine):
    samples = generate(engine, [], 4000, max_tokens=2, batch_size=500, constraint_factory=Brackets)
    with torch.no_grad():
        logits = model(torch.tensor([[0, OPEN]]))[0, -1].tolist()  # position 0, and OPEN is forced
    probs = brute_force(logits, [OPEN, OPEN_THREE, CLOSE, HEAD, *WORDS], 1.0, None, None)
    second = np.array([sample.tokens[1] for sample in samples])
    assert chi_square(np.bincount(second, minlength=VOCAB), probs) < 4


class CostlyBrackets(Brackets):
    """Its exact mask is costly, so it has one that allows more: all tokens, once it has begun."""

    def fill_candidate_bitmask(self, bitmask, index=0):
        bitmask[index] = -1
        if not self.begun:
            self.fill_next_token_bitmask(bitmask, index)


def test_redrawing_what_a_constraint_refuses_gives_the_same_distribution(model, engine):
    samples = generate(engine, [], 4000, max_tokens=2, batch_size=500, constraint_factory=CostlyBrackets)
    with torch.no_grad():
        logits = model(torch.tensor([[0, OPEN]]))[0, -1].tolist()  # position 0, and OPEN is forced
    probs = brute_force(logits, [OPEN, OPEN_THREE, CLOSE, HEAD, *WORDS], 1.0, None, None)
    second = np.array([sample.tokens[1] for sample in samples])
    assert chi_square(np.bincount(second, minlength=VOCAB), probs) < 4
    assert 0 < np.mean([sample.accepted for sample in samples]) < 1


def test_the_logprob_is_that_of_the_renormalized_model(model, engine):
    options = dict(max_tokens=25, temperature=1.5, top_k=5, constraint_factory=Brackets)
    for sample in generate(engine, [], 10, **options):
        assert sample.logprob == pytest.approx(log_probability(model, sample.tokens), abs=1e-3)


def test_greedy_takes_the_most_likely_token_for_any_seed(model, engine):
    first, second = (generate(engine, [1, 2], 2, max_tokens=40, temperature=0.0, seed=seed) for seed in (0, 1))
    assert first == second and first[0].tokens == first[1].tokens
    tokens = [1, 2]
    for _ in range(20):
        with torch.no_grad():
            tokens.append(model(torch.tensor([[0] + tokens]))[0, -1].argmax().item())
    assert first[0].tokens[:20] == tokens[2:]


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="layers are prepacked on x86")
def test_without_bfloat16_products_are_float32_of_rounded_weights(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    torch.manual_seed(0)
    model = GPT(CONFIG)
    rounded = copy.deepcopy(model).bfloat16().float()
    first, second = (
        generate(Engine(prepare_for_inference(part, dtype), stride=STRIDE), [OPEN], 4, max_tokens=70)
        for part, dtype in ((model, torch.bfloat16), (rounded, torch.float32))
    )
    assert first == second


def test_a_bfloat16_model_generates():
    torch.manual_seed(0)
    model = prepare_for_inference(GPT(CONFIG), torch.bfloat16)
    samples = generate(Engine(model, stride=STRIDE), [], 8, max_tokens=70, constraint_factory=ClosableBrackets)
    assert all(is_complete(sample.tokens) for sample in samples)


# -----------------------------------------------------------------------------
# Endings


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("max_tokens", [2, 3, 5, 17, 60, 340])
def test_with_closing_tokens_every_sample_is_complete(engine, temperature, max_tokens):
    samples = generate(
        engine,
        [],
        12,
        max_tokens=max_tokens,
        temperature=temperature,
        batch_size=8,
        constraint_factory=ClosableBrackets,
    )
    for sample in samples:
        assert is_complete(sample.tokens) and len(sample.tokens) <= max_tokens
        assert sample.finish_reason in ("complete", "closed")


def test_only_samples_that_run_out_of_tokens_are_closed(model, engine):
    closable, plain = (
        generate(engine, [], 60, max_tokens=12, constraint_factory=factory) for factory in (ClosableBrackets, Brackets)
    )
    for closed, cut in zip(closable, plain):
        if cut.finish_reason == "complete":
            assert (closed.finish_reason, closed.tokens) == ("complete", cut.tokens)
        else:
            assert (closed.finish_reason, cut.finish_reason) == ("closed", "length")
            own = os.path.commonprefix([closed.tokens, cut.tokens])
            assert set(closed.tokens[len(own) :]) == {CLOSE}
            assert closed.logprob == pytest.approx(log_probability(model, own), abs=1e-4)
    assert {sample.finish_reason for sample in closable} == {"complete", "closed"}


def test_without_closing_tokens_a_sample_is_cut_at_max_tokens(engine):
    reasons = set()
    for sample in generate(engine, [], 60, max_tokens=12, constraint_factory=Brackets):
        reasons.add(sample.finish_reason)
        assert is_complete(sample.tokens) == (sample.finish_reason == "complete")
        assert len(sample.tokens) == 12 or sample.finish_reason == "complete"
    assert reasons == {"complete", "length"}


def test_forced_tokens_stop_at_max_tokens(engine):
    class Chain(Brackets):
        """Force every token, and be complete after five."""

        def allowed(self):
            return [WORDS[self.depth]] if self.depth < 5 else []

        def accept_token(self, token):
            self.depth += 1
            return True

        def is_terminated(self):
            return self.depth == 5

    for max_tokens, reason in (4, "length"), (5, "complete"):
        [sample] = generate(engine, [], 1, max_tokens=max_tokens, constraint_factory=Chain)
        assert (sample.tokens, sample.finish_reason) == (list(WORDS[:max_tokens]), reason)


def test_allowed_is_the_models_probability_of_allowed_tokens(model, engine):
    samples = generate(engine, [], 6, max_tokens=20, measure_allowed=True, constraint_factory=Brackets)
    for sample in samples:
        brackets, shares = Brackets(), []
        with torch.no_grad():
            probs = model(torch.tensor([[0] + sample.tokens]))[0].softmax(-1)
        for token, row in zip(sample.tokens, probs):
            if len(brackets.allowed()) > 1:
                shares.append(row[brackets.allowed()].sum().item())
            brackets.accept_token(token)
        assert sample.allowed == pytest.approx(np.mean(shares), abs=1e-4)
    assert generate(engine, [], 1, max_tokens=20, constraint_factory=Brackets)[0].allowed is None


def test_max_repeats_bounds_repetition():
    engine = Engine(GPT(CONFIG), stride=STRIDE)  # all logits are 0: the likeliest token is the first one allowed
    options = dict(max_tokens=200, temperature=0, constraint_factory=ClosableBrackets)
    assert generate(engine, [], 1, **options)[0].tokens[:100] == [OPEN] * 100
    assert generate(engine, [], 1, max_repeats=30, **options)[0].tokens[:31] == [OPEN] * 30 + [OPEN_THREE]


def test_max_repeats_works_without_a_constraint(engine):
    looping, leaving = (generate(engine, [], 1, max_tokens=200, temperature=0, max_repeats=n)[0].tokens for n in (0, 2))
    assert any(in_loop(looping[:end], 2) for end in range(200))
    assert not any(in_loop(leaving[:end], 2) for end in range(200))


def goes_back(model, index, share, max_tokens) -> tuple[list[int], int]:
    """Return what the engine returns for a sample that goes back, slowly, and how often that happens."""
    brackets, tokens, random = Brackets(), [], np.random.default_rng((0, index))
    farthest, distance, count, left = -math.inf, 0, 0, MOST_TAKEN_BACK * max_tokens
    while len(tokens) < max_tokens and not brackets.is_terminated():
        token, *others = brackets.allowed()
        if others:
            window = [window_start(len(tokens), CONFIG.sequence_len, STRIDE) // STRIDE]
            with torch.no_grad():
                logits = model(torch.tensor([window + tokens[window[0] * STRIDE :]]))[0, -1]
            masked = torch.full_like(logits, -math.inf)
            masked[brackets.allowed()] = logits[brackets.allowed()]
            uniform = torch.tensor([random.random(dtype=np.float32)])
            token = sample_tokens(masked[None], uniform, SamplingParams(temperature=0.6))[0].item()
        assert brackets.accept_token(token)
        tokens.append(token)
        if len(brackets.allowed()) < 2 and len(tokens) < max_tokens:
            continue
        found = next((window for window in WINDOWS if repeated_share(tokens, window) > share), 0)
        if found and left > 0 and not brackets.is_terminated():
            distance = max(found, 2 * distance) if len(tokens) <= farthest + found else found
            farthest, count = max(farthest, len(tokens)), count + 1
            left -= min(distance, len(tokens))
            tokens, brackets = tokens[:-distance], Brackets()
            assert all(map(brackets.accept_token, tokens))
    return tokens, count


def test_a_sample_that_repeats_itself_goes_back_as_the_slow_twin(model, engine):
    options = dict(max_tokens=150, temperature=0.6, max_repetition=0.3, constraint_factory=Brackets)
    n_returns, expected = 0, 0
    for step in stream(engine, [], 6, **options):
        n_returns += step.n_removed > 0
        if step.sample:
            tokens, count = goes_back(model, step.index, 0.3, 150)
            assert step.sample.tokens == tokens
            expected += count
    assert n_returns == expected > 5


def test_a_complete_prompt_returns_empty_samples(engine):
    def ended():
        brackets = ClosableBrackets()
        assert brackets.accept_token(OPEN) and brackets.accept_token(CLOSE)
        return brackets

    for sample in generate(engine, [OPEN, CLOSE], 3, max_tokens=5, constraint_factory=ended):
        assert (sample.tokens, sample.finish_reason, sample.logprob) == ([], "complete", 0.0)


def test_too_few_tokens_for_any_ending_is_an_error(engine):
    with pytest.raises(ValueError, match="max_tokens 1 is too few.*has 2"):
        generate(engine, [], 1, max_tokens=1, constraint_factory=ClosableBrackets)


def test_a_constraint_that_contradicts_itself_is_reported(engine):
    class DeadEnd(Brackets):
        def allowed(self):
            return []

    class Liar(DeadEnd):
        def fill_next_token_bitmask(self, bitmask, index=0):
            bitmask[index] = -1

    with pytest.raises(RuntimeError, match="allows no token"):
        generate(engine, [], 1, max_tokens=5, constraint_factory=DeadEnd)
    with pytest.raises(RuntimeError, match="refuses token"):
        generate(engine, [], 1, max_tokens=5, constraint_factory=Liar)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_samples": 0}, "num_samples"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": VOCAB * STRIDE + 1}, "position tokens reach"),
        ({"batch_size": 0}, "batch_size"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"min_p": 1.1}, "min_p"),
        ({"max_repeats": 1}, "max_repeats"),
        ({"max_repetition": 0}, "max_repetition"),
        ({"seed": -1}, "seed"),
        ({"first": -1}, "first"),
        ({"prompt": [3, VOCAB]}, f"token {VOCAB} .* {VOCAB}"),
    ],
)
def test_an_argument_out_of_range_is_named(engine, change, message):
    with pytest.raises(ValueError, match=message):
        generate(engine, **{"prompt": [], "num_samples": 1, "max_tokens": 4, **change})


@pytest.mark.parametrize("stride", [0, CONFIG.sequence_len + 1])
def test_a_stride_out_of_range_is_an_error(model, stride):
    with pytest.raises(ValueError, match=f"stride {stride}"):
        Engine(model, stride=stride)

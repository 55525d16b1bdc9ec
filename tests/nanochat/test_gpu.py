"""The code for GPUs, tested on the CPU: on the pretended GPU of tests/pretend_cuda.py, or traced for a compiler."""

import ast
import inspect
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from prepared_data import write_prepared
from pretend_cuda import ANSWERS, CUDA, VARLEN_ATTN, use_varlen_attn
from test_bench_train import JOB
from test_engine import SCHEMA_FIELDS, Brackets, generate
from test_train import MICRO
from torch._dynamo.testing import CompileCounterWithBackend

from nanochat import device, distributed, functional
from nanochat.checkpoint_manager import load_checkpoint
from nanochat.device import autocast
from nanochat.distributed import Ranks
from nanochat.engine import Engine
from nanochat.functional import PackedDocuments, cap
from nanochat.gpt import GPT, GPTConfig
from nanochat.inference import prepare_for_inference
from nanochat.loss_eval import score_batch
from nanochat.optim import build_optimizers
from nanochat.run_folder import read_metrics
from nanochat.run_log import RunLog
from nanochat.trainer import Trainer
from scripts import tct_train
from scripts.bench import train_job
from tct_packing import packed_data_loader

CPU = torch.device("cpu")
LENGTHS = [5, 1, 16, 9, 3, 14]
CONFIG = GPTConfig(sequence_len=16, vocab_size=50, n_layer=2, n_head=4, n_kv_head=4, n_embd=64)
FEATURES = {
    "plain": {},
    "grouped queries": {"n_kv_head": 2},
    "schema positions": SCHEMA_FIELDS,
    "an odd head size": {"n_embd": 24},
}
INSTALLED = functional.installed_kernel()
KERNELS = VARLEN_ATTN | {"installed": INSTALLED}
del KERNELS["2.12"]  # is as 2.13
GPU_MODULES = "torch.cuda.", "torch.accelerator.", "torch.backends.cuda."
SHIPPED = [
    path
    for folder in ("nanochat", "scripts", "tct-bundle/adapters", "experiments/gpu")
    for path in Path(__file__).parents[2].joinpath(folder).rglob("*.py")
]


@pytest.fixture
def data(tmp_path):
    write_prepared(tmp_path / "data", [30, 9, 16, 4, 21, 3], [30, 10, 16])
    return tmp_path / "data"


def random_model(device, **fields):
    torch.manual_seed(0)
    model = GPT(GPTConfig(**(vars(CONFIG) | fields)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.to(device)


def packed_batch(device, n_states=0):
    torch.manual_seed(1)
    x, y = torch.randint(0, 50, (2, 1, sum(LENGTHS)))
    y[0, ::5] = -1
    states = torch.randint(0, n_states, x.shape) if n_states else None
    return (
        x.to(device),
        y.to(device),
        PackedDocuments.of(LENGTHS, 16, pad_to_multiple=8, schema_positions=states).to(device),
    )


def distance(one, other) -> float:
    return float((one.cpu() - other).norm() / other.norm())


# -----------------------------------------------------------------------------
# the same numbers as on the CPU


@pytest.mark.parametrize("fields", FEATURES.values(), ids=FEATURES)
@pytest.mark.parametrize(
    "kernel, dtype, error",
    [
        pytest.param(INSTALLED, torch.float32, 1e-5, id="float32"),
        *(pytest.param(kernel, torch.bfloat16, 0.03, id=version) for version, kernel in KERNELS.items()),
    ],
)
def test_packed_loss_and_gradients_equal_the_cpus(pretended_gpu, monkeypatch, kernel, dtype, error, fields):
    use_varlen_attn(monkeypatch, kernel)

    def run(device, dtype):
        model = random_model(device, **fields)
        model.gradient_checkpointing = device is CUDA
        x, y, documents = packed_batch(device, model.config.n_states)
        with autocast(device, dtype):
            loss = model(x, y, layout=documents)
        loss.backward()
        return loss, {name: parameter.grad for name, parameter in model.named_parameters()}

    loss, gradients = run(CPU, torch.float32)
    with pretended_gpu:
        gpu_loss, gpu_gradients = run(CUDA, dtype)
        assert gpu_loss.is_cuda
    assert gpu_loss.item() == pytest.approx(loss.item(), rel=error)
    for name, gradient in gradients.items():
        assert distance(gpu_gradients[name], gradient) < error, name


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize(
    "change, by_kernel",
    [
        ({}, True),
        ({"dtype": torch.float16}, True),
        ({"dtype": torch.float32}, False),
        ({"size": 12}, False),
        ({"size": 256}, False),
        ({"capability": (7, 5)}, False),
    ],
)
def test_the_kernel_gets_only_supported_heads(pretended_gpu, monkeypatch, kernel, change, by_kernel):
    use_varlen_attn(monkeypatch, kernel)
    case = {"dtype": torch.bfloat16, "size": 64, "capability": (9, 0)} | change
    pretended_gpu.stand_ins["torch.cuda.get_device_capability"].return_value = case["capability"]
    with pretended_gpu:
        q = torch.zeros(1, 2, 5, case["size"], dtype=case["dtype"], device=CUDA)
        assert functional.kernel_takes(q) == (by_kernel and kernel is not None)


def test_a_resumed_run_equals_the_cpus(pretended_gpu, monkeypatch, data, tmp_path):
    monkeypatch.setattr(tct_train, "PRESETS", {"small": MICRO | {"device_batch_size": 2}})
    monkeypatch.setattr(RunLog, "redraw", lambda self: None)

    def run(device):
        folder = tmp_path / device
        flags = {"data_dir": data, "device": device, "dtype": "float32", "compile": "off", "checkpoint_dir": folder}
        for more in ({"num_iterations": 4}, {"resume_from_iteration": "latest", "num_iterations": 8}):
            tct_train.main([f"--{flag}={value}" for flag, value in (flags | more).items()])
        return load_checkpoint(folder, 8)[0], [r["val_loss"] for r in read_metrics(folder) if "val_loss" in r]

    weights, losses = run("cpu")
    with pretended_gpu:
        gpu_weights, gpu_losses = run("cuda")
    assert gpu_losses == pytest.approx(losses, rel=1e-4)
    assert max(distance(gpu_weights[name], weights[name]) for name in weights) < 1e-2
    assert pretended_gpu.stand_ins["torch.cuda.Event"].call_count == 8


@pytest.mark.slow
@pytest.mark.parametrize("with_schema", [False, True])
@pytest.mark.parametrize("options", [{"temperature": 0}, {"top_k": 20, "top_p": 0.9, "min_p": 0.01}])
def test_samples_equal_the_cpus(pretended_gpu, with_schema, options):
    class Positioned(Brackets):
        def state_id(self):
            return min(self.depth, 5)

        def state_ids(self):
            return [0]

    def run(device):
        model = random_model(device, vocab_size=45, n_kv_head=2, **(SCHEMA_FIELDS if with_schema else {}))
        engine = Engine(model.eval(), stride=8)
        return generate(
            engine,
            [],
            3,
            max_tokens=24,
            constraint_factory=Positioned,
            measure_allowed=True,
            max_repeats=4,
            batch_size=2,
            **options,
        )

    with pretended_gpu:
        there = run(CUDA)
    assert [sample.tokens for sample in there] == [sample.tokens for sample in run(CPU)]


def test_a_model_for_inference_generates_in_bfloat16(pretended_gpu):
    with pretended_gpu:
        engine = Engine(prepare_for_inference(random_model(CUDA, **SCHEMA_FIELDS), torch.bfloat16), stride=8)
        samples = generate(engine, [], 3, max_tokens=20, constraint_factory=lambda: Stay())
    assert [len(sample.tokens) for sample in samples] == [20] * 3


class Stay:
    """A constraint that allows every token at one schema position, without end."""

    def state_id(self):
        return 1

    def state_ids(self):
        return [0]

    def accept_token(self, token):
        return True

    def fill_next_token_bitmask(self, bitmask, index=0):
        bitmask[index] = -1

    def is_terminated(self):
        return False


def test_token_scores_equal_the_cpus(pretended_gpu):
    masks = np.packbits(np.random.default_rng(0).random((sum(LENGTHS), 50)) < 0.9, axis=1, bitorder="little")

    def run(device):
        model = random_model(device, **SCHEMA_FIELDS).eval()
        x, y, documents = packed_batch(device, SCHEMA_FIELDS["n_states"])
        return score_batch(model, x, y, documents, masks[(y.cpu().flatten() != -1).numpy()])

    with pretended_gpu:
        there = run(CUDA)
    here = run(CPU)
    np.testing.assert_allclose(there.nats, here.nats, atol=1e-4)
    np.testing.assert_allclose(there.allowed_nats, here.allowed_nats, atol=1e-4)


# -----------------------------------------------------------------------------
# the host does not wait, and the functions are called as they are declared


def test_no_update_waits_for_the_gpu(pretended_gpu, data):
    with pretended_gpu:
        model = GPT(GPTConfig(sequence_len=16, vocab_size=64, n_layer=1, n_head=1, n_kv_head=1, n_embd=8)).to(CUDA)
        loader = packed_data_loader(2, 16, "train", data, CUDA)
        trainer = Trainer(
            model, build_optimizers(model, "muon", 0.1, torch.bfloat16), torch.bfloat16, 1.0, 0, Ranks(0, 1)
        )
        trainer.flush = lambda wait: None  # reads the step before, which is on the CPU by then
        for step in range(1, 4):
            trainer.step(step, 1e-3, [next(loader), next(loader)], 64)
    assert pretended_gpu.waits == []
    pending = trainer.pending[-1]
    assert not pending.numbers.is_cuda and pending.ready_event


@pytest.mark.parametrize("mode", ["probe", "ceiling", "plain", "padded", "packed"])
def test_the_benchmark_runs_on_a_gpu(pretended_gpu, monkeypatch, mode):
    monkeypatch.setattr(train_job, "GPU_CEILING_SIZES", (8,))
    job = JOB | {"mode": mode, "device": "cuda", "dtype": "bfloat16"}
    if mode == "probe":
        job = {"mode": mode, "device": "cuda", "compile": "off", "data_dir": None, "configs": {"tiny": JOB["config"]}}
    with pretended_gpu:
        result = train_job.measure(job)
    expected = {"probe": ("name", "NVIDIA H200"), "ceiling": ("flops", mock.ANY)}.get(mode, ("memory", 2**30))
    assert result[expected[0]] == expected[1]


def test_auto_is_bfloat16_on_a_gpu_that_has_it(pretended_gpu):
    has_it = pretended_gpu.stand_ins["torch.cuda.is_bf16_supported"]
    for has_it.return_value, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        assert device.choose_dtype("auto", device.choose_device("auto")) is dtype


def test_the_peak_of_a_gpu_is_found_by_its_name(pretended_gpu):
    assert device.peak_flops(CUDA) == 989e12


@pytest.mark.parametrize("lacks", [None, "triton", "a C compiler", "Python.h"])
def test_compiling_for_a_gpu_needs_all_of_triton(monkeypatch, tmp_path, lacks):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None if lacks == name else "found")
    monkeypatch.setattr(device.shutil, "which", lambda name: None if lacks == "a C compiler" else "found")
    monkeypatch.setattr(device.sysconfig, "get_path", lambda *names: tmp_path)
    if lacks != "Python.h":
        (tmp_path / "Python.h").touch()
    assert device.choose_compile("auto", CUDA) is (lacks is None)
    assert not device.choose_compile("off", CUDA)
    if lacks:
        with pytest.raises(ValueError, match=f"needs {lacks}"):
            device.choose_compile("on", CUDA)


def test_generation_turns_off_cudnn_attention(pretended_gpu):
    with pretended_gpu:
        prepare_for_inference(random_model(CUDA), torch.bfloat16)
    pretended_gpu.stand_ins["torch.backends.cuda.enable_cudnn_sdp"].assert_called_once_with(False)


@pytest.mark.parametrize("takes", ["forward_sync_buffers", "broadcast_buffers"])  # since torch 2.13, and before
def test_ranks_share_gradients_but_no_buffers(monkeypatch, takes):
    def declared(module, device_ids=None, output_device=None, *, buffers=True):
        """Stands for DistributedDataParallel."""

    parameters = [
        p.replace(name=takes) if p.name == "buffers" else p for p in inspect.signature(declared).parameters.values()
    ]
    stand_in = mock.Mock(__signature__=inspect.Signature(parameters))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "DistributedDataParallel", stand_in)
    distributed.data_parallel("a model", CUDA)
    stand_in.assert_called_once_with("a model", device_ids=[0], **{takes: False})


def test_ranks_use_nccl_on_gpus_and_gloo_on_the_host(monkeypatch):
    join = mock.create_autospec(torch.distributed.init_process_group)
    monkeypatch.setattr(torch.distributed, "init_process_group", join)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(distributed, "rendezvous_store", lambda ranks: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with distributed.process_group(CUDA) as ranks:
        assert ranks == Ranks(1, 2)
    assert join.call_args.args == ("cpu:gloo,cuda:nccl",)


def test_our_varlen_attn_has_the_installed_signature():
    version = ".".join(torch.__version__.split(".")[:2])
    if version not in VARLEN_ATTN:
        pytest.skip(f"torch {version} is not among those we know")
    names = [
        None if kernel is None else list(inspect.signature(kernel).parameters)
        for kernel in (VARLEN_ATTN[version], INSTALLED)
    ]
    assert names[0] == names[1]


def test_every_gpu_function_that_we_call_has_a_stand_in():
    found = set()
    for path in SHIPPED:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(GPU_MODULES):
                found.add(ast.unparse(node))
    assert found and found <= ANSWERS.keys()


# -----------------------------------------------------------------------------
# compiled


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])  # in blocks, and by the kernel
@pytest.mark.parametrize("checkpoints", [False, True])
def test_all_batches_of_one_shape_share_one_graph(flash_twin, monkeypatch, dtype, checkpoints):
    """The code for GPUs is traced, forward and backward, without a break for any document lengths."""

    def loss(x, weight, targets):
        return F.cross_entropy(cap(F.linear(x, weight)), targets, ignore_index=-1, reduction="sum")

    model = random_model(CPU, **SCHEMA_FIELDS, n_kv_head=2, n_layer=1)
    batches = []
    for lengths in ([16, 16], [5, 11, 16], [1, 2, 3, 10, 16]):
        x, y, states = torch.randint(0, 6, (3, 1, 32))
        batches.append((x, y, PackedDocuments.of(lengths, max_seqlen=16, pad_to_multiple=8, schema_positions=states)))
    expected = [model(x, y, loss_reduction="sum", layout=documents).item() for x, y, documents in batches]

    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(functional, "attend_one_by_one", functional.attend_on_gpu)
    monkeypatch.setattr("nanochat.gpt.capped_cross_entropy", loss)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    model.gradient_checkpointing = checkpoints
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=False)
    for (x, y, documents), wanted in zip(batches, expected):
        with autocast(CPU, dtype):
            nats = compiled(x, y, loss_reduction="sum", layout=documents)
        nats.backward()
        assert nats.item() == pytest.approx(wanted, rel=1e-5 if dtype == torch.float32 else 0.02)
    assert counter.frame_count == 1

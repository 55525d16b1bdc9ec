"""Step 1: is every path of the model correct on this device? The reference is float32 on the CPU.

Errors of logits and gradients are relative: the norm of the difference over the norm of the reference. Every error
in bfloat16 stands next to that of the CPU in bfloat16, which shows how much of it is rounding.
"""

import copy
import os
import subprocess
import sys

import torch
import torch.distributed as dist
from step import Step

import tct_github_workflow as tct
from nanochat.device import autocast
from nanochat.distributed import Ranks
from nanochat.functional import PackedDocuments
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim import build_optimizers
from nanochat.packing import PackedTrainLoader
from nanochat.trainer import Trainer
from workflow_data.loaders import open_split
from workflow_data.reader import load_schema_positions
from workflow_generator import WorkflowGenerator

CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}  # relative errors; float32 has no TF32 here
UPDATES = 20
LONGEST_CHECK = 30  # seconds that a check may take, compiling included
STATES = 64
FLAGS = {"previous_token": True, "n_states": STATES, "state_attention": True, "value_embedding": True}
VARIANTS = {  # name -> (is packed, fields of GPTConfig)
    "padded rows": (False, {}),
    "packed documents": (True, {}),
    "packed, grouped queries": (True, {"n_kv_head": 1}),
    "packed, all flags": (True, FLAGS),
}


def main():
    step = Step(__doc__)
    device = torch.device(step.args.device)
    torch.set_float32_matmul_precision("highest")
    with step.check("machine") as figures:
        figures |= machine(device)
    checks = [(f"{UPDATES} updates, {name_of(dtype)}", compare_updates, dtype, device) for dtype in TOLERANCE]
    for compiles in False, True:
        how = "compiled" if compiles else "eager"
        checks += [
            (f"{variant}, {name_of(dtype)}, {how}", compare, variant, dtype, compiles, device)
            for dtype in reversed(TOLERANCE) for variant in VARIANTS
        ]  # fmt: skip
        if not (compiles and step.args.dry_run):  # a dry run compiles nothing, so it would repeat the eager case
            checks.append((f"stop and resume, the second half under torchrun, {how}", resume, compiles))
        if not compiles:
            checks += [("generation", generate), ("a process group of one", compare_group, device)]
    for name, run_check, *arguments in checks:
        if step.seconds_left() < (0 if step.args.dry_run else LONGEST_CHECK):
            step.note(name, ok=True, left_out="no time left")
            continue
        with step.check(name) as figures:
            figures |= run_check(step.args, *arguments)
    step.end()


def name_of(dtype) -> str:
    return str(dtype).removeprefix("torch.")


def machine(device) -> dict:
    figures = {"torch": torch.__version__, "python": sys.version.split()[0], "cpus": os.cpu_count()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        figures |= {"gpu": properties.name, "memory": properties.total_memory, "cuda": torch.version.cuda,
                    "capability": list(torch.cuda.get_device_capability(device))}  # fmt: skip
    return figures


# ---------------------------------------------------------------------------------------------------------
# one forward and backward pass


def build(fields: dict, is_small: bool) -> GPT:
    """Return a model in which every weight has an effect: weights that start as zeros are random too."""
    torch.manual_seed(0)
    size = {"n_layer": 2, "n_head": 2, "n_embd": 32} if is_small else {"n_layer": 2, "n_head": 6, "n_embd": 384}
    config = {"sequence_len": 64 if is_small else 512, "vocab_size": 256 if is_small else 8192, **size}
    model = GPT(GPTConfig(**{**config, "n_kv_head": size["n_head"], **fields}))
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def batch(model: GPT, is_packed: bool):
    """Return tokens x and targets y, and their documents if they are packed in one row (1, N)."""
    torch.manual_seed(1)
    T, V = model.config.sequence_len, model.config.vocab_size
    shape = (1, 4 * T) if is_packed else (4, T)
    x, y = torch.randint(V, shape), torch.randint(V, shape)
    y[:, ::7] = -1
    if not is_packed:
        return x, y, None
    lengths = [T, T // 2, T // 2, T - 3, 1, 2, T]  # 4 T together
    states = torch.randint(STATES, shape) if model.config.n_states else None
    return x, y, PackedDocuments.of(lengths, T, 8, states)


def passes(model: GPT, data, dtype, device, compiles=False):
    """Return logits (..., V) and all gradients as one vector, on the CPU in float32."""
    model = copy.deepcopy(model).to(device)
    x, y, documents = (part.to(device) if part is not None else None for part in data)
    torch.compiler.reset()  # torch stops compiling a function after a few recompilations
    run = torch.compile(model, dynamic=False) if compiles else model
    with autocast(device, dtype):
        loss = run(x, y, layout=documents)
        loss.backward()
        with torch.no_grad():
            logits = run(x, layout=documents)
    gradient = torch.cat([p.grad.float().flatten().cpu() for p in model.parameters()])
    return logits.float().cpu(), gradient


def compare(args, variant: str, dtype, compiles: bool, device) -> dict:
    is_packed, fields = VARIANTS[variant]
    model = build(fields, args.dry_run)
    data = batch(model, is_packed)
    reference = passes(model, data, torch.float32, CPU)
    errors = relative_errors(passes(model, data, dtype, device, compiles), reference)
    rounding = relative_errors(passes(model, data, dtype, CPU), reference) if dtype != torch.float32 else (0.0, 0.0)
    return {
        "ok": max(errors) < TOLERANCE[dtype],
        "logits": errors[0], "gradients": errors[1],
        "logits_rounding": rounding[0], "gradients_rounding": rounding[1],
    }  # fmt: skip


def relative_errors(found, reference) -> tuple[float, ...]:
    return tuple(float((a - b).norm() / b.norm()) for a, b in zip(found, reference))


# ---------------------------------------------------------------------------------------------------------
# updates


def compare_updates(args, dtype, device) -> dict:
    """Compare the losses of some updates of a model with all flags, on the device and on the CPU in float32."""
    reference = losses(torch.float32, CPU, args)
    found = losses(dtype, device, args)
    differences = [abs(a - b) / b for a, b in zip(found, reference)]
    return {"ok": max(differences) < TOLERANCE[dtype], "largest": max(differences), "first": differences[0],
            "last": differences[-1], "losses": found, "reference": reference}  # fmt: skip


def losses(dtype, device, args) -> list[float]:
    """Return the losses of updates on the prepared data: each batch is half a dozen documents."""
    trainer, batches, targets = training(dtype, device, args)
    updates = 2 if args.dry_run else UPDATES
    return [trainer.step(i + 1, 1e-3, [next(batches)], targets, wait=True).loss for i in range(updates)]


def training(dtype, device, args):
    """Return a trainer of a small model with all flags, its batches, and the targets of a batch."""
    rows, metadata, share = open_split(512, "train", str(args.data), device, 8192, None, 0, 1)
    torch.manual_seed(2)
    size = {"n_layer": 2, "n_head": 2, "n_kv_head": 2, "n_embd": 32 if args.dry_run else 256}
    model = GPT(GPTConfig(512, 8192, **size, **FLAGS | {"n_states": metadata["n_states"]})).to(device)
    optimizers = build_optimizers(model, "muon", 0.1, dtype)
    targets = (1 if args.dry_run else 8) * 512
    states = load_schema_positions(str(args.data), "train", metadata)
    batches = PackedTrainLoader(rows, targets, metadata, states=states, seed=0, **share)
    return Trainer(model, optimizers, dtype, 1.0, 0, Ranks(0, 1)), batches, targets


def compare_group(args, device) -> dict:
    """Compare losses inside a process group (nccl on a GPU, gradients through DDP) with losses outside."""
    alone = losses(torch.float32, device, args)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        together = losses(torch.float32, device, args)
    finally:
        dist.destroy_process_group()
    largest = max(abs(a - b) for a, b in zip(together, alone))
    return {"ok": largest < 1e-3, "bitwise": together == alone, "largest": largest}


def resume(args, compiles: bool) -> dict:
    """Train n updates. Repeat the second half from a checkpoint and under torchrun. Compare weights."""
    updates = 4 if args.dry_run else UPDATES
    folder = args.work / ("compiled" if compiles else "eager")
    train = ["-m", "scripts.tct_train", "--checkpoint_dir", folder, "--device", args.device, "--compile",
             "on" if compiles else "off"]  # fmt: skip
    run(sys.executable, *train, "--model_size", "tiny", "--data_dir", args.data, "--num_iterations", updates,
        "--device_batch_size", 1 if args.dry_run else 8, "--eval_every", updates, "--eval_windows", 8,
        "--save_every", updates // 2, "--previous_token", "--state_embedding", "--state_attention")  # fmt: skip
    once = torch.load(folder / f"model_{updates:06d}.pt", weights_only=True)
    run(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1", *train,
        "--resume_from_iteration", updates // 2)  # fmt: skip
    again = torch.load(folder / f"model_{updates:06d}.pt", weights_only=True)
    unequal = [name for name in once if not torch.equal(once[name], again[name])]
    largest = max(float((once[name] - again[name]).abs().max()) for name in once)
    return {"ok": largest < 1e-2, "bitwise": not unequal, "largest": largest, "unequal": unequal[:5]}


def run(*command) -> str:
    process = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    print(process.stdout, process.stderr, flush=True)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {process.stderr.strip().splitlines()[-1:]}")
    return process.stdout


# ---------------------------------------------------------------------------------------------------------
# generation


def generate(args) -> dict:
    """Generate from the model of `resume`: all samples are valid, and greedy ones equal those of the CPU."""
    count, most = (2, 64) if args.dry_run else (16, 512)
    generator, on_cpu = (
        WorkflowGenerator.load(args.work / "eager", device, "float32") for device in (args.device, "cpu")
    )
    samples = generator.generate(count, max_tokens=most, temperature=1.0)
    valid = sum(tct.decode(tct.encode(sample.json))[0] == sample.json for sample in samples)
    ours, theirs = (each.generate(1, max_tokens=most, temperature=0)[0].tokens for each in (generator, on_cpu))
    alike = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    return {"ok": valid == count and ours == theirs, "samples": count, "valid": valid, "greedy_tokens": len(ours),
            "greedy_tokens_alike": alike}  # fmt: skip


if __name__ == "__main__":
    main()

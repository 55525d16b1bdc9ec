"""Training: exact across resumes and layouts, with clear errors."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from prepared_data import write_prepared

import tct_github_workflow as tct
from model_config import PRESET_NAMES, PRESETS
from nanochat.checkpoint_manager import list_steps, load_checkpoint, load_model
from nanochat.gpt import GPT, GPTConfig
from nanochat.loss_eval import bits_per_byte, evaluate_loss, perplexity
from nanochat.run_folder import read_metrics
from nanochat.run_log import RunLog
from nanochat.settings import parse_flags
from nanochat.trainer import Trainer
from script_tools.files import write_atomic
from scripts import tct_train
from tct_github_workflow.workflow_yaml import load_workflow
from workflow_data.loaders import tokenizing_distributed_data_loader

MICRO = {
    "vocab_size": 64,
    "context_size": 16,
    "d_model": 16,
    "n_layers": 2,
    "n_heads": 2,
    "device_batch_size": 3,
    "gradient_accumulation": 1,
    "num_iterations": 8,
    "learning_rate": 1e-2,
    "warmup_iters": 2,
    "weight_decay": 0.1,
    "grad_clip": 1.0,
}

MICRO_CONFIG = GPTConfig(sequence_len=16, vocab_size=64, n_layer=2, n_head=2, n_kv_head=2, n_embd=16)


@pytest.fixture(autouse=True)
def micro_preset(monkeypatch, request):
    """Make every preset a model of 8,192 parameters, use one thread for one order of sums, and draw no pictures."""
    monkeypatch.setattr(tct_train, "PRESETS", {name: MICRO for name in PRESET_NAMES})
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(RunLog, "redraw", lambda self: None)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pictures():
    """For a test that needs curves.png."""


@pytest.fixture
def data(tmp_path):
    write_prepared(tmp_path / "data", [30, 9, 16, 4, 21], [30, 10])  # 11 training windows
    return tmp_path / "data"


@pytest.fixture
def train(tmp_path, data):
    """Train in tmp_path/NAME; return that folder."""

    def run(name, **flags):
        new = {} if "resume_from_iteration" in flags else {"dtype": "float32"}
        flags = {"data_dir": data, "checkpoint_dir": tmp_path / name, "device": "cpu"} | new | flags
        tct_train.main([f"--{flag}={value}" for flag, value in flags.items()])
        return tmp_path / name

    return run


@pytest.fixture
def command(tmp_path):
    """Return the command that trains the micro preset. Rank 1 of the first start is killed before step DIE_AT."""
    script = tmp_path / "micro_train.py"
    script.write_text(f"""
import os, signal
from nanochat.trainer import Trainer
from scripts import tct_train
tct_train.PRESETS = dict(small={MICRO})
make_step = Trainer.step
def step_or_die(self, step, *arguments):
    if [str(step), "1", "0"] == [os.environ.get(name) for name in ("DIE_AT", "RANK", "TORCHELASTIC_RESTART_COUNT")]:
        os.kill(os.getpid(), signal.SIGKILL)
    return make_step(self, step, *arguments)
Trainer.step = step_or_die
if __name__ == "__main__": tct_train.main()
""")
    return [str(script)]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def weights(folder, step):
    return load_checkpoint(folder, step)[0]


def assert_equal_weights(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def assert_equal_states(one, other):
    """Compare optimizer states: lists and dicts of tensors and numbers."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, (dict, list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one.values(), other.values()) if isinstance(one, dict) else zip(one, other):
            assert_equal_states(a, b)
    else:
        assert one == other


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fails(arguments, capsys):
    """Return the error that training prints."""
    with pytest.raises(SystemExit) as exit:
        tct_train.main([str(argument) for argument in arguments])
    assert exit.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1 and "Traceback" not in message
    return message


# -----------------------------------------------------------------------------
# what a run prints and writes


def test_log_lines_have_the_documented_form(train, capsys):
    train("run", eval_every=4, log_every=4)
    lines = capsys.readouterr().out.splitlines()
    steps = [line for line in lines if re.match(r"step \d{6}/", line)]
    assert [line[:18] for line in steps] == ["step 000001/000008", "step 000004/000008", "step 000008/000008"]
    for line in steps:
        assert re.match(
            r"step \d{6}/\d{6} \| loss \d+\.\d{4} \| grad_norm \d+\.\d{3} \| lr \d\.\d\de-\d\d "
            r"\| tok/s [\d,]+ \| ",
            line,
        )
        assert "mfu" not in line  # the peak of a CPU is unknown
    validations = [line for line in lines if "val_loss" in line]
    assert [line[:11] for line in validations] == ["step 000004", "step 000008"]
    for line in validations:
        assert re.fullmatch(
            r"step \d{6} \| val_loss \d+\.\d{4} \| val_ppl \d+\.\d\d "
            r"\| val_bpb \d+\.\d{4}",
            line,
        )
    output = "\n".join(lines)
    parameters = GPT(MICRO_CONFIG).num_parameters()
    for shown in (f"{parameters:,}", "FLOPs per token", "targets per iteration", "= 48", "152 targets / 48 = 3.2"):
        assert shown in output


def test_the_loss_starts_at_a_uniform_guess_and_falls(train):
    records = read_metrics(train("run", num_iterations=60) / "metrics.jsonl")
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses[0] == pytest.approx(math.log(64), abs=1e-4)
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.slow
def test_a_run_writes_checkpoints_metrics_and_a_picture(train, pictures):
    folder = train("run", save_every=3)
    assert list_steps(folder) == [3, 6, 8]
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    meta = load_checkpoint(folder, 8)[2]
    assert meta["data"]["tokenizer"]["fingerprint"] == "a tokenizer" and meta["data"]["stride"] == 4
    assert meta["settings"]["learning_rate"] == 1e-2 and meta["versions"]["torch"] == torch.__version__
    assert meta["val_loss"] == read_metrics(folder / "metrics.jsonl")[-1]["val_loss"]
    model, _ = load_model(folder)
    assert model.config.n_embd == 16


@pytest.mark.slow
def test_an_experiment_has_report_config_logs_and_samples(tmp_path, monkeypatch, pictures, capsys):
    vocabulary = {"vocab_size": tct.vocab_size(), "context_size": 64}
    monkeypatch.setattr(tct_train, "PRESETS", {"small": MICRO | vocabulary})
    monkeypatch.chdir(tmp_path)
    write_prepared("data", [200, 90], [70], stride=32, window_step=32, **vocabulary)
    metadata = json.loads(Path("data/metadata.json").read_text())
    metadata["tokenizer"] = {"name": tct.NAME, "fingerprint": tct.fingerprint()}
    Path("data/metadata.json").write_text(json.dumps(metadata))
    flags = [
        "--data_dir=data",
        "--experiment=exp",
        "--save_every=4",
        "--num_samples=1",
        "--device=cpu",
        "--dtype=float32",
    ]
    tct_train.main(flags)
    folder = tmp_path / "experiments/exp"
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "curves.png",
        "generated_samples",
        "logs",
        "metrics.jsonl",
    }
    report = (folder / "README.md").read_text()
    assert "--experiment=exp" in report and "finished" in report and torch.__version__ in report
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["num_iterations"] == 8 and config["model_config"]["n_embd"] == 16
    [log] = (folder / "logs").iterdir()
    assert log.read_text() in capsys.readouterr().out and "step 000008/000008" in log.read_text()
    samples = sorted(
        path.relative_to(folder / "generated_samples").as_posix()
        for path in (folder / "generated_samples").rglob("*.yml")
    )
    assert samples == [f"step_00000{step}/sample_1.yml" for step in (4, 8)]
    for sample in samples:
        tct.encode(json.dumps(load_workflow((folder / "generated_samples" / sample).read_text())))
    assert list_steps(tmp_path / "out/exp") == [4, 8]

    tct_train.main(["--checkpoint_dir=out/exp", "--resume_from_iteration=4", "--device=cpu"])
    assert (
        len(list((folder / "logs").iterdir())) >= 1
        and "resumed after iteration 4" in (folder / "README.md").read_text()
    )


def test_sampling_during_training_changes_no_weight(train, monkeypatch, tmp_path):
    monkeypatch.setattr(tct_train, "write_samples", lambda place, model, *arguments: (model.eval(), model.train()))
    monkeypatch.chdir(tmp_path)
    experiment = train("experiment", experiment="exp", save_every=2)
    assert_equal_weights(weights(experiment, 8), weights(train("plain"), 8))


def test_short_runs_warm_up_for_a_tenth(train, capsys):
    train("run", num_iterations=10)
    assert re.search(r"warmup_iters +1\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "flags", [{"gradient_checkpointing": None}, {"dtype": "bfloat16"}, {"max_files": 1}, {"grad_clip": 0}]
)
def test_variants_train(train, tmp_path, data, flags):
    arguments = [f"--{flag}" if value is None else f"--{flag}={value}" for flag, value in flags.items()]
    tct_train.main([f"--data_dir={data}", f"--checkpoint_dir={tmp_path / 'run'}", "--device=cpu", *arguments])
    assert list_steps(tmp_path / "run") == [8]


@pytest.mark.parametrize("missing", ["matplotlib", "wandb"])
def test_training_needs_neither_matplotlib_nor_wandb(train, pictures, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)  # makes its import fail
    monkeypatch.setitem(sys.modules, f"{missing}.figure", None)
    folder = train("run")
    assert list_steps(folder) == [8] and (folder / "curves.png").exists() == (missing != "matplotlib")


# -----------------------------------------------------------------------------
# exactness

# Each could break exactness: other random numbers, another order of sums, other rounding.
RECIPES = {
    "muon": {},
    "adamw": {"optimizer": "adamw", "schedule": "cosine"},
    "dropout": {"dropout": 0.3},
    "bfloat16": {"dtype": "bfloat16"},
}


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [1, 3, 5, 6])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_resumed_run_has_the_same_weights(train, tmp_path, recipe, stop_at):
    flags = {"gradient_accumulation": 2, "save_every": 1, "eval_every": 3, **RECIPES[recipe]}  # 1.6 updates an epoch
    straight = train("straight", **flags)
    train("stopped", **flags)
    for path in (tmp_path / "stopped").iterdir():  # as if it had been killed then
        step = re.search(r"_(\d{6})\.", path.name)
        if step and int(step[1]) > stop_at:
            path.unlink()
    resumed = train("stopped", resume_from_iteration=stop_at)
    assert_equal_weights(weights(straight, 8), weights(resumed, 8))
    assert_equal_states(*(load_checkpoint(run, 8)[1]["optimizers"] for run in (straight, resumed)))
    metrics = [
        [
            {key: value for key, value in record.items() if key not in ("tokens_per_second", "seconds")}
            for record in read_metrics(run / "metrics.jsonl")
            if record["step"] not in (1, stop_at + 1)
        ]
        for run in (straight, resumed)
    ]
    assert metrics[0] == metrics[1]


def test_a_longer_resumed_run_equals_a_long_run(train):
    flags = {"schedule": "constant", "warmup_iters": 2}
    straight = train("straight", num_iterations=9, **flags)
    train("raised", num_iterations=5, **flags)
    raised = train("raised", num_iterations=9, resume_from_iteration="latest")
    assert_equal_weights(weights(straight, 9), weights(raised, 9))


def test_a_resumed_run_reports_its_checkpoint_and_remembers_flags(train, tmp_path, capsys):
    folder = train("run", learning_rate=3e-3, num_iterations=4, seed=7)
    capsys.readouterr()
    tct_train.main([f"--checkpoint_dir={folder}", "--resume_from_iteration=latest", "--num_iterations=6"])
    output = capsys.readouterr().out
    for shown in (
        "Resuming from checkpoint: iteration 4",
        f"Loaded model weights from: {folder}/model_000004.pt",
        f"Loaded optimizer state from: {folder}/optim_000004.pt",
        "num_iterations 4 -> 6",
        "step 000005/000006",
    ):
        assert shown in output
    assert re.search(r"learning_rate +0.003\n", output) and re.search(r"seed +7\n", output)


def test_the_loss_is_the_mean_over_all_targets(train):
    one = train("one", device_batch_size=6, log_every=1)
    # rows have 4 to 16 targets
    parts = train("parts", device_batch_size=2, gradient_accumulation=3, log_every=1)
    for a, b in zip(read_metrics(one / "metrics.jsonl")[:-1], read_metrics(parts / "metrics.jsonl")):
        assert (a["loss"], a["grad_norm"]) == pytest.approx((b["loss"], b["grad_norm"]), rel=1e-4)


@pytest.fixture
def torchrun(command, data, spawn):
    """Train the micro preset on two ranks; return the output."""

    def run(folder, *flags, restarts=0, die_at=0):
        process = spawn(
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node=2",
            f"--max-restarts={restarts}",
            *command,
            f"--data_dir={data}",
            f"--checkpoint_dir={folder}",
            "--device=cpu",
            "--dtype=float32",
            *flags,
            env=ENVIRONMENT | {"DIE_AT": str(die_at)},
        )
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        return output

    return run


@pytest.mark.slow
def test_two_ranks_equal_one_that_accumulates(train, tmp_path, torchrun, capsys):
    flags = {"schedule": "constant", "dropout": 0.2}
    one, two = train("one", num_iterations=3, gradient_accumulation=2, **flags), tmp_path / "two"
    torchrun(two, "--num_iterations=3", *(f"--{flag}={value}" for flag, value in flags.items()))
    losses = [
        [(record.get("loss"), record.get("val_loss")) for record in read_metrics(run / "metrics.jsonl")]
        for run in (one, two)
    ]
    assert len(losses[0]) == 3 and losses[0] == losses[1]
    assert_equal_weights(weights(one, 3), weights(two, 3))

    capsys.readouterr()
    train("two", resume_from_iteration="latest", num_iterations=6, gradient_accumulation=2)
    assert "world_size 2 -> 1" in capsys.readouterr().out
    straight = train("straight", num_iterations=6, gradient_accumulation=2, warmup_iters=0, **flags)
    assert_equal_weights(weights(straight, 6), weights(two, 6))


@pytest.mark.slow
def test_torchrun_resumes_a_run_that_lost_a_rank(train, tmp_path, torchrun):
    straight = train("straight", num_iterations=9, gradient_accumulation=2, save_every=3)
    output = torchrun(tmp_path / "killed", "--num_iterations=9", "--save_every=3", restarts=1, die_at=8)
    assert "Resuming from checkpoint: iteration 6\n" in output
    assert_equal_weights(weights(straight, 9), weights(tmp_path / "killed", 9))


# -----------------------------------------------------------------------------
# interruption


@pytest.fixture
def endless(tmp_path, data, command, spawn):
    """Start training without end in tmp_path/run."""

    def start(*flags):
        return spawn(
            sys.executable,
            *command,
            f"--data_dir={data}",
            f"--checkpoint_dir={tmp_path / 'run'}",
            "--device=cpu",
            "--dtype=float32",
            "--num_iterations=1000000",
            "--schedule=constant",
            "--warmup_iters=2",
            "--eval_every=1000000",
            "--log_every=1",
            *flags,
            env=ENVIRONMENT,
        )

    return start


def wait_for_line(process, start):
    """Read the output up to a line that begins with start."""
    for line in iter(process.stdout.readline, ""):
        if line.startswith(start):
            return
    raise AssertionError(process.stderr.read())


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_resumes(train, tmp_path, monkeypatch, capsys, number, code):
    make_step = Trainer.step

    def interrupted(self, step, *arguments):
        if step == 3:
            os.kill(os.getpid(), number)
        return make_step(self, step, *arguments)

    with monkeypatch.context() as context, pytest.raises(SystemExit) as exit:
        context.setattr(Trainer, "step", interrupted)
        train("run")
    output, errors = capsys.readouterr()
    assert exit.value.code == code and errors == "" and list_steps(tmp_path / "run") == [3]
    assert "Stopped after iteration 3" in output and "model_000003.pt" in output
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)  # as before
    resumed = train("run", resume_from_iteration=3)
    assert_equal_weights(weights(train("straight"), 8), weights(resumed, 8))


@pytest.mark.slow
def test_a_killed_run_continues_from_its_last_checkpoint(train, tmp_path, endless):
    """scripts.stress.training does this more often, with a model of real size."""
    flags = ["--save_every=1"]
    for attempt in range(2):
        process = endless(*flags)
        for _ in range(2 + 5 * attempt):
            wait_for_line(process, "Saved checkpoint")
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        flags += ["--resume_from_iteration=latest"][: attempt == 0]
    last = list_steps(tmp_path / "run")[-1] + 1
    train("run", resume_from_iteration="latest", num_iterations=last)
    straight = train("straight", num_iterations=last, schedule="constant", warmup_iters=2)
    assert_equal_weights(weights(straight, last), weights(tmp_path / "run", last))


def test_a_full_disk_costs_only_its_checkpoints(train, tmp_path, monkeypatch, capsys):
    def refusing(path, content):
        if "_000004" in path.name or "_000006" in path.name:
            raise OSError(28, "No space left on device", str(path))
        write_atomic(path, content)

    monkeypatch.setattr("nanochat.checkpoint_manager.write_atomic", refusing)
    folder = train("run", save_every=2, eval_every=4)
    assert list_steps(folder) == [2, 8]
    output = capsys.readouterr().out
    assert output.count("Not saved, training continues") == 2 and "No space left on device" in output
    assert_equal_weights(weights(folder, 8), weights(train("other"), 8))


def test_a_run_whose_last_checkpoint_cannot_be_written_fails(tmp_path, data, monkeypatch, capsys):
    def refusing(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("nanochat.checkpoint_manager.write_atomic", refusing)
    message = fails(["--data_dir", data, "--checkpoint_dir", tmp_path / "run", "--device=cpu"], capsys)
    assert "No space left on device" in message


def test_the_last_checkpoints_and_the_best_are_kept(train):
    folder = train("run", save_every=1, eval_every=1, keep_last=2)
    assert list_steps(folder) == [7, 8]
    records = [record for record in read_metrics(folder / "metrics.jsonl") if "val_loss" in record]
    best = min(records, key=lambda record: record["val_loss"])
    assert list_steps(folder / "best") == [best["step"]]
    assert load_model(folder / "best")[1]["val_loss"] == best["val_loss"]


def test_a_run_also_saves_by_the_clock(train):
    folder = train("run", save_every_minutes=1e-9)
    assert list_steps(folder) == list(range(1, 9))


def test_ctrl_c_interrupts_a_validation(train, tmp_path, monkeypatch):
    forward = GPT.forward

    def interrupting(self, *arguments, **options):
        if not self.training:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(self, *arguments, **options)

    monkeypatch.setattr(GPT, "forward", interrupting)
    with pytest.raises(SystemExit) as exit:
        train("run", eval_every=2)
    assert exit.value.code == 130 and list_steps(tmp_path / "run") == [2]
    assert not any("val_loss" in record for record in read_metrics(tmp_path / "run" / "metrics.jsonl"))


def test_a_loss_that_is_not_finite_stops_before_the_update(train, tmp_path, monkeypatch, capsys):
    forward = GPT.forward
    monkeypatch.setattr(
        GPT,
        "forward",
        lambda self, *arguments, **options: (
            forward(self, *arguments, **options) * (math.nan if self.lm_head.weight.any() else 1)
        ),
    )
    with pytest.raises(SystemExit) as exit:
        train("run", save_every=1, num_iterations=20)
    assert exit.value.code == 2
    message = capsys.readouterr().err
    assert "iteration 2" in message and "learning rate 1.00e-02" in message and "--learning_rate" in message
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run", 1).values())
    assert "failed: the loss is nan" in (tmp_path / "run/config.json").read_text()


def test_running_out_of_memory_names_helpful_flags(train, monkeypatch, capsys):
    def forward(self, *arguments, **options):
        torch.empty(2**60)  # as the CPU says it

    monkeypatch.setattr(GPT, "forward", forward)
    with pytest.raises(SystemExit) as exit:
        train("run")
    assert exit.value.code == 2
    message = capsys.readouterr().err
    for flag in ("--device_batch_size", "--gradient_accumulation", "--gradient_checkpointing"):
        assert flag in message


# -----------------------------------------------------------------------------
# bad input


def test_all_faulty_flags_are_reported_together(capsys):
    message = fails(
        [
            "--model_size=huge",
            "--num_iterations=0",
            "--seed",
            "x",
            "--learning_rate=nan",
            "--dtype=int8",
            "--colour=red",
        ],
        capsys,
    )
    for fault in (
        "--model_size must be one of tiny, mini, small, medium, large, not 'huge'",
        "--num_iterations must be",
        "--seed must be",
        "--learning_rate must be",
        "--dtype must be",
        "no flag --colour=red",
        "--data_dir is missing",
    ):
        assert fault in message


def test_state_attention_needs_the_state_embedding(data, tmp_path, capsys):
    message = fails(["--data_dir", data, "--checkpoint_dir", tmp_path / "run", "--state_attention"], capsys)
    assert "--state_attention also needs --state_embedding" in message


def test_flags_cannot_be_shortened_or_left_empty(capsys, data):
    assert "no flag --num_iter 3" in fails(["--num_iter", 3, "--data_dir", data], capsys)
    assert "--seed" in fails(["--data_dir", data, "--seed"], capsys)


def test_flags_take_a_space_or_an_equals_sign():
    spaced = parse_flags(["--data_dir", "d", "--max_iters", "3", "--learning_rate", "3e-4"], PRESETS)
    assert spaced == parse_flags(["--data_dir=d", "--num_iterations=3", "--learning_rate=3e-4"], PRESETS)
    assert spaced == {"data_dir": "d", "num_iterations": 3, "learning_rate": 3e-4}


def test_a_new_run_does_not_mix_with_an_old_one(train, data, capsys):
    folder = train("run")
    before = contents(folder)
    message = fails(["--data_dir", data, "--checkpoint_dir", folder], capsys)
    for shown in ("iteration 8", "--resume_from_iteration 8", "--checkpoint_dir"):
        assert shown in message
    assert contents(folder) == before


@pytest.fixture
def written(train, tmp_path, monkeypatch):
    """Return the paths that runs with and without --experiment write."""
    monkeypatch.chdir(tmp_path)

    def redraw(self):
        for name in ("curves.png", *(["README.md"] if "exp" in self.folder.parts else ["report.md", "report.html"])):
            (self.folder / name).touch()

    monkeypatch.setattr(RunLog, "redraw", redraw)
    monkeypatch.setattr(
        tct_train,
        "write_samples",
        lambda place, model, metadata, count, folder: (folder.mkdir(parents=True), (folder / "sample_1.yml").touch()),
    )
    (tmp_path / "data/tokenizer.json").write_text("{}")
    train("plain")
    train("out/exp", experiment="exp")
    paths = [
        path.relative_to(tmp_path)
        for folder in ("plain", "out", "experiments")
        for path in (tmp_path / folder).rglob("*")
        if path.is_file()
    ]
    for folder in ("plain", "out", "experiments"):
        shutil.rmtree(folder)
    return [path for path in paths if path.parent.name != "logs"]  # whose names have the time in them


def test_a_run_replaces_no_foreign_file(train, tmp_path, written, capsys):
    names = {
        "config.json",
        "README.md",
        "report.html",
        "report.md",
        "tokenizer.json",
        "sample_1.yml",
        "model_000008.pt",
    }
    assert names <= {path.name for path in written}
    for path in written:
        path.parent.mkdir(parents=True)
        path.write_text("mine")
        experiment = {} if path.parts[0] == "plain" else {"experiment": "exp"}
        with pytest.raises(SystemExit) as exit:
            train("out/exp" if experiment else "plain", **experiment)
        assert exit.value.code == 2 and capsys.readouterr().err.count("\n") == 1, path
        assert path.read_text() == "mine"
        shutil.rmtree(path.parts[0])
        for other in ("out", "plain", "experiments"):
            shutil.rmtree(other, ignore_errors=True)


def test_a_run_killed_early_can_start_again(train, tmp_path):
    folder = train("run", save_every=4, eval_every=4)
    for path in folder.glob("meta_*"):
        path.unlink()
    (folder / "optim_000008.pt").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"status": "running"}))
    assert list_steps(train("run", learning_rate=1e-3)) == [8]  # of other flags: its best is not that of the first
    assert load_model(folder / "best")[1]["settings"]["learning_rate"] == 1e-3


def test_the_record_of_a_finished_run_is_not_replaced(train, tmp_path, data, capsys):
    folder = train("run")
    before = (folder / "metrics.jsonl").read_bytes()
    for path in folder.glob("*_00000*"):
        path.unlink()
    message = fails(["--data_dir", data, "--checkpoint_dir", folder], capsys)
    assert "holds the record of a run that is finished: name another folder" in message
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_unsuitable_data_is_refused_before_any_write(tmp_path, data, capsys):
    write_prepared(tmp_path / "wide", [9], [9], context_size=32)
    write_prepared(tmp_path / "many", [9], [9], vocab_size=128)
    write_prepared(tmp_path / "none", [9], [])
    for folder, message in (
        ("wide", "--context-size 16"),
        ("many", "128 tokens but the model has 64"),
        ("none", "holds no windows"),
        ("nowhere", "no data folder"),
    ):
        flags = ["--data_dir", tmp_path / folder, "--checkpoint_dir", tmp_path / "run"]
        assert message in fails(flags, capsys)
    assert not (tmp_path / "run").exists()


def test_a_resume_with_other_data_or_flags_is_refused(train, tmp_path, data, capsys):
    folder = train("run")
    resume = ["--checkpoint_dir", folder, "--resume_from_iteration", "8"]
    write_prepared(tmp_path / "other", [30, 9, 16, 4, 21], [30, 10], fingerprint="another tokenizer")
    write_prepared(tmp_path / "more", [30, 9, 16, 4, 21, 5], [30, 10])
    for flags, message in (
        (["--data_dir", tmp_path / "other"], "trained with test a tokenizer"),
        (["--data_dir", tmp_path / "more"], "157 training targets, but had 152"),
        (["--seed", 1], "cannot change seed 0 -> 1"),
        (["--max_files", 1], "cannot change max_files None -> 1"),
        (["--model_size", "tiny"], "cannot change model_size small -> tiny"),
        (["--num_iterations", 7], "past --num_iterations 7"),
    ):
        assert message in fails([*resume, *flags], capsys)
    assert "only of 8" in fails(["--checkpoint_dir", folder, "--resume_from_iteration=5"], capsys)
    (folder / "optim_000008.pt").write_bytes(b"")
    assert "optim_000008.pt is damaged" in fails(resume, capsys)
    nowhere = ["--checkpoint_dir", tmp_path / "nowhere", "--resume_from_iteration=5"]
    assert "no checkpoint folder" in fails(nowhere, capsys)


def test_a_missing_device_is_named(data, capsys):
    assert "--device toaster" in fails(["--data_dir", data, "--device", "toaster"], capsys)


def test_run_needs_wandb(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "needs the package wandb" in fails(
        ["--data_dir", data, "--checkpoint_dir", tmp_path / "run", "--run=name"], capsys
    )


def test_help_and_bad_flags_do_not_import_torch():
    code = (
        "import sys; from scripts import tct_train\n"
        "try: tct_train.main(sys.argv[1:])\n"
        "except SystemExit as exit: print(exit.code, 'torch' in sys.modules)"
    )
    for flags, shown in ((["--help"], "0 False"), (["--nonsense"], "2 False")):
        done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=True)
        assert done.stdout.endswith(f"{shown}\n")


# -----------------------------------------------------------------------------
# the parts


def test_validation_is_the_mean_over_all_tokens(data):
    torch.manual_seed(0)
    model = GPT(MICRO_CONFIG)
    torch.nn.init.normal_(model.lm_head.weight)
    nats, tokens = evaluate_loss(model, tokenizing_distributed_data_loader(2, 16, "val", data))
    assert tokens == 40 and model.training
    one_by_one = 0.0
    for x, y in tokenizing_distributed_data_loader(1, 16, "val", data):
        logits = model(x)[0]
        one_by_one -= sum(logits[t].log_softmax(-1)[token].item() for t, token in enumerate(y[0]) if token != -1)
    assert nats == pytest.approx(one_by_one, rel=1e-5)


def test_units_of_the_loss():
    assert perplexity(100 * math.log(64), 100) == pytest.approx(64)
    assert perplexity(1e9, 1) == math.inf
    # 6 bits a token, 100 tokens in 400 bytes
    assert bits_per_byte(50 * math.log(64), 50, {"tokens": 100, "json_bytes": 400}) == pytest.approx(1.5)

"""Training: exact across resumes and layouts, and kind to the one at the keyboard."""

import math
import os
import re
import signal
import subprocess
import sys

import pytest
import torch

from nanochat.checkpoint_manager import list_steps, load_checkpoint, load_model
from nanochat.gpt import GPT, GPTConfig
from nanochat.loss_eval import bits_per_byte, evaluate_loss, perplexity
from nanochat.optim import build_adamw, learning_rate_at
from nanochat.report import MetricsLog, plot_metrics, read_metrics
from prepared_data import write_prepared
from scripts import tct_train
from tct_dataloader import tokenizing_distributed_data_loader

MICRO = {"vocab_size": 64, "context_size": 16, "d_model": 16, "n_layers": 2, "n_heads": 2,
         "device_batch_size": 3, "gradient_accumulation": 1, "num_iterations": 8, "learning_rate": 1e-2,
         "warmup_iters": 2, "weight_decay": 0.1, "grad_clip": 1.0}


@pytest.fixture(autouse=True)
def micro_preset(monkeypatch, request):
    """Every preset is a model of 8,192 parameters; one thread sums in one order; pictures are left out."""
    monkeypatch.setattr(tct_train, "get_config", lambda name: dict(MICRO))
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(MetricsLog, "draw", lambda self: None)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pictures():
    """For a test that wants loss.png."""


@pytest.fixture
def data(tmp_path):
    write_prepared(tmp_path / "data", [30, 9, 16, 4, 21], [30, 10])  # 11 training windows
    return tmp_path / "data"


@pytest.fixture
def train(tmp_path, data):
    """Train in tmp_path/NAME and give that folder."""
    def run(name, **flags):
        flags = {"data_dir": data, "checkpoint_dir": tmp_path / name, "device": "cpu"} | flags
        tct_train.main([f"--{flag}={value}" for flag, value in flags.items()])
        return tmp_path / name
    return run


@pytest.fixture
def command(tmp_path):
    """The words that start training of the micro preset in a process of its own."""
    script = tmp_path / "micro_train.py"
    script.write_text(f"from scripts import tct_train\n"
                      f"tct_train.get_config = lambda name: {MICRO}\n"
                      f"if __name__ == '__main__': tct_train.main()\n")
    return [str(script)]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def weights(folder, step):
    return load_checkpoint(folder, step)[0]


def assert_equal_weights(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def fails(arguments, capsys):
    """The sentence that training ends with."""
    with pytest.raises(SystemExit) as exit:
        tct_train.main([str(argument) for argument in arguments])
    assert exit.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1 and "Traceback" not in message
    return message


# -----------------------------------------------------------------------------
# what a run prints and leaves

def test_the_log_lines_read_as_designed(train, capsys):
    train("run", eval_every=4, log_every=4)
    lines = capsys.readouterr().out.splitlines()
    steps = [line for line in lines if re.match(r"step \d{6}/", line)]
    assert [line[:18] for line in steps] == ["step 000001/000008", "step 000004/000008", "step 000008/000008"]
    for line in steps:
        assert re.match(r"step \d{6}/\d{6} \| loss \d+\.\d{4} \| grad_norm \d+\.\d{3} \| lr \d\.\d\de-\d\d "
                        r"\| tok/s [\d,]+ \| ", line)
        assert "mfu" not in line  # no one knows the peak of a CPU
    validations = [line for line in lines if "val_loss" in line]
    assert [line[:11] for line in validations] == ["step 000004", "step 000008"]
    for line in validations:
        assert re.fullmatch(r"step \d{6} \| val_loss \d+\.\d{4} \| val_ppl \d+\.\d\d "
                            r"\| val_bpb \d+\.\d{4}", line)
    output = "\n".join(lines)
    parameters = GPT(GPTConfig(**tct_train.preset_config("tiny"))).num_parameters()
    for shown in (f"{parameters:,}", "FLOPs per token", "tokens per iteration", "= 48",
                  "11 windows / 3 = 3.7"):
        assert shown in output


def test_the_first_loss_is_that_of_a_uniform_guess_and_it_falls(train):
    records = read_metrics(train("run", num_iterations=60) / "metrics.jsonl")
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses[0] == pytest.approx(math.log(64), abs=1e-4)
    assert losses[-1] < losses[0] - 0.5


def test_a_run_leaves_checkpoints_metrics_and_a_picture(train, pictures):
    folder = train("run", save_every=3)
    assert list_steps(folder) == [3, 6, 8]
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    meta = load_checkpoint(folder, 8)[2]
    assert meta["data"]["tokenizer"]["fingerprint"] == "a tokenizer" and meta["data"]["stride"] == 4
    assert meta["settings"]["learning_rate"] == 1e-2 and meta["versions"]["torch"] == torch.__version__
    assert meta["val_loss"] == read_metrics(folder / "metrics.jsonl")[-1]["val_loss"]
    model, _ = load_model(folder)
    assert model.config.n_embd == 16


def test_short_runs_warm_up_for_a_tenth(train, capsys):
    train("run", num_iterations=10)
    assert re.search(r"warmup_iters +1\n", capsys.readouterr().out)


@pytest.mark.parametrize("flags", [{"gradient_checkpointing": None}, {"dtype": "bfloat16"}, {"max_files": 1},
                                   {"grad_clip": 0}])
def test_variants_train(train, tmp_path, data, flags):
    arguments = [f"--{flag}" if value is None else f"--{flag}={value}" for flag, value in flags.items()]
    tct_train.main([f"--data_dir={data}", f"--checkpoint_dir={tmp_path / 'run'}", "--device=cpu", *arguments])
    assert list_steps(tmp_path / "run") == [8]


@pytest.mark.parametrize("missing", ["matplotlib", "wandb"])
def test_training_needs_neither_matplotlib_nor_wandb(train, pictures, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)  # makes its import fail
    monkeypatch.setitem(sys.modules, f"{missing}.figure", None)
    folder = train("run")
    assert list_steps(folder) == [8] and (folder / "loss.png").exists() == (missing != "matplotlib")


# -----------------------------------------------------------------------------
# exactness

@pytest.fixture
def noisy_model(monkeypatch):
    """A model that draws random numbers in training, as dropout does."""
    forward = GPT.forward

    def noisy(self, *arguments, **options):
        loss = forward(self, *arguments, **options)
        return loss * (1 + torch.rand(()) / 10) if self.training else loss
    monkeypatch.setattr(GPT, "forward", noisy)


@pytest.mark.parametrize("stop_at", [1, 3, 5, 6])
def test_a_resumed_run_ends_with_the_same_weights_bit_for_bit(train, tmp_path, noisy_model, stop_at):
    flags = {"gradient_accumulation": 2, "save_every": 1, "eval_every": 3}  # an epoch is 1.8 updates
    straight = train("straight", **flags)
    train("stopped", **flags)
    for path in (tmp_path / "stopped").iterdir():  # as if it had been killed then
        step = re.search(r"_(\d{6})\.", path.name)
        if step and int(step[1]) > stop_at:
            path.unlink()
    resumed = train("stopped", resume_from_iteration=stop_at)
    assert_equal_weights(weights(straight, 8), weights(resumed, 8))
    moments = [load_checkpoint(run, 8)[1]["optimizer"]["state"][0]["exp_avg"] for run in (straight, resumed)]
    assert torch.equal(*moments)
    strip = [[{key: value for key, value in record.items() if key != "tokens_per_second"}
              for record in read_metrics(run / "metrics.jsonl") if record["step"] not in (1, stop_at + 1)]
             for run in (straight, resumed)]
    assert strip[0] == strip[1]


def test_a_resumed_run_says_what_it_loaded_and_remembers_its_flags(train, tmp_path, capsys):
    folder = train("run", learning_rate=3e-3, num_iterations=4, seed=7)
    capsys.readouterr()
    tct_train.main([f"--checkpoint_dir={folder}", "--resume_from_iteration=latest", "--num_iterations=6"])
    output = capsys.readouterr().out
    for shown in ("Resuming from checkpoint: iteration 4",
                  f"Loaded model weights from: {folder}/model_000004.pt",
                  f"Loaded optimizer state from: {folder}/optim_000004.pt", "num_iterations 4 -> 6",
                  "step 000005/000006"):
        assert shown in output
    assert re.search(r"learning_rate +0.003\n", output) and re.search(r"seed +7\n", output)


def test_the_loss_is_the_mean_over_the_targets_of_the_whole_batch(train):
    one = train("one", device_batch_size=6, log_every=1)
    # rows have 4 to 16 targets
    parts = train("parts", device_batch_size=2, gradient_accumulation=3, log_every=1)
    for a, b in zip(read_metrics(one / "metrics.jsonl")[:-1], read_metrics(parts / "metrics.jsonl")):
        assert (a["loss"], a["grad_norm"]) == pytest.approx((b["loss"], b["grad_norm"]), rel=1e-4)


def test_two_ranks_make_the_same_updates_as_one_that_accumulates(train, tmp_path, data, command):
    one = train("one", num_iterations=3, gradient_accumulation=2)
    two = tmp_path / "two"
    subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
                    *command, f"--data_dir={data}", f"--checkpoint_dir={two}", "--num_iterations=3",
                    "--device=cpu"], check=True, env=ENVIRONMENT, timeout=120)
    losses = [[(record.get("loss"), record.get("val_loss")) for record in read_metrics(run / "metrics.jsonl")]
              for run in (one, two)]
    assert len(losses[0]) == 3 and losses[0] == losses[1]
    assert_equal_weights(weights(one, 3), weights(two, 3))


# -----------------------------------------------------------------------------
# interruption

@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_resumes(train, tmp_path, data, command, number, code):
    flags = [f"--data_dir={data}", f"--checkpoint_dir={tmp_path / 'run'}", "--device=cpu"]
    flags += ["--num_iterations=1000000", "--log_every=1"]
    process = subprocess.Popen([sys.executable, *command, *flags],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    while not process.stdout.readline().startswith("step 000003"):
        assert process.poll() is None
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code and errors == ""
    [step] = list_steps(tmp_path / "run")
    assert f"Stopped after iteration {step}" in output and f"model_{step:06d}.pt" in output
    train("run", resume_from_iteration=step, num_iterations=step + 2)
    assert list_steps(tmp_path / "run") == [step, step + 2]


def test_ctrl_c_cuts_a_long_evaluation_short(train, tmp_path, monkeypatch):
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
    monkeypatch.setattr(GPT, "forward", lambda self, *arguments, **options:
                        forward(self, *arguments, **options) * (math.nan if self.lm_head.weight.any() else 1))
    with pytest.raises(SystemExit) as exit:
        train("run", save_every=1, num_iterations=20)
    assert exit.value.code == 2
    message = capsys.readouterr().err
    assert "iteration 2" in message and "learning rate 1.00e-02" in message and "--learning_rate" in message
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run", 1).values())


def test_out_of_memory_names_the_flags_that_help(train, monkeypatch, capsys):
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

def test_every_fault_of_the_arguments_is_told_at_once(capsys):
    message = fails(["--model_size=huge", "--num_iterations=0", "--seed", "x", "--learning_rate=nan",
                     "--dtype=int8", "--colour=red"], capsys)
    for fault in ("--model_size must be one of tiny, small, medium, large, not 'huge'",
                  "--num_iterations must be", "--seed must be", "--learning_rate must be",
                  "--dtype must be", "no flag --colour=red",
                  "--data_dir is needed"):
        assert fault in message


def test_flags_cannot_be_shortened_or_left_empty(capsys, data):
    assert "no flag --num_iter 3" in fails(["--num_iter", 3, "--data_dir", data], capsys)
    assert "--seed" in fails(["--data_dir", data, "--seed"], capsys)


def test_flags_take_a_space_or_an_equals_sign():
    spaced = tct_train.parse_arguments(["--data_dir", "d", "--max_iters", "3", "--learning_rate", "3e-4"])
    assert spaced == tct_train.parse_arguments(["--data_dir=d", "--num_iterations=3", "--learning_rate=3e-4"])
    assert (spaced.num_iterations, spaced.learning_rate) == (3, 3e-4)


def test_a_new_run_does_not_mix_with_an_old_one(train, data, capsys):
    folder = train("run")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    message = fails(["--data_dir", data, "--checkpoint_dir", folder], capsys)
    for shown in ("iteration 8", "--resume_from_iteration 8", "--checkpoint_dir"):
        assert shown in message
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_data_that_does_not_fit_is_refused_and_nothing_is_written(tmp_path, data, capsys):
    write_prepared(tmp_path / "wide", [9], [9], context_size=32)
    write_prepared(tmp_path / "many", [9], [9], vocab_size=128)
    write_prepared(tmp_path / "none", [9], [])
    for folder, message in (("wide", "--context-size 16"), ("many", "128 tokens but the model has 64"),
                            ("none", "holds no windows"), ("nowhere", "no data folder")):
        flags = ["--data_dir", tmp_path / folder, "--checkpoint_dir", tmp_path / "run"]
        assert message in fails(flags, capsys)
    assert not (tmp_path / "run").exists()


def test_a_resume_that_would_not_continue_the_same_run_is_refused(train, tmp_path, data, capsys):
    folder = train("run")
    resume = ["--checkpoint_dir", folder, "--resume_from_iteration", "8"]
    write_prepared(tmp_path / "other", [30, 9, 16, 4, 21], [30, 10], fingerprint="another tokenizer")
    write_prepared(tmp_path / "more", [30, 9, 16, 4, 21, 5], [30, 10])
    for flags, message in ((["--data_dir", tmp_path / "other"], "trained with test a tokenizer"),
                           (["--data_dir", tmp_path / "more"], "12 training windows, but had 11"),
                           (["--seed", 1], "cannot change seed 0 -> 1"),
                           (["--max_files", 1], "cannot change max_files None -> 1"),
                           (["--model_size", "tiny"], "cannot change model_size small -> tiny"),
                           (["--num_iterations", 7], "past --num_iterations 7")):
        assert message in fails([*resume, *flags], capsys)
    assert "only of 8" in fails(["--checkpoint_dir", folder, "--resume_from_iteration=5"], capsys)
    (folder / "optim_000008.pt").write_bytes(b"")
    assert "optim_000008.pt is damaged" in fails(resume, capsys)
    nowhere = ["--checkpoint_dir", tmp_path / "nowhere", "--resume_from_iteration=5"]
    assert "no checkpoint folder" in fails(nowhere, capsys)


def test_a_device_that_is_not_there_is_named(data, capsys):
    assert "--device toaster" in fails(["--data_dir", data, "--device", "toaster"], capsys)


def test_wandb_is_only_needed_by_those_who_ask_for_it(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "needs the package wandb" in fails(
        ["--data_dir", data, "--checkpoint_dir", tmp_path / "run", "--run=name"], capsys)


def test_help_and_bad_flags_do_not_wait_for_torch():
    code = ("import sys; from scripts import tct_train\n"
            "try: tct_train.main(sys.argv[1:])\n"
            "except SystemExit as exit: print(exit.code, 'torch' in sys.modules)")
    for flags, shown in ((["--help"], "0 False"), (["--nonsense"], "2 False")):
        done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True,
                              check=True)
        assert done.stdout.endswith(f"{shown}\n")


# -----------------------------------------------------------------------------
# the parts

def test_the_learning_rate_rises_in_a_line_and_falls_to_a_tenth():
    rates = [learning_rate_at(step, 1.0, 10, 110) for step in range(1, 111)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert rates[59] == pytest.approx(0.55) and rates[-1] == pytest.approx(0.1)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert learning_rate_at(1, 1.0, 0, 1) == pytest.approx(0.1) and learning_rate_at(5, 1.0, 10, 5) == 0.5


def test_weights_of_the_blocks_decay_and_no_others():
    model = GPT(GPTConfig(**tct_train.preset_config("tiny")))
    decay = {id(parameter): group["weight_decay"] for group in build_adamw(model, 1e-3, 0.1).param_groups
             for parameter in group["params"]}
    assert {name: decay[id(parameter)] for name, parameter in model.named_parameters()} == {
        name: 0.1 if name.startswith("transformer.h.") else 0.0 for name, _ in model.named_parameters()}


def test_evaluation_is_the_mean_over_all_tokens_of_the_split(data):
    torch.manual_seed(0)
    model = GPT(GPTConfig(**tct_train.preset_config("tiny")))
    torch.nn.init.normal_(model.lm_head.weight)
    nats, tokens = evaluate_loss(model, tokenizing_distributed_data_loader(2, 16, "val", data))
    assert tokens == 40 and model.training
    one_by_one = 0.0
    for x, y in tokenizing_distributed_data_loader(1, 16, "val", data):
        logits = model(x)[0]
        one_by_one -= sum(logits[t].log_softmax(-1)[token].item()
                          for t, token in enumerate(y[0]) if token != -1)
    assert nats == pytest.approx(one_by_one, rel=1e-5)


def test_units_of_the_loss():
    assert perplexity(100 * math.log(64), 100) == pytest.approx(64)
    assert perplexity(1e9, 1) == math.inf
    # 6 bits a token, 100 tokens in 400 bytes
    assert bits_per_byte(50 * math.log(64), 50, {"tokens": 100, "json_bytes": 400}) == pytest.approx(1.5)


def test_a_metrics_log_goes_on_where_its_run_did(tmp_path):
    log = MetricsLog(tmp_path)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 1 / step})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')  # a crash
    MetricsLog(tmp_path, first_step=2).write({"step": 3, "loss": 0.0})
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.0}]
    plot_metrics(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")

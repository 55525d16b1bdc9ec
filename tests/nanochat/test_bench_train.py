"""The training benchmark: its arithmetic, other checkouts, and one small run."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from prepared_data import write_prepared

from model_config import get_config
from scripts.bench import train as bench_train
from scripts.bench import train_job

MICRO = {"sequence_len": 16, "vocab_size": 64, "n_layer": 1, "n_head": 2, "n_kv_head": 2, "n_embd": 16}
JOB = {
    "mode": "padded",
    "model_size": "tiny",
    "dtype": "float32",
    "device": "cpu",
    "compile": False,
    "data_dir": None,
    "steps": 1,
    "device_batch_size": 2,
    "config": MICRO,
    "learning_rate": 1e-3,
    "weight_decay": 0.1,
    "grad_clip": 1.0,
    "round": 0,
}
MACHINE = {"device": "cpu", "compile": False, "padded_share": 0.5, "flops_of_a_token": {"tiny": 1000}}
ROUNDS = [{"seconds": seconds, "positions": 32, "memory": memory} for seconds, memory in ((9.0, 3), (0.5, 4), (1.0, 2))]

OTHER = """
from dataclasses import dataclass

import torch
from nanochat.parts import loss_of  # of its own package

print("a banner")

@dataclass
class GPTConfig:
    sequence_len: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int

class GPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.wte = torch.nn.Embedding(config.vocab_size, config.n_embd).bfloat16()
        self.lm_head = torch.nn.Linear(config.n_embd, config.vocab_size)

    def init_weights(self):
        self.ready = True

    def forward(self, idx, targets):
        assert self.ready
        return loss_of(self.lm_head(self.wte(idx)), targets)
"""
PARTS = """
import torch.nn.functional as F

def loss_of(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
"""


def write_checkout(folder, **files):
    """A checkout whose nanochat has these files."""
    (folder / "nanochat").mkdir(parents=True)
    for name, text in files.items():
        (folder / "nanochat" / f"{name}.py").write_text(text)
    return folder


@pytest.fixture
def error_of(capsys):
    """Return the error that the script prints."""

    def run(*flags):
        with pytest.raises(SystemExit) as exit:
            bench_train.main([str(flag) for flag in flags])
        assert exit.value.code == 2
        return capsys.readouterr().err

    return run


# -----------------------------------------------------------------------------
# arithmetic


def test_the_median_round_counts():
    row = bench_train.figures(JOB, ROUNDS, MACHINE, ceiling=1e6)
    assert row["seconds_per_update"] == 1.0
    assert row["tokens_per_second"] == 32
    assert row["peak_memory_bytes"] == 4


def test_padding_is_not_useful():
    row = bench_train.figures(JOB, ROUNDS, MACHINE, ceiling=1e6)
    assert row["useful_tokens_per_second"] == 16


def test_repeated_windows_are_not_useful():
    rounds = [{"seconds": 1.0, "positions": 40, "memory": 1}]  # 8 are repeated
    row = bench_train.figures({**JOB, "mode": "packed"}, rounds, MACHINE, ceiling=1e6)
    assert row["useful_share"] == 32 / 40
    assert row["useful_tokens_per_second"] == 32


def test_mfu_is_useful_flops_by_the_ceiling():
    row = bench_train.figures(JOB, ROUNDS, MACHINE, ceiling=64_000)
    assert row["mfu"] == 16 * 1000 / 64_000


def row_of(mode, dtype, speed, model_size="tiny"):
    return {
        "model_size": model_size,
        "dtype": dtype,
        "mode": mode,
        "useful_tokens_per_second": speed,
        "tokens_per_second": speed,
        "useful_share": 1.0,
        "seconds_per_update": 0.1,
        "mfu": 0.5,
        "peak_memory_bytes": 2**30,
    }


def test_rows_are_compared_within_preset_and_dtype():
    rows = bench_train.compare(
        [
            row_of("plain", "float32", 10.0),
            row_of("against", "bfloat16", 20.0),
            row_of("packed", "float32", 30.0),
            row_of("packed", "bfloat16", 60.0),
            row_of("plain", "float32", 1.0, "small"),
            row_of("packed", "bfloat16", 5.0, "small"),
        ]
    )
    assert [row["times_plain"] for row in rows] == [1.0, 2.0, 3.0, 6.0, 1.0, 5.0]
    assert [row["times_against"] for row in rows] == [None, 1.0, None, 3.0, None, None]


def test_the_last_line_names_our_best_row(capsys):
    rows = [
        row_of("plain", "float32", 10.0),
        row_of("against", "bfloat16", 90.0),
        row_of("padded", "bfloat16", 30.0),
        row_of("packed", "bfloat16", 45.0),
    ]
    bench_train.show(bench_train.compare(rows))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == (
        "best: tiny bfloat16 packed, 4.50 times the useful tokens per second of plain, "
        "0.50 times those of the other checkout"
    )
    assert len({len(line) for line in lines[1:-1]}) == 1  # the columns are aligned


def test_each_preset_has_one_plain_job():
    args = SimpleNamespace(
        model_size=["tiny", "small"], dtype=["bfloat16"], steps=1, device_batch_size=2, data_dir=None, against="there"
    )
    assert [bench_train.label(job) for job in bench_train.plan(args, MACHINE)] == [
        "float32 ceiling",
        "bfloat16 ceiling",
        "tiny float32 plain",
        "tiny bfloat16 against",
        "tiny bfloat16 padded",
        "tiny bfloat16 packed",
        "small float32 plain",
        "small bfloat16 against",
        "small bfloat16 padded",
        "small bfloat16 packed",
    ]


# -----------------------------------------------------------------------------
# one job


@pytest.mark.parametrize("mode", ["plain", "padded", "packed"])
def test_random_rows_are_all_useful(mode):
    result = train_job.measure({**JOB, "mode": mode})
    assert result["positions"] == 2 * 16
    assert result["seconds"] > 0 and result["memory"] > 0


@pytest.mark.parametrize("mode", ["plain", "padded", "packed"])
def test_prepared_windows_are_trained_on(mode, tmp_path):
    write_prepared(tmp_path, [30, 9, 16, 4, 21], [30])
    result = train_job.measure({**JOB, "mode": mode, "data_dir": str(tmp_path)})
    assert result["positions"] >= 2 * 16


def test_the_probe_counts_targets_of_padded_rows(tmp_path):
    write_prepared(tmp_path, [16, 8], [16])  # two rows: 16 of 16 targets, 8 of 16
    probe = train_job.measure(
        {"mode": "probe", "device": "cpu", "compile": "off", "data_dir": str(tmp_path), "configs": {"tiny": MICRO}}
    )
    assert probe["padded_share"] == 24 / 32
    assert probe["flops_of_a_token"]["tiny"] > 0


def test_the_ceiling_is_a_speed(monkeypatch):
    monkeypatch.setattr(train_job, "CEILING_SECONDS", 0)
    assert train_job.measure({**JOB, "mode": "ceiling"})["flops"] > 0


# -----------------------------------------------------------------------------
# another checkout


@pytest.mark.slow
def test_a_broken_checkout_is_one_sentence(tmp_path):
    write_checkout(tmp_path, __init__="", gpt="import no_such_module")
    with pytest.raises(ValueError, match="does not run as .*: ModuleNotFoundError: .*no_such_module'$"):
        bench_train.run({**JOB, "mode": "against", "against": str(tmp_path)})


@pytest.mark.slow
def test_our_nanochat_never_replaces_the_other(tmp_path):
    write_checkout(tmp_path, gpt=OTHER)  # not a package, so Python finds ours
    with pytest.raises(ValueError, match="in its place"):
        bench_train.run({**JOB, "mode": "against", "against": str(tmp_path)})


# -----------------------------------------------------------------------------
# the script


@pytest.mark.slow
def test_one_small_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_train, "ROUNDS", 1)
    write_checkout(tmp_path / "other", __init__="", gpt=OTHER, parts=PARTS)
    output = tmp_path / "bench.json"
    bench_train.main(
        [
            "--model_size",
            "tiny",
            "--dtype",
            "float32",
            "--steps",
            "1",
            "--device_batch_size",
            "1",
            "--device",
            "cpu",
            "--against",
            str(tmp_path / "other"),
            "--output",
            str(output),
        ]
    )
    out = capsys.readouterr().out
    record = json.loads(output.read_text())
    assert [row["mode"] for row in record["rows"]] == ["plain", "against", "padded", "packed"]
    plain = record["rows"][0]
    assert plain["tokens_per_second"] == get_config("tiny")["context_size"] / plain["seconds_per_update"]
    assert record["rows"][1]["times_against"] == 1
    assert record["ceilings"]["float32"] > 0
    assert "ceiling of float32" in out and "best: tiny float32" in out and "x against" in out


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--steps", 0], "at least 1"),
        (["--device_batch_size", "many"], "--device_batch_size"),
        (["--model_size", "huge"], "'huge'"),
        (["--dtype", "float8"], "'float8'"),
        (["--against", "."], "has no nanochat/gpt.py"),
        (["--output", "no/such/folder.json"], "there is no folder no/such"),
        (["--data_folder", "x"], "--data_folder"),
    ],
)
def test_bad_flags_are_one_sentence(error_of, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    error = error_of(*flags)
    assert words in error and error.count("\n") == 1


def test_help_does_not_import_torch():
    code = (
        "import sys\nfrom scripts.bench.train import main\n"
        "try: main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--against" in out and out.endswith("False\n")

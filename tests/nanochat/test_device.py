"""Errors of several ranks are printed once, and the dtype is found quickly."""

import subprocess
import sys

import pytest
import torch

from nanochat import device
from script_tools.cli import cli_errors


@pytest.fixture
def torchrun(tmp_path, monkeypatch):
    """Run a main that raises an error, as a rank of an attempt of one torchrun; return the exit code."""

    def run(error, rank=0, attempt=0):
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / f"attempt_{attempt}/{rank}/error.json"))

        @cli_errors
        def main(argv):
            raise error

        with pytest.raises(SystemExit) as exit:
            main()
        return exit.value.code

    return run


def test_an_error_of_all_ranks_is_printed_once(torchrun, capsys):
    assert [torchrun(OSError("the disk is full"), rank) for rank in (1, 0, 2)] == [2, 2, 2]
    assert capsys.readouterr().err == "error: the disk is full\n"


def test_different_errors_are_all_printed(torchrun, capsys):
    for rank in range(2):
        torchrun(OSError(f"there is no data on machine {rank}"), rank)
    assert capsys.readouterr().err.count("error: ") == 2


def test_a_useless_restart_ends_at_once(torchrun, capsys):
    torchrun(ValueError("a wrong flag"), rank=1)
    never_raised = AssertionError("main ran")
    assert torchrun(never_raised, rank=0, attempt=1) == 2
    assert capsys.readouterr().err == "error: a wrong flag\n"


def test_a_restart_after_a_machine_fault_runs(torchrun, capsys):
    torchrun(OSError("the network is gone"))
    torchrun(OSError("the disk is full"), attempt=1)
    assert capsys.readouterr().err == "error: the network is gone\nerror: the disk is full\n"


@pytest.mark.slow
def test_torchrun_prints_an_error_once():
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "--max-restarts=2",
        "-m",
        "scripts.tct_train",
        "--num_iterations=0",
    ]
    shown = subprocess.run(command, capture_output=True, text=True).stderr
    assert shown.count("error: --num_iterations must be") == 1


def test_a_cpu_without_bfloat16_is_not_tried(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(device, "matmul_seconds", None)  # such a product takes a second
    assert device.choose_dtype("auto", torch.device("cpu")) == torch.float32

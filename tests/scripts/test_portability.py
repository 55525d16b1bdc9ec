"""Users need no Unix."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_main_commands_run_without_unix(tmp_path):
    pytest.importorskip("fcntl")  # the script replaces the lock of Windows by that of Unix
    script = Path(__file__).with_name("without_unix.py")
    run = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count(" ran\n") == 7 and (tmp_path / "samples/workflow_0000.yml").is_file()

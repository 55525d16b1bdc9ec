"""The command that lints workflows: its output and exit codes, in real processes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import exit_code

from scripts.lint_workflow import main
from tct_github_workflow.lint import SAYS

ROOT = Path(__file__).parents[2]
CLEAN = "on: push\njobs: {a: {runs-on: ubuntu-latest, steps: [{run: make}]}}\n"
BROKEN = "on: push\njobs:\n  a:\n    needs: b\n    runs-on: ubuntu-latest\n    steps: [{run: make}]\n"


class Ended(NamedTuple):
    """What a call of the command did."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def call(capsys):
    """Call the command in this process."""

    def call_main(*arguments) -> Ended:
        return Ended(exit_code(main, arguments), *capsys.readouterr())

    return call_main


def run(*arguments):
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "scripts.lint_workflow", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, text in {"clean.yml": CLEAN, "needs.yaml": BROKEN, "cut.yml": "on: [push", "notes.txt": "no"}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_clean_file_has_no_findings(folder):
    result = run(folder / "clean.yml")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "1 file, no findings\n")


def test_findings_name_file_line_column_and_rule(folder):
    result = run(folder / "clean.yml", folder / "needs.yaml", folder / "cut.yml")
    needs, cut = result.stdout.splitlines()
    assert needs == f"{folder / 'needs.yaml'}:4:5: there is no job 'b' [needs]"
    assert cut.startswith(f"{folder / 'cut.yml'}:2:1: ") and cut.endswith(" [yaml]")
    assert (result.returncode, result.stderr) == (1, "3 files, 2 findings\n")


def test_json_has_one_object_for_each_finding(folder, call):
    result = call("--format", "json", folder / "needs.yaml")
    assert result.returncode == 1 and json.loads(result.stdout) == {
        "file": str(folder / "needs.yaml"),
        "line": 4,
        "column": 5,
        "rule": "needs",
        "message": "there is no job 'b'",
        "path": ["jobs", "a", "needs"],
    }


def test_a_folder_is_linted_with_its_yaml_files(folder):
    result = run(folder)
    assert result.returncode == 1
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [
        str(folder / name) for name in ("cut.yml", "needs.yaml")
    ]


def test_of_a_checkout_only_workflows_are_linted(folder, call):
    workflows = folder / ".github" / "workflows"
    workflows.mkdir(parents=True)
    (workflows / "ci.yml").write_text(CLEAN)
    assert call(folder).returncode == 0


def test_a_missing_file_ends_with_code_2():
    result = run("missing.yml")
    assert (result.returncode, result.stdout, result.stderr) == (2, "", "error: missing.yml does not exist\n")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "error: name the files or folders to lint (--help lists the flags)\n"),
        (["--format", "xml", "a.yml"], "error: argument --format: invalid choice: 'xml'"),
    ],
)
def test_wrong_arguments_end_with_code_2(arguments, message, call):
    result = call(*arguments)
    assert (result.returncode, result.stdout) == (2, "") and result.stderr.startswith(message)


def test_nothing_is_linted_if_a_file_is_missing(folder, call):
    (folder / "empty").mkdir()
    for wrong in ("missing.yml", "empty"):
        result = call(folder / "needs.yaml", folder / wrong)
        assert (result.returncode, result.stdout) == (2, "") and wrong in result.stderr


def test_list_prints_every_rule(call):
    text, data = call("--list"), call("--list", "--format", "json")
    assert [line.split()[0] for line in text.stdout.splitlines()] == list(SAYS)
    assert [json.loads(line)["rule"] for line in data.stdout.splitlines()] == list(SAYS)
    assert text.returncode == data.returncode == 0


def test_help_does_not_import_torch():
    code = (
        "import sys\nfrom scripts.lint_workflow import main\n"
        "try: main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.endswith("False\n") and "--format" in result.stdout

"""What is installed: any recent version for a user, the same versions for the two set-up commands."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
FILES = ["pyproject.toml", "tct-bundle/pyproject.toml", "constraints.txt", "scripts/install.sh"]
OURS = {"tct-github-workflow"}
EXACT = {"check-jsonschema"}  # whose schema the committed tokenizer is compiled from


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements():
    """Those of both distributions with what the tests need, without our own."""
    projects = [tomllib.loads((ROOT / file).read_text())["project"] for file in FILES[:2]]
    extras = projects[0]["optional-dependencies"]["test"] + projects[1]["optional-dependencies"]["data"]
    lines = [line for project in projects for line in project["dependencies"]] + extras
    return [found for found in map(Requirement, lines) if found.name not in OURS]


def constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if not line.startswith("#")]
    return {canonical(requirement.name): requirement for requirement in found}


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_a_user_may_have_any_later_version(requirement):
    operators = {specifier.operator for specifier in requirement.specifier}
    assert operators == ({"=="} if requirement.name in EXACT else {">="})


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_the_set_up_commands_install_one_version_that_will_do(requirement):
    (constraint,) = constraints()[canonical(requirement.name)].specifier
    assert constraint.operator == ("~=" if requirement.name == "torch" else "==")
    assert Version(constraint.version) in requirement.specifier


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose python only notes its arguments, in the file calls."""
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    (programs / "python").write_text('#!/bin/sh\necho "$@" >> calls\n')
    (programs / "python").chmod(0o755)
    (programs / "activate").write_text('PATH="$PWD/.venv/bin:$PATH"\n')
    return tmp_path


def install(checkout) -> list[str]:
    """What python was asked to do, up to now."""
    subprocess.run(
        ["bash", "-euc", "source scripts/install.sh; install test"], cwd=checkout, check=True, capture_output=True
    )
    return (checkout / "calls").read_text().splitlines()


def test_an_installation_keeps_to_the_constraints_and_is_made_once(checkout):
    calls = install(checkout)
    assert install(checkout) == calls and len(calls) == 1
    assert "-c constraints.txt" in calls[0]


@pytest.mark.parametrize("file", FILES[:3])
def test_what_is_wanted_is_installed_again_once_it_changes(checkout, file):
    install(checkout)
    with open(checkout / file, "a") as text:
        text.write("# another line\n")
    assert len(install(checkout)) == 2

"""Installation: requirements, the two wheels, and the bundle without nanochat."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from urllib.request import urlopen

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
FILES = ["pyproject.toml", "tct-bundle/pyproject.toml", "constraints.txt", "scripts/install.sh"]
OURS = {"tct-github-workflow"}
EXACT = {"check-jsonschema"}  # the committed tokenizer is compiled from its schema
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
# Each distribution: the folder of its pyproject.toml, and the folders that its wheel has.
DISTRIBUTIONS = {
    "nanochat-tct": (
        ROOT,
        [ROOT / name for name in (*PACKAGES, "tct-bundle/adapters")],
    ),
    "tct-github-workflow": (ROOT / "tct-bundle", [ROOT / "tct-bundle/src"]),
}
# Modules that run by themselves, but without flags: the table of flags in README.md, and a part of a benchmark.
WITHOUT_HELP = {"nanochat.settings", "scripts.bench.train_job"}
MAX_MODULES = 8  # at the top level of site-packages, besides packages


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def project(name: str) -> dict:
    return tomllib.loads((DISTRIBUTIONS[name][0] / "pyproject.toml").read_text())["project"]


def requirements():
    """Return the requirements of both distributions and of the tests, without our own distributions."""
    root, bundle = map(project, DISTRIBUTIONS)
    lines = [*root["dependencies"], *bundle["dependencies"]]
    extras = [root["optional-dependencies"]["test"], *bundle["optional-dependencies"].values()]
    lines += [line for extra in extras for line in extra]
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
def test_constraints_meet_the_requirements(requirement):
    (constraint,) = constraints()[canonical(requirement.name)].specifier
    assert constraint.operator == ("~=" if requirement.name == "torch" else "==")
    assert Version(constraint.version) in requirement.specifier


def imported_packages(folders: list[Path]) -> set[str]:
    """Return the top-level names of all imports in the folders, other than of Python and of this repository."""
    names, files = set(), [path for folder in folders for path in folder.rglob("*.py")]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.split(".")[0])
    own = {path.name for path in (ROOT / "tct-bundle/src").iterdir()} | set(PACKAGES)
    own |= {path.stem for path in (ROOT / "tct-bundle/adapters").iterdir()}
    return names - sys.stdlib_module_names - own


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_dependencies_are_what_the_code_imports(name):
    owners = packages_distributions()
    imported = {canonical(owners.get(package, [package])[0]) for package in imported_packages(DISTRIBUTIONS[name][1])}
    needed = {canonical(Requirement(line).name) for line in project(name)["dependencies"]} - OURS
    extras = [line for lines in project(name)["optional-dependencies"].values() for line in lines]
    optional = {canonical(Requirement(line).name) for line in extras}
    assert needed - imported == set()
    assert imported - needed - optional == set()


# -----------------------------------------------------------------------------
# wheels


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, zipfile.ZipFile]:
    """Build the wheels of both distributions."""
    pytest.importorskip("hatchling")
    found = {}
    for name, (folder, _) in DISTRIBUTIONS.items():
        target = tmp_path_factory.mktemp("wheel")
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", target]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        found[name] = zipfile.ZipFile(next(target.glob("*.whl")))
    return found


def top_level(wheel: zipfile.ZipFile) -> tuple[set[str], set[str]]:
    """Return the names of the packages and of the single modules in a wheel."""
    paths = [Path(name) for name in wheel.namelist() if ".dist-info/" not in name]
    packages = {path.parts[0] for path in paths if len(path.parts) > 1}
    return packages, {path.stem for path in paths if len(path.parts) == 1}


@pytest.mark.slow
def test_the_bundle_wheel_has_the_libraries(wheels):
    packages, modules = top_level(wheels["tct-github-workflow"])
    assert packages == {path.name for path in (ROOT / "tct-bundle/src").iterdir() if (path / "__init__.py").exists()}
    assert not modules
    assert "tct_github_workflow/github_workflow.json" in wheels["tct-github-workflow"].namelist()


@pytest.mark.slow
def test_the_root_wheel_has_the_documented_imports(wheels):
    packages, modules = top_level(wheels["nanochat-tct"])
    assert packages == set(PACKAGES)
    assert {"workflow_model/model.safetensors", "workflow_servers/page.html"} <= set(wheels["nanochat-tct"].namelist())
    assert {"model_config", "tct_dataloader", "tct_tokenizer_adapter"} <= modules
    assert len(modules) <= MAX_MODULES


ALONE = """
import sys
sys.path[:] = [sys.argv[1], *sys.path, *sys.argv[2].split(":")]
sys.modules["nanochat"] = sys.modules["scripts"] = None  # an import of these fails
import tct_github_workflow as tct
from workflow_data.prepare import main
assert tct.__file__.startswith(sys.argv[1])
text = '{"on":"push","jobs":{"a":{"runs-on":"x"}}}'
assert tct.decode(tct.encode(text))[0] == text
main(["--input", sys.argv[3], "--output", sys.argv[4], "--num-workers", "1"])
"""


@pytest.mark.slow
def test_the_bundle_prepares_data_without_nanochat(wheels, tmp_path):
    wheels["tct-github-workflow"].extractall(tmp_path / "site")
    (tmp_path / "in").mkdir()
    for i in range(8):
        (tmp_path / f"in/{i}.yml").write_text(f"name: w{i}\non: push\njobs: {{a: {{runs-on: x}}}}\n")
    libraries = ":".join({sysconfig.get_path(name) for name in ("purelib", "platlib")})
    # -I and -S: without the current folder, PYTHONPATH and the .pth files of editable installations
    command = [sys.executable, "-I", "-S", "-c", ALONE, tmp_path / "site", libraries, tmp_path / "in", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/train.pt").is_file()


# In the environment of the wheels: Python must not read the checkout. {allowed} may be in it, as .venv.
GUARD = """
import sys

def refuse(event, arguments):
    if event in ("open", "os.listdir", "os.scandir"):
        path = str(arguments[0])
        if path.startswith({checkout!r}) and not path.startswith({allowed!r}):
            raise RuntimeError(f"{{event}} in the checkout: {{path}}")

sys.addaudithook(refuse)
"""


@pytest.fixture(scope="module")
def installed(wheels, tmp_path_factory) -> Path:
    """Install the wheels into a new environment, which takes all other packages from ours. Return its folder."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    command = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--no-deps", "--no-index"]
    files = [wheel.filename for wheel in wheels.values()]
    subprocess.run([*command, *files], check=True, capture_output=True, env=clean_environment())
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    guard = GUARD.format(checkout=f"{ROOT}{os.sep}", allowed=f"{sys.prefix}{os.sep}")
    (site / "guard_of_the_checkout.py").write_text(guard)
    # Python reads no .pth files in these folders, so our editable installations stay out.
    libraries = sorted({sysconfig.get_path(name) for name in ("purelib", "platlib")})
    (site / "others.pth").write_text("\n".join(["import guard_of_the_checkout", *libraries]))
    return folder


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TCT_ARTIFACT")}


def run_installed(installed: Path, folder: Path, *arguments, **options) -> subprocess.CompletedProcess:
    """Run Python of the environment of the wheels in a folder."""
    command = [installed / "bin/python", *arguments]
    return subprocess.run(command, cwd=folder, env=clean_environment(), capture_output=True, text=True, **options)


@pytest.mark.slow
def test_all_modules_come_from_the_wheels(wheels, installed, tmp_path):
    names = sorted(set().union(*(found for wheel in wheels.values() for found in top_level(wheel))))
    code = "import importlib, sys\nfor name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
    done = run_installed(installed, tmp_path, "-c", code, *names)
    assert done.returncode == 0, done.stderr
    files = list(map(Path, done.stdout.splitlines()))
    assert len(files) == len(names) and all(installed in file.parents for file in files)


def commands(wheel: zipfile.ZipFile) -> list[str]:
    """Return the modules of a wheel that run as commands."""
    files = [
        name for name in wheel.namelist() if name.endswith(".py") and b'__name__ == "__main__"' in wheel.read(name)
    ]
    return [name.removesuffix(".py").replace("/", ".") for name in files]


@pytest.mark.slow
def test_installed_commands_show_their_help(wheels, installed, tmp_path):
    names = {name for wheel in wheels.values() for name in commands(wheel)} - WITHOUT_HELP
    assert {"scripts.tct_train", "scripts.lint_workflow", "workflow_data.prepare", "nanochat.report"} <= names
    results = {name: run_installed(installed, tmp_path, "-m", name, "--help") for name in names}
    assert {name: done.stderr for name, done in results.items() if "usage: " not in done.stdout} == {}
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_installed_commands_run_from_an_empty_folder(installed, tmp_path):
    short = ("--max_tokens=40", "--device=cpu")
    for name, *flags in [
        ("scripts.make_synthetic_workflows", "--output=workflows", "--count=12"),
        ("workflow_data.prepare", "--input=workflows", "--output=prepared", "--num-workers=1", "--train-split=0.5"),
        ("workflow_data.verify", "--data_dir=prepared", "--num_workers=1", "--show=0"),
        ("scripts.tct_train", "--model_size=tiny", "--data_dir=prepared", "--checkpoint_dir=run", "--device=cpu")
        + ("--num_iterations=2", "--device_batch_size=1", "--dtype=float32"),
        ("scripts.generate_workflow", "--checkpoint=run", "--output=samples", *short),
        ("scripts.generate_workflow", "--known_actions", "--output=shipped", *short),
        ("scripts.lint_workflow", "samples", "shipped"),
        ("scripts.tct_eval", "--checkpoint=run", "--data_dir=prepared", "--num_samples=1", *short),
        ("scripts.tct_eval", "--checkpoint=run", "--data_dir=prepared", "--num_samples=0", "--output=scores"),
        ("scripts.tct_eval", "--compare", "run/eval", "scores", "--output=compared"),
    ]:
        done = run_installed(installed, tmp_path, "-m", name, *flags)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
    for file in ("shipped/workflow_0000.yml", "run/report.html", "run/eval/report.html", "compared/compare.html"):
        assert (tmp_path / file).is_file()


@pytest.mark.slow
def test_the_installed_page_is_served_from_an_empty_folder(installed, tmp_path, spawn):
    command = [installed / "bin/python", "-m", "scripts.workflow_web", "--port=0", "--device=cpu"]
    server = spawn(*command, cwd=tmp_path, env=clean_environment())
    address = re.search(r"http://\S+|$", server.stdout.readline())[0]
    assert address, server.stderr.read()
    with urlopen(address) as page:
        assert "</html>" in page.read().decode()


@pytest.mark.slow
def test_the_installed_language_server_answers_from_an_empty_folder(installed, tmp_path):
    requests = [
        {"id": 1, "method": "initialize", "params": {"capabilities": {}}},
        {"id": 2, "method": "shutdown"},
        {"method": "exit"},
    ]
    texts = [json.dumps({"jsonrpc": "2.0", **request}) for request in requests]
    written = "".join(f"Content-Length: {len(text)}\r\n\r\n{text}" for text in texts)
    done = run_installed(installed, tmp_path, "-m", "scripts.workflow_lsp", input=written)
    assert done.returncode == 0, done.stderr
    assert '"completionProvider"' in done.stdout


# -----------------------------------------------------------------------------
# uv


def test_uv_takes_the_bundle_from_its_folder_and_the_pinned_torch():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]
    assert settings["constraint-dependencies"] == [str(constraints()["torch"])]
    assert (ROOT / settings["sources"]["tct-github-workflow"]["path"]).resolve() == DISTRIBUTIONS[
        "tct-github-workflow"
    ][0]


# -----------------------------------------------------------------------------
# scripts/install.sh


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose python only records its arguments, in the file calls."""
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
    """Install, and return all calls of python so far."""
    subprocess.run(
        ["bash", "-euc", "source scripts/install.sh; install test"], cwd=checkout, check=True, capture_output=True
    )
    return (checkout / "calls").read_text().splitlines()


def test_installation_uses_the_constraints_and_runs_once(checkout):
    calls = install(checkout)
    assert install(checkout) == calls and len(calls) == 1
    assert "-c constraints.txt" in calls[0]


@pytest.mark.parametrize("file", FILES[:3])
def test_changed_requirements_are_installed_again(checkout, file):
    install(checkout)
    with open(checkout / file, "a") as text:
        text.write("# another line\n")
    assert len(install(checkout)) == 2

"""The structure of the source: which module may import which, and how long and how lazy functions may be."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "tct-bundle"
BASES = {
    "nanochat": ROOT,
    "scripts": ROOT,
    "workflow_model": ROOT,
    "workflow_servers": ROOT,
    "src": BUNDLE,
    "adapters": BUNDLE,
}  # folders of source, and where they are
LIBRARIES = sorted(path.name for path in (BUNDLE / "src").iterdir() if (path / "__init__.py").exists())
DATA_AND_EVALUATION = {name for name in LIBRARIES if name.startswith("workflow_")}
ADAPTERS = {path.stem for path in (BUNDLE / "adapters").glob("*.py")}

MAX_FUNCTION_LINES = 60
MAX_LAZY_IMPORTS = 61
MAX_SCRIPTS = 16

# What each part must not import.
TOP = {"scripts", "workflow_servers"}
FORBIDDEN = {
    "script_tools": {"tct", "tct_github_workflow", "nanochat", *TOP, *DATA_AND_EVALUATION, *ADAPTERS},
    "tct": {"torch", "tct_github_workflow", "nanochat", *TOP, *DATA_AND_EVALUATION, *ADAPTERS},
    "tct_github_workflow": {"torch", "nanochat", *TOP, *DATA_AND_EVALUATION, *ADAPTERS},
    **{name: {"nanochat", *TOP, *ADAPTERS} for name in DATA_AND_EVALUATION},
    "nanochat": {"tct", "tct_github_workflow", *TOP, *DATA_AND_EVALUATION, *ADAPTERS},
    **{name: TOP for name in ADAPTERS},
    "workflow_servers": {"scripts"},
}
EXCEPTIONS = {("tct.contrib.transformers", "torch")}  # adapts the matcher to a library of torch


@cache
def sources() -> dict[str, Path]:
    """Return the files of all modules by their names."""
    found = {}
    for folder, base in BASES.items():
        top = base if base == ROOT else base / folder
        for path in sorted((base / folder).rglob("*.py")):
            parts = path.relative_to(top).with_suffix("").parts
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(sources()[module].read_text())


def functions(module: str):
    return [node for node in ast.walk(tree_of(module)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def imported(module: str) -> set[str]:
    """Return the names of all modules that a module imports, inside functions too."""
    names = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")
                is_package = sources()[module].name == "__init__.py"
                package = package[: len(package) - node.level + is_package]
                base = ".".join([*package, *filter(None, [node.module])])
            submodules = {f"{base}.{alias.name}" for alias in node.names} & sources().keys()
            names |= submodules
            if len(submodules) < len(node.names):
                names.add(base)
    return names


@pytest.mark.parametrize("part", sorted(FORBIDDEN))
def test_imports_follow_the_arrows(part):
    wrong = [
        f"{module} imports {name}"
        for module in sources()
        if module.split(".")[0] == part
        for name in imported(module)
        if name.split(".")[0] in FORBIDDEN[part] and (module, name) not in EXCEPTIONS
    ]
    assert not wrong


def test_no_modules_import_each_other():
    graph = {module: imported(module) & sources().keys() - {module} for module in sources()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_functions_are_short():
    long = {
        f"{module}.{function.name}": lines
        for module in sources()
        for function in functions(module)
        if (lines := function.end_lineno - function.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert not long


@cache
def lazy_imports() -> dict[str, bool]:
    """Return the places of all imports inside functions, and whether a comment gives the reason.

    The comment is on the line of the import, or on the first line of its block of imports, or above that.
    """
    found = {}
    for module, path in sources().items():
        lines = path.read_text().splitlines()
        for function in functions(module):
            for node in ast.walk(function):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    first = node.lineno - 1
                    while lines[first - 1].lstrip().startswith(("from ", "import ")):
                        first -= 1
                    block = lines[first : node.end_lineno]
                    has_reason = "#" in "".join(block) or lines[first - 1].lstrip().startswith("#")
                    found[f"{module}:{node.lineno}"] = has_reason
    return found


def test_lazy_imports_are_few():
    assert len(lazy_imports()) <= MAX_LAZY_IMPORTS


def test_every_lazy_import_has_a_reason():
    assert not [place for place, has_reason in lazy_imports().items() if not has_reason]


def test_scripts_shows_only_commands():
    assert len([path for path in (ROOT / "scripts").iterdir() if path.name != "__pycache__"]) <= MAX_SCRIPTS

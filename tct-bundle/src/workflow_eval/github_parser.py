"""Check workflows with GitHub's own parser: the npm package @actions/workflow-parser, run by node."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "@actions/workflow-parser"
INSTALL = f"npm install {PACKAGE}"
SCRIPT = Path(__file__).with_suffix(".mjs")


@dataclass(frozen=True)
class GitHubParser:
    """The installed parser."""

    node: str
    package: Path

    def __call__(self, texts: list[str]) -> list[list[str]]:
        """Return the errors in each YAML text, "line 3, column 5: message". Raise OSError if the parser fails."""
        command = [self.node, str(SCRIPT), f"{self.package.as_uri()}/"]
        result = subprocess.run(
            command, input=json.dumps(texts), capture_output=True, text=True, encoding="utf-8", check=False
        )
        try:
            errors = json.loads(result.stdout)
        except ValueError:
            errors = None
        if result.returncode or errors is None or len(errors) != len(texts):
            raise OSError(f"{PACKAGE} failed: {(result.stderr or result.stdout).strip()[-500:] or 'no output'}")
        return errors


def find_parser() -> GitHubParser:
    """Return the parser in ./node_modules, in NODE_PATH or installed globally.

    Raise FileNotFoundError with how to install it.
    """
    node = shutil.which("node")
    if not node:
        raise FileNotFoundError(f"GitHub's parser needs node, which is not here: install it, then {INSTALL}")
    for folder in module_folders():
        if (package := folder / PACKAGE).is_dir():
            return GitHubParser(node, package.absolute())
    raise FileNotFoundError(f"GitHub's parser is not here: {INSTALL}")


def module_folders():
    """Yield the folders that may hold npm packages, nearest first."""
    yield Path("node_modules")
    yield from map(Path, filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep)))
    if npm := shutil.which("npm"):
        done = subprocess.run([npm, "root", "--global"], capture_output=True, text=True, check=False)
        if folder := done.stdout.strip():
            yield Path(folder)

"""What GitHub's own parser has to say of workflows: the npm package @actions/workflow-parser, run by node."""

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
    """The parser, installed."""

    node: str
    package: Path

    def __call__(self, texts: list[str]) -> list[list[str]]:
        """The errors in each YAML text, "line 3, column 5: what". OSError where node or the package fails."""
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
    """The parser in node_modules here, in NODE_PATH or installed globally. FileNotFoundError that says how to
    get it."""
    node = shutil.which("node")
    if not node:
        raise FileNotFoundError(f"GitHub's parser needs node, which is not here: install it, then {INSTALL}")
    for folder in module_folders():
        if (package := folder / PACKAGE).is_dir():
            return GitHubParser(node, package.absolute())
    raise FileNotFoundError(f"GitHub's parser is not here: {INSTALL}")


def module_folders():
    """Where npm packages may be, nearest first."""
    yield Path("node_modules")
    yield from map(Path, filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep)))
    if npm := shutil.which("npm"):
        found = subprocess.run([npm, "root", "--global"], capture_output=True, text=True, check=False).stdout.strip()
        if found:
            yield Path(found)

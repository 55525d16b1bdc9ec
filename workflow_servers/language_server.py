"""A language server for workflows: completions, findings and descriptions, for any editor that speaks the protocol.

What needs no model works at once. The model is loaded in the background, and completes texts as soon as it is there.
"""

import asyncio
import math
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from lsprotocol import types
from pygls.lsp.server import LanguageServer

from script_tools.cli import format_error
from tct_github_workflow.caret import Suggestions, Word, describe_at, suggest
from tct_github_workflow.lint import Problem, lint
from tct_github_workflow.rules import RULES

from .editor_text import EditorText
from .model_thread import ModelThread

NAME = "workflow-lsp"
TRIGGERS = [" ", "@", "/"]
LONGEST_LABEL = 60
LONGEST_WAIT = 0.45  # seconds for the loaded model; its own limit counts only between tokens
# Findings in workflows that GitHub runs nevertheless.
WARNINGS = {"script-injection", "constant-condition", "deprecated-command"}
Changed = types.DidOpenTextDocumentParams | types.DidChangeTextDocumentParams


class WorkflowServer(LanguageServer):
    """The state of a server: its model, and the texts that are being checked."""

    def __init__(self, load: Callable[[], Any]):
        super().__init__(NAME, None, types.TextDocumentSyncKind.Full)
        self.load = load
        self.model: ModelThread | None = None  # from the start of the session
        self.being_checked: set[str] = set()
        self.has_shut_down = False
        for name, (handler, options) in FEATURES.items():
            self.feature(name, options)(handler)

    def serve(self, stdin: BinaryIO, stdout: BinaryIO) -> int:
        """Answer the requests of a client until it leaves. Return the exit code that the protocol requires."""
        sys.stdout = sys.stderr  # only messages of the protocol may go to the standard output
        self.start_io(stdin, stdout)
        return 0 if self.has_shut_down else 1

    def text(self, uri: str) -> EditorText:
        document = self.workspace.get_text_document(uri)
        return EditorText(document.source, document.position_codec)


# ---------------------------------------------------------------------------------------------------------
# the session


async def start(ls: WorkflowServer, params: types.InitializedParams) -> None:
    """Load the model, and tell the user when it is there."""
    ls.model = ModelThread(ls.load)
    await asyncio.to_thread(suggest, "", 0)  # the first call reads the schema: nobody waits for this one
    try:
        await ls.model.loaded()
    except (ValueError, OSError) as error:
        ls.window_show_message(types.ShowMessageParams(types.MessageType.Error, format_error(error)))
    else:
        ls.window_log_message(types.LogMessageParams(types.MessageType.Info, "the model is loaded"))


def shut_down(ls: WorkflowServer, params: None) -> None:
    ls.has_shut_down = True


# ---------------------------------------------------------------------------------------------------------
# findings


async def check(ls: WorkflowServer, params: Changed) -> None:
    """Publish the findings in a text. Versions that come while one is checked are skipped, except the last."""
    uri = params.text_document.uri
    if uri in ls.being_checked:
        return
    ls.being_checked.add(uri)
    try:
        checked = None
        while (document := ls.workspace.text_documents.get(uri)) and document.version != checked:
            checked, text = document.version, ls.text(uri)
            diagnostics = [diagnostic(problem, text) for problem in await asyncio.to_thread(lint, text.text)]
            if uri in ls.workspace.text_documents:
                publish(ls, uri, checked, diagnostics)
    finally:
        ls.being_checked.discard(uri)


def clear(ls: WorkflowServer, params: types.DidCloseTextDocumentParams) -> None:
    """Remove the findings of a text that is closed."""
    publish(ls, params.text_document.uri, None, [])


def publish(ls: WorkflowServer, uri: str, version: int | None, diagnostics: list[types.Diagnostic]) -> None:
    ls.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, diagnostics, version))


def diagnostic(problem: Problem, text: EditorText) -> types.Diagnostic:
    rule = RULES.get(problem.rule)
    return types.Diagnostic(
        range=text.range_of_problem(problem.line, problem.column),
        message=problem.message,
        severity=types.DiagnosticSeverity.Warning if problem.rule in WARNINGS else types.DiagnosticSeverity.Error,
        code=problem.rule,
        code_description=types.CodeDescription(rule.page) if rule else None,
        source=NAME,
    )


# ---------------------------------------------------------------------------------------------------------
# descriptions and completions


def describe(ls: WorkflowServer, params: types.HoverParams) -> types.Hover | None:
    """Describe the key or value under the mouse."""
    text = ls.text(params.text_document.uri)
    if found := describe_at(text.text, text.offset(params.position)):
        scalar, says = found
        return types.Hover(markdown(says), text.range(scalar.start, scalar.end))
    return None


async def complete(ls: WorkflowServer, params: types.CompletionParams) -> types.CompletionList:
    """Complete with the model, and with all words that fit. Until the model is loaded, the words are all there is."""
    text = ls.text(params.text_document.uri)
    offset = text.offset(params.position)
    found = suggest(text.text, offset)
    if not found:
        return types.CompletionList(False, [])
    candidates, is_incomplete = [], bool(found.words and not ls.model.is_loaded)
    if not is_incomplete:
        until = "value" if found.is_value else "entry"
        answer = ls.model.ask("candidates", text.text, offset, until)
        try:
            candidates = await asyncio.wait_for(answer, LONGEST_WAIT if ls.model.is_loaded else None)
        except TimeoutError:
            is_incomplete = True
    items = [candidate_item(candidate, found, text, offset) for candidate in candidates or ()]
    labels = {item.label for item in items}
    items += [word_item(word, found, text) for word in found.words if word.text not in labels]
    for index, item in enumerate(items):
        item.sort_text = f"{index:04}"
    return types.CompletionList(is_incomplete, items)


async def complete_inline(ls: WorkflowServer, params: types.InlineCompletionParams) -> types.InlineCompletionList:
    """Complete the entry at the caret, such as a whole step."""
    text = ls.text(params.text_document.uri)
    offset = text.offset(params.position)
    is_comment = not suggest(text.text, offset)
    edit = None if is_comment else await ls.model.ask("entry", text.text, offset)
    items = [types.InlineCompletionItem(edit.text, range=text.range(edit.start, offset))] if edit else []
    return types.InlineCompletionList(items)


def candidate_item(candidate: Any, found: Suggestions, text: EditorText, offset: int) -> types.CompletionItem:
    """Return the item of a model's completion. It replaces the whole word at the caret, so that editors can filter."""
    edit, probability = candidate.edit, math.exp(candidate.logprob)
    start = min(found.start, edit.start)
    typed, new = text.text[start:offset], text.text[start : edit.start] + edit.text
    label = " ".join(new.split())
    says = next((word.says for word in found.words if word.text == label), "")
    is_long = "\n" in new
    return types.CompletionItem(
        label=label if len(label) <= LONGEST_LABEL else label[:LONGEST_LABEL] + "...",
        kind=types.CompletionItemKind.Snippet if is_long else types.CompletionItemKind.Value,
        detail=f"model, {probability:.0%}" if probability >= 0.01 else "model",
        documentation=markdown(f"```yaml\n{new}\n```" if is_long else says),
        filter_text=new if new.startswith(typed) else typed + new,
        insert_text_mode=types.InsertTextMode.AsIs,
        text_edit=types.TextEdit(text.range(start, offset), new),
    )


def word_item(word: Word, found: Suggestions, text: EditorText) -> types.CompletionItem:
    return types.CompletionItem(
        label=word.text,
        kind=types.CompletionItemKind.Value if word.insert == word.text else types.CompletionItemKind.Property,
        documentation=markdown(word.says),
        text_edit=types.TextEdit(text.range(found.start, found.end), word.insert),
    )


def markdown(text: str) -> types.MarkupContent | None:
    return types.MarkupContent(types.MarkupKind.Markdown, text) if text else None


FEATURES: dict[str, tuple[Callable, Any]] = {
    types.INITIALIZED: (start, None),
    types.SHUTDOWN: (shut_down, None),
    types.TEXT_DOCUMENT_DID_OPEN: (check, None),
    types.TEXT_DOCUMENT_DID_CHANGE: (check, None),
    types.TEXT_DOCUMENT_DID_CLOSE: (clear, None),
    types.TEXT_DOCUMENT_HOVER: (describe, None),
    types.TEXT_DOCUMENT_COMPLETION: (complete, types.CompletionOptions(trigger_characters=TRIGGERS)),
    types.TEXT_DOCUMENT_INLINE_COMPLETION: (complete_inline, None),
}

"""Measure the language server over stdio with the model that ships, on composed workflows.

    python experiments/lsp/measure.py --output experiments/lsp/results.json

In each workflow the caret is set to the places below. The text ends there, or what follows stays: the value at the
caret is removed, or a new line is inserted for a key or item. An answer is timed from the change of the text, as when
someone types. The time that the server spends on a processor is measured too, because it depends less on what else the
machine does. It is read from /proc, so this runs on Linux only.
"""

import asyncio
import json
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from lsprotocol import types
from pygls.lsp.client import LanguageClient
from pygls.workspace import PositionCodec

from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_atomic
from tct_github_workflow.lint import lint
from tct_github_workflow.workflow_yaml import dump_workflow
from workflow_servers.editor_text import EditorText
from workflow_servers.proposals import SECONDS
from workflow_synth.compose import compose_workflows

URI = "file:///ci.yml"
CODEC = PositionCodec()
PLACES = {
    "an event": r"^  (?=(push|pull_request|schedule):)",
    "a runner": r"^    runs-on: ",
    "a step": r"^      - ",
    "a key of a step": r"^        (?=(with|run|env|if|id|name|uses):)",
    "an action": r"\buses: ",
    "an input": r"^        with:\n          ",
    "a script": r"\brun: (?!\|)",
    "a key of a job": r"^    (?=[a-z-]+:)",
}


class Client(LanguageClient):
    """A client that notes when messages arrive."""

    def __init__(self):
        super().__init__("measure", "1")
        self.version, self.published, self.is_loaded = 0, asyncio.Queue(), asyncio.Event()
        self.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(lambda params: self.published.put_nowait(params.version))
        self.feature(types.WINDOW_LOG_MESSAGE)(lambda params: self.is_loaded.set())

    @property
    def cpu(self) -> int:
        """The milliseconds that the server has spent on processors."""
        fields = Path(f"/proc/{self._server.pid}/stat").read_text().rpartition(")")[2].split()
        return 1000 * (int(fields[11]) + int(fields[12])) // os.sysconf("SC_CLK_TCK")

    def write(self, text: str) -> None:
        self.version += 1
        document = types.VersionedTextDocumentIdentifier(self.version, URI)
        whole = types.TextDocumentContentChangeWholeDocument(text)
        self.text_document_did_change(types.DidChangeTextDocumentParams(document, [whole]))

    async def is_checked(self) -> None:
        while await self.published.get() != self.version:
            pass


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add("--output", "write this file", type=Path, metavar="PATH", required=True)
    parser.add("--count", "number of workflows", 12)
    parser.add("--seconds", "time limit of the model, instead of that of the server", SECONDS)
    args = parser.parse_args(argv)
    texts = [dump_workflow(workflow) for _, workflow in compose_workflows(args.count, seed=7)]
    results = asyncio.run(measure(texts, args.seconds))
    write_atomic(args.output, (json.dumps(results, indent=1) + "\n").encode())
    print("| the caret is at | requests | median | 90% | most | processor | with proposals | clean |")
    print("|---|---|---|---|---|---|---|---|")
    for name, row in results["completions"].items():
        print(f"| {name} |", " | ".join(map(str, row.values())), "|")
    print({key: value for key, value in results.items() if key != "completions"})


async def measure(texts: list[str], seconds: float) -> dict:
    results = {"load of the machine": os.getloadavg()[0], "processors": os.cpu_count()}
    client, start = Client(), time.perf_counter()

    def since(start: float) -> int:
        return round(1000 * (time.perf_counter() - start))

    program = f"import workflow_servers.proposals as p, scripts.workflow_lsp as s; p.SECONDS = {seconds}; s.main([])"
    command = ["-m", "scripts.workflow_lsp"] if seconds == SECONDS else ["-c", program]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as in workflow_lsp, which sets it before torch is imported
    await client.start_io(sys.executable, *command, env=one_thread)
    await client.initialize_async(types.InitializeParams(types.ClientCapabilities()))
    results["ms to the answer to initialize"] = since(start)
    client.initialized(types.InitializedParams())
    client.text_document_did_open(
        types.DidOpenTextDocumentParams(types.TextDocumentItem(URI, "yaml", client.version, texts[0]))
    )
    await client.is_checked()
    results["ms to the first findings"] = since(start)
    await client.is_loaded.wait()
    results["ms to the model"] = since(start)
    findings = []
    for text in texts:
        start = time.perf_counter()
        client.write(text)
        await client.is_checked()
        findings.append(since(start))
    results["ms to findings"] = summary(findings)
    results["completions"] = {}
    for place, pattern in PLACES.items():
        for rest in ("at the end", "in the middle"):
            times, counts = [], Counter()
            for text in texts:
                if match := re.search(pattern, text, re.M):
                    before = text[: match.end()]
                    line = before.rpartition("\n")[2]
                    after = text[match.end() :].partition("\n")[2] if ":" in line else line + text[match.end() :]
                    after = "\n" + after if rest == "in the middle" else ""
                    times.append(await complete(client, before, after, counts))
            wall, cpu = zip(*times)
            row = {"requests": len(times), **summary(wall), "processor": summary(cpu)["median"]}
            clean = counts["clean"] if rest == "in the middle" else "-"
            results["completions"][f"{place}, {rest}"] = row | {"with proposals": counts["proposals"], "clean": clean}
    results["load of the machine at the end"] = os.getloadavg()[0]
    await client.shutdown_async(None)
    client.exit(None)
    await client.stop()
    return results


async def complete(client: Client, before: str, after: str, counts: Counter) -> tuple[int, int]:
    """Return the milliseconds of a completion, and those on processors. Count what the model proposes."""
    text = EditorText(before + after, CODEC)
    place = {"text_document": types.TextDocumentIdentifier(URI), "position": text.position(len(before))}
    start, cpu = time.perf_counter(), client.cpu
    client.write(text.text)
    answer = await client.text_document_completion_async(types.CompletionParams(**place))
    milliseconds = round(1000 * (time.perf_counter() - start)), client.cpu - cpu
    proposals = [item.text_edit for item in answer.items if item.detail]
    counts["proposals"] += bool(proposals)
    if after and proposals:
        edit = proposals[0]
        completed = text.text[: text.offset(edit.range.start)] + edit.new_text + after
        counts["clean"] += not lint(completed)
    return milliseconds


def summary(milliseconds: list[int]) -> dict[str, int]:
    median, most = np.percentile(milliseconds, [50, 90]).round().astype(int).tolist()
    return {"median": median, "90%": most, "most": max(milliseconds)}


if __name__ == "__main__":
    main()

"""The server of the web page: what it answers and what it refuses, without a model."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import exit_code

pytest.importorskip("fastapi", reason="the extra web is not installed")
pytest.importorskip("httpx2", reason="FastAPI's TestClient needs httpx2")

from fake_completer import COMPLETION, HALF, FakeCompleter  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402

from scripts import workflow_web  # noqa: E402
from tct_github_workflow.lint import lint  # noqa: E402
from workflow_servers import web  # noqa: E402

ROOT = Path(__file__).parents[2]

# -----------------------------------------------------------------------------
# answers


@pytest.fixture
def completer():
    return FakeCompleter()


@pytest.fixture
def client(completer):
    app = web.create_app(completer, "a fake")
    return TestClient(app, "http://127.0.0.1:8000", raise_server_exceptions=False)


def received(response) -> tuple[list[dict], str]:
    """Return the lines of an answer, and the completion that they make."""
    lines, text = list(map(json.loads, response.text.splitlines())), ""
    for line in lines:
        if "keep" in line:
            text = text[: line["keep"]] + line["text"]
    return lines, text


def test_the_page_loads_nothing_else(client):
    answer = client.get("/")
    assert answer.status_code == 200 and "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.findall(r"""(?:src|href)=["'](?!data:)|@import|url\(""", answer.text)
    assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 404


def test_a_completion_comes_in_lines(client):
    lines, text = received(client.post("/api/complete", json={"before": HALF}))
    assert text == COMPLETION and len(lines) == len(COMPLETION) + 1
    assert all(line["start"] == len(HALF) for line in lines[:-1])
    assert lines[-1] == {"done": True} and lines[-2]["tokens"] > 4


def test_settings_reach_the_model(client, completer):
    asked = {"until": "entry", "rules": "known", "temperature": 0, "seed": 7, "max_tokens": 30}
    client.post("/api/complete", json={"before": "", **asked})
    assert completer.asked == [asked | web.AGAINST_REPETITION]


def test_the_outlook_has_probabilities_and_faults(client):
    answer = client.post("/api/outlook", json={"before": HALF}).json()
    assert [token["probability"] for token in answer["tokens"]] == [0.75, 0.05]
    assert answer["tokens"][1]["fault"] == "there is no job 'b'" and answer["owed"] == ["the job `b`"]
    assert answer["ending"] == {"start": len(HALF), "text": "      - run: ''\n"}


def test_tokens_are_spelled(client):
    answer = client.post("/api/spell", json={"text": "on: push"}).json()
    assert answer[1] == {"text": "push", "probability": 0.5, "kind": "other text"}


@pytest.mark.parametrize("text", ["on: push\njobs: {a: {needs: b, runs-on: x, steps: []}}", "on: [", HALF, ""])
def test_problems_are_those_of_the_linter(client, text):
    assert client.post("/api/lint", json={"text": text}).json() == [
        {**vars(problem), "path": list(problem.path)} for problem in lint(text)
    ]


# -----------------------------------------------------------------------------
# bad requests

BAD = [
    ("complete", {}, "before: Field required"),
    ("complete", {"before": 1}, "before: Input should be a valid string"),
    ("complete", {"before": "", "seed": -1}, "seed: "),
    ("complete", {"before": "", "seed": True}, "seed: "),
    ("complete", {"before": "", "temperature": 9}, "temperature: "),
    ("complete", {"before": "", "until": "forever"}, "until: "),
    ("complete", {"before": "", "rules": "none"}, "rules: "),
    ("complete", {"before": "", "max_tokens": 10**9}, "max_tokens: "),
    ("complete", {"before": "", "other": 1}, "other: "),
    ("complete", {"before": "x" * 20_001}, "the text has more than 20,000 characters"),
    ("complete", {"before": "wrong"}, "no workflow begins so"),
    ("outlook", {"before": "wrong"}, "no workflow begins so"),
    ("outlook", [], "the request: "),
    ("spell", {"text": None}, "text: "),
    ("lint", {"text": "x" * 20_001}, "the text has more than 20,000 characters"),
]


@pytest.mark.parametrize("path, body, sentence", BAD)
def test_a_bad_request_gets_a_sentence(client, path, body, sentence):
    answer = client.post(f"/api/{path}", json=body)
    assert answer.status_code == 422 and answer.json()["error"].startswith(sentence)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"before": "\\ud800"}', b'{"before": NaN}', b"[" * 9999])
def test_what_is_not_json_gets_a_sentence(client, body):
    answer = client.post("/api/complete", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422) and answer.json()["error"]
    assert client.get("/api/status").json()["streams"] == 0


def test_a_large_request_is_not_read(client):
    headers = {"content-type": "application/json"}
    assert client.post("/api/lint", content=b" " * (web.MAX_BYTES + 1), headers=headers).status_code == 413
    assert client.post("/api/lint", content=iter([b"{}"]), headers=headers).status_code == 411


def test_other_sites_cannot_ask(client):
    def status(**headers) -> int:
        return client.post("/api/lint", json={"text": HALF}, headers=headers).status_code

    assert status() == status(origin="http://127.0.0.1:8000") == status(host="localhost:8000") == 200
    assert status(origin="http://evil.example") == status(origin="null") == status(origin="http://[") == 403
    assert status(host="evil.example") == status(host="127.0.0.1.evil.example:8000") == status(host="") == 403
    assert client.get("/", headers={"host": "evil.example"}).status_code == 403
    form = {"content-type": "text/plain"}  # what a form of another site can send
    assert client.post("/api/lint", content=b"{}", headers=form).status_code == 415


def test_the_name_given_by_host_is_answered(completer):
    client = TestClient(web.create_app(completer, "a fake", host="box.example"), "http://box.example:8000")
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"host": "[::1]:8000"}).status_code == 200


def test_unknown_paths_and_methods_get_a_sentence(client):
    assert client.get("/api/nothing").json() == {"error": "Not Found"}
    assert client.get("/api/complete").status_code == 405


def test_a_fault_in_a_completion_is_its_last_line(client):
    lines, text = received(client.post("/api/complete", json={"before": "wrong later"}))
    assert text == COMPLETION[0] and lines[-1] == {"error": "no workflow continues so"}


def test_a_bug_does_not_stop_the_server(client):
    assert received(client.post("/api/complete", json={"before": "bug"}))[0][-1] == {"error": web.FAULT}
    answer = client.post("/api/outlook", json={"before": "bug"})
    assert (answer.status_code, answer.json()) == (500, {"error": web.FAULT})
    assert received(client.post("/api/complete", json={"before": HALF}))[1] == COMPLETION
    assert client.get("/api/status").json() == {"model": "a fake", "streams": 0}


# -----------------------------------------------------------------------------
# limits


def test_a_completion_ends_at_its_time_limit(completer):
    client = TestClient(web.create_app(completer, "a fake", limits=web.Limits(seconds=-1)), "http://127.0.0.1")
    lines, _ = received(client.post("/api/complete", json={"before": HALF}))
    assert len(lines) == 2 and lines[-1]["error"] == "the completion stopped after -1 seconds"
    assert completer.closed.wait(60)


def test_too_many_completions_are_refused(completer):
    client = TestClient(web.create_app(completer, "a fake", limits=web.Limits(streams=0)), "http://127.0.0.1")
    answer = client.post("/api/complete", json={"before": HALF})
    assert answer.status_code == 429 and "completions are growing" in answer.json()["error"]


def test_completions_take_turns(completer):
    shared = web.SharedCompleter(completer, web.Limits())

    async def read(text: str) -> int:
        answer = await shared.complete(web.Completion(before=text))
        return len([line async for line in answer.body_iterator])

    async def read_both():
        return await asyncio.gather(read("one"), read("two"))

    assert asyncio.run(read_both()) == [len(COMPLETION) + 1] * 2
    assert completer.steps == ["one", "two"] * len(COMPLETION)


# -----------------------------------------------------------------------------
# the command


def test_a_taken_port_is_one_sentence(capsys):
    with web.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert exit_code(workflow_web.main, ["--port", port]) == 2
    assert capsys.readouterr().err == (
        f"error: cannot listen on 127.0.0.1, port {port}: Address already in use; try another --port\n"
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--port", "70000"], "error: --port must be from 0 to 65535, not 70000\n"),
        (["--port", "0", "--checkpoint", "missing"], "error: "),
        (["--port", "0", "--host", "192.0.2.1"], "error: cannot listen on 192.0.2.1, port 0: "),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, message, capsys):
    assert exit_code(workflow_web.main, arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1


def test_a_missing_extra_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "workflow_servers.web")
    assert exit_code(workflow_web.main, []) == 2
    assert "pip install 'nanochat-tct[web]'" in capsys.readouterr().err


def test_a_model_of_other_documents_is_refused(monkeypatch, completer, capsys):
    completer.documents = SimpleNamespace(is_workflow=False)
    monkeypatch.setattr("workflow_servers.completion.Completer.load", lambda *arguments: completer)
    assert exit_code(workflow_web.main, ["--port", "0", "--checkpoint", "out/other"]) == 2
    assert capsys.readouterr().err == "error: the page is for workflows, but out/other writes other documents\n"


def test_help_does_not_import_torch():
    code = (
        "import sys\nfrom scripts.workflow_web import main\n"
        "try: main(['--help'])\nexcept SystemExit: print('torch' in sys.modules or 'fastapi' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.endswith("False\n") and "--port" in result.stdout


def test_the_default_address_is_of_this_machine_only():
    assert workflow_web.parse_arguments([]).host == "127.0.0.1"
    with web.listen("127.0.0.1", 0) as listening:
        assert web.url(listening) == f"http://127.0.0.1:{listening.getsockname()[1]}/"

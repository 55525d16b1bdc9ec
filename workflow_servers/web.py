"""Serve the page on which people write workflows with a model, and answer its requests.

One thread takes all requests in turn, and a completion asks for one step at a time. So the completions of several tabs
grow together. Answers have no secrets, but they cost time: only the page itself may ask, and what it asks for is
limited.
"""

import asyncio
import ipaddress
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from os.path import commonprefix
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from tct_github_workflow.lint import lint
from workflow_servers.completion import Completer, Growth, Outlook, SpelledToken

PAGE = Path(__file__).with_name("page.html")
MAX_CHARACTERS = 20_000  # of a text; nearly all workflows are shorter
MAX_BYTES = 16 * MAX_CHARACTERS  # of a request: JSON may write a character as two escapes of six bytes
MAX_TOKENS = 1024  # of a completion
MAX_CONNECTIONS = 64
AGAINST_REPETITION = {"max_repeats": 2, "max_repetition": 0.55}  # as in scripts.generate_workflow
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
FAULT = "the server has a bug here: its terminal shows more"
log = logging.getLogger(__name__)


# -----------------------------------------------------------------------------
# what the page may ask

Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]


class Asked(BaseModel):
    """A request, without unknown fields and without values of a similar type."""

    model_config = ConfigDict(strict=True, extra="forbid")


class WholeText(Asked):
    text: Text


class Caret(Asked):
    before: Text  # what stands before the caret
    rules: Literal["schema", "github", "known"] = "github"


class Completion(Caret):
    until: Literal["value", "entry", "document"] = "document"
    temperature: float = Field(0.5, ge=0, le=2, allow_inf_nan=False)
    seed: int = Field(0, ge=0, lt=2**31)
    max_tokens: int = Field(512, ge=1, le=MAX_TOKENS)


# -----------------------------------------------------------------------------
# the model, shared


@dataclass(frozen=True)
class Limits:
    """What all completions together, and each one, may take."""

    streams: int = 16  # completions at a time
    seconds: float = 120  # of one completion


class SharedCompleter:
    """A completer that serves many requests at the same time, each step in turn."""

    def __init__(self, completer: Completer, limits: Limits):
        self.completer, self.limits = completer, limits
        self.streams = 0  # completions that are growing now
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._thread_of_tokens = ThreadPoolExecutor(max_workers=1)

    async def call(self, function: Callable, *args, **options) -> Any:
        """Call a function after everything that was asked before."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args, **options))

    async def spell(self, text: str) -> list[SpelledToken]:
        """Spell a text. For a long one this takes seconds, so it has a thread of its own and holds up no completion."""
        return await asyncio.get_running_loop().run_in_executor(self._thread_of_tokens, self.completer.spell, text)

    async def complete(self, asked: Completion) -> "Lines":
        """Return a completion as lines of JSON. ValueError if the text before the caret is no beginning."""
        if self.streams >= self.limits.streams:
            raise HTTPException(429, f"{self.streams} completions are growing already: stop one, or try again soon")
        sampling = asked.model_dump(exclude={"before"}) | AGAINST_REPETITION
        growing = self.completer.stream(asked.before, **sampling)
        self.streams += 1
        try:
            first = await self.call(next, growing, None)  # before the answer, because it says whether there is one
        except BaseException:
            self._end(growing)
            raise
        return Lines(self._lines(first, growing), partial(self._end, growing))

    async def _lines(self, growth: Growth | None, growing: Iterator[Growth]) -> AsyncIterator[str]:
        """Yield a line for each edit, which says how it differs from the one before, and a line for the end."""
        started, written = monotonic(), ""
        try:
            while growth is not None:
                edit, others = growth.edit, self.streams - 1
                keep = common(written, edit.text)
                yield line(start=edit.start, keep=keep, text=edit.text[keep:], tokens=growth.tokens, others=others)
                written = edit.text
                if monotonic() > started + self.limits.seconds:
                    yield line(error=f"the completion stopped after {self.limits.seconds:g} seconds")
                    return
                growth = await self.call(next, growing, None)
            yield line(done=True)
        except ValueError as error:
            yield line(error=str(error))
        except Exception:
            log.exception("a completion failed")
            yield line(error=FAULT)

    def _end(self, growing: Iterator[Growth]):
        """Stop a completion as soon as its current step ends."""
        self.streams -= 1
        self._thread.submit(growing.close)


def common(one: str, other: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    return len(one) if other.startswith(one) else len(commonprefix([one, other]))  # which is slow for long texts


def line(**fields) -> str:
    return json.dumps(fields) + "\n"


class Lines(StreamingResponse):
    """Lines of JSON. `end` is called when all are sent, and also when the page has gone."""

    media_type = "application/x-ndjson"

    def __init__(self, lines: AsyncIterator[str], end: Callable[[], None]):
        super().__init__(lines, headers=HEADERS)
        self._end = end

    async def __call__(self, scope, receive, send):
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


# -----------------------------------------------------------------------------
# who may ask


class Gate:
    """Let only requests pass that come from the page, in a size that it may send.

    A page of another site could otherwise ask in the browser of the user: directly, or under a name of its own that
    leads to this machine (DNS rebinding).
    """

    def __init__(self, app, host: str):
        self._app, self._host = app, host

    async def __call__(self, scope, receive, send):
        refusal = self._refusal(Request(scope)) if scope["type"] == "http" else None
        answer = JSONResponse({"error": refusal[1]}, refusal[0], HEADERS) if refusal else self._app
        await answer(scope, receive, send)

    def _refusal(self, request: Request) -> tuple[int, str] | None:
        """Return the status and the reason if a request is refused."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if not is_own_name(host, self._host):
            return 403, f"the server has no name {host!r}: use its IP address, or start it with --host and that name"
        if origin and origin not in (f"http://{host}", f"https://{host}"):
            return 403, "only the page of this server may ask it"
        if request.method != "POST":
            return None
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return 415, "the request must be JSON, with the content type application/json"
        length = request.headers.get("content-length", "")
        if not length.isdecimal():
            return 411, "the request must state its length"
        if int(length) > MAX_BYTES:
            return 413, f"the request has {int(length):,} bytes, but at most {MAX_BYTES:,} are allowed"


def is_own_name(host: str, given: str) -> bool:
    """Return whether a Host header names this server: an IP address, localhost, or the `given` name.

    >>> is_own_name("127.0.0.1:8000", "127.0.0.1"), is_own_name("evil.example", "127.0.0.1")
    (True, False)
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name in ("localhost", given.lower()):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


# -----------------------------------------------------------------------------
# the application


def create_app(completer: Completer, model: str, host: str = "127.0.0.1", limits: Limits = Limits()) -> FastAPI:
    """Return the application. `model` is a name for the page, and `host` is what it listens on."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, title="Workflow playground")
    shared = SharedCompleter(completer, limits)
    app.add_middleware(Gate, host=host)
    app.add_exception_handler(RequestValidationError, lambda _, error: refuse(422, describe(error)))
    app.add_exception_handler(ValueError, lambda _, error: refuse(422, str(error)))
    app.add_exception_handler(RecursionError, lambda _, error: refuse(422, "the text is nested too deeply"))
    app.add_exception_handler(Exception, report_bug)
    for status in (400, 404, 405, 429):
        app.add_exception_handler(status, lambda _, error: refuse(error.status_code, error.detail))
    page = HTMLResponse(PAGE.read_text(encoding="utf-8"), headers=HEADERS)

    @app.get("/")
    async def show_page():
        return page

    @app.get("/api/status")
    async def status():
        return {"model": model, "streams": shared.streams}

    @app.post("/api/complete")
    async def complete(asked: Completion):
        return await shared.complete(asked)

    @app.post("/api/outlook")
    async def outlook(asked: Caret) -> Outlook:
        return await shared.call(completer.outlook, asked.before, rules=asked.rules)

    @app.post("/api/spell")
    async def spell(asked: WholeText) -> list[SpelledToken]:
        return await shared.spell(asked.text)

    @app.post("/api/lint")
    async def find_problems(asked: WholeText):
        return await shared.call(lint, asked.text)

    return app


def refuse(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"error": sentence}, status, HEADERS)


async def report_bug(request: Request, error: Exception) -> JSONResponse:
    log.error("%s failed", request.url.path, exc_info=error)
    return refuse(500, FAULT)


def describe(error: RequestValidationError) -> str:
    """Return one sentence about a request that does not have the right form."""
    first = error.errors()[0]
    if first["type"] == "string_too_long":
        return f"the text has more than {MAX_CHARACTERS:,} characters"
    where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
    return f"{where}: {first['msg']}"


# -----------------------------------------------------------------------------
# the server


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on one address. ValueError if that is not possible; port 0 takes a free one."""
    if not 0 <= port < 2**16:
        raise ValueError(f"--port must be from 0 to {2**16 - 1}, not {port}")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = error.strerror.partition(" (while")[0]  # Python repeats the address here
        raise ValueError(f"cannot listen on {host}, port {port}: {reason}; try another --port") from None


def url(listening: socket.socket) -> str:
    """Return the address of the page."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(app: FastAPI, listening: socket.socket):
    """Answer requests until Ctrl-C or SIGTERM. Completions that are growing then get one second."""
    config = uvicorn.Config(
        app,
        log_level="critical",  # `log` reports our bugs; uvicorn would also report that Ctrl-C ends completions
        access_log=False,
        ws="none",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])

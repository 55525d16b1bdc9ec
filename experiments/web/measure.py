"""Measure the web page in a real browser, with the model that ships, and take screenshots of it.

    python experiments/web/measure.py [--runs 20]

It measures how long the first token takes from the key press to the page. It also measures how fast the same
completions grow on the page, in a client without a browser, and in the engine alone. The figures go to results.json
next to this file. Nothing else should use the processor.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from nanochat.process import tune_process
from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_json

HERE = Path(__file__).parent
HALF = """\
name: Test

on:
  push:
    branches: [main]
  pull_request:

jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
"""
SAMPLING = {"temperature": 0.5, "max_tokens": 512, "max_repeats": 2}  # as on the page
# Screenshots: width, height, colours of the page, what the tokens are coloured by
SHOTS = {
    "wide": (1280, 900, "light", "probability"),
    "dark": (1280, 900, "dark", "kind"),
    "narrow": (400, 800, "light", "probability"),
}
# Note when the key is pressed, when the completion first shows something, and when it has ended.
CLOCK = """
window.clock = {};
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.ctrlKey) window.clock = { pressed: performance.now() };
}, true);
new MutationObserver(() => {
  if (document.getElementById("ghost").textContent) window.clock.first ??= performance.now();
}).observe(document.getElementById("ghost"), { childList: true, characterData: true, subtree: true });
new MutationObserver(() => {
  if (!document.getElementById("accept").disabled) window.clock.ended ??= performance.now();
}).observe(document.getElementById("accept"), { attributes: true });
"""


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add("--runs", "number of completions", 20)
    runs = parser.parse_args(argv).runs
    tune_process()
    from workflow_generator import WorkflowGenerator  # imports torch, which must come after tune_process

    server = subprocess.Popen(
        [sys.executable, "-m", "scripts.workflow_web", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    with server, sync_playwright() as playwright:
        try:
            url = re.search(r"http://\S+", server.stdout.readline())[0]
            on_page = measure_server(playwright, url, runs)
            by_client = [measure_client(url, seed) for seed in range(1, runs + 1)]
        finally:
            server.terminate()
    generator = WorkflowGenerator.load()
    with ThreadPoolExecutor(max_workers=1) as thread:  # as in the server: OpenMP waits differently in the main thread
        alone = list(thread.map(partial(measure_engine, generator), range(runs + 1)))[1:]
    results = summarize(on_page, by_client, alone)
    write_json(HERE / "results.json", results)
    print(json.dumps(results, indent=1))


def measure_server(playwright, url: str, runs: int) -> list[dict]:
    """Return what `measure_page` does for each completion, and take screenshots."""
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
    page = browser.new_page()
    found = [measure_page(page, url, seed) for seed in range(runs + 1)][1:]  # the first one warms up
    for name, (width, height, scheme, colours) in SHOTS.items():
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        take_screenshot(page, url, colours, HERE / f"{name}.png")
    browser.close()
    return found


def measure_page(page: Page, url: str, seed: int) -> dict:
    """Complete HALF on the page. Return tokens, and the seconds from the key to the first text and to the end."""
    page.goto(f"{url}?seed={seed}")
    page.get_by_role("textbox").fill(HALF)
    page.wait_for_selector("#next li")
    page.wait_for_load_state("networkidle")
    page.evaluate(CLOCK)
    page.keyboard.press("Control+Enter")
    page.wait_for_function("() => window.clock.ended", timeout=300_000)
    clock = page.evaluate("window.clock")
    tokens = int(re.match(r"\d+", page.inner_text("#progress"))[0])
    return {
        "tokens": tokens,
        "first": (clock["first"] - clock["pressed"]) / 1000,
        "all": (clock["ended"] - clock["pressed"]) / 1000,
    }


def measure_client(url: str, seed: int) -> dict:
    """Ask the server for the completion of HALF. Return its tokens and its seconds."""
    asked = {"before": HALF, "seed": seed, "temperature": SAMPLING["temperature"]}
    begun = time.perf_counter()
    request = urllib.request.Request(
        f"{url}api/complete", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        *_, last, done = map(json.loads, answer)
    assert done == {"done": True}
    return {"tokens": last["tokens"], "all": time.perf_counter() - begun}


def measure_engine(generator, seed: int) -> dict:
    """Draw the same sample without the server. Return its tokens and its seconds."""
    begun = time.perf_counter()
    (workflow,) = generator.generate(1, HALF, seed=seed, **SAMPLING)
    seconds = time.perf_counter() - begun
    return {"tokens": len(workflow.tokens) - len(workflow.documents.encode_prefix(HALF)), "all": seconds}


def summarize(page: list[dict], client: list[dict], engine: list[dict]) -> dict:
    """Return the figures of the three. Speed is all tokens over all seconds, from the key or the call to the end."""
    first = sorted(round(1000 * run["first"]) for run in page)
    return {
        "load of the machine": round(os.getloadavg()[0], 2),
        "completions": len(page),
        "tokens": [sum(run["tokens"] for run in runs) for runs in (page, client, engine)],
        "first token on the page, ms": {"median": statistics.median(first), "slowest": first[-1]},
        "tokens per second": {"page": speed(page), "client": speed(client), "engine": speed(engine)},
        "against the engine": [round(speed(runs) / speed(engine) - 1, 3) for runs in (page, client)],
    }


def speed(runs: list[dict]) -> float:
    return round(sum(run["tokens"] for run in runs) / sum(run["all"] for run in runs), 1)


def take_screenshot(page: Page, url: str, colours: str, path: Path):
    """Take a screenshot of a completion that is not accepted yet."""
    page.goto(f"{url}?seed=8")
    page.get_by_role("textbox").fill(HALF)
    page.get_by_text("Tokens of the text").click()
    page.get_by_label("Coloured by").select_option(colours)
    page.get_by_role("textbox").focus()
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#accept:enabled", timeout=300_000)
    page.wait_for_load_state("networkidle")
    page.screenshot(path=path, full_page=True)


if __name__ == "__main__":
    main()

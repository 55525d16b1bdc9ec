"""The web page in a real browser: with a completer that needs no model, and with the model that ships."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

pytest.importorskip("fastapi", reason="the extra web is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from fake_completer import COMPLETION, HALF  # noqa: E402

from tct_github_workflow.lint import lint  # noqa: E402

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 120_000  # the machine may be busy
pytestmark = pytest.mark.slow
expect = playwright.expect
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not path:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path)
        yield browser
        browser.close()


def start_server(*command) -> tuple[subprocess.Popen, str]:
    """Start a server, and return it with the address that it prints."""
    paths = [str(ROOT), *sys.path]
    server = subprocess.Popen(
        [sys.executable, *command],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return server, re.search(r"http://\S+", server.stdout.readline())[0]


def end_server(server: subprocess.Popen):
    """End a server as Ctrl-C does. It must be quiet."""
    server.send_signal(signal.SIGINT)
    out, err = server.communicate(timeout=PATIENCE_MS / 1000)
    assert (server.returncode, out, err) == (0, "", "")


@pytest.fixture(scope="module")
def fake():
    """The address of a server whose completer needs no model."""
    server, url = start_server("-m", "fake_completer")
    yield url
    server.kill()
    server.communicate()


@pytest.fixture(scope="module")
def real():
    """The address of a server with the model that ships."""
    server, url = start_server("-m", "scripts.workflow_web", "--port", "0")
    yield url
    end_server(server)


@pytest.fixture
def context(browser):
    """A browser without history, with room for several tabs."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    yield context
    context.close()


class Tab:
    """A tab with the page. Its errors fail the test."""

    def __init__(self, context, url: str):
        self.page, self.errors = context.new_page(), []
        self.page.on("pageerror", lambda error: self.errors.append(error))
        self.page.goto(url)
        self.editor = self.page.get_by_role("textbox", name="Workflow in YAML")
        expect(self.page.locator("#problems li").first).to_be_visible()

    def write(self, text: str):
        """Replace the text as a user does. The caret is then at its end."""
        self.editor.focus()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(text)

    def press(self, *keys: str):
        for key in keys:
            self.page.keyboard.press(key)

    def complete(self) -> str:
        """Complete the text, and return the completion, which is not accepted yet."""
        self.press("Control+Enter")
        return self.completed()

    def completed(self) -> str:
        expect(self.button("Accept")).to_be_enabled()
        return self.ghost()

    def ghost(self) -> str:
        return self.page.locator("#ghost").text_content()

    def text(self) -> str:
        return self.editor.input_value()

    def button(self, name: str):
        return self.page.get_by_role("button", name=name, exact=True)

    def expect_status(self, text: str):
        expect(self.page.get_by_role("status")).to_contain_text(text)

    def expect_streams(self, count: int):
        """Wait until so many completions are growing on the server."""
        asked = f"async () => (await (await fetch('api/status')).json()).streams === {count}"
        self.page.wait_for_function(asked)


@pytest.fixture
def open_tab(context):
    """A function that opens the page in a new tab."""
    tabs = []

    def open_page(url: str) -> Tab:
        tabs.append(Tab(context, url))
        return tabs[-1]

    yield open_page
    assert not [error for tab in tabs for error in tab.errors]


# -----------------------------------------------------------------------------
# the editor


def test_tab_accepts_and_undo_takes_back(fake, open_tab):
    tab = open_tab(fake)
    tab.write(HALF)
    assert tab.complete() == COMPLETION and tab.text() == HALF
    tab.press("Tab")
    assert tab.text() == HALF + COMPLETION and tab.ghost() == ""
    tab.press("Control+Z")
    assert tab.text() == HALF
    tab.press("Control+Shift+Z")
    assert tab.text() == HALF + COMPLETION


def test_escape_discards(fake, open_tab):
    tab = open_tab(fake)
    tab.write(HALF)
    tab.complete()
    tab.press("Escape")
    tab.expect_status("Discarded.")
    assert (tab.ghost(), tab.text()) == ("", HALF)


def test_a_line_can_be_accepted(fake, open_tab):
    tab = open_tab(fake)
    tab.write(HALF)
    tab.complete()
    tab.press("Shift+Tab")
    first, rest = COMPLETION.splitlines(keepends=True)
    assert (tab.text(), tab.ghost()) == (HALF + first, rest)
    tab.press("Tab")
    assert tab.text() == HALF + COMPLETION


def test_typing_the_completion_keeps_it(fake, open_tab):
    tab = open_tab(fake)
    tab.write(HALF)
    tab.complete()
    tab.page.keyboard.type(COMPLETION[:12])
    assert (tab.text(), tab.ghost()) == (HALF + COMPLETION[:12], COMPLETION[12:])
    tab.page.keyboard.type("#")
    assert tab.ghost() == ""


def test_text_after_the_caret_stays(fake, open_tab):
    tab = open_tab(fake)
    tab.write(HALF + "# 🎉 end\n")
    tab.press("ArrowUp")
    with tab.page.expect_request("**/api/complete") as sent:
        tab.complete()
    assert sent.value.post_data_json["until"] == "entry" and sent.value.post_data_json["before"] == HALF
    tab.press("Tab")
    assert tab.text() == HALF + COMPLETION + "# 🎉 end\n"


def test_characters_of_two_units_move_nothing(fake, open_tab):
    tab = open_tab(fake)
    begun = HALF.replace("Test", "🎉 Test 🎉")
    tab.write(begun)
    tab.complete()
    tab.press("Tab")
    assert tab.text() == begun + COMPLETION


def test_enter_keeps_the_indentation(fake, open_tab):
    tab = open_tab(fake)
    tab.write("jobs:")
    tab.press("Enter")
    tab.page.keyboard.type("test:")
    tab.press("Enter")
    assert tab.text() == "jobs:\n  test:\n    "


def test_another_sample_has_another_seed(fake, open_tab):
    tab = open_tab(fake)
    tab.write(HALF)
    tab.complete()
    with tab.page.expect_request("**/api/complete") as sent:
        tab.complete()
    assert sent.value.post_data_json["seed"] == 2 and "seed=2" in tab.page.url


def test_the_shortest_ending_can_be_accepted(fake, open_tab):
    tab = open_tab(fake)
    tab.write(HALF)
    expect(tab.page.locator("#owed")).to_contain_text("the job b")
    tab.button("Show the shortest ending").click()
    tab.completed()
    tab.press("Tab")
    assert tab.text() == HALF + "      - run: ''\n"


# -----------------------------------------------------------------------------
# what is kept


def test_a_reload_keeps_text_and_settings(fake, open_tab):
    tab = open_tab(fake + "?temperature=0.3&rules=schema")
    tab.write("name: kept\n")
    tab.page.reload()
    assert tab.text() == "name: kept\n"
    assert tab.page.get_by_label("Temperature").input_value() == "0.3"
    assert tab.page.get_by_label("Rules").input_value() == "schema"


def test_tabs_keep_their_own_text(fake, open_tab):
    one, two = open_tab(fake), open_tab(fake)
    one.write("name: one\n")
    two.write("name: two\n")
    for tab in (one, two):
        tab.page.reload()
    assert (one.text(), two.text()) == ("name: one\n", "name: two\n")


def test_a_link_shows_the_same(fake, open_tab):
    tab = open_tab(fake + "?seed=5")
    tab.write(HALF + "# 100% 🎉\n")
    tab.button("Copy link").click()
    tab.expect_status("link")
    other = open_tab(tab.page.url)
    assert other.text() == HALF + "# 100% 🎉\n" and other.page.get_by_label("Seed").input_value() == "5"


def test_wrong_settings_in_a_link_are_named(fake, open_tab):
    tab = open_tab(fake + "?temperature=warm&rules=none")
    expect(tab.page.get_by_role("alert")).to_contain_text("The link has no valid rules")
    assert tab.page.get_by_label("Temperature").input_value() == "0.5"


# -----------------------------------------------------------------------------
# streams


def test_a_stopped_stream_ends_on_the_server(fake, open_tab):
    tab = open_tab(fake)
    tab.write(HALF + "# endless\n")
    tab.press("Control+Enter")
    expect(tab.page.locator("#ghost")).to_contain_text("make test")
    tab.expect_streams(1)
    tab.press("Escape")
    tab.expect_streams(0)
    tab.expect_status("Stopped.")
    assert COMPLETION in tab.ghost()  # what has come can still be accepted


def test_typing_stops_a_stream(fake, open_tab):
    tab = open_tab(fake)
    tab.write(HALF + "# endless\n")
    tab.press("Control+Enter")
    tab.expect_streams(1)
    tab.page.keyboard.type("#")
    tab.expect_streams(0)
    assert tab.ghost() == ""


def test_a_closed_tab_stops_its_stream_only(fake, open_tab):
    closed, other = open_tab(fake), open_tab(fake)
    for tab in (closed, other):
        tab.write(HALF + "# endless\n")
        tab.press("Control+Enter")
        expect(tab.page.locator("#ghost")).to_contain_text("make test")
    other.expect_streams(2)
    closed.page.close()
    other.expect_streams(1)
    growing = other.ghost()
    other.page.wait_for_function("before => document.getElementById('ghost').textContent !== before", arg=growing)
    other.press("Escape")
    other.expect_streams(0)


def test_ctrl_c_ends_quietly_during_a_stream(open_tab):
    server, url = start_server("-m", "fake_completer")
    tab = open_tab(url)
    tab.write(HALF + "# endless\n")
    tab.press("Control+Enter")
    tab.expect_streams(1)
    end_server(server)
    expect(tab.page.get_by_role("alert")).to_contain_text("your text is kept")
    assert tab.text() == HALF + "# endless\n"


# -----------------------------------------------------------------------------
# how it looks


def test_400_pixels_are_enough(fake, open_tab):
    tab = open_tab(fake)
    tab.page.set_viewport_size({"width": 400, "height": 800})
    tab.write(HALF)
    tab.complete()
    tab.page.get_by_text("Tokens of the text").click()
    expect(tab.page.locator("#tokens span").first).to_be_visible()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 400


def test_it_is_dark_where_the_system_is(fake, open_tab):
    tab = open_tab(fake)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = tab.page.evaluate(ground)
    tab.page.emulate_media(color_scheme="dark")
    assert tab.page.evaluate(ground) != light


def test_the_keyboard_reaches_everything(fake, open_tab):
    tab = open_tab(fake)
    tab.write("on: [")  # has a problem, so there is a button that leads to it
    expect(tab.page.locator("#problems button")).to_be_visible()
    tab.page.evaluate("document.activeElement.blur()")
    reached, ring = set(), "(e => e.id && getComputedStyle(e.closest('#scroller') ?? e).outlineStyle)"
    for _ in range(30):
        tab.press("Tab")
        assert tab.page.evaluate(f"{ring}(document.activeElement)") != "none"
        reached.add(tab.page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert {"temperature", "seed", "rules", "share", "editor", "main", "Tokens of the text", "ending"} <= reached
    assert any(name.startswith("Line ") for name in reached)


def test_every_control_has_a_name(fake, open_tab):
    tab = open_tab(fake)
    tab.write("")
    names = tab.page.locator("button, input, select, textarea").evaluate_all(
        "all => all.filter(e => !(e.labels?.length || e.ariaLabel || e.textContent.trim())).map(e => e.id)"
    )
    assert names == []


def test_an_empty_text_offers_examples(fake, open_tab):
    tab = open_tab(fake)
    tab.write("x")
    tab.press("Backspace")
    tab.button("Release").click()
    assert tab.text().startswith("name: Release\n")
    expect(tab.button("Release")).to_be_hidden()


def test_faults_are_one_sentence_and_pass(fake, open_tab):
    tab = open_tab(fake)
    tab.write(HALF + "# wrong")
    tab.press("Control+Enter")
    expect(tab.page.get_by_role("alert")).to_have_text("No workflow begins so.")
    tab.write(HALF)
    expect(tab.page.get_by_role("alert")).to_have_text("")
    assert tab.complete() == COMPLETION


# -----------------------------------------------------------------------------
# the model that ships

BEGUN = HALF[: HALF.index("      - uses")]  # needs at least one step, so no completion is empty


def test_half_a_workflow_becomes_valid_and_clean(real, open_tab):
    tab = open_tab(real)
    tab.write(BEGUN)
    expect(tab.page.locator("#next .percent").first).to_contain_text("%")
    tab.complete()
    tab.press("Tab")
    assert tab.text().startswith(BEGUN) and len(tab.text()) > len(BEGUN)
    assert lint(tab.text()) == []
    expect(tab.page.locator("#problems")).to_have_text("No problems.")
    tab.press("Control+Z")
    assert tab.text() == BEGUN


def test_the_entry_at_the_caret_becomes_valid_and_clean(real, open_tab):
    tab = open_tab(real)
    tab.write(BEGUN + "  other:\n    runs-on: ubuntu-latest\n    steps:\n      - run: make\n")
    tab.press(*["ArrowUp"] * 4)
    tab.page.keyboard.insert_text("      - run: \n")
    tab.press("ArrowLeft")
    tab.complete()
    tab.press("Tab")
    assert tab.text().endswith("  other:\n    runs-on: ubuntu-latest\n    steps:\n      - run: make\n")
    assert lint(tab.text()) == []


def test_a_completion_has_lines_of_its_own(real, open_tab):
    tab = open_tab(real)
    tab.write(BEGUN + "# end\n")
    tab.press("ArrowUp")
    tab.complete()
    tab.press("Tab")
    assert tab.text().startswith(BEGUN) and tab.text().endswith("\n# end\n")


def test_a_link_gives_the_same_completion(real, open_tab):
    tab = open_tab(real + "?temperature=0.4&seed=8")
    tab.write(BEGUN)
    completion = tab.complete()
    tab.button("Copy link").click()
    assert open_tab(tab.page.url).complete() == completion


def test_two_tabs_complete_at_the_same_time(real, open_tab):
    one, two = open_tab(real), open_tab(real + "?seed=2")
    for tab in (one, two):
        tab.write(BEGUN)
        tab.press("Control+Enter")
    for tab in (one, two):
        tab.completed()
        tab.press("Tab")
        assert lint(tab.text()) == []


def test_what_is_owed_is_shown(real, open_tab):
    tab = open_tab(real)
    tab.write(BEGUN.replace("    runs-on", "    needs: build\n    runs-on"))
    expect(tab.page.locator("#owed")).to_contain_text("build")


def test_garbage_breaks_nothing(real, open_tab):
    tab = open_tab(real)
    for garbage in (
        "}{ &a *a !!x\n\t%",
        "[" * 5000,
        "a: &a [*a, *a]\n",
        "\x00\x07",
        "on: push\njobs: 7\n",
        "- " * 5000,
    ):
        tab.write(garbage)
        tab.press("Control+Enter")
        expect(tab.page.get_by_role("alert")).not_to_have_text("")
    with pytest.raises(OSError):
        urlopen(real + "api/complete", data=b"\xff" * 1000)
    tab.write(BEGUN)
    tab.complete()
    tab.press("Tab")
    assert lint(tab.text()) == []

"""A completer that needs no model, for tests of the servers. As a program it serves the web page."""

import threading

from workflow_data.tokenizers import TCTTokenizer
from workflow_servers import web
from workflow_servers.completion import Edit, Growth, NextToken, Outlook, SpelledToken

COMPLETION = "      - run: make\n      - run: make test\n"
HALF = """\
name: Test

on: [push]

jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
"""


class FakeCompleter:
    """Completes without a model. Some texts before the caret make it fail, or never end."""

    documents = TCTTokenizer()

    def __init__(self):
        self.asked, self.steps, self.closed = [], [], threading.Event()

    def stream(self, text, until="document", rules="github", **sampling):
        self.asked.append({"until": until, "rules": rules, **sampling})
        try:
            if text.endswith("wrong"):
                raise ValueError("no workflow begins so")
            for end in range(1, len(COMPLETION) + 1):
                self.steps.append(text)
                yield Growth(Edit(len(text), COMPLETION[:end]), end)
                if text.endswith("wrong later"):
                    raise ValueError("no workflow continues so")
                if text.endswith("bug"):
                    raise ZeroDivisionError
            number = 0
            while text.endswith("endless\n"):
                threading.Event().wait(0.005)  # a model also takes its time
                number += 1
                yield Growth(Edit(len(text), f"{COMPLETION}# {number:09}\n"), len(COMPLETION) + number)
        finally:
            self.closed.set()

    def outlook(self, text, count=12, rules="github"):
        if text.endswith("bug"):
            raise ZeroDivisionError
        if text.endswith("wrong"):
            raise ValueError("no workflow begins so")
        tokens = [NextToken("<run>", "keys", 0.75, ""), NextToken("<needs>", "keys", 0.05, "there is no job 'b'")]
        return Outlook(tokens, ["the job `b`"], Edit(len(text), "      - run: ''\n"))

    def spell(self, text):
        return [SpelledToken(word, "other text", 0.5) for word in text.split()]


if __name__ == "__main__":
    with web.listen("127.0.0.1", 0) as listening:
        print(f"open {web.url(listening)}", flush=True)
        web.serve(web.create_app(FakeCompleter(), "a fake"), listening)

"""The language server with a model that is a table, for quick tests. It reports on stderr what it is asked."""

import sys
from pathlib import Path

from workflow_servers import language_server
from workflow_servers.completion import Candidate, Edit, Growth
from workflow_servers.language_server import WorkflowServer
from workflow_servers.proposals import Proposer

COMPLETIONS = {  # the end of a text -> its completions, the likeliest first
    "runs-on: ": ["ubuntu-latest", "windows-latest"],
    "runs-on: ubuntu-": ["latest", "24.04"],
    "      - ": ["run: make\n        shell: bash", "run: make\n        with:\n          a: b"],
}


class FakeCompleter:
    """Complete texts that the table has."""

    def candidates(self, text, count, until, rules, stop, **sampling):
        print("the standard output is not for this")
        if "broken" in text:
            raise ValueError("no workflow begins so")
        found = next((found for end, found in COMPLETIONS.items() if text.endswith(end)), [])
        return [Candidate(Edit(len(text), each), -1.0 - index) for index, each in enumerate(found)]

    def stream(self, text, until, rules, **sampling):
        report("started")
        try:
            if "endless" in text:
                while True:
                    yield Growth(Edit(len(text), "run: make"), 1)
            for n_tokens, end in enumerate(("r", "run: make"), start=1):
                yield Growth(Edit(len(text), end), n_tokens)
        finally:
            report("closed")


def report(event: str):
    print(event, file=sys.stderr, flush=True)


def load():
    """Load the model as soon as the file that the command line names says so."""
    if sys.argv[1:] and Path(sys.argv[1]).read_text() != "load":
        raise ValueError("the model is missing")
    return Proposer(FakeCompleter())


if __name__ == "__main__":
    language_server.LONGEST_WAIT = 3600  # tests do not depend on the speed of the machine
    raise SystemExit(WorkflowServer(load).serve(sys.stdin.buffer, sys.stdout.buffer))

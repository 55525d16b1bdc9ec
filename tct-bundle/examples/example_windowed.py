"""Cut a larger workflow into the windows that models are trained on, and check them."""

import json

from tct_github_workflow import decode, encode, extract_window, vocab_size

CONTEXT_SIZE = 64  # small, so that there are several windows; training uses 512
STRIDE = 32

STEPS = [
    {"uses": "actions/checkout@v4"},
    {"name": "Set up Python", "uses": "actions/setup-python@v5",
     "with": {"python-version": "${{ matrix.python-version }}"}},
    {"name": "Install dependencies", "run": "python -m pip install --upgrade pip\npip install -r requirements.txt\n"},
    {"name": "Lint", "run": "ruff check ."},
    {"name": "Test", "run": "pytest --cov --junitxml=report.xml", "env": {"CI": "true"}},
]  # fmt: skip
WORKFLOW = {
    "name": "Tests",
    "on": {"push": {"branches": ["main"]}, "pull_request": {}},
    "jobs": {
        system: {
            "runs-on": f"{system}-latest",
            "strategy": {"matrix": {"python-version": ["3.11", "3.12", "3.13"]}},
            "steps": STEPS,
        }
        for system in ("ubuntu", "windows", "macos")
    },
}


def main():
    tokens = encode(json.dumps(WORKFLOW))
    starts = [0]
    while starts[-1] + CONTEXT_SIZE < len(tokens):
        starts.append(starts[-1] + STRIDE)
    windows = [extract_window(tokens, start, start + CONTEXT_SIZE, STRIDE) for start in starts]
    print(f"{len(tokens)} tokens make {len(windows)} windows of 1 position and up to {CONTEXT_SIZE} tokens:")
    for start, (position, *content) in zip(starts, windows):
        assert position == start // STRIDE < vocab_size()
        assert content == tokens[start : start + CONTEXT_SIZE]
        print(f"  position {position:3}: tokens {start:4} to {start + len(content) - 1:4}")

    stitched = windows[0][1:]
    for start, (_, *content) in zip(starts[1:], windows[1:]):
        stitched += content[len(stitched) - start :]
    assert json.loads(decode(stitched)[0]) == WORKFLOW
    print("structure verified: positions count strides, and the windows stitch together to the workflow")


if __name__ == "__main__":
    main()

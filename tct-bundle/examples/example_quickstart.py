"""Encode a workflow, decode it, and compare."""

import json

from tct_github_workflow import decode, encode, id_to_token

WORKFLOW = {
    "name": "CI",
    "on": "push",
    "jobs": {"build": {"runs-on": "ubuntu-latest", "steps": [{"uses": "actions/checkout@v4"}]}},
}


def main():
    text = json.dumps(WORKFLOW, separators=(",", ":"))
    tokens = encode(text)
    decoded, consumed, total = decode(tokens)
    print(f"workflow:   {text}")
    print(f"tokens:     {' '.join(map(id_to_token, tokens))}")
    print(f"count:      {len(tokens)} tokens, {len(text) / len(tokens):.2f} characters per token")
    is_equal = json.loads(decoded) == WORKFLOW and consumed == total
    print(f"round trip: {'SUCCESS' if is_equal else 'FAILURE'}")


if __name__ == "__main__":
    main()

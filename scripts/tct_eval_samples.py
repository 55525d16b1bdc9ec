"""Samples and completions of a model, on all ranks."""

import json
import os.path

from tqdm import tqdm

from nanochat.distributed import gather_bytes
from workflow_eval.completions import compare_continuations
from workflow_eval.samples import yaml_of

MOST_COMPLETED = 256  # tokens, of a completion


# -----------------------------------------------------------------------------
# generating, shared by the ranks


def generate(generator, count: int, ranks, **options) -> list[dict]:
    """`count` samples from scratch, the same on all ranks: of each its text, YAML (None where the text is no
    workflow), tokens and finish_reason."""
    first, last = (count * part // ranks.world_size for part in (ranks.rank, ranks.rank + 1))
    stream = generator.stream(last - first, first=first, **options) if last > first else ()
    progress = tqdm(stream, "sample", last - first, unit="workflow", disable=None)
    return gather([describe(workflow) for workflow in progress])


def describe(workflow) -> dict:
    return {
        "text": workflow.json,
        "yaml": yaml_of(workflow.json),
        "tokens": workflow.tokens,
        "finish_reason": workflow.finish_reason,
    }


def complete(generator, workflows: list[tuple[str, list[int]]], prefix_text, constrained: bool, ranks) -> list[dict]:
    """What the model makes of workflows (text, tokens) of which it sees the first half of the tokens, on all ranks.
    prefix_text(tokens) is how the first tokens of a workflow begin its text."""
    first, last = (len(workflows) * part // ranks.world_size for part in (ranks.rank, ranks.rank + 1))
    found = []
    for text, tokens in tqdm(workflows[first:last], "complete", unit="workflow", disable=None):
        half = tokens[: len(tokens) // 2]
        [completion] = generator.generate(
            1, tokens=half, constrained=constrained, max_tokens=MOST_COMPLETED, temperature=0
        )
        cut = len(os.path.commonprefix([prefix_text(half), text]))
        found.append(compare_continuations(text, completion.json, cut))
    return gather(found)


def gather(mine: list) -> list:
    """The lists of all ranks, joined."""
    return [item for part in gather_bytes(json.dumps(mine).encode()) for item in json.loads(part)]

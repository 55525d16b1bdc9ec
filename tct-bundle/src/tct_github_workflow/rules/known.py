"""What only data can know: actions that several owners use, their inputs, and the runners that GitHub hosts.

`known_actions.json` is written by `workflow_data.build_known_actions`. It has the refs and the inputs of each action
that at least three owners of a corpus use, the most frequent first.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

TABLE = Path(__file__).with_name("known_actions.json")
# https://docs.github.com/en/actions/reference/runners/github-hosted-runners
RUNNERS = """
    ubuntu-latest ubuntu-24.04 ubuntu-22.04 ubuntu-24.04-arm ubuntu-22.04-arm ubuntu-slim windows-latest windows-2025
    windows-2022 windows-11-arm macos-latest macos-26 macos-15 macos-14 macos-26-intel macos-15-intel
""".split()


@dataclass(frozen=True)
class KnownActions:
    """Refs and inputs of actions, and the workflows that jobs call, as owner/repository/path@ref."""

    refs: dict[str, list[str]]
    inputs: dict[str, list[str]]
    workflows: list[str]

    @cached_property
    def uses(self) -> list[str]:
        """The values of `uses` in steps."""
        return [f"{action}@{ref}" for action, refs in self.refs.items() for ref in refs]

    @cached_property
    def all_inputs(self) -> list[str]:
        return sorted({name for names in self.inputs.values() for name in names})

    def fault(self, uses: str | None, given: Iterable[str]) -> str:
        """Return what is wrong with the inputs of a step, or an empty string. `uses` is None if it may still come."""
        given = set(given)
        if uses is None:
            takes_all = any(given <= set(inputs) for inputs in self.inputs.values())
            return "" if takes_all else f"no action takes {', '.join(sorted(given))} together"
        action = uses.split("@")[0]
        inputs = self.inputs.get(action, [])
        if not inputs:
            return f"{action} takes no inputs"
        unknown = sorted(given.difference(inputs))
        return f"{action} does not take {', '.join(unknown)}: it takes {', '.join(inputs)}" if unknown else ""


@cache
def known_actions() -> KnownActions:
    """Return the table of this package."""
    return KnownActions(**json.loads(TABLE.read_text(encoding="utf-8")))

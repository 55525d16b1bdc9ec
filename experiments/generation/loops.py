"""Count the real workflows that repeat more than `--max_repeats N` or `--max_repetition SHARE` allows.

python experiments/generation/loops.py PREPARED
"""

from nanochat.repetition import SHORT_REPETITION, RepetitionTracker, Returns
from script_tools.cli import ArgumentParser, cli_errors
from workflow_data.reader import iter_workflows, read_metadata


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("prepared", help="prepared folder, whose validation split is read")
    folder = parser.parse_args(argv).prepared
    workflows = [workflow.tokens.tolist() for workflow in iter_workflows(folder, "val", read_metadata(folder))]
    for times in (2, 3, 4, 5, 8):
        count = sum(goes_into_loop(tokens, times) for tokens in workflows)
        print(
            f"--max_repeats {times}: {count} of {len(workflows):,} workflows repeat something more often in a row, "
            f"in more than {SHORT_REPETITION} tokens"
        )
    for share in (0.5, 0.55, 0.6, 0.65, 0.7):
        count = sum(goes_back(tokens, share) for tokens in workflows)
        print(f"--max_repetition {share}: {count} of {len(workflows):,} workflows repeat more of their latest text")


def goes_back(tokens: list[int], share: float) -> bool:
    returns = Returns(share)
    for length, token in enumerate(tokens, start=1):
        returns.append(token)
        if returns.distance(length):
            return True
    return False


def goes_into_loop(tokens: list[int], times: int) -> bool:
    tracker = RepetitionTracker(times)
    for token in tokens:
        if token in tracker.repeating_tokens():
            return True
        tracker.append(token)
    return False


if __name__ == "__main__":
    main()

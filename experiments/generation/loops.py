"""How many real workflows would `--max_repeats N` not let be: a token of theirs is the one by which they go into a loop.

python experiments/generation/loops.py PREPARED
"""

from nanochat.sampling import LEAST_LOOP, Loops
from script_tools.cli import ArgumentParser, cli_errors
from workflow_data.reader import iter_workflows, read_metadata


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("prepared", help="prepared folder; its validation split is looked at")
    folder = parser.parse_args(argv).prepared
    workflows = [workflow.tokens.tolist() for workflow in iter_workflows(folder, "val", read_metadata(folder))]
    for times in (2, 3, 4, 5, 8):
        count = sum(goes_into_loop(tokens, times) for tokens in workflows)
        print(
            f"--max_repeats {times}: {count} of {len(workflows):,} workflows say something more often on end, "
            f"in more than {LEAST_LOOP} tokens"
        )


def goes_into_loop(tokens: list[int], times: int) -> bool:
    loops = Loops(times)
    for token in tokens:
        if token in loops.next_tokens():
            return True
        loops.append(token)
    return False


if __name__ == "__main__":
    main()

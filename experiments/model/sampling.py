"""Which sampling settings write workflows that are most like real ones?

    python experiments/model/sampling.py --data_dir out/model/data --count 64 --settings "temperature=0.8 min_p=0.05"

Prints a row for each setting: how many samples the model ended itself, how many have loops, their lengths, and how far
they are from held-out workflows (the mean excess of the distances over their noise floors).
"""

import argparse
import json

import numpy as np

import workflow_model
from nanochat.process import tune_process
from script_tools.cli import ArgumentParser, cli_errors
from workflow_data.reader import iter_workflows, open_tokenizer, read_metadata
from workflow_eval.features import compare_features
from workflow_eval.repetition import has_loop
from workflow_generator import WorkflowGenerator


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add("--checkpoint", "of the model", str(workflow_model.PATH))
    parser.add("--data_dir", "prepared folder; the samples are compared with its validation split", required=True)
    parser.add("--settings", 'such as "temperature=0.8 min_p=0.05"', nargs="+", required=True, metavar="SETTINGS")
    parser.add("--count", "samples for each setting", 64)
    parser.add("--max_tokens", "of a sample", 1024)
    parser.add("--seed", "of the samples", 0)
    args = parser.parse_args(argv)
    tune_process()
    metadata = read_metadata(args.data_dir)
    tokenizer = open_tokenizer(args.data_dir, metadata)
    real = [workflow.tokens for workflow in iter_workflows(args.data_dir, "val", metadata)]
    texts = [json.loads(tokenizer.decode(tokens.tolist())) for tokens in real]
    print_row("settings", "ended", "loops", "tokens: 10%, 50%, 90%", "excess distance")
    print_row(*["---"] * 5)
    ended = np.mean([len(tokens) <= args.max_tokens for tokens in real])
    print_row("real", f"{ended:.0%}", f"{np.mean([*map(has_loop, real)]):.1%}", quantiles(real), "")
    generator = WorkflowGenerator.load(args.checkpoint)
    for settings in args.settings:
        options = {name: float(value) for name, value in (setting.split("=") for setting in settings.split())}
        options |= {name: int(options[name]) for name in ("top_k", "max_repeats") if name in options}
        samples = list(generator.stream(args.count, max_tokens=args.max_tokens, seed=args.seed, **options))
        tokens = [np.array(sample.tokens) for sample in samples]
        distances = compare_features([json.loads(sample.json) for sample in samples], texts).values()
        excess = np.mean([each["distance"] - each["noise_floor"] for each in distances])
        ended = np.mean([sample.finish_reason == "complete" for sample in samples])
        loops = np.mean([*map(has_loop, tokens)])
        print_row(settings, f"{ended:.0%}", f"{loops:.0%}", quantiles(tokens), f"{excess:.3f}")


def quantiles(tokens) -> str:
    return ", ".join(f"{each:.0f}" for each in np.percentile([*map(len, tokens)], [10, 50, 90]))


def print_row(*cells: str):
    print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())

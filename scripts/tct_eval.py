"""Evaluate a model: its held-out loss, its samples, and its completions of real workflows or other documents.

    python -m scripts.tct_eval --checkpoint out/tiny --data_dir prepared/ --num_samples 100
    python -m scripts.tct_eval --compare out/tiny/eval out/small/eval

Writes eval.json, report.md, report.html, their figures and the samples. Equal seeds give equal results, in one process
or several (torchrun --standalone --nproc_per_node=2 -m scripts.tct_eval ...). --compare makes one page of several
evaluations.
"""

import json
import os
import re
import time
from pathlib import Path

import workflow_model
from nanochat.process import tune_process
from script_tools.cli import ArgumentParser, cli_errors, print0
from script_tools.files import refuse_to_replace, write_atomic
from script_tools.tables import columns
from scripts.generate_workflow import add_checkpoint_flag, add_rules_flag, add_sampling_flags, refuse_flags_of_workflows
from workflow_eval import comparison
from workflow_eval.report import FIGURES, completion_rows, held_out_rows, metric_rows, write_report

FILES = ("eval.json", "timing.json", "report.md", "report.html", *FIGURES)
SAMPLING = ("max_tokens", "temperature", "top_k", "top_p", "min_p", "max_repeats", "max_repetition")


@cli_errors
def main(argv=None):
    args = parse_arguments(argv)
    if args.compare:
        return compare(args.compare, args.output or Path("out/compare"))
    checkpoint = Path(args.checkpoint).expanduser()
    output = args.output or default_output(checkpoint)
    refuse_foreign_files(output)

    tune_process()
    from model_evaluation import open_evaluation  # imports torch, which is slow and which --help does not need

    with open_evaluation(checkpoint, args.data_dir, args.device, args.dtype) as evaluation:
        refuse_flags_of_workflows(args, evaluation.language.documents)
        results, samples, by_schema, seconds = evaluate(args, evaluation)
    if evaluation.ranks.rank > 0:
        return
    sets = {}
    if samples:
        figures, sets = evaluation.judge(samples, by_schema, args.seed)
        results |= figures
    else:
        results["left_out"] = ["samples: --num_samples is 0"]
    name = "the model that ships" if checkpoint == workflow_model.PATH else str(checkpoint)
    publish(output, {"checkpoint": name, **results}, sets, seconds)


def default_output(checkpoint: Path) -> Path:
    """Return the folder of the results. That of the model that ships is not next to the model."""
    if checkpoint == workflow_model.PATH:
        return Path("out/eval")
    return (checkpoint if checkpoint.is_dir() else checkpoint.parent) / "eval"


def evaluate(args, evaluation) -> tuple[dict, list[dict], list[dict], float]:
    """Return the figures of the model, its samples, those under the schema alone, and the seconds of the former."""
    constrained, sampling = not args.no_constraint, {name: getattr(args, name) for name in SAMPLING}
    rules = args.rules or evaluation.language.documents.default_rules
    results = {
        "step": evaluation.meta["step"],
        "data_dir": args.data_dir,
        "dtype": str(evaluation.dtype).removeprefix("torch."),
        "num_samples": args.num_samples,
        "constrained": constrained,
        "rules": rules if constrained else None,
        "seed": args.seed,
        **sampling,
        "held_out": evaluation.score(args.device_batch_size),
    }
    generator, samples = evaluation.generator(), []
    started = time.perf_counter()
    if args.num_samples:
        options = {"seed": args.seed, "constrained": constrained, "batch_size": args.device_batch_size, **sampling}
        samples = evaluation.generate(generator, args.num_samples, rules=rules, **options)
    seconds = time.perf_counter() - started
    by_schema = []
    if samples and constrained and rules == "github":
        by_schema = evaluation.generate(generator, args.num_samples, rules="schema", **options)
    if args.num_completions:
        results["completion"] = evaluation.complete(generator, args.num_completions, args.seed, constrained)
    return results, samples, by_schema, seconds


def parse_arguments(argv):
    parser = ArgumentParser(description="Evaluate a model on held-out workflows and on its own samples.")
    add = parser.add_argument
    add_checkpoint_flag(add)
    add("--data_dir", metavar="DIR", help="prepared folder; its validation split is scored")
    compare = "instead compare evaluations on one page: their folders; only --output also applies"
    add("--compare", nargs="+", type=Path, metavar="DIR", help=compare)

    def count(flag: str, default: int | None, help: str):
        add(flag, type=int, default=default, metavar="N", help=help)

    count("--num_samples", 100, "workflows to generate from scratch; 0 scores only (default 100)")
    count("--num_completions", None, "real workflows to complete (default: as many as samples)")
    count("--max_tokens", 1024, "maximum tokens of a sample (default 1024)")
    add_sampling_flags(add, temperature=1.0)
    add("--no_constraint", action="store_true", help="generate without the schema's constraint; samples may be invalid")
    add_rules_flag(add, "github also samples by the schema alone, and compares the two")
    count("--device_batch_size", 16, "contexts scored, and samples generated, at a time (default 16)")
    add("--seed", type=int, default=0, help="random seed; equal seeds give equal results (default 0)")
    add("--device", default="auto", help="cpu, cuda, mps (default: the best available)")
    add("--dtype", choices=("float32", "bfloat16"), help="(default: that of the training run)")
    output = "(default: the folder eval next to the checkpoint, or out/eval; with --compare out/compare)"
    add("--output", type=Path, metavar="DIR", help=output)
    args = parser.parse_args(argv)
    if args.compare:
        given = [name for name, value in vars(args).items() if value != parser.get_default(name)]
        if others := set(given) - {"compare", "output"}:
            raise ValueError(f"--{min(others)} does not apply to --compare: leave it out")
    elif not args.data_dir:
        parser.error("the following arguments are required: --data_dir")
    if args.num_completions is None:
        args.num_completions = args.num_samples
    for flag, least in (("num_samples", 0), ("num_completions", 0), ("max_tokens", 1), ("device_batch_size", 1)):
        if getattr(args, flag) < least:
            raise ValueError(f"--{flag} must be at least {least}, not {getattr(args, flag)}")
    return args


def compare(folders: list[Path], output: Path):
    """Write the page that compares evaluations, and print its figures."""
    evaluations = comparison.read_evaluations(folders)
    if not comparison.is_comparison(output):
        refuse_to_replace(output, comparison.FILES)
    try:
        comparison.write_comparison(output, evaluations)
    except ImportError as error:
        raise ValueError(f"--compare needs {error.name}, which is not installed") from None
    rows = [("", *evaluations), *comparison.held_out_rows(evaluations)]
    print(columns(rows))
    print(f"\nwritten to {output}: compare.html, compare.md")


# -----------------------------------------------------------------------------
# the output


def refuse_foreign_files(folder: Path):
    """Raise FileExistsError if the folder has files with our names that an evaluation did not write."""
    try:
        is_ours = {"checkpoint", "held_out"} <= json.loads((folder / "eval.json").read_bytes()).keys()
    except (OSError, ValueError, AttributeError):
        is_ours = False
    if not is_ours:
        refuse_to_replace(folder, [*FILES, *(path.relative_to(folder) for path in samples_in(folder))])


def samples_in(folder: Path) -> list[Path]:
    """Return the samples that an earlier evaluation wrote there."""
    return [path for path in (folder / "samples").glob("*") if re.fullmatch(r"sample_\d{3,}\.(yml|txt)", path.name)]


def publish(folder: Path, results: dict, sets: dict, seconds: float):
    """Write all files of the evaluation and print a summary. `sets` are the SampleSets "samples" and "real", if any."""
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    write_atomic(
        folder / "eval.json", json.dumps(results, indent=2).encode() + b"\n"
    )  # first: it marks the files as ours
    for old in samples_in(folder):
        old.unlink()
    samples = sets["samples"] if sets else None
    for index, (text, yaml) in enumerate(zip(samples.texts, samples.yamls) if samples else ()):
        name = f"sample_{index:03d}.{'yml' if yaml else 'txt'}"
        (folder / "samples" / name).write_text(yaml or text, "utf-8")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    timing = {"seconds": seconds, "samples": len(samples.texts) if samples else 0, "processes": processes}
    write_atomic(folder / "timing.json", json.dumps(timing).encode() + b"\n")  # not in eval.json: differs between runs
    try:
        write_report(folder, results, sets)
    except ImportError as error:
        print0(f"no report: {error.name} is not installed")
    parts = (held_out_rows(results["held_out"]), metric_rows(results), completion_rows(results))
    print0(f"\n{columns([row for part in parts if part for row in (*part, ())])}".rstrip())
    for reason in results["left_out"]:
        print0(f"left out: {reason}")
    print0(f"\nwritten to {folder}: eval.json, report.html, report.md, samples")


if __name__ == "__main__":
    main()

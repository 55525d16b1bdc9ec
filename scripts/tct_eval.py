"""Evaluate a checkpoint: held-out loss, and what the workflows are like that it writes.

    python -m scripts.tct_eval --checkpoint out/tiny --data_dir prepared/ --num_samples 100

Writes eval.json, report.md, report.html, their pictures and the samples. The same seed gives the same figures, in one
process or several (torchrun --standalone --nproc_per_node=2 -m scripts.tct_eval ...).
"""

import json
import os
import re
import time
from pathlib import Path

from script_tools.cli import ArgumentParser, cli_errors, print0
from script_tools.files import refuse_to_replace, write_atomic
from scripts.generate_workflow import add_sampling_flags

FILES = (
    "eval.json",
    "timing.json",
    "report.md",
    "report.html",
    "kinds.png",
    "lengths.png",
    "fields.png",
    "findings.png",
)
SAMPLING = ("max_tokens", "temperature", "top_k", "top_p", "min_p", "max_repeats")  # settings of the samples


@cli_errors
def main(argv=None):
    args = parse_arguments(argv)

    from nanochat.checkpoint_manager import load_model
    from nanochat.device import choose_device, choose_dtype
    from nanochat.distributed import process_group
    from nanochat.process import tune_process
    from workflow_data.reader import check_metadata, open_tokenizer, read_metadata
    from workflow_generator import find_language

    tune_process()
    device = choose_device(args.device)
    checkpoint = Path(args.checkpoint).expanduser()
    output = args.output or (checkpoint if checkpoint.is_dir() else checkpoint.parent) / "eval"
    refuse_foreign_files(output)
    model, meta = load_model(checkpoint, device)
    language = find_language(meta["data"]["tokenizer"], checkpoint, model.config.n_states)
    metadata = read_metadata(args.data_dir)
    config = model.config
    check_metadata(
        metadata, args.data_dir, config.sequence_len, config.vocab_size, meta["data"]["tokenizer"], config.n_states
    )
    tokenizer = open_tokenizer(args.data_dir, metadata)
    # That of the training run: a trial for the fastest could come out one way today and the other tomorrow.
    dtype = choose_dtype(args.dtype or meta.get("settings", {}).get("dtype", "float32"), device)
    results = {
        "checkpoint": str(checkpoint),
        "step": meta["step"],
        "data_dir": args.data_dir,
        "dtype": str(dtype).removeprefix("torch."),
        "num_samples": args.num_samples,
        "constrained": not args.no_constraint,
        "seed": args.seed,
        **{name: getattr(args, name) for name in SAMPLING},
    }
    with process_group(device) as ranks:
        evaluation = evaluate(args, model, meta, language, metadata, tokenizer, dtype, ranks)
    if ranks.rank == 0:
        publish(output, results, *evaluation)


def parse_arguments(argv):
    parser = ArgumentParser(description="Evaluate a checkpoint on held-out workflows and on its own samples.")
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="PATH", help="a file model_NNNNNN.pt, or a folder: its last checkpoint")
    add("--data_dir", required=True, metavar="DIR", help="prepared folder; its validation split is scored")
    add(
        "--num_samples",
        type=int,
        default=100,
        metavar="N",
        help="workflows to write from scratch; 0 scores only (default 100)",
    )
    add("--num_completions", type=int, metavar="N", help="real workflows to complete (default: as many as samples)")
    add("--max_tokens", type=int, default=1024, metavar="N", help="most tokens of a sample (default 1024)")
    add_sampling_flags(add, temperature=1.0)
    add("--no_constraint", action="store_true", help="let the raw model write, valid or not")
    add(
        "--device_batch_size",
        type=int,
        default=16,
        metavar="N",
        help="contexts scored at once, and samples in work (default 16)",
    )
    add("--seed", type=int, default=0, help="same seed, same figures (default 0)")
    add("--device", default="auto", help="cpu, cuda, mps (default: the best there is)")
    add("--dtype", choices=("float32", "bfloat16"), help="(default: that of the training run)")
    add("--output", type=Path, metavar="DIR", help="(default: the folder eval beside the checkpoint)")
    args = parser.parse_args(argv)
    if args.num_completions is None:
        args.num_completions = args.num_samples
    for flag, least in (("num_samples", 0), ("num_completions", 0), ("max_tokens", 1), ("device_batch_size", 1)):
        if getattr(args, flag) < least:
            raise ValueError(f"--{flag} must be at least {least}, not {getattr(args, flag)}")
    return args


def evaluate(args, model, meta: dict, language, metadata: dict, tokenizer, dtype, ranks):
    """(figures, lengths for the picture, samples as _eval_samples describes them, seconds they took). Ranks share the
    model's work; the rest is rank 0's."""
    from held_out_scores import read_held_out, score_held_out, summarize_scores
    from nanochat.inference import prepare_for_inference
    from scripts.tct_eval_samples import complete, generate
    from workflow_eval.completions import summarize_completions
    from workflow_generator import WorkflowGenerator

    held_out = read_held_out(args.data_dir, metadata, tokenizer)
    scores = score_held_out(model, held_out, args.data_dir, args.device_batch_size, dtype)
    figures = {"held_out": summarize_scores(held_out, scores)}

    # The model is good for nothing but generation from here on.
    generator = WorkflowGenerator(prepare_for_inference(model, dtype), meta["data"]["stride"], language)
    samples = completions = []
    started = time.perf_counter()
    if args.num_samples:
        samples = generate(
            generator,
            args.num_samples,
            ranks,
            seed=args.seed,
            constrained=not args.no_constraint,
            batch_size=args.device_batch_size,
            **{name: getattr(args, name) for name in SAMPLING},
        )
    seconds = time.perf_counter() - started
    if args.num_completions:
        chosen = choose(held_out, args.num_completions, args.seed)
        workflows = [(held_out.texts[i], held_out.tokens[i].tolist()) for i in chosen]
        # llguidance takes no other order of keys than its own, which is not that of real workflows
        constrained = not args.no_constraint and hasattr(tokenizer, "matcher")
        completions = complete(generator, workflows, tokenizer.decode_prefix, constrained, ranks)
        figures["completion"] = summarize_completions(completions)
    if ranks.rank > 0:
        return {}, {}, [], seconds
    if not samples:
        return figures | {"left_out": ["samples: --num_samples is 0"]}, {}, [], seconds
    judged, lengths = judge_samples(args, samples, held_out, metadata, tokenizer)
    return figures | judged, lengths, samples, seconds


def judge_samples(args, samples: list[dict], held_out, metadata: dict, tokenizer) -> tuple[dict, dict]:
    """(figures, lengths) of the samples and, beside them, of as many real workflows."""
    import numpy as np

    from workflow_eval.actionlint import find_linter
    from workflow_eval.features import compare
    from workflow_eval.github_parser import find_parser
    from workflow_eval.samples import Corpus, judge, parse

    left_out, tools = [], {}
    for name, find in (("actionlint", find_linter), ("GitHub's parser", find_parser)):
        try:
            tools[name] = find()
        except FileNotFoundError as error:
            left_out.append(f"{name}: {error}")
            tools[name] = None
    corpus = None
    try:
        corpus = Corpus.read(args.data_dir, metadata, tokenizer)
        if corpus.left_out:
            left_out.append(f"copies of {corpus.left_out:,} further training workflows: they were not looked at")
    except ValueError as error:  # thinned windows, which do not have all tokens
        left_out.append(f"copies of training workflows: {error}")

    chosen = choose(held_out, len(samples), args.seed)
    sets = {
        "samples": (
            [sample["text"] for sample in samples],
            [np.array(sample["tokens"], np.int32) for sample in samples],
        ),
        "real": ([held_out.texts[i] for i in chosen], [held_out.tokens[i] for i in chosen]),
    }
    judged = {name: judge(*workflows, corpus, *tools.values()) for name, workflows in sets.items()}
    figures = {name: found for name, (found, _) in judged.items()}
    figures["samples"]["ended_by_model"] = share(sample["finish_reason"] == "complete" for sample in samples)
    if tools["actionlint"]:
        kinds = sorted({kind for _, found in judged.values() for kind in found})
        figures["findings"] = {kind: [judged[name][1][kind] / len(sets[name][0]) for name in sets] for kind in kinds}
    objects = [value for value in map(parse, sets["samples"][0]) if isinstance(value, dict)]
    if objects and len(held_out.texts) > 1:
        figures["fields"] = compare(objects, [json.loads(text) for text in held_out.texts], seed=args.seed)
    else:
        left_out.append("how close samples are to real workflows: there are too few of either")
    lengths = {
        name: {"tokens": [len(ids) for ids in tokens], "characters": [len(text) for text in texts]}
        for name, (texts, tokens) in sets.items()
    }
    return figures | {"left_out": left_out}, lengths


def choose(held_out, count: int, seed: int) -> list[int]:
    """Some of the workflows, at most `count`, in their order."""
    import numpy as np

    total = len(held_out.texts)
    return sorted(np.random.default_rng(seed).choice(total, min(count, total), replace=False).tolist())


def share(answers) -> float:
    answers = list(answers)
    return sum(answers) / len(answers)


# -----------------------------------------------------------------------------
# the output


def refuse_foreign_files(folder: Path):
    """FileExistsError if the folder has files, with names that we give, that no evaluation wrote."""
    try:
        is_ours = {"checkpoint", "held_out"} <= json.loads((folder / "eval.json").read_bytes()).keys()
    except (OSError, ValueError, AttributeError):
        is_ours = False
    if not is_ours:
        refuse_to_replace(folder, [*FILES, *(path.relative_to(folder) for path in samples_in(folder))])


def samples_in(folder: Path) -> list[Path]:
    """The samples that an evaluation has written there."""
    return [path for path in (folder / "samples").glob("*") if re.fullmatch(r"sample_\d{3,}\.(yml|txt)", path.name)]


def publish(folder: Path, results: dict, figures: dict, lengths: dict, samples: list[dict], seconds: float):
    from script_tools.tables import columns
    from workflow_eval.report import held_out_rows, judged_rows, write_report

    results |= figures
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "eval.json", json.dumps(results, indent=2).encode() + b"\n")  # first: says whose this is
    for old in samples_in(folder):
        old.unlink()
    for index, sample in enumerate(samples):
        name = f"sample_{index:03d}." + ("yml" if sample["yaml"] else "txt")
        (folder / "samples" / name).write_text(sample["yaml"] or sample["text"], "utf-8")
    timing = {"seconds": seconds, "samples": len(samples), "processes": int(os.environ.get("WORLD_SIZE", "1"))}
    write_atomic(folder / "timing.json", json.dumps(timing).encode() + b"\n")  # apart: it differs from run to run
    try:
        write_report(folder, results, lengths, [sample["yaml"] or sample["text"] for sample in samples])
    except ImportError as error:
        print0(f"no report: {error.name} is not installed")
    judged = judged_rows(results["samples"], results["real"]) if samples else []
    completed = [
        (f"the next {name}", f"{found['right']} of {found['asked']}")
        for name, found in results.get("completion", {}).items()
        if name != "workflows"
    ]
    print0(f"\n{columns([*held_out_rows(results['held_out']), (), *judged, (), *completed])}".rstrip())
    for reason in results["left_out"]:
        print0(f"left out: {reason}")
    print0(f"\nwritten to {folder}: eval.json, report.html, report.md, samples")


if __name__ == "__main__":
    main()

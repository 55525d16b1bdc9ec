"""Generate GitHub Actions workflows from a checkpoint, each complete and schema-valid.

    python -m scripts.generate_workflow --checkpoint out/tiny --num_samples 3
    python -m scripts.generate_workflow --checkpoint out/tiny --prompt begun.yml --output samples/
    head -c 300 begun.yml | python -m scripts.generate_workflow --checkpoint out/tiny --prompt -
"""

import sys
from pathlib import Path

from nanochat.common import ArgumentParser, user_errors, write_atomic

EXTENSIONS = {"yaml": "yml", "json": "json"}


@user_errors
def main(argv=None):
    parser = ArgumentParser(description="Generate GitHub Actions workflows from a checkpoint.")
    parser.add_argument("--checkpoint", required=True, metavar="PATH",
                        help="a file model_NNNNNN.pt, or a folder: its last checkpoint")
    parser.add_argument("--num_samples", type=int, default=1, help="number of workflows (default 1)")
    parser.add_argument("--prompt", metavar="FILE",
                        help="a partial workflow to go on from, YAML or JSON that may be cut anywhere; - reads "
                             "standard input (default: from scratch)")
    parser.add_argument("--max_tokens", type=int, default=1024,
                        help="most tokens of a sample, beyond the prompt (default 1024)")
    parser.add_argument("--temperature", type=float, default=0.8,
                        help="0 takes the likeliest token (default 0.8)")
    parser.add_argument("--top_k", type=int, help="sample among the k likeliest tokens (default: all)")
    parser.add_argument("--top_p", type=float,
                        help="sample among the fewest tokens with this probability (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same workflows (default 0)")
    parser.add_argument("--device", default="auto", help="cpu, cuda or mps (default: the best there is)")
    parser.add_argument("--format", choices=EXTENSIONS, default="yaml", help="of what is written (default yaml)")
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="folder for one file each; files of the same names are replaced (default: print)")
    args = parser.parse_args(argv)

    prompt = read_prompt(args.prompt) if args.prompt else None
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)

    from nanochat.common import choose_device, tune_process

    tune_process()
    from tqdm import tqdm
    from workflow_generator import WorkflowGenerator

    generator = WorkflowGenerator.load(args.checkpoint, choose_device(args.device))
    workflows = generator.stream(
        args.num_samples, prompt, max_tokens=args.max_tokens, temperature=args.temperature, top_k=args.top_k,
        top_p=args.top_p, seed=args.seed)
    for index, workflow in enumerate(tqdm(workflows, total=args.num_samples, unit="workflow", disable=None)):
        text = workflow.yaml if args.format == "yaml" else workflow.json + "\n"
        if args.output:
            name = f"workflow_{index:04d}.{EXTENSIONS[args.format]}"
            write_atomic(args.output / name, text.encode())
        elif args.format == "yaml":
            tqdm.write(f"# sample {index}: {len(workflow.tokens)} tokens, {workflow.finish_reason}\n{text}")
        else:
            tqdm.write(text, end="")
    if args.output:
        print(f"{args.num_samples} workflows in {args.output}")


def read_prompt(name: str) -> str:
    """The text of a prompt; ValueError where no workflow starts so."""
    import tct_github_workflow as tct

    try:
        prompt = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        tct.encode_prefix(prompt)  # before the model is loaded
    except ValueError as error:
        raise ValueError(f"--prompt {name}: {error}") from None
    return prompt


if __name__ == "__main__":
    main()

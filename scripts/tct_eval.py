"""Evaluate a checkpoint: held-out loss, and how valid and how varied the workflows are that it writes.

    python -m scripts.tct_eval --checkpoint out/tiny --data_dir prepared/ --num_samples 100
"""

import json
from pathlib import Path

from nanochat.common import ArgumentParser, user_errors, write_atomic


@user_errors
def main(argv=None):
    parser = ArgumentParser(description="Evaluate a checkpoint on held-out workflows and on its own samples.")
    parser.add_argument("--checkpoint", required=True, metavar="PATH",
                        help="a file model_NNNNNN.pt, or a folder: its last checkpoint")
    parser.add_argument("--data_dir", required=True, metavar="DIR", help="prepared folder; its val.pt is scored")
    parser.add_argument("--num_samples", type=int, default=100, help="workflows to generate (default 100)")
    parser.add_argument("--max_tokens", type=int, default=1024, help="most tokens of a sample (default 1024)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the samples (default 1.0)")
    parser.add_argument("--device_batch_size", type=int, default=16, help="windows scored at once (default 16)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same samples (default 0)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps (default: the best there is)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="(default: eval.json beside the checkpoint)")
    args = parser.parse_args(argv)

    from nanochat.checkpoint_manager import load_model
    from nanochat.common import choose_device, choose_dtype, tune_process
    from nanochat.inference import prepare_for_inference
    from tct_dataloader import check_metadata, read_metadata
    from workflow_generator import WorkflowGenerator, check_tokenizer

    tune_process()
    checkpoint = Path(args.checkpoint).expanduser()
    model, meta = load_model(checkpoint, choose_device(args.device))
    check_tokenizer(meta["data"]["tokenizer"], f"the checkpoint {checkpoint}")
    config = model.config
    metadata = read_metadata(args.data_dir)
    check_metadata(metadata, args.data_dir, config.sequence_len, config.vocab_size, meta["data"]["tokenizer"])

    results = {"checkpoint": str(checkpoint), "step": meta["step"], "data_dir": args.data_dir,
               "temperature": args.temperature, "seed": args.seed}
    results |= score_split(model, metadata, args.data_dir, args.device_batch_size)
    ready = prepare_for_inference(model, choose_dtype("auto", model.get_device()))  # good for nothing else from here on
    generator = WorkflowGenerator(ready, meta["data"]["stride"])
    results |= judge_samples(generator, args.num_samples, max_tokens=args.max_tokens,
                             temperature=args.temperature, seed=args.seed)

    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    output = args.output or folder / "eval.json"
    write_atomic(output, json.dumps(results, indent=2).encode() + b"\n")
    print_table(results)
    print(f"written to {output}")


def score_split(model, metadata: dict, data_dir, batch_size: int) -> dict:
    """Loss over the whole validation split, each token counted once: nats per token, perplexity, bits per byte."""
    from nanochat.loss_eval import bits_per_byte, evaluate_loss, perplexity
    from tct_packing import packed_data_loader
    from tqdm import tqdm

    batches = packed_data_loader(
        batch_size, model.config.sequence_len, "val", data_dir, model.get_device())
    nats, tokens = evaluate_loss(model, tqdm(batches, desc="scoring", unit="batch", disable=None))
    return {
        "val_loss": nats / tokens,
        "val_perplexity": perplexity(nats, tokens),
        "val_bits_per_byte": bits_per_byte(nats, tokens, metadata["splits"]["val"]),
        "val_tokens": tokens,
    }


def judge_samples(generator, num_samples: int, **options) -> dict:
    """Generates workflows from scratch and counts what holds for them; the schema is checked by jsonschema-rs."""
    import jsonschema_rs
    from tct_github_workflow import workflow_schema
    from tqdm import tqdm

    stream = generator.stream(num_samples, **options)
    samples = list(tqdm(stream, desc="sampling", total=num_samples, unit="workflow", disable=None))
    schema = jsonschema_rs.validator_for(workflow_schema())
    parsed = [value for sample in samples if (value := parse(sample.json)) is not None]
    return {
        "num_samples": num_samples,
        "json_valid": len(parsed) / num_samples,
        "schema_valid": sum(map(schema.is_valid, parsed)) / num_samples,
        "ended_by_model": sum(sample.finish_reason == "complete" for sample in samples) / num_samples,
        "distinct": len({sample.json for sample in samples}),
        "mean_tokens": sum(len(sample.tokens) for sample in samples) / num_samples,
        "mean_characters": sum(len(sample.json) for sample in samples) / num_samples,
    }


def parse(text: str):
    """The value of a JSON text, None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def print_table(results: dict):
    for name, value in results.items():
        print(f"{name:<20} {f'{value:.4f}' if isinstance(value, float) else value}")


if __name__ == "__main__":
    main()

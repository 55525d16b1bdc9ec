"""Prove that generated workflows are valid: from scratch, with random weights, hot, long, and from cut workflows.

    python -m scripts.stress.generation --checkpoint out/tiny --workflows workflows/

jsonschema-rs, which shares no code with the matcher, checks every sample. Workflows are cut at random places, as YAML
and as compact JSON, and the completion must keep what was given.
"""

import json
import random
import re
from collections import Counter
from itertools import islice

import jsonschema_rs
from tqdm import tqdm

from nanochat.process import tune_process
from script_tools.cli import ArgumentParser, cli_errors
from tct_github_workflow import workflow_schema
from tct_github_workflow.workflow_yaml import dump_workflow, load_workflow
from workflow_data.cleaning import Workflow, clean
from workflow_data.sources import Selection, open_source

LONG = 2500  # tokens of a sample that outgrows the model's window again and again


@cli_errors
def main(argv=None):
    args = parse_arguments(argv)
    tune_process()
    # torch is slow to import, and tune_process must come first
    from scripts.bench.generation_variants import untrained_generator
    from workflow_generator import WorkflowGenerator

    trained = WorkflowGenerator.load(args.checkpoint)
    engine = trained.engine
    untrained = untrained_generator(engine.model.config, "bfloat16", std=0.05, stride=engine.stride)
    for name, generator in ("checkpoint", trained), ("untrained model", untrained):
        for temperature in args.temperatures:
            options = dict(max_tokens=args.max_tokens, temperature=temperature, seed=args.seed, batch_size=64)
            check_samples(f"{name}, temperature {temperature}", generator, args.num_samples, **options)
    check_samples("untrained model, long", untrained, args.long, max_tokens=LONG, seed=args.seed)
    if args.workflows:
        check_prompts(trained, args.workflows, args.prompts, args.seed)


def parse_arguments(argv):
    parser = ArgumentParser(prog="python -m scripts.stress.generation", description=__doc__.split("\n")[0])
    add = parser.add
    add("--checkpoint", "a file model_NNNNNN.pt, or a folder: its last checkpoint", required=True, metavar="PATH")
    add("--workflows", "workflows to cut, as for prepare_training_data.py", metavar="PATH")
    add("--num_samples", "samples from scratch for each model and temperature", 1000)
    add("--temperatures", "(default: 1.0 2.0)", [1.0, 2.0], type=float, nargs="+")
    add("--max_tokens", "tokens of a sample", 512)
    add("--prompts", "workflows to cut", 500)
    add("--long", f"samples of {LONG:,} tokens", 4)
    add("--seed", "of samples and cuts", 0)
    return parser.parse_args(argv)


def check_samples(name: str, generator, count: int, *, max_tokens: int, **options):
    """Generate from scratch. ValueError unless all samples are complete and valid."""
    valid, texts, reasons, longest = validator(), set(), Counter(), 0
    stream = generator.stream(count, max_tokens=max_tokens, **options)
    for workflow in tqdm(stream, name, total=count, unit="workflow", leave=False, disable=None):
        if not valid(workflow.value) or len(workflow.tokens) > max_tokens:
            raise ValueError(f"{name}: not valid: {workflow.json}")
        texts.add(workflow.json)
        reasons[workflow.finish_reason] += 1
        longest = max(longest, len(workflow.tokens))
    ends = ", ".join(f"{reason} {number}" for reason, number in sorted(reasons.items()))
    sizes = f"{len(texts)} distinct, longest {longest:,} tokens"
    print(f"{name}: {count} of {count} schema-valid, {sizes}; {ends}", flush=True)


def check_prompts(generator, location: str, count: int, seed: int):
    """Cut workflows and complete them. ValueError unless all completions are valid and keep what was given."""
    chance, valid, cut = random.Random(seed), validator(), Counter()
    records = list(open_source(location, Selection()))
    chance.shuffle(records)
    workflows = (result for result in map(clean, records) if isinstance(result, Workflow))
    for workflow in tqdm(islice(workflows, count), "prompts", count, unit="prompt", leave=False, disable=None):
        form = chance.choice(("YAML", "JSON"))
        text = dump_workflow(workflow.value) if form == "YAML" else workflow.text
        prompt = text[: chance.randrange(1, len(text))]
        [completion] = generator.generate(1, prompt, max_tokens=512, temperature=1.0, seed=seed)
        if not valid(completion.value):
            raise ValueError(f"not valid: {completion.json}")
        if not (keeps_yaml(completion.value, prompt) if form == "YAML" else keeps_json(completion.json, prompt)):
            raise ValueError(f"does not keep {prompt!r}: {completion.json}")
        cut[form] += 1
        cut["new"] += completion.json != workflow.text
    print(
        f"{cut['YAML']} workflows cut as YAML and {cut['JSON']} cut as JSON: all completions schema-valid, all keep "
        f"what was given; {cut['new']} differ from the original"
    )


def validator():
    return jsonschema_rs.validator_for(workflow_schema()).is_valid


def keeps_json(text: str, prompt: str) -> bool:
    """Return whether a JSON text begins with a cut one. A character may replace its escape if that is cut."""
    start = re.sub(r"\\(u.{0,3})?\Z", "", prompt)
    return text.startswith(prompt) or start != prompt and text.startswith(start) and text[len(start)] != '"'


def keeps_yaml(value, prompt: str) -> bool:
    """Return whether a value begins with the scalars in the whole lines of a cut YAML text, except the last scalar,
    which may continue."""
    try:
        given = load_workflow(prompt[: prompt.rfind("\n") + 1])
    except ValueError:  # no line is whole, or one opens a bracket or quote that a later one closes
        return True
    *sure, _ = scalars(given)
    return scalars(value)[: len(sure)] == sure


def scalars(value, path=()) -> list[tuple[tuple, str]]:
    """Return the paths and JSON texts of all leaves, in their order."""
    if not value or not isinstance(value, (dict, list)):
        return [(path, json.dumps(value))]
    children = value.items() if isinstance(value, dict) else enumerate(value)
    return [scalar for key, child in children for scalar in scalars(child, (*path, key))]


if __name__ == "__main__":
    main()

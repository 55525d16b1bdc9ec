"""Write the embedded sample: realistic GitHub Actions workflows, composed from templates.

    python -m scripts.make_synthetic_workflows --output sample --count 400

Equal seeds write equal files. A smaller count writes the beginning of a larger one.
"""

from pathlib import Path

from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_new_files
from tct_github_workflow.workflow_yaml import dump_workflow
from workflow_synth.compose import compose_workflows


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description="Write the embedded sample of workflows as .yml files.")
    parser.add("--output", "folder for this sample alone", type=Path, required=True, metavar="DIR")
    parser.add("--count", "number of workflows", 400)
    parser.add("--seed", "random seed", 0)
    args = parser.parse_args(argv)
    files = {name: dump_workflow(workflow).encode() for name, workflow in compose_workflows(args.count, args.seed)}
    args.output.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in args.output.iterdir() if not path.name.startswith(".")}
    if foreign := names - files.keys():
        fault = f"{args.output} holds {len(foreign)} files that do not belong to this sample, such as {min(foreign)}"
        raise ValueError(f"{fault}: choose an empty folder, or one with the same sample")
    write_new_files(args.output, files)
    print(f"{len(files)} workflows in {args.output}")


if __name__ == "__main__":
    main()

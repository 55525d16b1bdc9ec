"""The embedded sample: realistic GitHub Actions workflows, composed from templates, the same for one seed.

    python -m scripts.make_synthetic_workflows --output sample --count 400

A card is a template: a recipe applied to a toolchain or a site, or a chore. The composer shuffles all cards
and writes them out, again and again, until it has as many distinct workflows as were asked for.
"""

from pathlib import Path

from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_new_files
from workflow_synth.compose import compose_workflows


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description="Write the embedded sample of workflows as .yml files.")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for it alone")
    parser.add_argument("--count", type=int, default=400, help="number of workflows (default 400)")
    parser.add_argument("--seed", type=int, default=0, help="which sample (default 0)")
    args = parser.parse_args(argv)

    from tct_github_workflow.workflow_yaml import dump_workflow

    files = {name: dump_workflow(workflow).encode() for name, workflow in compose_workflows(args.count, args.seed)}
    args.output.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in args.output.iterdir() if not path.name.startswith(".")}
    if others := names - files.keys():
        raise ValueError(
            f"{args.output} holds {len(others)} files that are not of this sample, "
            f"such as {min(others)}: choose an empty folder, or one with the same sample"
        )
    write_new_files(args.output, files)
    print(f"{len(files)} workflows in {args.output}")


if __name__ == "__main__":
    main()

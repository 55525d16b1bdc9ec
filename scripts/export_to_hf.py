"""Export a model to Hugging Face transformers, or import one that was exported.

    python -m scripts.export_to_hf --checkpoint out/plain --output hf/plain
    python -m scripts.export_to_hf --from_hf hf/plain --output out/imported

Both keep every weight to the bit. Neither replaces a file that is there with other content.
"""

from pathlib import Path

import workflow_model
from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_new_files


@cli_errors
def main(argv=None):
    args = parse_arguments(argv)
    from hf_export import hf_files, import_hf  # imports torch, which is slow

    if args.from_hf:
        print(f"written: {import_hf(args.from_hf, args.output)}")
        return
    files = hf_files(args.checkpoint or workflow_model.PATH)
    write_new_files(args.output, files)
    print(f"written to {args.output}: {', '.join(files)}")
    if args.push_to_hub:
        print(f"pushed to {push(args.output, list(files), args.push_to_hub)}")


def parse_arguments(argv):
    parser = ArgumentParser(prog="python -m scripts.export_to_hf", description=__doc__.split("\n")[0])
    add = parser.add
    model = "export this file model_NNNNNN.pt, or this folder's last checkpoint (default: the model that ships)"
    add("--checkpoint", model, type=Path)
    add("--from_hf", "import the model in this folder of transformers as a checkpoint", type=Path, metavar="DIR")
    add("--output", "folder for the files", required=True, type=Path, metavar="DIR")
    add("--push_to_hub", "also upload the files to this repository on the hub", metavar="OWNER/NAME")
    args = parser.parse_args(argv)
    if args.from_hf and args.checkpoint:
        raise ValueError("--checkpoint names a model to export, and --from_hf one to import: give one of them")
    if args.from_hf and args.push_to_hub:
        raise ValueError("--push_to_hub uploads an exported --checkpoint, but --from_hf imports")
    return args


def push(folder: Path, files: list[str], repository: str) -> str:
    """Upload files of a folder to a repository on the hub, and return its address. OSError if that fails."""
    try:
        from huggingface_hub import HfApi  # an optional dependency, and only needed here
    except ImportError:
        raise ValueError("--push_to_hub needs huggingface_hub: pip install 'nanochat-tct[hf]'") from None
    try:
        address = HfApi().create_repo(repository, exist_ok=True)
        HfApi().upload_folder(repo_id=repository, folder_path=folder, allow_patterns=files)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise OSError(f"{folder} is complete, but was not pushed to {repository}: {reason}") from None
    return str(address)


if __name__ == "__main__":
    main()

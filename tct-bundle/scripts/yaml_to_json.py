"""A tree of YAML workflows to the same tree of compact JSON, read as GitHub reads YAML.

python yaml_to_json.py --input workflows/ --output json/
"""

import json
import sys
from pathlib import Path

from tct_github_workflow.command_line import ArgumentParser, exit_code
from tct_github_workflow.workflow_files import YAML_SUFFIXES, find_files, load_file, publish_folder
from tqdm import tqdm


@exit_code
def main(argv=None):
    parser = ArgumentParser(description="Convert a folder of YAML workflows to compact JSON files.")
    parser.add_argument("--input", required=True, type=Path, help="folder of .yml and .yaml files")
    parser.add_argument("--output", required=True, type=Path, help="new folder for the .json files")
    args = parser.parse_args(argv)
    convert(args.input.expanduser(), args.output.expanduser().resolve())


def convert(source: Path, output: Path):
    """Writes a .json file for each good YAML file and names the others on stdout with the reason."""
    files = find_files(source, YAML_SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{source} has no .yml or .yaml file")
    skipped = []
    with publish_folder(output) as folder:
        for file in tqdm(files, "convert", unit="file", disable=None):
            target = (folder / file).with_suffix(".json")
            try:
                if target.exists():
                    raise ValueError(f"its name without the ending is taken: {target.name} is there already")
                text = json.dumps(load_file(source / file), ensure_ascii=False, separators=(",", ":"))
            except RecursionError:
                skipped.append((file, "nested too deeply"))
                continue
            except (ValueError, OSError) as error:
                skipped.append((file, getattr(error, "strerror", None) or str(error)))
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
        if len(skipped) == len(files):
            raise ValueError(f"no valid YAML in {source}; for example {files[0]!r}: {skipped[0][1]}")
    for file, detail in skipped:
        print(f"skipped {file!r}: {detail}")
    print(f"{len(files) - len(skipped):,} of {len(files):,} files converted, written to {output}")


if __name__ == "__main__":
    sys.exit(main())

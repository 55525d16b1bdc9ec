"""Verify a prepared folder before training: check every window, and show what is in the folder.

    python verify_prepared_data.py --data_dir prepared/

Every workflow is joined from its windows, decoded, and compared with the hash that the preparation stored. After the
checks, prepared.png shows lengths and windows, and five windows are printed token by token.
"""

import os
from pathlib import Path

from script_tools.cli import ArgumentParser, cli_errors


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description="Check every window of a prepared folder, and show what is in the folder.")
    parser.add("--data-dir", "prepared folder", type=Path, required=True)
    parser.add("--num-workers", "processes (default: cores)", os.cpu_count())
    parser.add("--show", "windows to print", 5)
    flags = parser.parse_args(argv)

    from workflow_data import verification, views  # they import torch and matplotlib, which --help does not need

    folder = flags.data_dir.expanduser()
    metadata, entries = verification.verify(folder, flags.num_workers)
    views.plot(folder / "prepared.png", entries, metadata)
    print(f"\n{folder / 'prepared.png'} shows lengths and windows")
    views.print_windows(folder, metadata, entries, flags.show)


if __name__ == "__main__":
    main()

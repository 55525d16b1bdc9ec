"""Help editors to write workflows: a language server that speaks over the standard input and output.

    python -m scripts.workflow_lsp
    python -m scripts.workflow_lsp --checkpoint out/small

It completes keys, values and whole steps with a model and what the schema and the rules allow, shows the findings of
lint_workflow, and describes what is under the cursor. tct-bundle/docs/EDITORS.md shows how to set up editors.
"""

import os
import sys
from functools import partial
from pathlib import Path

from nanochat.process import tune_process
from script_tools.cli import ArgumentParser, cli_errors
from scripts.generate_workflow import add_checkpoint_flag


@cli_errors
def main(argv=None):
    parser = ArgumentParser(prog="python -m scripts.workflow_lsp", description=__doc__.split("\n")[0])
    add_checkpoint_flag(parser.add_argument)
    args = parser.parse_args(argv)
    if not Path(args.checkpoint).expanduser().exists():
        raise FileNotFoundError(f"the checkpoint {args.checkpoint} does not exist")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the other cores are for the editor, and more are hardly faster
    tune_process()
    try:
        # an optional dependency, which is slow to import
        from workflow_servers.language_server import WorkflowServer
    except ModuleNotFoundError as error:
        if error.name not in ("pygls", "lsprotocol"):
            raise
        raise ValueError("the language server needs pygls: pip install 'nanochat-tct[lsp]'") from None
    code = WorkflowServer(partial(load, args.checkpoint)).serve(sys.stdin.buffer, sys.stdout.buffer)
    os._exit(code)  # at once: nothing else ends a thread that loads the model or generates


def load(checkpoint: str):
    from workflow_servers.proposals import load_proposer  # with torch, which is slow to import: the editor would wait

    return load_proposer(checkpoint)


if __name__ == "__main__":
    main()

"""Serve a page on which you write workflows and a model continues them.

    python -m scripts.workflow_web
    python -m scripts.workflow_web --checkpoint out/small --port 8080

The page is for this machine only, unless --host names another interface.
"""

from pathlib import Path

import workflow_model
from nanochat.process import tune_process
from script_tools.cli import ArgumentParser, cli_errors
from scripts.generate_workflow import add_checkpoint_flag


@cli_errors
def main(argv=None):
    args = parse_arguments(argv)
    tune_process()
    # torch is slow to import, and tune_process must come first; FastAPI is an optional dependency
    from nanochat.device import choose_device
    from workflow_servers.completion import Completer

    try:
        from workflow_servers.web import create_app, listen, serve, url  # needs the extra
    except ImportError as error:
        raise ValueError(f"the page needs FastAPI and uvicorn: pip install 'nanochat-tct[web]' ({error})") from None

    with listen(args.host, args.port) as listening:
        completer = Completer.load(args.checkpoint, choose_device(args.device))
        if not completer.documents.is_workflow:
            raise ValueError(f"the page is for workflows, but {args.checkpoint} writes other documents")
        app = create_app(completer, name_of(args.checkpoint), args.host)
        print(f"open {url(listening)} (Ctrl-C ends)", flush=True)
        serve(app, listening)


def parse_arguments(argv):
    parser = ArgumentParser(prog="python -m scripts.workflow_web", description=__doc__.split("\n")[0])
    add_checkpoint_flag(parser.add_argument)
    parser.add("--host", "address of the interface that it listens on", "127.0.0.1")
    parser.add("--port", "port that it listens on; 0 takes a free one", 8000)
    parser.add("--device", "cpu, cuda or mps (default: the best available)", "auto")
    return parser.parse_args(argv)


def name_of(checkpoint: str) -> str:
    """Return what the page calls a model, without the folders of this machine."""
    return "the model that ships" if Path(checkpoint) == workflow_model.PATH else Path(checkpoint).name


if __name__ == "__main__":
    main()

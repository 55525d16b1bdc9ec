"""Train a GPT on prepared windows.

python -m scripts.tct_train --model_size small --data_dir prepared/ --checkpoint_dir out/small
python -m scripts.tct_train --checkpoint_dir out/small --resume_from_iteration latest
torchrun --standalone --nproc_per_node=8 -m scripts.tct_train --model_size small --data_dir prepared/
"""

import shlex
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from model_config import PRESETS
from nanochat.process import tune_process
from nanochat.settings import parse_flags
from script_tools.cli import cli_errors


@cli_errors
def main(argv=None):
    given = parse_flags(argv, PRESETS)
    command = shlex.join(["python", "-m", "scripts.tct_train", *(sys.argv[1:] if argv is None else argv)])
    tune_process()
    # torch is slow to import, and tune_process must come first
    from nanochat.run_start import find_start, training_process
    from nanochat.training_run import TrainingRun
    from tct_packing import open_training_data

    with training_process(given.get("device") or "auto") as process:
        start = find_start(given, PRESETS, process)
        config, data = open_training_data(start, process)
        samples = partial(write_samples, start.checkpoint_dir)
        TrainingRun(start, config, data, process, command, samples).run()
    if process.stop.signal:
        sys.exit(128 + process.stop.signal)


def write_samples(checkpoint_dir: Path, model, metadata: dict, count: int, folder: Path):
    """Write documents from scratch to folder/sample_N.yml; none if the tokenizer is a baseline, or is missing."""
    from workflow_generator import TctLanguage, WorkflowGenerator, find_language  # only experiments write samples

    language = None
    with suppress(ValueError):
        language = find_language(metadata["tokenizer"], checkpoint_dir)
    if not count or not isinstance(language, TctLanguage):
        return
    folder.mkdir(parents=True, exist_ok=True)
    model.eval()
    generator = WorkflowGenerator(model, metadata["stride"], language)
    for i, workflow in enumerate(generator.generate(count, max_tokens=512), 1):
        (folder / f"sample_{i}.yml").write_text(workflow.yaml, "utf-8")
    model.train()


if __name__ == "__main__":
    main()

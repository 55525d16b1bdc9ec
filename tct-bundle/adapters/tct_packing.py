"""Packed batches of a prepared folder: the bridge from workflow_data to nanochat.packing."""

from model_config import gpt_fields
from nanochat.gpt import GPTConfig
from nanochat.packing import PackedEvalLoader, PackedTrainLoader
from nanochat.run_start import Process, Start
from nanochat.training_run import Data
from workflow_data.loaders import open_split, visited_rows
from workflow_data.reader import check_metadata, load_schema_positions, read_metadata
from workflow_data.tokenizers import ArtifactTokenizer


def packed_data_loader(
    device_batch_size,
    context_size,
    split,
    data_dir,
    device="cpu",
    *,
    vocab_size=None,
    seed=0,
    max_files=None,
    max_windows=None,
    with_states=False,
    random_cuts=False,
    rank=None,
    world_size=None,
):
    """Return a loader of packed batches of device_batch_size * context_size targets.

    Arguments and errors are those of tct_dataloader.tokenizing_distributed_data_loader, whose padded rows hold the same
    windows. With states the documents of a batch carry the schema position after each token. random_cuts is for the
    training split: each epoch has every token once, in other windows (see nanochat.packing.cut_at_random).
    """
    rows, metadata, share = open_split(context_size, split, data_dir, device, vocab_size, max_files, rank, world_size)
    if with_states:
        share["states"] = load_schema_positions(data_dir, split, metadata)
    targets = device_batch_size * context_size
    if split == "train":
        return PackedTrainLoader(rows, targets, metadata, random_cuts=random_cuts, seed=seed, **share)
    return PackedEvalLoader(rows, targets, *visited_rows(rows, metadata, max_windows), metadata, **share)


def open_training_data(start: Start, process: Process) -> tuple[GPTConfig, Data]:
    """Return the shape of a run's model, and the data to train it on. ValueError if they do not fit together."""
    settings = start.settings
    metadata = read_metadata(settings.data_dir)
    n_states = metadata.get("n_states", 0)
    if settings.state_embedding and not n_states:
        raise ValueError(f"--state_embedding: {settings.data_dir} has no states: prepare it again with --states")
    fields = gpt_fields(start.preset) | settings.model_fields(n_states)
    if metadata["tokenizer"]["name"] == ArtifactTokenizer.name:  # the preset has the vocabulary of workflows
        fields["vocab_size"] = metadata["vocab_size"]
    config = start.model_config(fields)
    if start.meta:
        tokenizer = start.meta["data"]["tokenizer"]
        check_metadata(metadata, settings.data_dir, tokenizer=tokenizer, n_states=config.n_states)
    limits = {"vocab_size": config.vocab_size, "max_files": settings.max_files, "max_windows": settings.eval_windows}
    windows = {"with_states": settings.state_embedding, "random_cuts": settings.random_cuts}
    options = {"seed": settings.seed, **windows, **limits, **vars(process.ranks)}
    size = settings.device_batch_size, config.sequence_len
    place = settings.data_dir, process.device
    train, val = (packed_data_loader(*size, split, *place, **options) for split in ("train", "val"))
    return config, Data(metadata, train, val)

"""Packed batches of a prepared folder: the bridge from workflow_data to nanochat.packing."""

from nanochat.packing import PackedEvalLoader, PackedTrainLoader
from workflow_data.loaders import open_split, visited_rows
from workflow_data.reader import load_states


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
    rank=None,
    world_size=None,
):
    """Return a loader of packed batches of device_batch_size * context_size targets.

    Arguments and errors are those of tct_dataloader.tokenizing_distributed_data_loader, whose padded rows hold the same
    windows. With states the documents of a batch carry the schema position after each token.
    """
    rows, metadata, share = open_split(context_size, split, data_dir, device, vocab_size, max_files, rank, world_size)
    if with_states:
        share["states"] = load_states(data_dir, split, metadata)
    targets = device_batch_size * context_size
    if split == "train":
        return PackedTrainLoader(rows, targets, metadata, seed=seed, **share)
    return PackedEvalLoader(rows, targets, *visited_rows(rows, metadata, max_windows), metadata, **share)


def training_loaders(settings, config, process) -> list:
    """Return the training and the validation loader of a run: TrainSettings, GPTConfig and Process."""
    return [
        packed_data_loader(
            settings.device_batch_size,
            config.sequence_len,
            split,
            settings.data_dir,
            process.device,
            vocab_size=config.vocab_size,
            seed=settings.seed,
            max_files=settings.max_files,
            max_windows=settings.eval_windows,
            with_states=settings.state_embedding,
            rank=process.ranks.rank,
            world_size=process.ranks.world_size,
        )
        for split in ("train", "val")
    ]

""""""

from nanochat.packing import PackedEvalLoader, PackedTrainLoader
from workflow_data.loaders import open_split, visited_rows
from workflow_data.reader import load_schema_positions


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
    """Packed batches of device_batch_size * context_size targets; arguments and errors are those of
    tct_dataloader.tokenizing_distributed_data_loader, whose padded rows hold the same windows. With states the
    documents of a batch say which state each token leads to."""
    rows, metadata, share = open_split(context_size, split, data_dir, device, vocab_size, max_files, rank, world_size)
    if with_states:
        share["states"] = load_schema_positions(data_dir, split, metadata)
    targets = device_batch_size * context_size
    if split == "train":
        return PackedTrainLoader(rows, targets, metadata, seed=seed, **share)
    return PackedEvalLoader(rows, targets, *visited_rows(rows, metadata, max_windows), metadata, **share)

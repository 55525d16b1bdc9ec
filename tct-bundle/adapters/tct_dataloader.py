"""Load training windows: the documented imports, from workflow_data."""

from workflow_data.loaders import EvalLoader, TrainLoader, create_dataloader, tokenizing_distributed_data_loader
from workflow_data.reader import check_metadata, read_metadata

__all__ = [
    "EvalLoader",
    "TrainLoader",
    "check_metadata",
    "create_dataloader",
    "read_metadata",
    "tokenizing_distributed_data_loader",
]

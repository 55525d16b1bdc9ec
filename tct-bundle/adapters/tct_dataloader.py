"""Windows of tokens for training: the documented imports, from workflow_data."""

from workflow_data.loaders import (  # noqa: F401
    EvalLoader,
    TrainLoader,
    create_dataloader,
    tokenizing_distributed_data_loader,
)
from workflow_data.reader import check_metadata, read_metadata  # noqa: F401

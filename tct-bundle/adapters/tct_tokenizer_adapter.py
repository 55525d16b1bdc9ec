"""Use the workflow tokenizer with the interface of nanochat's: the documented import, from workflow_data."""

from workflow_data.tokenizers import TCTTokenizer

__all__ = ["TCTTokenizer"]

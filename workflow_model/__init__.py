"""The trained model that ships with nanochat-tct. README.md in this folder is its model card."""

from pathlib import Path

PATH = Path(__file__).with_name("model.safetensors")

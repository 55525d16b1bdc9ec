#!/usr/bin/env bash
# Download the wheels that the campaign needs besides torch, numpy, tokenizers, matplotlib and tqdm, for Linux on x86_64.
#     bash experiments/gpu/wheels.sh FOLDER [PYTHON_VERSION]
set -euo pipefail
folder=${1:?"usage: wheels.sh FOLDER [PYTHON_VERSION]"}
python -m pip download --quiet --disable-pip-version-check --dest "$folder" --only-binary=:all: \
    --python-version "${2:-3.12}" --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
    check-jsonschema==0.39.0 orjson PyYAML jsonschema-rs markdown-it-py
du -sh "$folder"

#!/usr/bin/env bash
# Create or reuse .venv and install the project. Then run the quick tests, or with --all every test.
# Other arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
install test

if [ "${1:-}" = --all ]; then
    shift
    selection=()
else
    selection=(-m "not slow")
fi
python -m pytest --numprocesses 2 --dist loadfile "${selection[@]}" "$@"

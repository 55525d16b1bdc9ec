#!/usr/bin/env bash
# Makes or reuses .venv, installs the project into it, runs the tests in two processes. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
install test
python -m pytest --numprocesses 2 --dist loadfile "$@"

#!/usr/bin/env bash
# Measure one GPU in a limited time: is every path correct, how fast is it, how good a model can it train?
# No network is needed. campaign.py has the steps and the flags (--help).
#
#     bash experiments/gpu/wheels.sh out/gpu/wheels                        # on a machine with a network
#     bash experiments/gpu/campaign.sh --wheels out/gpu/wheels --data prepared/ --output results/
#     python experiments/gpu/report.py results/                            # the returned files -> README.md
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
if [ -z "${PYTHON:-}" ] && [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
exec "$python" experiments/gpu/campaign.py "$@"

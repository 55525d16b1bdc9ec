#!/usr/bin/env bash
# Check that all parts fit together: a tiny model memorizes 100 workflows. Its training loss must fall below 0.1 nats.
#
#   bash experiments/exp000-poc/run.sh WORKFLOWS     # ten minutes on two cores
set -euo pipefail
cd "$(dirname "$0")/../.."
workflows=$1
out=out/exp000-poc

python tct-bundle/scripts/prepare_training_data.py --input "$workflows" --output "$out-data" --max-files 130
python -m scripts.tct_train --experiment exp000-poc --checkpoint_dir "$out" --data_dir "$out-data" --model_size tiny \
    --max_files 100 --num_iterations 800 --eval_every 200 --save_every 400 --weight_decay 0 --device cpu

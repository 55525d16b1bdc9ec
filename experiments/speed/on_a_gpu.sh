#!/usr/bin/env bash
# On a machine with a GPU, measure the MFU of the presets in bfloat16, then the wall-clock time of the reference run.
#   bash experiments/speed/on_a_gpu.sh PREPARED
set -euo pipefail
data=$(realpath "${1:?usage: on_a_gpu.sh PREPARED}")
cd "$(dirname "$0")/../.."
python -m scripts.bench.train --model_size small medium large --dtype bfloat16 --device cuda --compile on \
    --device_batch_size 32 --steps 50 --data_dir "$data" --output experiments/speed/gpu.json
time python -m scripts.tct_train --experiment exp001-small-ctx512-s32 --model_size small --data_dir "$data" \
    --num_iterations 50000 --device_batch_size 32 --eval_every 500 --warmup_iters 2000 --keep_last 3 --log_every 50

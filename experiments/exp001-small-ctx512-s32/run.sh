#!/usr/bin/env bash
# The baseline: small, context 512, stride 32, the default recipe, all workflows, with samples at each checkpoint and an
# evaluation.
#
#   bash experiments/exp001-small-ctx512-s32/run.sh WORKFLOWS                           # 50,000 iterations: for a GPU
#   bash experiments/exp001-small-ctx512-s32/run.sh WORKFLOWS --model_size tiny ...     # makes exp001-tiny-ctx512-s32
#
# WORKFLOWS holds folders OWNER__REPOSITORY. Further flags are those of scripts.tct_train.
set -euo pipefail
cd "$(dirname "$0")/../.."
workflows=$1
shift
size=small
[ "${1:-}" = --model_size ] && size=$2 && shift 2
name=exp001-$size-ctx512-s32
out=out/$name
data=out/exp001-data

if ! [ -e "$data/metadata.json" ]; then
    python tct-bundle/scripts/prepare_training_data.py --input "$workflows" --output "$data" --context-size 512 \
        --stride 32 --train-split 0.8 --split-by owner --states
fi
if ! ls "$out"/meta_*.json >/dev/null 2>&1; then
    python -m scripts.tct_train --experiment "$name" --checkpoint_dir "$out" --data_dir "$data" --model_size "$size" "$@"
fi
for temperature in 1.0 0.5; do
    python -m scripts.tct_eval --checkpoint "$out" --data_dir "$data" --num_samples 100 --temperature "$temperature" \
        --output "experiments/$name/eval-$temperature"
done

#!/usr/bin/env bash
# The baseline: context 512, the default recipe, all workflows, owners held out; with samples at each checkpoint and an
# evaluation. Makes experiments/exp001-SIZE-ctx512-sSTEP.
#
#   bash experiments/exp001.sh WORKFLOWS small 32      # 50,000 iterations: for a GPU
#   bash experiments/exp001.sh WORKFLOWS small 512 --num_iterations 2200 --device_batch_size 8      # an hour of a CPU
#
# WORKFLOWS holds folders OWNER__REPOSITORY, STEP is how far apart windows begin. Further flags are those of
# scripts.tct_train. A run that was stopped goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
workflows=$1 size=$2 step=$3
shift 3
name=exp001-$size-ctx512-s$step
out=out/$name

# prepared STEP: the folder of windows so far apart
prepared() {
    local data=out/exp001-data-s$1
    [ -e "$data/metadata.json" ] || python tct-bundle/scripts/prepare_training_data.py --input "$workflows" \
        --output "$data" --context-size 512 --stride 32 --window-step "$1" --train-split 0.8 --split-by owner --states >&2
    echo "$data"
}

resume=()
ls "$out"/meta_*.json >/dev/null 2>&1 && resume=(--resume_from_iteration latest)
python -m scripts.tct_train --experiment "$name" --checkpoint_dir "$out" --data_dir "$(prepared "$step")" \
    --model_size "$size" "$@" "${resume[@]}"
# Held-out tokens are judged with half a context before them, whatever the step of training.
for temperature in 1.0 0.5; do
    python -m scripts.tct_eval --checkpoint "$out" --data_dir "$(prepared 256)" --num_samples 100 \
        --temperature "$temperature" --output "experiments/$name/eval-$temperature"
done

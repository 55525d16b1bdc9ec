#!/usr/bin/env bash
# Train and evaluate the baseline: context 512, the default recipe, all workflows, owners held out, samples at each
# checkpoint. Write experiments/exp001-SIZE-ctx512-sSTEP.
#
#   bash experiments/exp001.sh WORKFLOWS small 32      # 50,000 iterations: for a GPU
#   bash experiments/exp001.sh WORKFLOWS small 512 --num_iterations 2200 --device_batch_size 8      # an hour on a CPU
#
# WORKFLOWS has folders OWNER__REPOSITORY. STEP is the distance between the starts of windows, in tokens. Further flags
# are those of scripts.tct_train. The same command continues a stopped run.
set -euo pipefail
cd "$(dirname "$0")/.."
workflows=$1 size=$2 step=$3
shift 3
name=exp001-$size-ctx512-s$step
out=out/$name

# Prepare the windows of a step unless they exist, and print their folder.
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
# Held-out tokens are scored with half a context before them, whatever the step of training.
for temperature in 1.0 0.5; do
    python -m scripts.tct_eval --checkpoint "$out" --data_dir "$(prepared 256)" --num_samples 100 \
        --temperature "$temperature" --output "experiments/$name/eval-$temperature"
done

#!/usr/bin/env bash
# Train the model that ships, and replace it.
#
#   bash experiments/model/train.sh WORKFLOWS ITERATIONS [FLAGS OF tct_train]
#
# WORKFLOWS has folders OWNER__REPOSITORY. The same command continues a stopped run; a larger number of iterations
# continues a finished one. Writes out/model, workflow_model and experiments/model.
set -euo pipefail
cd "$(dirname "$0")/../.."
workflows=$1 iterations=$2
shift 2
data=out/model/data run=out/model/run

[ -e "$data/metadata.json" ] || python tct-bundle/scripts/prepare_training_data.py --input "$workflows" \
    --output "$data" --context-size 512 --stride 32 --window-step 256 --train-split 0.8 --split-by owner --states --clean
resume=()
ls "$run"/meta_*.json >/dev/null 2>&1 && resume=(--resume_from_iteration latest)
python -m scripts.tct_train --model_size mini --data_dir "$data" --checkpoint_dir "$run" \
    --previous_token --state_embedding --state_attention --value_embedding --random_cuts --dropout 0.1 \
    --num_iterations "$iterations" --warmdown_ratio 0.6 \
    --save_every_minutes 10 --keep_last 2 --eval_every 250 "$@" "${resume[@]}"
python experiments/model/release.py --checkpoint "$run" --data_dir "$data"

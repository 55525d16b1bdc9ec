#!/usr/bin/env bash
# The baseline: small, context 512, stride 32, the default recipe, all workflows, with samples at each checkpoint and an
# evaluation.
#
#   bash experiments/exp001-small-ctx512-s32/run.sh WORKFLOWS                    # 50,000 iterations: for a GPU
#   bash experiments/exp001-small-ctx512-s32/run.sh WORKFLOWS --num_iterations 900 --device_batch_size 8
#
# Further flags are those of scripts.tct_train. The second is what was run here, on a CPU.
set -euo pipefail
cd "$(dirname "$0")/../.."
workflows=$1
shift
name=exp001-small-ctx512-s32
out=out/$name

if ! [ -e "$out-data/metadata.json" ]; then
    python tct-bundle/scripts/prepare_training_data.py --input "$workflows" --output "$out-data" --context-size 512 \
        --stride 32 --train-split 0.8 --split-by owner
fi
python -m scripts.tct_train --experiment "$name" --checkpoint_dir "$out" --data_dir "$out-data" --model_size small "$@"
python -m scripts.tct_eval --checkpoint "$out" --data_dir "$out-data" --num_samples 100 --output "experiments/$name/eval"

#!/usr/bin/env bash
# Run the whole road on a CPU: install, prepare, train, stop, resume, generate, evaluate.
# All output is in out/quickstart. A second call continues from what is there.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
install test

out=out/quickstart
iterations=120  # about half a minute on two cores
stop_at=30      # iteration at which the first run is stopped

section() { printf '\n== %s\n' "$1"; }
has_step() { [ -e "$(printf "$out/checkpoints/meta_%06d.json" "$1")" ]; }
has_any_step() { ls "$out"/checkpoints/meta_*.json >/dev/null 2>&1; }
train=(python -m scripts.tct_train --model_size tiny --data_dir "$out/prepared" --checkpoint_dir "$out/checkpoints"
    --num_iterations "$iterations" --eval_every 30 --device cpu)

section "1. Compose workflows: the embedded sample"
python -m scripts.make_synthetic_workflows --output "$out/workflows"

section "2. Prepare: turn workflows into windows of tokens"
python tct-bundle/scripts/prepare_training_data.py --input "$out/workflows" --output "$out/prepared" \
    --context-size 512 --stride 32 --train-split 0.9
python tct-bundle/scripts/verify_prepared_data.py --data_dir "$out/prepared" --show 1

if ! has_any_step; then
    section "3. Train a tiny model, and stop it in the middle (SIGTERM after iteration $stop_at)"
    "${train[@]}" &
    training=$!
    trap 'kill $training 2>/dev/null || true' EXIT
    while kill -0 $training 2>/dev/null && ! grep -qs "\"step\": $stop_at," "$out/checkpoints/metrics.jsonl"; do
        sleep 1 # until the iteration is logged, or training ends with an error
    done
    kill -TERM $training 2>/dev/null || true
    status=0
    wait $training || status=$?
    [ $status = 0 ] || [ $status = 143 ] || exit $status # 143: stopped by SIGTERM, checkpoint saved
    trap - EXIT
fi

if ! has_step "$iterations"; then
    section "4. Resume: continue where the run stopped"
    "${train[@]}" --resume_from_iteration latest
fi

section "5. Generate 10 workflows. By construction GitHub finds no fault in them, as the linter confirms"
python -m scripts.generate_workflow --checkpoint "$out/checkpoints" --num_samples 10 --device cpu \
    --output "$out/samples"
python -m scripts.lint_workflow "$out/samples"

section "6. Evaluate"
python -m scripts.tct_eval --checkpoint "$out/checkpoints" --data_dir "$out/prepared" --num_samples 10 --device cpu

section "Done"
cat <<END
training data    $out/prepared  (prepared.png is a plot)
checkpoints      $out/checkpoints  (with report.md and curves.png)
samples          $out/samples
evaluation       $out/checkpoints/eval  (open report.html)
Next: README.md, "Your own workflows".
END

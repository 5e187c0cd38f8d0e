#!/bin/sh
# A GPU: four networks share it, since one small network does not fill it. Where there is none, the CPU is used.
#
#   sh docs/recipes/gpu.sh
set -eu
: "${SPACE:=inverted_residual}" "${DATASET:=cifar10}" "${TRIALS:=200}" "${EPOCHS:=12}" "${OUT:=results/gpu}"

set --
if nvidia-smi --list-gpus >/dev/null 2>&1; then
    set -- --gpus-per-trial 0.25 --cpus-per-trial 2
fi
nas search --space "$SPACE" --dataset "$DATASET" --trials "$TRIALS" --epochs "$EPOCHS" --out "$OUT" "$@"

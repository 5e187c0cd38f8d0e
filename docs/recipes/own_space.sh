#!/bin/sh
# An own space: own_space.yaml beside this file, in objectives that no device has a say in.
#
#   sh docs/recipes/own_space.sh
set -eu
: "${SPACE:=$(dirname "$0")/own_space.yaml}" "${DATASET:=cifar10}" "${TRIALS:=100}" "${EPOCHS:=12}"
: "${OUT:=results/own-space}"

nas search --space "$SPACE" --dataset "$DATASET" --objectives accuracy,size,macs \
    --trials "$TRIALS" --epochs "$EPOCHS" --out "$OUT"

#!/bin/sh
# Comparing with published networks: what they cost, what the papers print of them, and how the search's own networks
# stand beside them under one budget.
#
#   sh docs/recipes/published.sh
set -eu
: "${SPACE:=inverted_residual}" "${DATASET:=cifar10}" "${TRIALS:=100}" "${EPOCHS:=12}" "${OUT:=results/published}"

nas compare han-e mobilenetv2-cifar --dataset "$DATASET"

# --enqueue also takes YAML files: a network of yours is trained first too, and shown apart.
nas search --space "$SPACE" --dataset "$DATASET" --published none --enqueue han-e --enqueue mobilenetv2-cifar \
    --objectives accuracy,size --trials "$TRIALS" --epochs "$EPOCHS" --out "$OUT"

nas report "$OUT" --format md

#!/bin/sh
# How sure is a front? Its networks, and the published ones beside them, are trained again with three other seeds.
#
#   RUN=results/first sh docs/recipes/confirm.sh
#
# Without RUN, or where there is no run yet, it is searched first.
set -eu
: "${RUN:=results/confirmed}" "${SPACE:=inverted_residual}" "${DATASET:=cifar10}" "${TRIALS:=100}" "${EPOCHS:=12}"
: "${SEEDS:=3}" "${FULL_EPOCHS:=60}"

if [ ! -e "$RUN/run.yaml" ]; then
    nas search --space "$SPACE" --dataset "$DATASET" --trials "$TRIALS" --epochs "$EPOCHS" --out "$RUN"
fi
nas search --resume "$RUN" --confirm "$SEEDS" --confirm-epochs "$FULL_EPOCHS"
nas report "$RUN" --format md

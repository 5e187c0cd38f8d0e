#!/bin/sh
# A cluster: the same package on every machine, OUT on storage that all of them reach, and Ray running:
#
#   export RAY_AUTH_MODE=token           on all, and the first one's ~/.ray/auth_token copied to the others
#   ray start --head --port 6379         on the first
#   ray start --address HEAD:6379        on each of the others
#   OUT=/shared/runs/first sh docs/recipes/cluster.sh        on the first one again
#
# Ended by Ctrl-C or by a crash, the same command goes on.
set -eu
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"  # without it Ray obeys whoever reaches its ports
: "${ADDRESS:=auto}" "${SPACE:=inverted_residual}" "${DATASET:=cifar10}" "${TRIALS:=500}" "${EPOCHS:=12}"
: "${OUT:?the run's folder, on storage that all machines reach}"

nas search --address "$ADDRESS" --space "$SPACE" --dataset "$DATASET" --trials "$TRIALS" --epochs "$EPOCHS" --out "$OUT"

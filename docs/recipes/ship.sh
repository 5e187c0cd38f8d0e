#!/bin/sh
# Ship it: the most accurate network of a run, trained in full, as ONNX (in int8 too) and as one Python file.
#
#   RUN=results/first sh docs/recipes/ship.sh photo.jpg
set -eu
: "${RUN:?the folder of a finished search}" "${FULL_EPOCHS:=200}" "${OUT:=$RUN/shipped}"

nas train "$RUN"/front/01-*.yaml --epochs "$FULL_EPOCHS" --out "$OUT"
nas evaluate "$OUT/model.safetensors"

nas export "$OUT/model.safetensors" --format onnx --int8 --out "$OUT/model.onnx"
nas export "$OUT/model.safetensors" --format python --out "$OUT/model.py"

if [ $# -gt 0 ]; then
    nas predict "$OUT/model.onnx" "$@"
fi

#!/bin/sh
# Own images: search on a folder of yours, then train the most accurate network of the front in full.
#
#   IMAGES=/data/flowers sh docs/recipes/own_images.sh
#
# IMAGES has one sub-folder per class, or train/, val/ and test/ with one per class each.
set -eu
: "${IMAGES:?the folder with your images}"
: "${SPACE:=inverted_residual}" "${RESOLUTION:=64}" "${TRIALS:=100}" "${EPOCHS:=12}" "${FULL_EPOCHS:=200}"
: "${OBJECTIVES:=accuracy,size,latency}" "${OUT:=results/own-images}"

nas search --space "$SPACE" --dataset "imagefolder:$IMAGES" --resolution "$RESOLUTION" \
    --objectives "$OBJECTIVES" --trials "$TRIALS" --epochs "$EPOCHS" --out "$OUT/search"

# Data, resolution and all that is not given here are the search's.
nas train "$OUT"/search/front/01-*.yaml --epochs "$FULL_EPOCHS" --out "$OUT/best"

#!/bin/sh
# Latency on a device without nas: its blocks go there as ONNX files, the times come back as a CSV file.
#
#   DEVICE=root@board sh docs/recipes/bare_device.sh
#
# time_blocks.py needs onnxruntime there and nothing else; any program that fills in timings.csv will do. Without
# DEVICE the blocks are timed here.
set -eu
: "${DEVICE:=}" "${SPACE:=inverted_residual}" "${DATASET:=cifar10}" "${TRIALS:=100}" "${EPOCHS:=12}"
: "${OUT:=results/board}"
# What the networks will be searched for: the data set's images and classes.
: "${CHANNELS:=3}" "${RESOLUTION:=32}" "${CLASSES:=10}"
here=$(dirname "$0")

nas latency export-blocks "$OUT/blocks" --space "$SPACE" \
    --channels "$CHANNELS" --resolution "$RESOLUTION" --num-classes "$CLASSES"

if [ -n "$DEVICE" ]; then
    scp -r "$OUT/blocks" "$here/time_blocks.py" "$DEVICE:"
    ssh "$DEVICE" python3 time_blocks.py blocks
    scp "$DEVICE:blocks/timings.csv" "$OUT/blocks/timings.csv"
else
    python3 "$here/time_blocks.py" "$OUT/blocks"
fi

nas latency import-timings "$OUT/blocks/timings.csv" --device-name "${DEVICE:-here}" --out "$OUT/board.json"
nas search --space "$SPACE" --dataset "$DATASET" --trials "$TRIALS" --epochs "$EPOCHS" --out "$OUT/search" \
    --latency-table "$OUT/board.json" --limit 'latency<=5ms'

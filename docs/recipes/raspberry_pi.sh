#!/bin/sh
# Limits: networks of at most 1 MB that take at most 5 ms on a Raspberry Pi.
#
#   PI=pi@raspberrypi sh docs/recipes/raspberry_pi.sh
#
# nas must be installed there too (64-bit system). Without PI the blocks are timed here. NETWORKS says how many networks
# are timed: fewer are quicker, and predict worse. Where SPACE is a file, it has to lie there under the same name.
# TARGET=onnxruntime or litert-int8, and so on, times what ships (the extra must be installed there and here).
set -eu
: "${PI:=}" "${SPACE:=inverted_residual}" "${DATASET:=cifar10}" "${TRIALS:=100}" "${EPOCHS:=12}" "${OUT:=results/pi}"
# What the networks will be searched for: the data set's images and classes.
: "${CHANNELS:=3}" "${RESOLUTION:=32}" "${CLASSES:=10}" "${NETWORKS:=64}" "${TARGET:=torch}"
mkdir -p "$OUT"

calibrate="nas latency calibrate --space $SPACE --channels $CHANNELS --resolution $RESOLUTION --num-classes $CLASSES \
    --networks $NETWORKS --target $TARGET"
if [ -n "$PI" ]; then
    ssh "$PI" "$calibrate --out pi.json"
    scp "$PI:pi.json" "$OUT/pi.json"
else
    $calibrate --out "$OUT/pi.json"
fi

nas search --space "$SPACE" --dataset "$DATASET" --trials "$TRIALS" --epochs "$EPOCHS" --out "$OUT/search" \
    --target "$TARGET" --latency-table "$OUT/pi.json" --limit 'size<=1MB' --limit 'latency<=5ms'

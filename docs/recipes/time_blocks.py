"""Times the ONNX files of `nas latency export-blocks` on the device that this runs on, and fills in timings.csv.

    python3 time_blocks.py blocks

Needs onnxruntime (which brings numpy) and nothing of nas. One thread, median of the runs in ms.
"""

import csv
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

WARM_UP = 3
SECONDS = 0.2
"""Of runs per file; at least five are made."""


def median_ms(path: Path, shape: list[int]) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: np.random.default_rng(0).random(shape, dtype=np.float32)}
    for _ in range(WARM_UP):
        session.run(None, feed)
    times: list[float] = []
    while len(times) < 5 or sum(times) < SECONDS:
        begun = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times)


def main(folder: Path) -> None:
    entries = json.loads((folder / "manifest.json").read_text())["entries"]
    with (folder / "timings.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "ms"])
        for entry in entries:
            rows.writerow([entry["file"], f"{median_ms(folder / entry['file'], entry['input']):.6f}"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Test accuracy by how images become squares: crop, pad, stretch (`--fit`).

Two made data sets of images that are not square, 32x32 pixels for the network:

- `marks`: 320x64 noise whose class is a bar in its first 60 columns, in its last 60, or in neither;
- `photographs`: pieces of 180x120 pixels of scikit-learn's two photographs, at any scale from 0.7 to 1.4, upright or on
  their side; the class is which of six regions a piece is from.

Each fit trains E of width 0.25 with the recipe `search` and several seeds.

    python benchmarks/image_fit.py --seeds 3
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

import nas
from nas.preprocessing import FITS

IMAGES = 240


def marks(folder: Path, images: int) -> None:
    rng = np.random.default_rng(0)
    for label in ("left", "right", "none"):
        (folder / label).mkdir(parents=True)
        for index in range(images // 3):
            pixels = rng.integers(0, 120, (64, 320, 3), dtype=np.uint8)
            start = int(rng.integers(0, 40)) + (260 if label == "right" else 0)
            if label != "none":
                pixels[:, start : start + 20] = 230
            Image.fromarray(pixels).save(folder / label / f"{index}.png")


def photographs(folder: Path, images: int) -> None:
    rng = np.random.default_rng(0)
    for number, whole in enumerate(load_sample_images().images):  # 427x640
        for region in range(3):
            (folder / f"{number}-{region}").mkdir(parents=True)
            for index in range(images // 6):
                width, height = (round(side * rng.uniform(0.7, 1.4)) for side in (180, 120))
                left = int(rng.integers(region * 213, max(region * 213 + 1, min(640, region * 213 + 213) - 120)))
                left, top = min(left, 640 - width), int(rng.integers(0, 427 - height))
                piece = Image.fromarray(whole[top : top + height, left : left + width])
                if rng.random() < 0.3:
                    piece = piece.rotate(90, expand=True)
                piece.save(folder / f"{number}-{region}" / f"{index}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", choices=("marks", "photographs"), help="only this one")
    given = parser.parse_args()
    network = nas.load("han-e").to_dict() | {"width": 0.25, "input": {"channels": 3, "resolution": 32}}
    print("| data | fit | test accuracy, mean | lowest | highest | n |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for make in (marks, photographs):
            if given.data not in (None, make.__name__):
                continue
            folder = Path(name, make.__name__)
            make(folder, IMAGES)
            for fit in FITS:
                found = [
                    100
                    * nas.train(
                        nas.Architecture.from_dict(network),
                        dataset=f"imagefolder:{folder}",
                        fit=fit,
                        flip="none",
                        recipe="search",
                        resolution=32,
                        seed=seed,
                        device="cpu",
                        threads=1,
                        out=Path(name, f"{make.__name__}-{fit}-{seed}"),
                    ).test_accuracy
                    for seed in range(given.seeds)
                ]
                figures = " | ".join(f"{value:.1f}%" for value in (statistics.mean(found), min(found), max(found)))
                print(f"| {make.__name__} | {fit} | {figures} | {len(found)} |", flush=True)


if __name__ == "__main__":
    main()

"""A search of half an hour on 640 photographs of mixed sizes, beside the default search of an earlier checkout.

The photographs: 64 images of each of eight classes of CIFAR-10, enlarged to sides of 120 to 400 pixels, and as many
crops of each of scikit-learn's two sample photographs. `nas search --hours H --limit 'size<=1MB'` runs as a user types
it, with caches of its own. `--earlier CHECKOUT`: then the same by that code, whole and without `--hours`.

Printed are the seconds, the networks trained to the end, and the most accurate network of the front by the validation
images, with its accuracy on the test images.

    python benchmarks/photos.py FOLDER --data-dir DIR --hours 0.5 --earlier CHECKOUT
"""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import machine
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from nas.training.data import load_dataset

PHOTOS = 64
"""Of each class."""
LIMIT = "size<=1MB"


def sides(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(120, 401)), int(rng.integers(120, 401))


def photographs(folder: Path, data_dir: str | None) -> None:
    """Write one folder per class."""
    rng = np.random.default_rng(0)
    data = load_dataset("cifar10", data_dir=data_dir)
    for index, label in enumerate(data.classes[:8]):
        (folder / label).mkdir(parents=True)
        of_class = data.train.images[data.train.labels == index][:PHOTOS].permute(0, 2, 3, 1).numpy()
        for number, pixels in enumerate(of_class):
            Image.fromarray(pixels).resize(sides(rng), Image.Resampling.BICUBIC).save(folder / label / f"{number}.jpg")
    for label, whole in zip(("china", "flower"), load_sample_images().images, strict=True):
        (folder / label).mkdir()
        for number in range(PHOTOS):
            width, height = sides(rng)
            left, top = int(rng.integers(640 - width)), int(rng.integers(427 - height))
            piece = whole[top : top + height, left : left + width]
            Image.fromarray(piece).save(folder / label / f"{number}.{'png' if number % 8 == 0 else 'jpg'}")


def search(run: Path, photos: Path, checkout: Path, *more: str) -> str:
    """Run a search by the code of a checkout; what came of it, in one line."""
    run.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(checkout), "HOME": str(run.parent)}
    command = [sys.executable, "-m", "nas", "search", "--dataset", f"imagefolder:{photos}", "--limit", LIMIT]
    started = time.monotonic()
    subprocess.run([*command, *more, "--out", str(run)], env=environment, cwd=run.parent, check=True)
    seconds = time.monotonic() - started
    with (run / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    done = sum(row["state"] == "complete" for row in rows)
    best = max((row for row in rows if row["on_front"] == "True"), key=lambda row: float(row["accuracy"]))
    size, test = float(best["size_bytes"]) / 1_000, 100 * float(best["test_accuracy"])
    return f"{seconds:6.0f} s  {done:3} networks trained to the end  {size:5.0f} kB  {test:4.1f} % of the test images"


def main() -> None:
    parser = machine.parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--hours", type=float, default=0.5)
    parser.add_argument("--earlier", type=Path, help="a checkout of earlier code")
    options = parser.parse_args()
    folder = options.folder.resolve()
    say = machine.Output(options.out)
    photos = folder / "photos"
    if not photos.exists():
        photographs(photos, options.data_dir)
    here = Path(__file__).resolve().parent.parent
    say(f"now      {search(folder / 'now' / 'run', photos, here, '--hours', str(options.hours))}")
    if options.earlier:
        say(f"earlier  {search(folder / 'earlier' / 'run', photos, options.earlier.resolve())}")


if __name__ == "__main__":
    main()

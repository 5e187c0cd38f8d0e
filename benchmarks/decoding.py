"""Decoding photographs: Pillow with and without its draft mode against torchvision.io; and what a cache of many costs.

JPEG files of two sizes are made from scikit-learn's two photographs and brought to 224 pixels by each way, one thread,
in seconds of the CPU. Then a folder of many is loaded twice, mapped from the cache: the time of both, and this
process's own memory (not the pages of the file, which all processes share and the system takes back).

    python benchmarks/decoding.py --many 4000
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms.v2 import functional

from nas.preprocessing import decode_file
from nas.training.data import load_dataset

SIDE = 224


def by_torchvision(file: Path) -> torch.Tensor:
    image = decode_image(read_file(str(file)), mode=ImageReadMode.RGB, apply_exif_orientation=True)
    short = min(image.shape[1:])
    return functional.resize(functional.center_crop(image, [short, short]), [SIDE, SIDE], antialias=True)


def by_pillow_in_full(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (SIDE, SIDE), Image.Resampling.BILINEAR)


WAYS: dict[str, Callable[[Path], object]] = {
    "Pillow, draft mode (nas)": lambda file: decode_file(file, SIDE),
    "Pillow, in full": by_pillow_in_full,
    "torchvision.io": by_torchvision,
}


def own_memory() -> float:
    """MB of this process that no file stands behind."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=40, help="of each size, decoded in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--many", type=int, default=4000, help="images of the folder")
    given = parser.parse_args()
    torch.set_num_threads(1)
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    with tempfile.TemporaryDirectory() as name:
        os.environ["NAS_CACHE_DIR"] = str(Path(name, "cache"))
        print("| files | way | images/s, median | lowest | highest | n |\n|---|---|---|---|---|---|")
        for width, height in ((640, 427), (3000, 2000)):
            files = [Path(name, f"{width}-{index}.jpg") for index in range(2)]
            for file, photograph in zip(files, photographs, strict=True):
                photograph.resize((width, height)).save(file, quality=90)
            speeds: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(given.rounds):
                for way, decode in WAYS.items():
                    began = time.process_time()  # others may use the machine too
                    for index in range(given.files):
                        decode(files[index % 2])
                    speeds[way].append(given.files / (time.process_time() - began))
            for way, found in speeds.items():
                figures = " | ".join(f"{value:.0f}" for value in (statistics.median(found), min(found), max(found)))
                print(f"| {width}x{height} | {way} | {figures} | {len(found)} |", flush=True)
        for index in range(given.many):
            folder = Path(name, "many", str(index % 2))
            folder.mkdir(parents=True, exist_ok=True)
            # Another corner for each, so that no two are copies.
            corner = (index // 2 % 320, index // 640 % 187)
            photographs[index % 2].crop((*corner, corner[0] + 320, corner[1] + 240)).save(folder / f"{index}.jpg")
        print(
            f"\n{given.many} images, {given.many * 3 * SIDE**2 / 1e9:.1f} GB; own memory {own_memory():.0f} MB before"
        )
        for what in ("first", "second"):
            began = time.perf_counter()
            data = load_dataset(f"imagefolder:{Path(name, 'many')}", resolution=SIDE, in_memory=0)
            print(f"{what} load: {time.perf_counter() - began:.1f} s, own memory {own_memory():.0f} MB", flush=True)
        order = torch.randperm(len(data.train))
        began = time.perf_counter()
        for part in order.split(64):
            data.train.images[part]
        seconds = time.perf_counter() - began
        print(f"batches of an epoch: {len(order) / seconds:.0f} images/s, own memory {own_memory():.0f} MB")


if __name__ == "__main__":
    main()

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from nas.training.data import load_dataset
from nas.training.likeness import gray_thumbnails, mirrored_classes, near_copies


def scene(seed: int, side: int = 64) -> Image.Image:
    """Smooth blobs, as of a photograph out of focus."""
    levels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((side, side), Image.Resampling.BICUBIC)


def tensors(pictures: list[Image.Image]) -> Tensor:
    return torch.stack([torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) for picture in pictures])


def thumbnails(*parts: Tensor) -> list[np.ndarray]:
    return [gray_thumbnails(part).numpy() for part in parts]


@pytest.mark.parametrize("side", [18, 72, 504])  # of the last, more than one chunk
def test_thumbnails_are_means_of_cells(side: int) -> None:
    images = torch.randint(0, 256, (5, 3, side, side), dtype=torch.uint8)
    cells = images.double().reshape(5, 3, 9, side // 9, 9, side // 9).mean((1, 3, 5))
    torch.testing.assert_close(gray_thumbnails(images, (9, 9)), cells.float(), rtol=1e-5, atol=1e-3)
    assert gray_thumbnails(images[:0]).shape == (0, 8, 9)


def test_almost_copies_are_found_and_others_are_not() -> None:
    train = [scene(seed) for seed in range(200)]
    smaller = [train[7].resize((40, 40)).resize((64, 64)), train[9].crop((1, 0, 64, 64)).resize((64, 64))]
    others = [scene(seed) for seed in range(1000, 1200)]
    found = near_copies(thumbnails(tensors(train), tensors(others[:5]), tensors([*smaller, *others[5:]])))
    assert found == [(205, 7), (206, 9)]


def test_plain_surfaces_are_no_copies_of_each_other() -> None:
    plain = torch.full((20, 3, 16, 16), 200, dtype=torch.uint8)
    assert near_copies(thumbnails(plain, plain + 1)) == []


def test_digits_of_different_writers_are_not_taken_for_copies() -> None:
    digits = load_dataset("digits").for_network(1, 32)
    assert len(near_copies(thumbnails(digits.train.images, digits.test.images))) < 0.05 * len(digits.test)


@pytest.mark.slow
def test_fifty_thousand_images_take_seconds() -> None:
    images = torch.randint(0, 256, (50_000, 3, 32, 32), dtype=torch.uint8)
    start = time.process_time()
    assert near_copies(thumbnails(images[:40_000], images[40_000:])) == []
    assert time.process_time() - start < 30


def arrow(seed: int, left: bool) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (32, 32), tuple(rng.integers(0, 60, 3).tolist()))
    x, y, size = *rng.integers(12, 20, 2).tolist(), int(rng.integers(6, 10))
    tip = -size if left else size
    draw = ImageDraw.Draw(image)
    draw.line([(x - size, y), (x + size, y)], (255, 255, 255), 2)
    draw.polygon([(x + tip, y), (x, y - size), (x, y + size)], (255, 255, 255))
    return image


def test_left_and_right_arrows_are_mirrored_classes() -> None:
    images = tensors([arrow(seed, left=seed % 2 == 0) for seed in range(300)])
    labels = torch.arange(300) % 2
    assert mirrored_classes(images, labels) in ((0, 1), (1, 0))


def test_ordinary_classes_are_not_mirrored_ones() -> None:
    """Scenes of three kinds, each seen from both sides."""
    kinds = [scene(kind) for kind in range(3)]
    rng = np.random.default_rng(0)
    pictures, labels = [], []
    for index in range(300):
        picture = kinds[index % 3].rotate(float(rng.uniform(-8, 8)))
        pictures.append(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if index % 2 else picture)
        labels.append(index % 3)
    assert mirrored_classes(tensors(pictures), torch.tensor(labels)) is None
    noise = torch.randint(0, 256, (200, 3, 16, 16), dtype=torch.uint8)
    assert mirrored_classes(noise, torch.arange(200) % 4) is None

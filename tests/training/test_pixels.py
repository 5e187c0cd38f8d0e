"""What becomes of pixels: deep images, and images that are not square."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import nas
from nas.errors import UserError
from nas.export.predict import load_model
from nas.training.data import PARTS, Dataset, load_dataset

TINY = {
    "name": "tiny",
    "input": {"channels": 3, "resolution": 16},
    "stem": {"channels": 8, "stride": 2},
    "stages": [{"block": "conv", "channels": 8}],
}


def fill(folder: Path, make: Callable[[NDArray[np.float64]], NDArray[np.generic]], ending: str = "tif") -> Dataset:
    """Ramps of gray with a corner of their own, times what `make` does to values in [0, 1]."""
    ramp = np.tile(np.linspace(0, 1, 16), (16, 1))
    for label, rng in (("a", 0), ("b", 1)):
        (folder / label).mkdir(parents=True)
        for index in range(12):
            values = ramp if label == "a" else ramp[:, ::-1]
            values = np.vstack([values[:15], np.random.default_rng([rng, index]).random((1, 16))])
            Image.fromarray(make(values)).save(folder / label / f"{index}.{ending}")
    return load_dataset(f"imagefolder:{folder}", resolution=16)


KINDS: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.generic]], float | None]] = {
    "fractions": (lambda values: values.astype(np.float32), 1.0),
    "float to 255": (lambda values: (values * 255).astype(np.float32), 255.0),
    "float to 65535": (lambda values: (values * 65535).astype(np.float32), 65535.0),
    "8 bit in 16": (lambda values: (values * 255).round().astype(np.uint16), 255.0),
    "12 bit in 16": (lambda values: (values * 4095).round().astype(np.uint16), 4095.0),
    "16 bit": (lambda values: (values * 65535).round().astype(np.uint16), None),
    "32 bit": (lambda values: (values * 1000).round().astype(np.int32), 1023.0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_deep_images_keep_their_levels(kind: str, tmp_path: Path) -> None:
    make, white = KINDS[kind]
    data = fill(tmp_path, make)
    assert data.facts is not None
    assert data.facts.white == white
    assert any("more than 8 bits" in note for note in data.facts.notes) == (white is not None)
    scale = 1000 / 1023 if kind == "32 bit" else 1
    expected = torch.linspace(0, 255 * scale, 16)
    for part in PARTS:
        for image, label in zip(data.part(part).images, data.part(part).labels.tolist(), strict=True):
            assert (image[0, 3] - (expected if label == 0 else expected.flip(0))).abs().max() <= 1


def test_the_range_ships(tmp_path: Path) -> None:
    fill(tmp_path / "images", KINDS["12 bit in 16"][0])
    out = tmp_path / "out"
    name = f"imagefolder:{tmp_path / 'images'}"
    nas.train(nas.Architecture.from_dict(TINY), dataset=name, recipe="search", epochs=1, device="cpu", out=out)
    _, card = load_model(out / "model.safetensors")
    assert card.preprocessing.white == 4095
    assert "255 min(max(v, 0), 4095) / 4095" in card.preprocessing.text()
    read = card.preprocessing.read(tmp_path / "images" / "a" / "0.tif")
    assert len(read.unique()) >= 16


@pytest.mark.parametrize(
    ("values", "message"),
    [(np.full((9, 9), -1.0), "values from -1 to -1"), (np.full((9, 9), np.nan), "values from nan"),
     (np.full((9, 9), 1e6), "0 to 65535 are read")],
)  # fmt: skip
def test_values_that_no_range_holds_are_refused(values: NDArray[np.float64], message: str, tmp_path: Path) -> None:
    fill(tmp_path, KINDS["fractions"][0])
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "a" / "odd.tif")
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(f"imagefolder:{tmp_path}")
    assert "odd.tif" in str(caught.value)
    Image.fromarray(np.full((9, 9), 700, np.uint16)).save(tmp_path / "a" / "odd.tif")
    with pytest.raises(UserError, match="fractions and whole numbers in one data set"):
        load_dataset(f"imagefolder:{tmp_path}")


def test_every_fit_keeps_what_it_says(tmp_path: Path) -> None:
    """White marks at both ends of a wide black image."""
    for label in "ab":
        (tmp_path / label).mkdir()
        for index in range(9):
            pixels = np.zeros((20, 100 + index, 3), np.uint8)
            pixels[:, :20] = pixels[:, -20:] = 255
            pixels[10, 50] = index * 20 + (label == "b")
            Image.fromarray(pixels).save(tmp_path / label / f"{index}.png")
    lit = {}
    for fit in ("crop", "pad", "stretch"):
        image = load_dataset(f"imagefolder:{tmp_path}", resolution=20, fit=fit).train.images[0].float().mean(0)  # type: ignore[arg-type]
        lit[fit] = (float(image[:, :2].mean()), float(image[10, :2].mean()), float(image[0, :2].mean()))
    assert lit["crop"] == (0, 0, 0)
    assert lit["stretch"] == (255, 255, 255)
    assert lit["pad"][1:] == (255, 128)  # the image lies in the middle, on gray


def test_strict_refuses_what_is_left_out(tmp_path: Path) -> None:
    fill(tmp_path, KINDS["16 bit"][0])
    load_dataset(f"imagefolder:{tmp_path}", strict=True)
    (tmp_path / "a" / "notes.txt").write_text("x")
    with pytest.raises(
        UserError, match=r"1 file skipped: 1 \.txt \(no image that Pillow reads\); --strict allows none"
    ):
        load_dataset(f"imagefolder:{tmp_path}", strict=True)

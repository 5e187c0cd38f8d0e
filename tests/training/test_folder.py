from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from nas.errors import UserError
from nas.preprocessing import decode_file
from nas.training.data import load_dataset

GREY: NDArray[np.uint8] = np.full((9, 9), 128, dtype=np.uint8)


def fill(folder: Path, colour: tuple[int, int, int], count: int = 10) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (40, 30 + index), colour).save(folder / f"{index}.png")


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    for name, colour in {"red": (255, 0, 0), "grün mit Leerzeichen": (0, 255, 0), "青": (0, 0, 255)}.items():
        fill(tmp_path / "images" / name, colour)
    return tmp_path / "images"


def test_one_level_of_classes_is_split(colours: Path) -> None:
    (colours / ".cache").mkdir()
    (colours / "red" / ".DS_Store").write_bytes(b"x")
    (colours / "red" / "notes.txt").write_text("not an image")
    dataset = load_dataset(f"imagefolder:{colours}", resolution=16)
    assert dataset.classes == ("grün mit Leerzeichen", "red", "青")
    assert (dataset.channels, dataset.resolution) == (3, 16)
    assert [len(dataset.part(name)) for name in ("train", "validation", "test")] == [20, 4, 6]
    assert torch.bincount(dataset.test.labels).tolist() == [2, 2, 2]
    colour = ((0, 255, 0), (255, 0, 0), (0, 0, 255))
    for part in (dataset.train, dataset.validation, dataset.test):
        for image, label in zip(part.images, part.labels.tolist(), strict=True):
            assert tuple(image[:, 8, 8].tolist()) == colour[label]


def test_default_resolution_is_64(colours: Path) -> None:
    assert load_dataset(f"imagefolder:{colours}").resolution == 64


def test_given_parts_are_kept(tmp_path: Path) -> None:
    for part, count in {"train": 8, "val": 3, "test": 2}.items():
        fill(tmp_path / part / "a", (255, 0, 0), count)
        fill(tmp_path / part / "b", (0, 0, 255), count)
    dataset = load_dataset(f"imagefolder:{tmp_path}", resolution=8)
    assert [len(dataset.part(name)) for name in ("train", "validation", "test")] == [16, 6, 4]
    assert len(load_dataset(f"imagefolder:{tmp_path}", resolution=8, train_size=6).train) == 6


def kinds_of_image(grey: NDArray[np.uint8]) -> dict[str, Image.Image]:
    invisible = np.dstack([np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), np.uint8)])
    return {
        "grey.png": Image.fromarray(grey),
        "sixteen.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "palette.gif": Image.fromarray(grey).convert("P"),
        "black and white.PNG": Image.fromarray(grey // 255 * 255).convert("1"),
        "transparent.png": Image.fromarray(invisible),
        "grey and alpha.png": Image.fromarray(np.dstack([grey, np.full_like(grey, 255)])),
        "ink.jpg": Image.fromarray(np.dstack([grey] * 3)).convert("CMYK"),
        "wide.bmp": Image.fromarray(np.tile(grey, (1, 3))),
    }


@pytest.mark.parametrize(("name", "level"), [(name, 255 if "trans" in name else 128) for name in kinds_of_image(GREY)])
def test_any_kind_of_image_becomes_8_bit_rgb(name: str, level: int, tmp_path: Path) -> None:
    kinds_of_image(GREY)[name].save(tmp_path / name)
    image = decode_file(tmp_path / name, 8)
    assert image.shape == (8, 8, 3)
    assert image.dtype == np.uint8
    expected = 0 if name.startswith("black") else level
    assert np.abs(image.astype(int) - expected).max() <= 2


def test_a_turned_photograph_is_set_upright(tmp_path: Path) -> None:
    picture = np.zeros((16, 16, 3), dtype=np.uint8)
    picture[:8] = 255  # white on top
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    upright = decode_file(tmp_path / "a.png", 16)
    assert upright[:7].max() == 0
    assert upright[9:].min() == 255


def test_unreadable_images_are_named(colours: Path) -> None:
    bad = colours / "red" / "ünlesbar 1.png"
    for content in (b"", b"\x89PNG\r\n\x1a\nrubbish", (colours / "red" / "0.png").read_bytes()[:60]):
        bad.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read") as caught:
            load_dataset(f"imagefolder:{colours}")
        assert str(bad) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_folder_mistakes_are_named(tmp_path: Path, colours: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_dataset(f"imagefolder:{tmp_path / 'nowhere'}")
    with pytest.raises(UserError, match="found none"):
        load_dataset(f"imagefolder:{colours / 'red'}")
    fill(tmp_path / "single" / "cat", (1, 2, 3))
    with pytest.raises(UserError, match="only 'cat'"):
        load_dataset(f"imagefolder:{tmp_path / 'single'}")
    (colours / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no image"):
        load_dataset(f"imagefolder:{colours}")


def test_a_test_part_with_another_class_is_refused(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/c"):
        fill(tmp_path / name, (9, 9, 9))
    with pytest.raises(UserError, match="class 'c' is not among the training classes a, b"):
        load_dataset(f"imagefolder:{tmp_path}")

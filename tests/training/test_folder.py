from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from nas.errors import UserError
from nas.preprocessing import decode_file
from nas.training.data import load_dataset, resplit

GREY: NDArray[np.uint8] = np.full((9, 9), 128, dtype=np.uint8)


def seed_of(file: Path) -> int:
    """Number of a name's last parts: the same pictures wherever pytest puts its folder."""
    return zlib.crc32(os.fsencode(Path(*file.parts[-3:])))


def fill(folder: Path, colour: tuple[int, int, int], count: int = 10) -> None:
    """Different pictures: noise around a colour."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed_of(folder / "x"))
    for index in range(count):
        noise = rng.integers(0, 40, (30 + index, 40, 3)) + np.array(colour) * 215 // 255
        Image.fromarray(noise.astype(np.uint8)).save(folder / f"{index}.png")


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
    assert dataset.facts.account() == "30 images read (30 .png); 1 file skipped: 1 .txt (no image that Pillow reads)"
    assert dataset.classes == ("grün mit Leerzeichen", "red", "青")
    assert (dataset.channels, dataset.resolution) == (3, 16)
    for part in (dataset.train, dataset.validation, dataset.test):
        assert sorted(set(part.labels.tolist())) == [0, 1, 2]
        brightest = part.images.float().mean((2, 3)).argmax(1)
        assert torch.equal(brightest, torch.tensor([1, 0, 2])[part.labels])
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 30


def test_default_resolution_is_64(colours: Path) -> None:
    assert load_dataset(f"imagefolder:{colours}").resolution == 64


def test_given_parts_are_kept(tmp_path: Path) -> None:
    for part, count in {"train": 8, "val": 3, "test": 2}.items():
        fill(tmp_path / part / "a", (255, 0, 0), count)
        fill(tmp_path / part / "b", (0, 0, 255), count)
    dataset = load_dataset(f"imagefolder:{tmp_path}", resolution=8)
    assert [len(dataset.part(name)) for name in ("train", "validation", "test")] == [16, 6, 4]
    assert len(load_dataset(f"imagefolder:{tmp_path}", resolution=8, train_size=6).train) == 6
    with pytest.raises(UserError, match="validation part of its own"):
        resplit(dataset, 1)


def test_a_folder_that_is_split_again_is_the_one_loaded_with_that_seed(colours: Path) -> None:
    name = f"imagefolder:{colours}"
    loaded, again = load_dataset(name, resolution=8, seed=5), resplit(load_dataset(name, resolution=8), 5)
    for part in ("train", "validation", "test"):
        assert again.part(part).files["name"].tolist() == loaded.part(part).files["name"].tolist()
        assert torch.equal(again.part(part).images, loaded.part(part).images)
    assert again.fingerprint.to_dict() == loaded.fingerprint.to_dict()


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


def save_as(file: Path, level: int, **options: object) -> None:
    """A picture of its own, gray but for its first row."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((20, 20, 3), level, np.uint8)
    pixels[0] = np.random.default_rng(seed_of(file)).integers(0, 256, (20, 3))
    Image.fromarray(pixels).save(file, **options)


def test_whatever_pillow_reads_is_read_at_any_depth_and_the_rest_is_counted(tmp_path: Path) -> None:
    endings = ["png", "jpg", "jfif", "avif", "tga", "jp2", "jpe", "dib", "apng", "ico", "TIFF"]
    formats = {"jfif": "JPEG", "jpe": "JPEG", "apng": "PNG"}
    for label, level in (("a", 40), ("b", 200)):
        for index, ending in enumerate(endings):
            save_as(tmp_path / label / "2023" / str(index) / f"x.{ending}", level, format=formats.get(ending))
        save_as(tmp_path / label / "without", level, format="PNG")
        save_as(tmp_path / label / "upload.tmp", level, format="JPEG")
    (tmp_path / "a" / "list.txt").write_text("no image")
    (tmp_path / "a" / "notes.TXT").write_text("no image")
    (tmp_path / "a" / "photo.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "b" / "again").symlink_to(tmp_path / "b")  # a circle
    (tmp_path / "b" / ".hidden.png").write_bytes(b"x")
    (tmp_path / "b" / ".cache").mkdir()
    save_as(tmp_path / "loose.jpg", 0)
    dataset = load_dataset(f"imagefolder:{tmp_path}", resolution=8)
    images = [len(part) for part in (dataset.train, dataset.validation, dataset.test)]
    assert sum(images) == 2 * (len(endings) + 2)
    for part in (dataset.train, dataset.validation, dataset.test):  # decoded right, whatever the format
        levels = part.images[:, 0, 4, 4].int() - torch.tensor([40, 200])[part.labels].int()
        assert levels.abs().max() <= 20  # lossy formats spread the first row; their encoders differ by version
    read, skipped = dataset.facts.account().split("; ")
    assert read.startswith("26 images read (2 .")
    assert all(f"2 {kind}" in read for kind in (".jfif", ".avif", ".ico", ".tiff", "without ending", ".tmp"))
    assert skipped.startswith("5 files skipped: 2 .txt (no image that Pillow reads)")
    assert "1 .heic (pip install pillow-heif to read them)" in skipped
    assert "1 .png (dangling link)" in skipped
    assert "1 .jpg (outside the class folders)" in skipped


@pytest.mark.parametrize("name", ["val", "Val", "valid", "validation", "DEV"])
@pytest.mark.parametrize("test_name", ["test", "Test", "testing"])
def test_parts_go_by_their_usual_names(name: str, test_name: str, tmp_path: Path) -> None:
    for part, count in {"Train": 8, name: 3, test_name: 2, "extra": 1}.items():
        fill(tmp_path / part / "a", (255, 0, 0), count)
        fill(tmp_path / part / "b", (0, 0, 255), count)
    dataset = load_dataset(f"imagefolder:{tmp_path}", resolution=8)
    assert [len(dataset.part(part)) for part in ("train", "validation", "test")] == [16, 6, 4]
    assert dataset.own_validation
    assert dataset.facts.account().startswith("26 images read (26 .png); extra/ is not read")


def test_two_folders_of_one_part_are_refused(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "val/a", "valid/a"):
        fill(tmp_path / name, (9, 9, 9))
    with pytest.raises(UserError, match="val/ and valid/ are both its validation part"):
        load_dataset(f"imagefolder:{tmp_path}")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus", "car", "train"):
        fill(tmp_path / name, (9, 9, 9))
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    assert load_dataset(f"imagefolder:{tmp_path}").classes == ("bus", "car", "train")


def test_test_images_without_labels_are_told_and_not_used(tmp_path: Path) -> None:
    for name in ("train/a", "train/b"):
        fill(tmp_path / name, (9, 9, 9))
    fill(tmp_path / "test", (9, 9, 9), 7)
    dataset = load_dataset(f"imagefolder:{tmp_path}")
    assert dataset.facts.account().endswith("test/ is not used: it holds 7 files without class folders")
    assert 2 <= len(dataset.test) < 10  # out of train/


def test_names_that_are_no_text_are_refused_at_the_start(tmp_path: Path) -> None:
    fill(tmp_path / "a", (9, 9, 9))
    fill(tmp_path / os.fsdecode(b"caf\xe9"), (9, 9, 9))
    with pytest.raises(UserError, match=r"caf\\udce9: the name of this class is not UTF-8") as caught:
        load_dataset(f"imagefolder:{tmp_path}")
    str(caught.value).encode()
    with pytest.raises(UserError, match="not UTF-8"):
        load_dataset(f"imagefolder:{tmp_path / os.fsdecode(bytes([0xE9]))}")
    for index in range(10):  # a file's own name goes nowhere
        (tmp_path / "a" / f"{index}.png").rename(tmp_path / "a" / os.fsdecode(b"caf\xe9%d.png" % index))
    (tmp_path / os.fsdecode(b"caf\xe9")).rename(tmp_path / "b")
    assert load_dataset(f"imagefolder:{tmp_path}").classes == ("a", "b")


def test_all_broken_images_are_named_at_once(colours: Path) -> None:
    for index in range(8):
        (colours / "red" / f"broken {index}.jpg").write_bytes(b"x")
    with pytest.raises(
        UserError, match=r"broken 0\.jpg: cannot be read .* so it is with 7 more: .*broken 5\.jpg \.\.\.$"
    ):
        load_dataset(f"imagefolder:{colours}")


@pytest.mark.parametrize(("sizes", "side"), [([(20, 30)], 20), ([(20, 30), (28, 25)], 25), ([(20, 30), (90, 70)], 48)])
def test_small_images_are_not_enlarged(sizes: list[tuple[int, int]], side: int, tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for index in range(8):
            width, height = sizes[index % len(sizes)]
            pixels = np.random.default_rng([ord(label), index]).integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{index}.png")
    assert load_dataset(f"imagefolder:{tmp_path}", at_most=48).resolution == side
    assert load_dataset(f"imagefolder:{tmp_path}", at_most=48, resolution=40).resolution == 40


def test_a_test_part_with_another_class_is_refused(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/c"):
        fill(tmp_path / name, (9, 9, 9))
    with pytest.raises(UserError, match="class 'c' is not among the training classes a, b"):
        load_dataset(f"imagefolder:{tmp_path}")

"""Many images: decoded once into a file that is mapped, and what becomes of that file."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nas
from nas.errors import UserError
from nas.training import folder as reading_folders
from nas.training.data import PARTS, Dataset, load_dataset, resplit
from nas.training.mapped import MappedPixels
from nas.training.recipe import Recipe
from nas.training.session import train

NETWORK = nas.Architecture.from_dict(
    {
        "name": "tiny",
        "input": {"channels": 3, "resolution": 16},
        "stem": {"channels": 8},
        "stages": [{"block": "inverted_residual", "channels": 16, "stride": 2, "expansion": 2}],
    }
)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 60 small pictures of three classes, and a cache of its own."""
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for label, name in enumerate(("a", "b", "c")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(20):
            pixels = rng.integers(0, 60, (24, 30, 3), dtype=np.uint8)
            pixels[:, :, label] += 120
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.png")
    return tmp_path / "photos"


def load(photos: Path, in_memory: int = 1000, **how: object) -> Dataset:
    return load_dataset(f"imagefolder:{photos}", resolution=16, in_memory=in_memory, **how)  # type: ignore[arg-type]


def assert_equal(one: Dataset, other: Dataset) -> None:
    assert (one.mean, one.std) == (other.mean, other.std)
    for part in PARTS:
        assert torch.equal(one.part(part).images[:], other.part(part).images[:])
        assert torch.equal(one.part(part).labels, other.part(part).labels)
        ours, theirs = one.part(part).files, other.part(part).files
        assert ours is not None and theirs is not None and (ours == theirs).all()


def test_many_images_are_mapped_and_decoded_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load(photos, in_memory=10**9)
    assert isinstance(plain.train.images, torch.Tensor)
    many = load(photos)
    assert isinstance(many.train.images, MappedPixels) and isinstance(many.train.images.array, np.memmap)
    assert_equal(many, plain)
    assert_equal(resplit(many, 7), resplit(plain, 7))
    assert isinstance(resplit(many, 7).train.images, MappedPixels)

    def read_again(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(reading_folders, "decode_file", read_again)
    monkeypatch.setattr(reading_folders, "gray_thumbnails", read_again)  # a minute of 50,000 photographs
    again = load(photos)
    assert_equal(again, plain)
    sent = pickle.dumps(again.train.images)
    assert len(sent) < 2000  # not the pixels: 36 images of 768 bytes
    assert torch.equal(pickle.loads(sent)[:], plain.train.images[:])


def test_a_training_on_mapped_images_is_the_same(photos: Path, tmp_path: Path) -> None:
    recipe = Recipe(epochs=2, batch_size=8, lr=0.05)
    found = [
        train(NETWORK, load(photos, in_memory), recipe, out=tmp_path / str(in_memory)).model.read_bytes()
        for in_memory in (1000, 10**9)
    ]
    assert found[0] == found[1]


def test_mapped_images_in_another_format_are_converted_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.training.mapped.MOST_CONVERTED", 1000)
    converted, expected = load(photos).for_network(1, 12), load(photos, in_memory=10**9).for_network(1, 12)
    assert isinstance(converted.test.images, MappedPixels)
    assert_equal(converted, expected)


@pytest.mark.parametrize("damage", ["cut", "changed", "half", "empty"])
def test_a_damaged_cache_is_written_again(photos: Path, damage: str) -> None:
    images = load(photos).train.images
    assert isinstance(images, MappedPixels)
    file, whole = images.file, images.file.read_bytes()
    if damage == "cut":
        file.write_bytes(whole[:-100])
    elif damage == "changed":
        file.write_bytes(whole[:-100] + bytes(100))
    elif damage == "half":
        file.with_suffix(".npz").unlink()
    else:
        file.with_suffix(".npz").write_bytes(b"")
    load(photos)
    assert file.read_bytes() == whole
    assert sorted(item.suffix for item in file.parent.iterdir()) == [".lock", ".npy", ".npz"]


def test_changed_images_are_decoded_again(photos: Path) -> None:
    before = load(photos)
    file = photos / "a" / "0.png"
    old = file.stat()
    Image.fromarray(np.full((24, 30, 3), 200, dtype=np.uint8)).save(file)
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns + 1_000_000))
    assert_equal(load(photos), load(photos, in_memory=10**9))
    with pytest.raises(AssertionError):
        assert_equal(load(photos), before)


def _load_counting(photos: Path, decoded: multiprocessing.Queue[int]) -> None:
    torch.set_num_threads(1)  # threads do not survive a fork
    count = 0
    plain = reading_folders.decode_file

    def decode(*arguments: object) -> object:
        nonlocal count
        count += 1
        time.sleep(0.002)
        return plain(*arguments)  # type: ignore[arg-type]

    reading_folders.decode_file = decode  # type: ignore[assignment]
    images = load(photos).train.images
    decoded.put(count * isinstance(images, MappedPixels))


def test_of_two_processes_one_decodes(photos: Path) -> None:
    context = multiprocessing.get_context("fork")
    decoded: multiprocessing.Queue[int] = context.Queue()
    processes = [context.Process(target=_load_counting, args=(photos, decoded), daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    assert sorted(decoded.get(timeout=60) for _ in processes) == [0, 60]
    for process in processes:
        process.join()


def test_a_broken_image_leaves_no_cache(photos: Path, tmp_path: Path) -> None:
    (photos / "a" / "0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"0\.png: cannot be read"):
        load(photos)
    assert [item.suffix for item in (tmp_path / "cache" / "images").iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written_costs_memory_alone(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "file"))
    assert isinstance(load(photos).train.images, torch.Tensor)


def test_a_cache_that_another_machine_lacks_is_one_line(photos: Path) -> None:
    images = load(photos).train.images
    assert isinstance(images, MappedPixels)
    images.file.unlink()
    with pytest.raises(UserError, match="set NAS_CACHE_DIR to storage that all machines reach"):
        pickle.loads(pickle.dumps(images))

"""A folder that changes: the split stays, what changed is said, another data set is refused."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import runs
import torch
from PIL import Image

import nas
from nas import api
from nas.driver.run_file import describe_data, write_run_file
from nas.driver.settings import Settings
from nas.errors import UserError
from nas.preprocessing import Preprocessing
from nas.training.checkpoint import load_checkpoint
from nas.training.data import PARTS, Dataset, load_again, load_dataset
from nas.training.recipe import load_recipe
from nas.training.session import train

TINY = {
    "name": "tiny",
    "input": {"channels": 3, "resolution": 8},
    "stem": {"channels": 8, "stride": 2},
    "stages": [{"block": "conv", "channels": 8}],
}


def picture(seed: list[int], width: int = 12, height: int = 12) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def fill(folder: Path, classes: str = "abc", count: int = 40, first: int = 0) -> Path:
    for label in classes:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for index in range(first, first + count):
            picture([ord(label), index]).save(folder / label / f"{index}.png")
    return folder


def load(folder: Path, **options: object) -> Dataset:
    return load_dataset(f"imagefolder:{folder}", resolution=8, **options)  # type: ignore[arg-type]


def names(data: Dataset, part: str) -> set[str]:
    return set(data.part(part).files["name"])  # type: ignore[arg-type, index]


@pytest.mark.parametrize("seed", [0, 3])
def test_files_that_come_and_go_move_no_other(seed: int, tmp_path: Path) -> None:
    before = load(fill(tmp_path), seed=seed)
    fill(tmp_path, count=5, first=100)
    for index in (3, 4, 5):
        (tmp_path / "a" / f"{index}.png").unlink()
    after = load(tmp_path, seed=seed)
    stay = set().union(*(names(after, part) for part in PARTS)) & set().union(*(names(before, p) for p in PARTS))
    assert len(stay) == 3 * 40 - 3
    for part in PARTS:
        assert names(after, part) & stay == names(before, part) & stay


def test_the_split_follows_the_name_alone_and_the_seed_draws_validation(tmp_path: Path) -> None:
    one = load(fill(tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "sub" / "train")
    moved = load(tmp_path / "sub")
    other = load(tmp_path / "one", seed=1)
    for part in PARTS:
        assert names(one, part) == names(moved, part)
    assert names(one, "test") == names(other, "test")
    assert names(one, "validation") != names(other, "validation")


def test_shares_are_as_asked_in_every_class(tmp_path: Path) -> None:
    data = load(fill(tmp_path, "abcd", 250))
    for part, share in (("test", 0.2), ("validation", 0.8 * 0.15)):
        counts = torch.bincount(data.part(part).labels, minlength=4)  # type: ignore[arg-type]
        deviation = (250 * share * (1 - share)) ** 0.5
        assert (counts - 250 * share).abs().max() < 3.5 * deviation


@pytest.mark.parametrize("count", [3, 4, 7])
def test_small_classes_have_an_image_in_every_part(count: int, tmp_path: Path) -> None:
    data = load(fill(tmp_path, "abcdefgh", count))
    for part in PARTS:
        assert set(data.part(part).labels.tolist()) == set(range(8))


def test_classes_without_enough_images_are_named(tmp_path: Path) -> None:
    fill(tmp_path, "ab", 9)
    fill(tmp_path, "c", 1)
    facts = load(tmp_path).facts
    assert facts is not None
    assert "no validation image of c" in facts.notes
    assert "no test image of c" in facts.notes
    shutil.rmtree(tmp_path / "a")
    for index in range(1, 9):
        (tmp_path / "b" / f"{index}.png").unlink()
    with pytest.raises(UserError, match=r"too few different images for a .* part; give 3 of each class"):
        load(tmp_path)


def test_copies_stay_in_one_part(tmp_path: Path) -> None:
    """Every file four times under other names; a fifth of the pictures is still held out."""
    fill(tmp_path, "ab", 100)
    for file in list(tmp_path.glob("*/*.png")):
        for copy in range(3):
            shutil.copy(file, file.with_name(f"{file.stem} ({copy}).png"))
    data = load(tmp_path)
    seen = {part: {image.numpy().tobytes() for image in data.part(part).images} for part in PARTS}
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]
    assert 20 <= len(seen["test"]) <= 62  # of 200
    assert len(data.test) == 4 * len(seen["test"])
    assert data.facts is not None
    assert data.facts.copies == 600
    assert "600 copies of other images; copies are kept in one part" in data.facts.notes


def test_copies_across_given_parts_stay_in_the_test_part(tmp_path: Path) -> None:
    fill(tmp_path / "train", "ab", 20)
    fill(tmp_path / "val", "ab", 5, first=18)  # 2 of each class are training images
    fill(tmp_path / "test", "ab", 5, first=15)  # 5 of each are, of which 2 are validation images
    shutil.copy(tmp_path / "train" / "a" / "0.png", tmp_path / "train" / "b" / "x.png")
    data = load(tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (2 * 15 + 1, 2 * 3, 2 * 5)
    assert data.facts is not None
    notes = " | ".join(data.facts.notes)
    assert "10 train images left out, as in another part too" in notes
    assert "4 validation images left out" in notes
    assert "1 image in several classes" in notes


def test_class_names_are_one_in_both_unicode_forms(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "x", "z", 9)
    (tmp_path / "train" / "x").rename(tmp_path / "train" / "caf\u00e9")
    fill(tmp_path / "train", "b", 9)
    fill(tmp_path / "test", "b", 9, first=50)
    (tmp_path / "test" / "b").rename(tmp_path / "test" / "cafe\u0301")
    data = load(tmp_path)
    assert data.classes == ("b", "caf\u00e9")
    assert data.test.labels.tolist() == [1] * 9


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    fill(tmp_path / "images")
    out = tmp_path / "out"
    nas.train(
        nas.Architecture.from_dict(TINY),
        dataset=f"imagefolder:{tmp_path / 'images'}",
        recipe="search",
        epochs=1,
        device="cpu",
        out=out,
    )
    return out


def said(caplog: pytest.LogCaptureFixture) -> str:
    text = "\n".join(record.getMessage() for record in caplog.records)
    caplog.clear()
    return text


def test_what_changed_is_said_where_a_network_is_used_again(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nas")
    weights = trained / "model.safetensors"
    first = nas.evaluate(weights)
    assert "changed" not in said(caplog)
    fill(tmp_path / "images", count=2, first=60)
    for index in range(4):
        (tmp_path / "images" / "b" / f"{index}.png").unlink()
    nas.evaluate(weights)
    assert "the images changed since: 6 added, 4 gone" in said(caplog)
    # Its training images as the test part, as an earlier nas drew it
    train = load(tmp_path / "images").train.files
    assert train is not None
    for name in list(train["name"])[:7]:
        (tmp_path / "leaky" / "test" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "images" / name, tmp_path / "leaky" / "test" / name)
    fill(tmp_path / "leaky" / "train", count=9, first=200)
    nas.evaluate(weights, dataset=f"imagefolder:{tmp_path / 'leaky'}")
    assert "of the 7 test images were training images" in said(caplog)
    nas.evaluate(weights, dataset=f"imagefolder:{fill(tmp_path / 'others', first=500)}")
    assert "120 other images than the 120 of then" in said(caplog)
    (tmp_path / "images" / "c").rename(tmp_path / "images" / "C")
    with pytest.raises(UserError, match=r"trained on class 'a' where .* has 'C'"):
        nas.evaluate(weights)
    assert first["test_images"] > 0


def test_a_relative_folder_is_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "here" / "images")
    fill(tmp_path / "there" / "images", first=300)
    monkeypatch.chdir(tmp_path / "here")
    assert load_dataset("imagefolder:images").name == f"imagefolder:{tmp_path / 'here' / 'images'}"
    out = tmp_path / "out"
    network = nas.Architecture.from_dict(TINY)
    nas.train(network, dataset="imagefolder:images", recipe="search", epochs=1, device="cpu", out=out)
    monkeypatch.chdir(tmp_path / "there")
    assert nas.evaluate(out / "model.safetensors")["dataset"] == f"imagefolder:{tmp_path / 'here' / 'images'}"
    assert os.fspath(tmp_path / "here" / "images") in (out / "train.yaml").read_text()


class StoppedHereError(Exception):
    """Ends a training in its middle."""


def stop(*_: object) -> None:
    raise StoppedHereError


def begin(tmp_path: Path) -> tuple[Path, nas.Architecture]:
    """A training of three epochs that was stopped after the first."""
    network, out = nas.Architecture.from_dict(TINY), tmp_path / "half"
    options = {"recipe": "search", "epochs": 3, "seed": 5, "fit": "pad", "device": "cpu", "out": out}
    with pytest.raises(StoppedHereError):
        nas.train(network, dataset=f"imagefolder:{fill(tmp_path / 'images')}", on_epoch=stop, **options)
    return out, network


def test_a_training_goes_on_with_its_own_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nas")
    out, network = begin(tmp_path)
    fill(tmp_path / "images", count=1, first=70)
    said(caplog)
    done = nas.train(network, device="cpu", out=out, resume=True)
    assert "the images changed since: 3 added, 0 gone" in said(caplog)
    saved = load_checkpoint(done.checkpoint)
    assert (saved.epoch, saved.dataset) == (3, f"imagefolder:{tmp_path / 'images'}")
    assert (saved.split["seed"], saved.extra["fit"]) == (5, "pad")


def test_a_training_goes_on_with_no_other_data(tmp_path: Path) -> None:
    out, network = begin(tmp_path)
    before = {file.name: file.read_bytes() for file in out.glob("*.*")}
    others = f"imagefolder:{fill(tmp_path / 'others', first=500)}"
    for dataset, message in ((others, "other images"), ("digits", "began with the data set imagefolder:")):
        with pytest.raises(UserError, match=message):
            nas.train(network, dataset=dataset, device="cpu", out=out, resume=True)
    (tmp_path / "images" / "c").rename(tmp_path / "images" / "d")
    with pytest.raises(UserError, match="class 'c' is not among"):
        nas.train(network, device="cpu", out=out, resume=True)
    assert before == {file.name: file.read_bytes() for file in out.glob("*.*")}


def test_a_training_whose_folder_is_gone_names_its_own_file(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures", "ab", 10)
    options = {"out": tmp_path / "training", "epochs": 1, "device": "cpu"}
    nas.train(nas.Architecture.from_dict(TINY), dataset=f"imagefolder:{folder}", **options)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"train.yaml: image folder .*pictures: no such folder"):
        nas.train(tmp_path / "training" / "architecture.yaml", resume=True, **options)


def test_an_earlier_training_is_judged_on_the_parts_that_it_had(tmp_path: Path) -> None:
    """Its files name neither how images were divided nor which they were."""
    folder = fill(tmp_path / "images")
    data = load(folder, split_by="order")
    assert (len(data.train), len(data.validation), len(data.test)) == (82, 14, 24)  # exact shares, as they were
    out = tmp_path / "out"
    done = train(nas.Architecture.from_dict(TINY), data, load_recipe("search").with_epochs(1), out=out)
    saved = torch.load(done.checkpoint, weights_only=True)
    del saved["split"]["by"], saved["extra"]["data"], saved["extra"]["fit"]
    saved["extra"]["crop"] = "pixels"
    torch.save(saved, tmp_path / "old.pt")
    judged = nas.evaluate(tmp_path / "old.pt")
    assert (judged["validation_images"], judged["test_images"]) == (14, 24)
    assert judged["test_accuracy"] == pytest.approx(done.test_accuracy)


def test_labels_follow_the_classes_of_the_training_whatever_their_order(tmp_path: Path) -> None:
    """An earlier nas sorted class names as the file system wrote them."""
    data = load(fill(tmp_path))
    again = load_again(
        data.name, split=asdict(data.split), preprocessing=Preprocessing(3, (8,)), classes=("c", "a", "b")
    )
    assert again.classes == ("c", "a", "b")
    for part in PARTS:
        files = again.part(part).files
        assert files is not None
        assert [again.classes[label] for label in again.part(part).labels] == [name[0] for name in files["name"]]


def test_a_search_goes_on_with_no_other_data(tmp_path: Path) -> None:
    data = load(fill(tmp_path / "images"))
    space = {**TINY, "stages": [{"block": "conv", "channels": {"choice": [8, 16]}}]}
    settings = Settings(
        space=space,
        objectives=("accuracy", "size"),
        published="none",
        dataset=data.name,
        split_by="name",
        image_resolution=8,
        recipe=load_recipe("search").with_epochs(1).to_dict(),
    )
    runs.begin(tmp_path / "run", settings)
    write_run_file(tmp_path / "run", settings, {"workers": 1, "device": "cpu"}, None, describe_data(data))
    before = (tmp_path / "run" / "run.yaml").read_bytes()
    (tmp_path / "images").rename(tmp_path / "away")
    fill(tmp_path / "images", first=500)
    with pytest.raises(UserError, match="began with other images"):
        api.resume(tmp_path / "run")
    shutil.rmtree(tmp_path / "images")
    (tmp_path / "away").rename(tmp_path / "images")
    (tmp_path / "images" / "a").rename(tmp_path / "images" / "d")
    with pytest.raises(UserError, match="class 'a' is not among"):
        api.resume(tmp_path / "run")
    assert (tmp_path / "run" / "run.yaml").read_bytes() == before

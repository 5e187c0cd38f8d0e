"""Facts of a data set before a training, and pictures of its images as they reach a network."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import nas
from nas.cli import app
from nas.errors import UserError
from nas.training.data import Dataset, load_dataset
from nas.training.facts import fact_rows
from nas.training.pictures import picture, samples
from nas.training.recipe import Recipe

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "b<b>": (0, 0, 255)}


def save(file: Path, colour: tuple[int, int, int], width: int = 20, height: int = 20, seed: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([seed, *colour]).integers(0, 40, (height, width, 3))
    Image.fromarray((noise + np.array(colour) * 215 // 255).astype(np.uint8)).save(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """12 red, 3 green and 3 blue training images, of validation and test images no blue ones; one copy, one text."""
    for name, count in {"red": 12, "green": 3, "b<b>": 3}.items():
        for index in range(count):
            save(tmp_path / f"train/{name}/{index}.png", COLOURS[name], width=60, seed=index)
    for part in ("val", "test"):
        for name in ("red", "green"):
            save(tmp_path / f"{part}/{name}/a.jpg", COLOURS[name], height=40, seed=100 + len(part))
    (tmp_path / "train/red/notes.txt").write_text("no image")
    (tmp_path / "train/red/again.png").write_bytes((tmp_path / "train/red/0.png").read_bytes())
    return tmp_path


def pictures_in(page: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in found]


def test_the_facts_are_those_of_the_files(folder: Path) -> None:
    facts = nas.data(f"imagefolder:{folder}")
    assert facts["classes"] == [
        {"name": "b<b>", "train": 3, "validation": 0, "test": 0},
        {"name": "green", "train": 3, "validation": 1, "test": 1},
        {"name": "red", "train": 13, "validation": 1, "test": 1},
    ]
    assert facts["imbalance"] == pytest.approx(13 / 3)
    assert facts["absent"] == {"validation": ["b<b>"], "test": ["b<b>"]}
    assert (facts["width"], facts["height"]) == ([20, 60, 60], [20, 20, 40])
    assert facts["aspect_ratio"] == [0.5, 3, 3]
    assert facts["no_squares"] == 23
    assert facts["formats"] == {"PNG": 19, "JPEG": 4}
    assert facts["skipped"] == [{"ending": ".txt", "reason": "no image that Pillow reads", "files": 1}]
    assert facts["copies"] == 1
    even = facts | {"classes": [item | {"train": 1_200} for item in facts["classes"]]}
    said = [dict(fact_rows(document))["Classes"] for document in (facts, even)]
    assert said == ["3, of 3 (b<b>) to 13 (red) training images", "3, 1,200 training images each"]


def test_copies_in_a_named_data_set_are_counted(digits: Dataset) -> None:
    from sklearn.datasets import load_digits

    pixels = load_digits().images.reshape(1797, -1)
    facts = nas.data("digits")
    assert facts["copies"] == 1797 - len(np.unique(pixels, axis=0))
    assert sum(item["test"] for item in facts["classes"]) == len(digits.test)


def test_a_class_without_a_training_image_is_refused_by_its_name(folder: Path) -> None:
    for index in range(3):  # what the test part has, the training part loses
        save(folder / f"test/b<b>/{index}.png", COLOURS["b<b>"], width=60, seed=index)
    with pytest.raises(UserError, match="'b<b>'"):
        nas.data(f"imagefolder:{folder}")
    for file in (folder / "test/b<b>").iterdir():
        file.unlink()
    (folder / "test/b<b>").rmdir()
    with pytest.raises(UserError, match="no training image of class"):  # the red ones come first
        load_dataset(f"imagefolder:{folder}", train_size=3)


def test_the_command_prints_and_writes_what_a_user_looks_for(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["data", f"imagefolder:{folder}", "--out", str(page)])
    assert done.exit_code == 0, done.output
    printed = " ".join(done.output.split())
    for said in ("red 13 1 1", "19 PNG, 4 JPEG", "1 .txt (no image that Pillow reads)", "No test image of b<b>"):
        assert said in printed
    html = page.read_text()
    assert "b<b>" not in html and "b&lt;b&gt;" in html
    assert not re.search(r"(src|href)=\"(?!data:)", html)  # nothing is loaded from elsewhere
    shown = pictures_in(html)
    assert [image.size for image in shown] == [(3 * 22 - 2, 20), (3 * 22 - 2, 20), (8 * 22 - 2, 20)]
    means = [np.asarray(image).mean((0, 1)).argmax() for image in shown]
    assert means == [2, 1, 0]  # each class has its own images
    as_json = CliRunner().invoke(app, ["data", f"imagefolder:{folder}", "--json"])
    assert json.loads(as_json.output) == nas.data(f"imagefolder:{folder}")


@pytest.mark.parametrize(("flip", "mirrored"), [("none", False), ("horizontal", True)])
def test_pictures_are_augmented_as_the_recipe_says(flip: str, mirrored: bool, digits: Dataset) -> None:
    images = torch.zeros(1222, 1, 8, 8, dtype=torch.uint8)
    images[..., :4] = 255
    half = replace(digits, train=replace(digits.train, images=images), std=(0.5,))
    found = samples(half, Recipe(pad=0).with_options(flip=flip), most=80)
    assert len(found) == 10
    sides = set()
    for text in found.values():
        row = np.asarray(Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2]))))
        sides |= {row[:, first : first + 4].mean() > 128 for first in range(0, 78, 10)}
    assert sides == ({True, False} if mirrored else {True})


def test_a_picture_holds_its_images_side_by_side() -> None:
    images = torch.stack([torch.full((3, 128, 128), level, dtype=torch.uint8) for level in (0, 100, 200)])
    with Image.open(io.BytesIO(base64.b64decode(picture(images).partition(",")[2]))) as image:
        assert image.size == (3 * 66 - 2, 64)
        assert [image.getpixel((66 * index + 32, 32))[0] for index in range(3)] == pytest.approx([0, 100, 200], abs=2)

"""The command that a search prints trains the network that it found as it found it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nas
from nas.report.points import command, train_command
from nas.training.checkpoint import load_checkpoint
from nas.training.recipe import RECIPES, Recipe, full_recipe

SPACE = {
    "name": "tiny",
    "input": {"channels": 3, "resolution": 16},
    "stem": {"channels": 8, "stride": 2},
    "stages": [{"block": "inverted_residual", "channels": 8, "expansion": {"choice": [1, 2]}}],
}


def images(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for label in "ab":
        (folder / label).mkdir(parents=True)
        for index in range(40):
            pixels = rng.integers(0, 3000, (12, 18), dtype=np.uint16)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")
    return folder


def as_trained(file: Path) -> dict[str, Any]:
    """Everything that a checkpoint says of its data and recipe."""
    saved = load_checkpoint(file)
    kept = ("architecture", "classes", "mean", "std", "dataset", "split", "recipe")
    extra = ("source_resolution", "fit", "white", "data")
    return {name: getattr(saved, name) for name in kept} | {name: saved.extra.get(name) for name in extra}


@pytest.mark.slow
@pytest.mark.usefixtures("shared_ray")
@pytest.mark.parametrize("own", [True, False])
def test_it_repeats_data_resolution_fit_flip_and_recipe(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(tmp_path / "images")
    monkeypatch.chdir(tmp_path)  # the folder is given relative to it
    run = nas.search(
        nas.Space(SPACE),
        dataset="imagefolder:images" if own else "digits",
        train_size=40,
        resolution=24,  # larger than the images
        fit="pad" if own else "crop",
        recipe=Recipe(epochs=2, batch_size=8, lr=0.03, pad=1, label_smoothing=0.05, cutout=0.2),
        epochs=1,
        flip="none",
        class_weights="balanced",
        trials=1,
        published="none",
        objectives=("accuracy", "size"),
        seed=3,
        out="run",
    )
    (record,) = run.front_records
    words = shlex.split(train_command(run, record, 1, ()))
    assert words[:2] == ["nas", "train"]
    assert len(words) == 3
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    front = Path(words[2]).absolute()
    monkeypatch.chdir(elsewhere)
    done = nas.train(front, device="cpu", out=tmp_path / "best")
    found = as_trained(tmp_path / run.checkpoint(record))
    assert as_trained(done.checkpoint) == found
    assert (found["recipe"]["flip"], found["recipe"]["class_weights"]) == ("none", "balanced")
    assert found["split"]["train_size"] == 40
    assert found["architecture"]["input"]["resolution"] == 24
    assert (found["fit"], found["white"]) == (("pad", 4095.0) if own else ("crop", None))
    # A network of no front, by the report's command
    words = shlex.split(command(run, "han-e"))
    assert words[3] == "--run"
    beside = as_trained(nas.train("han-e", run=tmp_path / words[4], device="cpu", out=tmp_path / "beside").checkpoint)
    assert {**beside, "architecture": None} == {**found, "architecture": None}
    assert beside["architecture"]["input"]["resolution"] == 24


def test_the_short_preset_is_trained_in_full_and_any_other_recipe_as_it_is() -> None:
    short = RECIPES["search"].with_options(flip="none").for_images(500)
    assert full_recipe(short, 500) == RECIPES["train"].with_options(flip="none")
    balanced = short.with_options(class_weights="balanced")
    assert full_recipe(balanced, 500) == RECIPES["train"].with_options(flip="none").with_options(
        class_weights="balanced"
    )
    assert full_recipe(RECIPES["search"].for_images(500, epochs=3), 500) == RECIPES["train"]
    for own in (RECIPES["han"].with_epochs(4), Recipe(lr=0.02, epochs=3)):
        assert full_recipe(own, 500) == own

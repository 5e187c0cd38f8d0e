"""A training's own teacher: its parent, fine-tuned on the same images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import nas
from nas.training import teachers
from nas.training.checkpoint import load_trained
from nas.training.data import Dataset
from nas.training.recipe import Recipe
from nas.training.session import train
from nas.training.teachers import first_teacher

STAGE = {"block": "inverted_residual", "stride": 2, "expansion": 2}
DOCUMENT = {"name": "master", "input": {"channels": 1, "resolution": 8}, "stem": {"channels": 8}}
MASTER = nas.Architecture.from_dict({**DOCUMENT, "stages": [{**STAGE, "channels": 16}]})
PUPIL = nas.Architecture.from_dict({**DOCUMENT, "name": "pupil", "stages": [{**STAGE, "channels": 8}]})
SHORT = Recipe(lr=0.05, epochs=1, batch_size=64)


def test_the_parent_is_the_teacher_of_a_network_that_was_searched_so() -> None:
    assert first_teacher(None, "efficientnet-lite0", searched=True) == "efficientnet-lite0"
    assert first_teacher(None, "efficientnet-lite0", searched=False) is None
    assert first_teacher("none", "efficientnet-lite0", searched=True) is None
    assert first_teacher("best.pt", "efficientnet-lite0", searched=True) == Path("best.pt")
    with pytest.raises(nas.UserError, match=r"--teacher auto: it is the network that .* give --init"):
        first_teacher("auto", None, searched=False)


def test_a_parent_of_other_classes_is_fine_tuned_first(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "FINE_TUNING", SHORT)
    lettered = replace(digits, classes=tuple("abcdefghij"))
    parent = train(MASTER, lettered, SHORT, out=tmp_path / "parent").model
    out, how = tmp_path / "out", {"dataset": "digits", "train_size": 200, "recipe": SHORT, "teacher": "auto"}
    trained = nas.train(PUPIL, init=parent, out=out, **how)
    teacher = load_trained(out / "teacher" / "model.safetensors")
    assert teacher.architecture == MASTER.to_dict() and teacher.classes == digits.classes
    assert yaml.safe_load((out / "teacher" / "train.yaml").read_text())["init"] == str(parent)
    begun = yaml.safe_load((out / "train.yaml").read_text())
    assert begun["teacher"] == begun["init"] == str(out / "teacher" / "model.safetensors")
    assert trained.initialised is not None and not trained.initialised.fresh  # the classifier's slices too
    assert load_trained(trained.model).extra["teacher"] == "master"
    # One that knows the classes is the teacher as it is.
    nas.train(PUPIL, init=out / "teacher" / "model.safetensors", out=tmp_path / "second", **how)
    assert not (tmp_path / "second" / "teacher").exists()
    begun = yaml.safe_load((tmp_path / "second" / "train.yaml").read_text())
    assert begun["teacher"] == begun["init"] == str(out / "teacher" / "model.safetensors")

"""Learning from a teacher, beside the labels: against plain formulas, and from the command's files."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from training_networks import small_network

import nas
from nas.errors import UserError
from nas.training.checkpoint import load_trained
from nas.training.data import Dataset
from nas.training.distillation import Teacher, distillation_loss
from nas.training.loop import Trainer
from nas.training.recipe import Recipe
from nas.training.session import train
from nas.training.weights import restored

STUDENT = nas.Architecture.from_dict(
    {
        "name": "student",
        "input": {"channels": 1, "resolution": 8},
        "stem": {"channels": 8},
        "stages": [{"block": "inverted_residual", "channels": 16, "stride": 2, "expansion": 2}],
    }
)
MASTER = nas.Architecture.from_dict(STUDENT.to_dict() | {"name": "master", "input": {"channels": 1, "resolution": 12}})
RECIPE = Recipe(lr=0.05, epochs=2, batch_size=64, warmup_epochs=1, precision="fp32")


@pytest.fixture(scope="module")
def master(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network that reads larger images than the student."""
    return train(MASTER, digits, RECIPE, out=tmp_path_factory.mktemp("master") / "out").model


def test_the_loss_is_hintons_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, targets = (torch.randn(5, 4, generator=generator) for _ in range(2))
    expected = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        p, q = ([math.exp(value / 3) for value in values] for values in (target, row))
        for one, other in zip(p, q, strict=True):
            expected += 9 * one / sum(p) * math.log(one / sum(p) / (other / sum(q)))
    assert float(distillation_loss(logits, targets, 3.0)) == pytest.approx(expected, rel=1e-5)


def test_a_teacher_judges_what_it_would_judge_by_itself(digits: Dataset, master: Path) -> None:
    """Its own normalisation and resolution, and the classes in the order of the student's data."""
    shuffled = replace(digits, classes=digits.classes[::-1], mean=(0.3,), std=(0.2,))
    images = digits.test.images[:32].float() / 255
    saved = load_trained(master)
    plain = restored(saved, "master")
    with torch.no_grad():
        larger = nn.functional.interpolate(images, size=(12, 12), mode="bilinear")
        expected = plain((larger - saved.mean[0]) / saved.std[0]).flip(1)
        judged = Teacher(master, shuffled)((images - 0.3) / 0.2)
    torch.testing.assert_close(judged, expected, atol=1e-4, rtol=1e-4)


def test_the_loss_of_a_step_mixes_labels_and_teacher(digits: Dataset, master: Path) -> None:
    """One step of a vanishing learning rate over all images: the loss by hand."""
    few = replace(digits, train=digits.train.take(torch.arange(64)))
    recipe = replace(RECIPE, epochs=1, warmup_epochs=0, lr=1e-8, pad=0, flip="none", distill_weight=0.3)
    network, teacher = small_network(), Teacher(master, few)
    inputs = (few.train.images.float() / 255 - few.mean[0]) / few.std[0]
    with torch.no_grad():
        logits = small_network().train()(inputs)
        labels = nn.functional.cross_entropy(logits, few.train.labels)
        soft = distillation_loss(logits, teacher(inputs), 4.0) / 64
    before = {name: tensor.clone() for name, tensor in teacher._network.state_dict().items()}
    epoch = Trainer(network, few, recipe, teacher=teacher).run_epoch()
    assert epoch.loss == pytest.approx(float(0.7 * labels + 0.3 * soft), rel=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher._network.state_dict().items())


def test_a_training_keeps_its_teacher(digits: Dataset, master: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(STUDENT, digits, RECIPE, out=out, teacher=master, on_epoch=kill)
    assert yaml.safe_load((out / "train.yaml").read_text())["teacher"] == str(master)
    resumed = train(STUDENT, digits, RECIPE, out=out, resume=True)
    whole = train(STUDENT, digits, RECIPE, out=tmp_path / "whole", teacher=master)
    assert resumed.model.read_bytes() == whole.model.read_bytes()
    assert load_trained(whole.model).extra["teacher"] == "master"
    alone = train(STUDENT, digits, RECIPE, out=tmp_path / "alone")
    assert alone.model.read_bytes() != whole.model.read_bytes()


def test_a_teacher_of_other_classes_is_refused(digits: Dataset, master: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--teacher .*: class '9' is not both its and the data set's"):
        Teacher(master, replace(digits, classes=(*digits.classes[:9], "nine")))
    with pytest.raises(UserError, match=r"reads 1 channels, the network 3"):
        Teacher(master, replace(digits, channels=3))
    with pytest.raises(UserError, match=r"--teacher is for the beginning"):
        train(STUDENT, digits, RECIPE, out=tmp_path, teacher=master, resume=True)

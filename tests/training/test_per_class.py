"""Recall, precision, confusions and mistakes, against scikit-learn's."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight
from training_networks import small_network
from typer.testing import CliRunner

import nas
from nas.cli import app
from nas.errors import UserError
from nas.training.data import Dataset
from nas.training.evaluate import scores
from nas.training.images import Images
from nas.training.loop import Trainer
from nas.training.per_class import balanced_weights, judge, read_judgement, worst_confusions
from nas.training.recipe import Recipe
from nas.training.session import train


def test_figures_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 300, p=(0.7, 0.2, 0.1, 0))  # no image of the last class
    predicted = np.where(rng.random(300) < 0.6, labels, rng.integers(0, 3, 300))
    found = scores(torch.tensor(labels), torch.tensor(predicted), torch.rand(300))
    judgement = judge(Images(torch.zeros(300, 1, 2, 2, dtype=torch.uint8), torch.tensor(labels)), found, tuple("abcd"))
    assert judgement["confusion"] == metrics.confusion_matrix(labels, predicted, labels=range(4)).tolist()
    assert judgement["accuracy"] == metrics.accuracy_score(labels, predicted)
    assert judgement["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    recalls = metrics.recall_score(labels, predicted, average=None)
    precisions = metrics.precision_score(labels, predicted, average=None)
    assert [item["recall"] for item in judgement["classes"]] == pytest.approx([*recalls, None])
    assert [item["precision"] for item in judgement["classes"]] == pytest.approx([*precisions, None])
    assert read_judgement(json.dumps(judgement), "x") == judgement


def test_mistakes_are_the_surest_first_and_confusions_the_commonest() -> None:
    labels, predicted = torch.tensor([0, 0, 1, 1, 1, 0]), torch.tensor([0, 1, 0, 0, 1, 2])
    found = scores(labels, predicted, torch.tensor([1.0, 0.5, 0.9, 0.6, 1.0, 0.7]))
    judgement = judge(Images(torch.zeros(6, 1, 2, 2, dtype=torch.uint8), labels), found, ("a", "b", "c"))
    assert [(item["index"], item["actual"], item["predicted"]) for item in judgement["mistakes"]] == [
        (2, "b", "a"),
        (5, "a", "c"),
        (3, "b", "a"),
        (1, "a", "b"),
    ]
    assert worst_confusions(judgement, 1) == [("b", "a", 2, pytest.approx(2 / 3))]


def test_a_damaged_judgement_is_refused() -> None:
    for text in ("", "{}", '{"accuracy": 2}', "[" * 10_000):
        with pytest.raises(UserError, match=r"x\.json: damaged"):
            read_judgement(text, "x.json")


def test_evaluate_tells_recall_and_mistakes(digits: Dataset, tmp_path: Path) -> None:
    architecture = nas.load("han-e").with_input(channels=1, resolution=8)
    done = train(architecture, digits, Recipe(epochs=1, batch_size=64), out=tmp_path / "out")
    page = tmp_path / "page.html"
    runner = CliRunner()
    said = runner.invoke(app, ["evaluate", str(done.model), "--out", str(page), "--device", "cpu"])
    assert said.exit_code == 0, said.output
    found = nas.evaluate(done.model, device="cpu")
    test = found["test"]
    assert sum(map(sum, test["confusion"])) == found["test_images"] == 359
    assert found["test_accuracy"] == sum(test["confusion"][index][index] for index in range(10)) / 359
    assert [sum(row) for row in test["confusion"]] == digits.test.labels.bincount().tolist()
    assert page.read_text().count("data:image/jpeg") == sum(
        len(found[part]["mistakes"]) for part in ("validation", "test")
    )
    assert "balanced test accuracy" in said.output and "Surest mistakes" in said.output
    for mistake in test["mistakes"]:
        assert digits.classes[int(digits.test.labels[mistake["index"]])] == mistake["actual"] != mistake["predicted"]


def test_balanced_weights_are_scikit_learns_and_weigh_the_loss(digits: Dataset) -> None:
    labels = digits.train.labels
    few = torch.cat([(labels == 0).nonzero()[:60, 0], *((labels == label).nonzero()[:5, 0] for label in range(1, 10))])
    uneven = replace(digits, train=digits.train.take(few))
    expected = compute_class_weight("balanced", classes=np.arange(10), y=uneven.train.labels.numpy())
    weights = balanced_weights(uneven.train.labels, 10)
    assert weights.tolist() == pytest.approx(expected.tolist())
    recipe = Recipe(epochs=1, batch_size=len(few), lr=1e-8, pad=0, flip="none", precision="fp32")
    network = small_network()
    with torch.no_grad():
        inputs = (uneven.train.images.float() / 255 - uneven.mean[0]) / uneven.std[0]
        losses = F.cross_entropy(copy.deepcopy(network).train()(inputs), uneven.train.labels, reduction="none")
    plain = Trainer(copy.deepcopy(network), uneven, recipe).run_epoch()
    assert plain.loss == pytest.approx(float(losses.mean()), rel=1e-4)
    weighted = Trainer(network, uneven, recipe.with_options(class_weights="balanced")).run_epoch()
    assert weighted.loss == pytest.approx(float((losses * weights[uneven.train.labels]).mean()), rel=1e-4)
    assert weighted.loss != pytest.approx(plain.loss, rel=1e-3)
    with pytest.raises(UserError, match="allowed are none, balanced"):
        recipe.with_options(class_weights="heavy")


def test_a_resumed_training_keeps_its_class_weights(tmp_path: Path) -> None:
    begun = {"epochs": 1, "device": "cpu", "out": tmp_path / "out"}
    nas.train("han-e", class_weights="balanced", train_size=100, **begun)
    assert yaml.safe_load((tmp_path / "out/train.yaml").read_text())["recipe"]["class_weights"] == "balanced"
    with pytest.raises(UserError, match="its training has class weights balanced, not none"):
        nas.train("han-e", class_weights="none", resume=True, **begun)


def test_an_epoch_tells_its_balanced_accuracy(digits: Dataset) -> None:
    trainer = Trainer(small_network(), digits, Recipe(epochs=1, batch_size=64))
    epoch = trainer.run_epoch()
    predicted = trainer.evaluate("validation").predicted
    expected = metrics.balanced_accuracy_score(digits.validation.labels, predicted)
    assert epoch.validation_balanced_accuracy == pytest.approx(expected)

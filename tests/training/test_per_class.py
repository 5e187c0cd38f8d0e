"""Recall, precision, confusions and mistakes, against scikit-learn's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics
from typer.testing import CliRunner

import nas
from nas.cli import app
from nas.errors import UserError
from nas.training.data import Dataset
from nas.training.evaluate import scores
from nas.training.images import Images
from nas.training.per_class import judge, read_judgement, worst_confusions
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

"""What a training writes, as data: what a refactoring of the training has to leave as it is.

`python tests/training/test_training_contract.py` writes the record again, where a change is meant.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open

import nas
from nas.training.checkpoint import load_checkpoint, load_trained
from nas.training.data import load_dataset
from nas.training.recipe import Recipe
from nas.training.session import train
from nas.training.weights import card

FILE = Path(__file__).with_name("training_contract.json")
DOCUMENT = {
    "name": "tiny",
    "input": {"channels": 1, "resolution": 8},
    "stem": {"channels": 16},
    "stages": [{"block": "inverted_residual", "channels": 32, "stride": 2, "expansion": 2, "kernels": [3, 5]}],
    "head": {"channels": 64, "dropout": 0.1},
}
RECIPE = {"lr": 0.1, "epochs": 5, "batch_size": 32, "warmup_epochs": 1, "precision": "fp32"} | {
    "label_smoothing": 0.1, "pad": 1, "cutout": 0.125, "mixup": 0.1, "ema": 0.9, "flip": "alternating",
}  # fmt: skip
TIMES = ("seconds_train", "seconds_eval", "images_per_second")


def schema(value: Any) -> Any:
    """A value's types: of mappings by key, of sequences by their first entry."""
    if isinstance(value, dict):
        return {key: schema(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(schema, value[:1])]
    return type(value).__name__


def written(folder: Path) -> dict[str, Any]:
    """Train, and describe the files."""
    torch.set_num_threads(1)
    data = load_dataset("digits", train_size=400)
    begun: list[Any] = []

    def first(*_: Any) -> None:
        if not begun:
            begun.append(torch.load(folder / "checkpoint.pt", weights_only=True))

    architecture = nas.Architecture.from_dict(DOCUMENT)
    train(architecture, data, Recipe.from_dict(RECIPE), out=folder, seed=3, threads=1, on_epoch=first)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with safe_open(folder / "model.safetensors", framework="pt") as tensors:
        metadata = tensors.metadata()
        names = sorted(tensors.keys())
    description = yaml.safe_load((folder / "train.yaml").read_text())
    half = begun[0]
    assert half["weights"].keys() == half["trainer"]["network"].keys() == set(names)
    for state in (half["trainer"]["network"], half["trainer"]["average"], half["weights"]):
        state.clear()
    half["trainer"]["optimizer"]["state"] = {"0": half["trainer"]["optimizer"]["state"][0]}
    return {
        "metrics": [{name: float(value) for name, value in row.items() if name not in TIMES} for row in rows],
        "columns": list(rows[0]),
        "train.yaml": {"schema": schema(description), "values": description},
        "checkpoint.pt": schema(half),
        "model.safetensors": {key: schema(json.loads(value)) for key, value in metadata.items()},
        "tensors": names,
        "card": card(load_trained(folder / "model.safetensors"), "model").to_metadata(),
    }


RECORDED = json.loads(FILE.read_text()) if FILE.exists() else {}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return json.loads(json.dumps(written(tmp_path_factory.mktemp("contract") / "out")))


@pytest.mark.parametrize("part", [name for name in RECORDED if name != "metrics"])
def test_files_are_as_recorded(part: str, found: dict[str, Any]) -> None:
    assert found[part] == RECORDED[part]
    assert json.dumps(found[part]) == json.dumps(RECORDED[part])  # in this order too


def test_metrics_are_as_recorded(found: dict[str, Any]) -> None:
    """Another CPU rounds otherwise, and steps let that grow; other images or another order are further off."""
    assert len(found["metrics"]) == len(RECORDED["metrics"])
    for ours, theirs in zip(found["metrics"], RECORDED["metrics"], strict=True):
        assert (ours["epoch"], ours["lr"]) == (theirs["epoch"], pytest.approx(theirs["lr"]))
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=0.01)
        assert ours["train_accuracy"] == pytest.approx(theirs["train_accuracy"], abs=0.03)
        assert ours["validation_accuracy"] == pytest.approx(theirs["validation_accuracy"], abs=0.03)


def test_a_seed_gives_the_same_rows_bit_for_bit(found: dict[str, Any], tmp_path: Path) -> None:
    assert written(tmp_path / "out")["metrics"] == found["metrics"]


def test_a_checkpoint_of_the_first_version_loads(tmp_path: Path) -> None:
    """Without what later versions added: the trainer's state, `extra`, and the recipe's `steps`."""
    network = nas.build(nas.Architecture.from_dict(DOCUMENT), 10)
    recipe = Recipe().to_dict()
    del recipe["steps"]
    content = {
        "format": "nas-checkpoint",
        "version": 1,
        "architecture": DOCUMENT,
        "classes": tuple("0123456789"),
        "mean": (0.3,),
        "std": (0.4,),
        "dataset": "digits",
        "split": {"seed": 0, "validation_fraction": 0.15, "train_size": None},
        "recipe": recipe,
        "epoch": 3,
        "accuracy": 0.5,
        "weights": network.state_dict(),
    }
    torch.save(content, tmp_path / "old.pt")
    read = load_checkpoint(tmp_path / "old.pt")
    assert (read.epoch, read.accuracy, read.trainer, read.extra) == (3, 0.5, None, {})
    assert (card(read, "old").fit, card(read, "old").decoded_at) == ("box", None)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        FILE.write_text(json.dumps(written(Path(name) / "out"), indent=1, ensure_ascii=False) + "\n")
    sys.exit(0)

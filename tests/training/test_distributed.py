"""Several processes train one network: real ones, started by torchrun, on CPUs."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import nas
from nas.errors import UserError
from nas.training.augment import Augmentation, draw_epoch
from nas.training.data import Dataset
from nas.training.distributed import joined, launched_rank
from nas.training.recipe import Recipe, steps_per_epoch
from nas.training.session import train

# Without batch normalisation, whose statistics are those of a process's own share, and without mixup, which mixes
# within a share, the processes compute what one process computes.
DOCUMENT: dict[str, Any] = {
    "name": "tiny",
    "input": {"channels": 1, "resolution": 8},
    "norm": "none",
    "stem": {"channels": 8},
    "stages": [{"block": "inverted_residual", "channels": 16, "stride": 2, "expansion": 2}],
}
RECIPE: dict[str, Any] = {
    "epochs": 3,
    "lr": 0.02,
    "batch_size": 64,
    "pad": 1,
    "flip": "random",
    "cutout": 0.3,
    "ema": 0.5,
    "precision": "fp32",
}


def train_together(folder: Path, document: dict[str, Any], recipe: dict[str, Any], out: str) -> str:
    """`nas train` in two processes; returns what they print."""
    (folder / "network.yaml").write_text(yaml.safe_dump(document))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "nas", "train", "network.yaml", "--recipe", "recipe.yaml", "--device", "cpu", "--out", out],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(path: Path) -> list[dict[str, str]]:
    with (path / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_two_processes_train_as_one(digits: Dataset, tmp_path: Path) -> None:
    printed = train_together(tmp_path, DOCUMENT, RECIPE, "together")
    assert printed.count("epoch 1/3") == 1  # one of them speaks
    assert printed.count("Weights:") == 1
    train(nas.Architecture.from_dict(DOCUMENT), digits, Recipe.from_dict(RECIPE), out=tmp_path / "alone")
    names = {path.name for path in (tmp_path / "alone").iterdir()}
    assert {path.name for path in (tmp_path / "together").iterdir()} == names
    ours, theirs = rows(tmp_path / "together"), rows(tmp_path / "alone")
    assert [row["epoch"] for row in ours] == ["1", "2", "3"]
    for row, other in zip(ours, theirs, strict=True):
        assert float(row["loss"]) == pytest.approx(float(other["loss"]), rel=1e-3)
        assert float(row["train_accuracy"]) == pytest.approx(float(other["train_accuracy"]), abs=5e-3)
        assert float(row["validation_accuracy"]) == pytest.approx(float(other["validation_accuracy"]), abs=0.01)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("alone", "together"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-2, atol=1e-3)  # rounding, grown over three epochs


@pytest.mark.slow
def test_with_batch_normalisation_they_learn_as_well(digits: Dataset, tmp_path: Path) -> None:
    """Each normalises its own share, so that the networks differ; their accuracies should not."""
    stage = {"block": "inverted_residual", "channels": 32, "stride": 2, "expansion": 2}
    document = {**DOCUMENT, "norm": "batch", "stem": {"channels": 16}, "stages": [stage], "head": {"channels": 64}}
    recipe = {"epochs": 6, "lr": 0.1, "batch_size": 64, "precision": "fp32"}
    train_together(tmp_path, document, recipe, "together")
    train(nas.Architecture.from_dict(document), digits, Recipe.from_dict(recipe), out=tmp_path / "alone")
    ours, theirs = (float(rows(tmp_path / name)[-1]["validation_accuracy"]) for name in ("together", "alone"))
    assert theirs > 0.9
    assert ours == pytest.approx(theirs, abs=0.04)


def draws(count: int) -> Any:
    return draw_epoch(
        Augmentation(pad=1, flip="random", cutout=2, mixup=0.2),
        count=count,
        steps=4,
        batch=6,
        resolution=8,
        epoch=0,
        first_flips=torch.zeros(count, dtype=torch.bool),
        generator=torch.Generator(),
    )


def test_shares_are_the_whole_batch() -> None:
    whole = draws(24)
    shares = [whole.share(index, 3) for index in range(3)]
    for field in ("order", "offsets", "flips", "centres"):
        together = torch.stack([getattr(share, field) for share in shares], dim=2).flatten(1, 2)
        assert torch.equal(together, getattr(whole, field))
    assert all(torch.equal(share.shares, whole.shares) for share in shares)


def test_a_batch_has_equal_shares() -> None:
    assert steps_per_epoch(1000, 64, shares=3) == (15, 63)
    assert steps_per_epoch(100, 64, shares=4) == (2, 48)
    with pytest.raises(UserError, match="batches of 4 among 3 processes"):
        steps_per_epoch(1000, 4, shares=3)


def test_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")  # of some other launcher
    assert launched_rank() == 0
    with joined("cpu") as (ranks, device):
        assert (ranks.count, ranks.leads, device) == (1, True, "cpu")

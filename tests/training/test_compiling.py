"""Compiled trainings: the same result, and none that fails for the compiler's sake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nas.training.precision import worth_compiling

TRAIN = """
import logging, sys, torch
logging.basicConfig(stream=sys.stdout, format="%(message)s")
torch.set_num_threads(1)
from torch import nn
from nas.training.data import load_dataset
from nas.training.loop import Trainer
from nas.training.recipe import Recipe

recipe = Recipe(lr=0.05, epochs=2, batch_size=64, precision="fp32")
for compile in (False, True):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    trainer = Trainer(network, load_dataset("digits"), recipe, compile=compile)
    print([epoch.loss for epoch in trainer.epochs()])
"""


def train(cache: Path, **environment: str) -> list[str]:
    settings = {"TORCHINDUCTOR_CACHE_DIR": str(cache), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN],
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(tmp_path: Path) -> None:
    eager, compiled = (eval(line) for line in train(tmp_path))
    assert compiled == pytest.approx(eager, rel=1e-2)
    assert list(tmp_path.rglob("*.so")), "nothing was compiled"


@pytest.mark.slow
def test_without_a_compiler_training_goes_on(tmp_path: Path) -> None:
    eager, said, fallen_back = train(tmp_path, CXX="/nowhere/g++")
    assert said.startswith("not compiled, training goes on without: ")
    assert eval(fallen_back) == eval(eager)


def test_short_trainings_are_not_compiled() -> None:
    assert not worth_compiling("cuda", 1000)
    assert worth_compiling("cuda:1", 100_000)

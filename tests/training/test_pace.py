"""Trainings that end in time."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from test_session import TINY
from training_networks import small_network

from nas.errors import UserError
from nas.training.checkpoint import load_checkpoint
from nas.training.data import Dataset
from nas.training.loop import Trainer
from nas.training.options import TrainOptions
from nas.training.pace import END_SECONDS, Pace, rehearse
from nas.training.recipe import Recipe
from nas.training.session import train

WHOLE = Recipe(lr=0.05, epochs=1000, batch_size=64, warmup_epochs=200)


class Clock:
    """Time that passes with steps alone: 0.1 s each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("nas.training.pace.time.monotonic", lambda: self.now)


class Slow(Trainer):
    """A trainer whose steps take a known time on the clock, and whose validation takes 1 s."""

    clock: Clock
    speed = 0.1

    def run_epoch(self):  # type: ignore[no-untyped-def]
        before = self.clock.now
        epoch = super().run_epoch()
        self.clock.now = before + self.steps * self.speed + 1
        return replace(epoch, seconds_train=self.steps * self.speed, seconds_eval=1.0)


@pytest.fixture
def trainer(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> Slow:
    Slow.clock, Slow.speed = Clock(monkeypatch), 0.1
    return Slow(small_network(), digits, WHOLE)


def test_a_recipe_is_cut_to_what_fits_and_its_rate_ends_low(trainer: Slow, digits: Dataset) -> None:
    """An epoch of 19 steps and a validation take 2.9 s: 10 of them fit into 34 s beside the end and the test."""
    fresh = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    tested = len(digits.test) / len(digits.validation)
    spent = 1 + 4 * 0.1  # by the rehearsal
    pace = Pace(100 + spent + 10.5 * 2.9 + END_SECONDS + tested, WHOLE)
    pace.begin(trainer)
    assert (trainer.recipe.epochs, trainer.steps, trainer.epoch) == (10, 19, 0)
    assert all((tensor == fresh[name]).all() for name, tensor in trainer.network.state_dict().items())
    rates = []
    while not trainer.done:
        rates.append(trainer.run_epoch().lr)
        pace.correct(trainer)
    assert len(rates) == 10 and max(rates) > 0.8 * WHOLE.lr and rates[-1] < 0.01 * WHOLE.lr
    assert trainer.recipe.warmup_epochs == pytest.approx(2)


def test_a_training_that_became_slow_ends_in_time(trainer: Slow) -> None:
    pace = Pace(160.0, WHOLE)
    pace.begin(trainer)
    began_with = trainer.recipe.epochs
    rates = []
    while not trainer.done:
        Slow.speed = 0.3 if trainer.epoch > 4 else 0.1
        rates.append(trainer.run_epoch().lr)
        pace.correct(trainer)
    assert 5 < trainer.epoch < began_with
    assert Slow.clock.now <= 160.0 - END_SECONDS
    assert rates[-1] < 0.1 * WHOLE.lr


def test_epochs_that_are_too_long_have_fewer_steps(trainer: Slow) -> None:
    """Two epochs of 19 steps, of a second each, would fit into 40 s; five of 7 leave chances to correct."""
    Slow.speed = 1.0
    tested = len(trainer.dataset.test) / len(trainer.dataset.validation)
    pace = Pace(100 + 5 + END_SECONDS + tested + 40, WHOLE)
    pace.begin(trainer)
    assert (trainer.recipe.epochs, trainer.steps) == (5, 7)
    while not trainer.done:
        trainer.run_epoch()
        pace.correct(trainer)
    assert trainer.epoch == 5 and Slow.clock.now <= 100 + 5 + 40


@pytest.mark.parametrize("qat", [0.0, 0.3])
def test_a_rehearsal_leaves_no_trace(digits: Dataset, qat: float) -> None:
    """A training that is resumed and rehearsed goes on as one that is not."""
    recipe = Recipe(lr=0.05, epochs=4, batch_size=64, qat=qat)
    begun, other = Trainer(small_network(), digits, recipe), Trainer(small_network(), digits, recipe)
    begun.run_epoch()
    state, steps = begun.state_dict(), begun.steps
    other.load_state_dict(state)
    rehearse(begun)
    begun.shorten(recipe, steps)
    begun.load_state_dict(state)
    assert [epoch.loss for epoch in begun.epochs()] == [epoch.loss for epoch in other.epochs()]


def test_a_time_without_a_step_is_refused(trainer: Slow) -> None:
    with pytest.raises(UserError, match=r"--hours: a step takes 0\.1 s and validating 1 s; give more time"):
        Pace(103.0, WHOLE).begin(trainer)
    with pytest.raises(UserError, match="hours 0: more than 0"):
        TrainOptions("han-e", hours=0)


def test_a_resumed_training_may_be_limited_from_then_on(digits: Dataset, tmp_path: Path) -> None:
    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    for how in ({}, {"resume": True, "deadline": time.monotonic() + 60}, {"resume": True}):
        with pytest.raises(KeyboardInterrupt):
            train(TINY, digits, replace(WHOLE, epochs=100_000), out=tmp_path / "out", on_epoch=kill, **how)
    saved = load_checkpoint(tmp_path / "out/checkpoint.pt")
    assert saved.epoch == 3 and saved.recipe["epochs"] < 100_000


@pytest.mark.slow
def test_a_command_with_hours_ends_in_time(tmp_path: Path) -> None:
    import nas

    began = time.monotonic()
    nas.train("han-e", hours=0.005, out=tmp_path / "out", device="cpu", threads=1)
    assert time.monotonic() - began < 18 * 1.05
    assert yaml.safe_load((tmp_path / "out/train.yaml").read_text())["limited"] is True

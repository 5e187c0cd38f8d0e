"""What a search does with the time of a few steps: which networks it proposes, which published ones it trains."""

import logging
import time

import pytest

import nas
from nas.architecture.catalogue import load_space
from nas.driver.asked import fit_space
from nas.driver.prepare import Prepared, Queued, cost_function
from nas.driver.rehearsal import Rehearsal
from nas.driver.settings import Settings
from nas.driver.time_budget import END_SECONDS, FEWEST, TimeBudget
from nas.driver.trial import NetworkTrainable
from nas.training.data import load_dataset
from nas.training.members import smallest
from nas.training.recipe import Recipe, steps_per_epoch

DIGITS = load_dataset("digits")
RECIPE = Recipe(epochs=4, batch_size=128)
STEPS, _ = steps_per_epoch(len(DIGITS.train), RECIPE.batch_size)


def seconds_of(macs):
    """Of a step."""
    return 0.01 + macs / 1e9


@pytest.fixture
def rehearsed():
    """A rehearsal of a space of photographs, of which a worker has told the steps, with so many seconds for trials."""

    def make(seconds, begun=False):
        space = load_space("efficientnet_lite")
        prepared = Prepared(Settings(space=dict(space.document)), DIGITS, space, cost_function(10), [], None)
        budget = TimeBudget(seconds + END_SECONDS, workers=2, clock=lambda: 0.0)
        rehearsal = Rehearsal(prepared, RECIPE, budget, begun=begun)
        rehearsal.budget = budget
        while (candidate := rehearsal.next_candidate()) is not None:
            assert candidate.rehearsed and rehearsal.broken is None
            macs = nas.cost(candidate.architecture).macs
            rehearsal.report(candidate.number, {"pace": (seconds_of(macs), 0.2), "done": True})
        return rehearsal

    return make


def training(macs):
    return RECIPE.epochs * (STEPS * seconds_of(macs) + 0.2)


def test_enough_networks_fit_where_all_are_the_dearest(rehearsed, caplog):
    caplog.set_level(logging.INFO)
    rehearsal = rehearsed(40.0)
    rehearsal.plan([])
    most = rehearsal.budget.most_macs
    assert FEWEST * training(most) == pytest.approx(40.0 * 2)
    assert f"at most {most / 1e6:.3g} M are proposed, so that the time is enough for {FEWEST} or more" in caplog.text
    little = rehearsed(4.0)  # less than eight times the smallest network's training
    little.plan([])
    cheapest, _ = sorted(little.budget.rehearsed)
    assert training(little.budget.most_macs) == pytest.approx(2 * RECIPE.epochs * cheapest[1])
    enough = rehearsed(1e5)
    enough.plan([])
    assert enough.budget.most_macs == float("inf")  # the largest network of the space has time for eight


def test_published_networks_take_their_share_of_the_time(rehearsed, caplog):
    caplog.set_level(logging.INFO)
    queue = [Queued(nas.load(f"mobilenetv1-{width}-224"), "published") for width in (0.75, 0.25)]
    own = Queued(nas.load("mobilenetv2"), "own")
    rehearsal = rehearsed(8.0)
    first, *others = rehearsal.plan([own, *queue])
    assert [first.architecture.input.resolution, first.origin] == [96, "published"]
    assert others == [own]  # as it was given, and the cheapest first
    assert training(nas.cost(first.architecture).macs) <= 8.0 * 2 / 4
    assert "left out for lack of time: mobilenetv1-0.75-224" in caplog.text and "at 96 pixels" in caplog.text
    assert {item.architecture.id for item in rehearsed(1e5).plan(queue)} == {item.architecture.id for item in queue}


def test_a_time_without_a_training_is_refused(rehearsed):
    assert "training the space's smallest network takes about" in rehearsed(1.0).broken
    assert rehearsed(1.0, begun=True).broken is None and rehearsed(20.0).broken is None


@pytest.fixture
def worker(monkeypatch):
    """The worker's part, in this process: it keeps the process's threads and cores as they are."""
    monkeypatch.setattr("nas.driver.trial.claim_cores", lambda *_: None)
    monkeypatch.setattr("nas.driver.trial.set_threads", lambda *_: None)
    digits = load_dataset("digits", train_size=200)
    space = fit_space(load_space("inverted_residual"), digits)
    config = {"number": 0, "document": smallest(space).to_dict(), "seed": 0, "split": None, "checkpoint": None}
    config |= {"tested": False, "rehearsed": False, "epochs": None, "seconds": None}
    trainable = object.__new__(NetworkTrainable)  # without Ray
    recipe = Recipe(epochs=2, batch_size=64).to_dict()
    trainable.setup(config, digits, recipe, "cpu", 0.0, 1, None, "torch", None)
    return lambda **changes: trainable.reset_config(config | changes) and trainable.step()


def test_a_worker_tells_the_time_of_its_steps_and_ends_when_its_own_is_over(worker):
    began = time.perf_counter()
    step, validating = worker(rehearsed=True)["pace"]
    assert 0 < 4 * step + validating < time.perf_counter() - began
    assert worker(seconds=0.0) == {"late": "step 1 of 8", "done": True}
    assert worker(seconds=60.0)["epoch"]["epoch"] == 1

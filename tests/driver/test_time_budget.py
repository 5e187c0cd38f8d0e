"""Searches that end in time: on an invented clock without Ray, and as a command."""

import time
from dataclasses import replace

import pytest
import runs
from commands import SPACE
from optuna.trial import TrialState
from test_trial_scheduler import EPOCHS, epoch_of, final_accuracy, make_scheduler  # noqa: F401  (a fixture)
from test_trial_scheduler import OBJECTIVES as TWO

import nas
from nas import api
from nas.architecture.catalogue import load_space
from nas.architecture.space import Space
from nas.driver.confirmation import Confirmation
from nas.driver.final_evaluation import to_evaluate
from nas.driver.limits import leaves_some
from nas.driver.objectives import OBJECTIVES, Limit
from nas.driver.options import DEFAULT_TRIALS, MOST_TRIALS, SearchOptions
from nas.driver.prepare import cost_function, with_macs
from nas.driver.run import Run
from nas.driver.sampler.registry import make_sampler
from nas.driver.search import _match
from nas.driver.settings import Settings
from nas.driver.time_budget import END_SECONDS, MOST_CONFIRMING, TimeBudget
from nas.driver.time_left import TimeLeft
from nas.errors import UserError


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def seconds_of(scheduler, candidate):
    """Of an epoch: most of it grows with the network."""
    return 0.05 + scheduler.study.costs(candidate.architecture)["macs"] / 3e7


def play(scheduler, clock, workers=2):
    """Let workers train what the scheduler hands out; returns when the last of them was free."""
    running = {}
    while True:
        while len(running) < workers and (candidate := scheduler.next_candidate()) is not None:
            running[candidate.number] = [candidate, 0, clock.now + seconds_of(scheduler, candidate)]
        if not running:
            return clock.now
        number = min(running, key=lambda number: running[number][2])
        candidate, epoch, ends = running[number]
        clock.now, epoch, seconds = ends, epoch + 1, seconds_of(scheduler, candidate)
        told = epoch_of(epoch, final_accuracy(scheduler, candidate) * epoch / EPOCHS)
        told["epoch"] |= {"seconds": seconds, "seconds_train": seconds * 0.8, "seconds_eval": seconds * 0.2}
        if scheduler.report(number, told):
            del running[number]
        else:
            running[number] = [candidate, epoch, ends + seconds]


def narrowing(space):
    """Lets a scheduler's sampler propose smaller networks; `scheduler` is set once it is made."""

    def narrow(macs):
        limit = Limit(OBJECTIVES["macs"], macs)
        if not leaves_some(space, [limit], cost_function(10)):
            return False
        sampler = make_sampler("random", space=space, objectives=TWO, limits=[limit], costs=cost_function(10), seed=1)
        narrow.scheduler.study.study.sampler = sampler
        return True

    return narrow


@pytest.mark.parametrize("seeds", [0, 1, 3])
def test_trials_leave_the_time_that_the_end_takes(make_scheduler, tmp_path, seeds):  # noqa: F811
    clock, space = Clock(), load_space("inverted_residual")
    budget = TimeBudget(300.0, workers=2, seeds=seeds, confirm_epochs=EPOCHS, tested=2.0, clock=clock)
    narrow = narrowing(space)
    scheduler = make_scheduler(tmp_path, space, trials=MOST_TRIALS, time=budget, narrow=narrow)
    narrow.scheduler = scheduler
    ended = play(scheduler, clock)
    trials = scheduler.study.study.get_trials(deepcopy=False)
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE and "untrained" not in trial.user_attrs]
    assert len(done) > 5 and not scheduler.study.running()
    front = [trial for trial in done if trial.number in scheduler._front]
    epochs = [0.05 + trial.user_attrs["costs"]["macs"] / 3e7 for trial in front]
    again = seeds * EPOCHS * sum(epochs) / 2
    tests = sum(2.0 * 0.2 * seconds for seconds in epochs) / 2
    assert ended + tests + min(again, MOST_CONFIRMING * 300) <= 300 - END_SECONDS + 1
    # and it was used
    assert ended + tests + min(again, MOST_CONFIRMING * 300) > 0.8 * (300 - END_SECONDS)
    assert scheduler.progress.budget == scheduler.progress.closed
    assert scheduler.progress.note == "no time for more"


def test_what_became_slow_is_stopped(make_scheduler, tmp_path, small_space):  # noqa: F811
    """Epochs that take ten times as long as those before: no trial goes on beyond its time for more than an epoch."""
    clock = Clock()
    budget = TimeBudget(40.0, workers=1, clock=clock)
    scheduler = make_scheduler(tmp_path, small_space, trials=MOST_TRIALS, reduction=1, time=budget)
    candidate = scheduler.next_candidate()
    while candidate is not None:
        for epoch in range(1, EPOCHS + 1):
            seconds = 10.0 if clock.now > 15 else 0.5
            clock.now += seconds
            told = epoch_of(epoch, 0.5)
            told["epoch"] |= {"seconds": seconds, "seconds_eval": 0.0}
            if scheduler.report(candidate.number, told):
                break
        candidate = scheduler.next_candidate()
    assert clock.now <= 40 - END_SECONDS + 10
    reasons = [trial.user_attrs.get("reason", "") for trial in scheduler.study.study.get_trials(deepcopy=False)]
    assert any(reason.startswith("out of time at epoch") for reason in reasons)


def test_a_training_that_its_worker_gives_up_is_stopped_where_it_was_judged(make_scheduler, tmp_path, small_space):  # noqa: F811
    clock = Clock()
    budget = TimeBudget(100.0, clock=clock)
    scheduler = make_scheduler(tmp_path, small_space, trials=MOST_TRIALS, max_failures=1, time=budget)
    judged, never = scheduler.next_candidate(), scheduler.next_candidate()
    assert judged.seconds == never.seconds == 100 - END_SECONDS
    scheduler.report(judged.number, epoch_of(1, 0.5))
    assert scheduler.report(judged.number, {"late": "step 30 of 120"})
    assert scheduler.report(never.number, {"late": "step 7 of 120"})
    stopped, failed = scheduler.study.study.get_trials(deepcopy=False)
    assert (stopped.state, failed.state) == (TrialState.PRUNED, TrialState.FAIL)
    assert stopped.user_attrs["reason"] == f"out of time at step 30 of 120, judged at epoch 1 of {EPOCHS}"
    assert (stopped.user_attrs["partial"]["epoch"], stopped.user_attrs["partial"]["values"][0]) == (1, 0.5)
    assert failed.user_attrs["reason"] == "out of time at step 7 of 120, before it was judged"
    assert scheduler.broken is None and not scheduler.study.running()  # nothing is wrong with the network
    assert scheduler.progress.counts == "0 done, 1 stopped early, 1 failed"


def test_a_front_is_confirmed_as_far_as_there_is_time(tmp_path):
    settings = Settings(space=SPACE, objectives=("accuracy", "size"), trials=3, confirm=3, confirm_epochs=2)
    search = runs.begin(tmp_path, settings)
    runs.complete(search, 3)
    records = to_evaluate(Run.open(tmp_path))
    clock, times = Clock(), TimeLeft(2)
    times.start(0, records[0].costs["macs"], asked=False)
    times.epoch(0, 1.0)  # an epoch takes a second
    budget = TimeBudget(END_SECONDS + 5.5, clock=clock)
    leader = Confirmation(search.study, records, seeds=3, epochs=2, time=budget, times=times)
    trained = 0
    while (candidate := leader.next_candidate()) is not None:
        for epoch in (1, 2):
            clock.now += 1.0
            told = {"epoch": epoch, "validation_accuracy": 0.6, "seconds": 1.0}
            if leader.report(candidate.number, {"epoch": told}):
                break
        trained += 1
    assert trained == 2 and clock.now == 4.0 and leader.broken is None  # a third one would end after 6 s
    assert leader.progress.closed == leader.progress.budget == 2
    again = Confirmation(search.study, records, seeds=3, epochs=2, time=TimeBudget(100.0, clock=clock), times=times)
    candidate, before = again.next_candidate(), again.progress.budget
    assert candidate.seconds == 100 - END_SECONDS - clock.now
    assert again.report(candidate.number, {"late": "step 3 of 8"}) and again.broken is None
    assert (again.progress.closed, again.progress.budget) == (0, before - 1)


def test_hours_take_the_place_of_trials(tmp_path):
    assert SearchOptions().budget == {"trials": DEFAULT_TRIALS, "confirm": 0}
    assert SearchOptions(hours=1).budget == {"trials": MOST_TRIALS, "confirm": 1}
    assert SearchOptions(hours=1, trials=5, confirm=0).budget == {"trials": 5, "confirm": 0}
    settings = Settings(space=SPACE, trials=7)
    assert settings.going_on({}, hours=1).trials == MOST_TRIALS
    assert settings.going_on({"trials": 9}, hours=1).trials == 9
    with pytest.raises(UserError, match="its time limited this search"):
        replace(settings, trials=MOST_TRIALS).going_on({})
    with pytest.raises(UserError, match="hours -1: more than 0 are needed"):
        nas.search(hours=-1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_same_command_goes_on_with_what_became_of_it(tmp_path):
    """A search that began with MACs in latency's place is still the one of the same command."""
    settings = Settings(space=SPACE, trials=3)
    began = with_macs(settings)
    runs.begin(tmp_path, began)
    assert _match(settings, tmp_path) == _match(began, tmp_path) == began
    with pytest.raises(UserError, match="holds another run"):
        _match(replace(settings, objectives=("accuracy", "latency")), tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("own_ray")
def test_a_search_with_hours_ends_in_time(tmp_path):
    """With all that belongs to it: the front confirmed and tested, the report written. (Its space is spent before.)"""
    began, space = time.monotonic(), Space(SPACE)
    small, large = (
        space.architecture({name: parameter.values[end] for name, parameter in space.parameters_by_name.items()})
        for end in (0, -1)
    )
    run = nas.search(
        space,
        enqueue=[large, small],
        hours=0.05,
        objectives=["accuracy", "size"],
        published="none",
        train_size=200,
        epochs=2,
        out=tmp_path / "run",
    )
    page = api.report(run.path)
    took = time.monotonic() - began
    assert page.exists() and run.is_tested
    assert run.settings.trials == sum(record.was_trained for record in run.records) < MOST_TRIALS
    assert all(len(record.confirmed["accuracies"]) == 1 for record in run.front_records)
    assert [record.architecture.id for record in run.records if record.origin] == [small.id, large.id]  # cheapest first
    assert took < 180 * 1.05

"""The search's logic without Ray: a loop in this process plays the workers, the study is a real one on disk."""

from contextlib import ExitStack, contextmanager

import checks
import optuna
import pytest
import runs
from optuna.trial import TrialState

import nas
from nas.architecture.document import Architecture
from nas.costs.analytic import too_large
from nas.driver.objectives import parse_limit, parse_objectives
from nas.driver.prepare import cost_function
from nas.driver.sampler.registry import make_sampler
from nas.driver.scheduler import Candidate
from nas.driver.stopping import DominanceStopping, rungs
from nas.driver.storage import STUDY_FILE, RunJournal, open_storage
from nas.driver.study import SearchStudy, curve_of
from nas.driver.trial_scheduler import TrialScheduler, training_seed

EPOCHS = 6
OBJECTIVES = parse_objectives("accuracy,size")


@contextmanager
def open_scheduler(
    folder, space, *, trials=10, limits=(), sampler="random", queue=(), reduction=3, memory=None, **options
):
    costs = cost_function(10, None)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal = RunJournal(folder / STUDY_FILE, writer=True)
    study = optuna.create_study(
        study_name="test",
        storage=open_storage(folder, None, journal=journal),
        directions=["maximize", "minimize"],
        sampler=make_sampler(sampler, space=space, objectives=OBJECTIVES, limits=limits, costs=costs, seed=1),
        load_if_exists=True,
    )
    search = SearchStudy(
        study,
        space=space,
        objectives=OBJECTIVES,
        limits=limits,
        costs=costs,
        objection=lambda a: too_large(nas.cost(a), 1, memory),
        batch=journal.batch,
    )
    for architecture in queue:
        search.enqueue(architecture)
    stopping = DominanceStopping(rungs(EPOCHS), reduction)
    yield TrialScheduler(search, stopping=stopping, epochs=EPOCHS, trials=trials, **options)


@pytest.fixture
def make_scheduler():
    """Opens schedulers, and closes their journals after the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(open_scheduler(*arguments, **options))


def epoch_of(epoch, accuracy):
    return {
        "epoch": {
            "epoch": epoch,
            "validation_accuracy": accuracy,
            "train_accuracy": accuracy,
            "loss": 1 - accuracy,
            "seconds": 0.1,
            "seconds_train": 0.08,
            "seconds_eval": 0.02,
        }
    }


def final_accuracy(scheduler, candidate):
    """Grows with the parameters; every other network learns only half as much, and so is dominated."""
    params = scheduler.study.costs(candidate.architecture)["params"]
    return params / (params + 2000) / (1 + int(candidate.architecture.id, 16) % 2)


def train(scheduler, candidate, accuracy=None):
    """Report epochs until the scheduler ends the trial."""
    final = final_accuracy(scheduler, candidate) if accuracy is None else accuracy
    for epoch in range(1, EPOCHS + 1):
        if scheduler.report(candidate.number, epoch_of(epoch, final * epoch / EPOCHS)):
            return epoch
    raise AssertionError("the scheduler did not end the trial")


def run(scheduler):
    while candidate := scheduler.next_candidate():
        train(scheduler, candidate)


def trials(scheduler):
    return scheduler.study.study.get_trials(deepcopy=False)


def test_states_mean_what_they_say(make_scheduler, tmp_path, small_space):
    scheduler = make_scheduler(tmp_path, small_space, trials=12)
    run(scheduler)
    closed = [trial for trial in trials(scheduler) if "twin" not in trial.user_attrs]
    assert len(closed) == 12
    for trial in closed:
        epochs = len(curve_of(trial.user_attrs))
        assert trial.state == (TrialState.COMPLETE if epochs == EPOCHS else TrialState.PRUNED)
        if trial.state == TrialState.PRUNED:
            assert trial.user_attrs["partial"]["epoch"] == epochs
            assert "epoch" in trial.user_attrs["reason"]
    assert {trial.state for trial in closed} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_no_network_is_trained_twice(make_scheduler, tmp_path, small_space):
    scheduler = make_scheduler(tmp_path, small_space, trials=1000)
    run(scheduler)
    trained = [trial.user_attrs["id"] for trial in trials(scheduler) if curve_of(trial.user_attrs)]
    assert len(trained) == len(set(trained)) <= small_space.size
    assert len(trained) == small_space.size == len(trials(scheduler))  # and nothing is written down to find that out
    assert "no more networks" in scheduler.progress.note
    assert scheduler.study.study.user_attrs["exhausted"] is True


def test_a_duplicate_has_its_twins_values_and_no_training(make_scheduler, tmp_path, small_space):
    scheduler = make_scheduler(tmp_path, small_space, trials=25, reduction=1)
    scheduler.study.study.sampler = optuna.samplers.RandomSampler(seed=1)  # those by name propose no network twice
    run(scheduler)
    duplicates = [trial for trial in trials(scheduler) if "twin" in trial.user_attrs]
    assert duplicates
    for trial in duplicates:
        assert trial.values == trials(scheduler)[trial.user_attrs["twin"]].values
        assert not curve_of(trial.user_attrs)


def test_networks_over_a_limit_never_reach_a_worker(make_scheduler, tmp_path, small_space):
    limit = parse_limit("size<=6kB")
    scheduler = make_scheduler(tmp_path, small_space, trials=8, limits=(limit,))
    scheduler.study.study.sampler = optuna.samplers.RandomSampler(seed=1)  # those by name propose none
    run(scheduler)
    over = [trial for trial in trials(scheduler) if trial.user_attrs["costs"]["size"] > 6e3]
    assert over
    assert all(not curve_of(trial.user_attrs) and trial.state == TrialState.PRUNED for trial in over)
    trained = [trial for trial in trials(scheduler) if curve_of(trial.user_attrs)]
    assert len(trained) == 8


def test_networks_too_large_for_the_memory_never_reach_a_worker(tmp_path, small_space):
    memory = 12 * 1500  # weights, gradients and momentum of 1,500 parameters, and no activation
    with open_scheduler(tmp_path, small_space, trials=10, memory=memory) as scheduler:
        run(scheduler)
        large = [trial for trial in trials(scheduler) if trial.user_attrs["costs"]["params"] >= 1500]
        assert large
        assert all(not curve_of(trial.user_attrs) for trial in large)
        assert all("training needs" in trial.user_attrs["reason"] for trial in large)


def test_queued_networks_come_first_and_keep_their_names(make_scheduler, tmp_path, small_space):
    queue = [small_space.sample(seed) for seed in (1, 2)]
    queue = [Architecture.from_dict({**a.to_dict(), "name": f"mine-{i}"}) for i, a in enumerate(queue)]
    outside = Architecture.from_dict({**queue[0].to_dict(), "name": "outside", "stem": {"channels": 48}})
    scheduler = make_scheduler(tmp_path, small_space, queue=[*queue, outside])
    names = [scheduler.next_candidate().architecture.name for _ in range(4)]
    assert names[:3] == ["mine-0", "mine-1", "outside"]
    assert names[3].startswith("small-")
    assert trials(scheduler)[2].params == {}


@pytest.mark.parametrize("sampler", ["known-cost", "tpe", "nsga2", "random"])
def test_a_network_outside_the_space_does_not_disturb_a_sampler(make_scheduler, tmp_path, small_space, sampler):
    outside = Architecture.from_dict({**small_space.sample(0).to_dict(), "name": "outside", "stem": {"channels": 48}})
    scheduler = make_scheduler(tmp_path, small_space, queue=[outside], sampler=sampler, trials=14)
    run(scheduler)
    assert scheduler.progress.closed == 14


def test_a_failure_is_recorded_and_the_search_goes_on(make_scheduler, tmp_path, small_space):
    scheduler = make_scheduler(tmp_path, small_space, trials=6)
    first = scheduler.next_candidate()
    scheduler.report(first.number, epoch_of(1, 0.5))
    assert scheduler.report(first.number, {"failure": "DivergedError: the loss of epoch 2 is nan"})
    run(scheduler)
    failed = trials(scheduler)[first.number]
    assert failed.state == TrialState.FAIL
    assert failed.user_attrs["reason"] == "DivergedError: the loss of epoch 2 is nan"
    assert len(curve_of(failed.user_attrs)) == 1
    assert (scheduler.progress.failed, scheduler.progress.closed) == (1, 6)


def test_failures_in_a_row_end_the_search(make_scheduler, tmp_path, small_space):
    scheduler = make_scheduler(tmp_path, small_space, trials=20)
    for _ in range(5):
        candidate = scheduler.next_candidate()
        scheduler.report(candidate.number, {"failure": "OSError: no space left"})
    assert scheduler.next_candidate() is None
    assert scheduler.broken == "5 trials in a row failed, the last with: OSError: no space left"


def test_how_many_failures_end_the_search_can_be_said(make_scheduler, tmp_path, small_space):
    scheduler = make_scheduler(tmp_path, small_space, trials=20, max_failures=2)
    for reason in ("first", "second"):
        assert scheduler.broken is None
        scheduler.fail_trial(scheduler.next_candidate().number, reason)
    assert scheduler.broken == "2 trials in a row failed, the last with: second"


def test_a_queued_network_is_never_stopped_and_proposals_are_compared_with_it(tmp_path, small_space, make_scheduler):
    queue = [small_space.sample(seed) for seed in range(3)]
    scheduler = make_scheduler(tmp_path, small_space, queue=queue, trials=8)
    ended = []
    while candidate := scheduler.next_candidate():
        queued = scheduler.study.is_queued(candidate.number)
        # The last queued network is worse than those before it, and no proposal is better.
        accuracy = 0.9 if queued and len(ended) < 2 else 0.1
        ended.append((queued, train(scheduler, candidate, accuracy)))
    assert [epoch for queued, epoch in ended if queued] == [EPOCHS] * 3
    assert any(epoch < EPOCHS for queued, epoch in ended if not queued)


def test_weights_go_when_their_trial_ends_off_the_front_or_falls_off_it(make_scheduler, tmp_path, small_space):
    queue = [small_space.sample(1)]
    discarded = []
    scheduler = make_scheduler(tmp_path, small_space, trials=14, queue=queue, discard=discarded.append)
    scheduler.fail_trial(
        scheduler.next_candidate().number, "broken"
    )  # queued: its weights stay, as long as they are there
    kept = set()
    while candidate := scheduler.next_candidate():
        train(scheduler, candidate)
        complete = [t for t in trials(scheduler) if t.state == TrialState.COMPLETE and "twin" not in t.user_attrs]
        front = {t.number for t in complete if not any(checks.dominates(o.values, t.values) for o in complete)}
        kept = (kept | {candidate.number}) - set(discarded)
        assert kept == front
    assert len(discarded) == len(set(discarded)) > 0
    assert 0 not in discarded


def test_weights_are_discarded_when_the_record_knows_why(make_scheduler, tmp_path, small_space):
    """A driver that is killed while it removes a file must not have lost what its record still needs."""
    states = []

    def look(number):
        reader = optuna.load_study(study_name="test", storage=open_storage(tmp_path, None))
        states.append(reader.trials[number].state)

    scheduler = make_scheduler(tmp_path, small_space, trials=14, discard=look)
    run(scheduler)
    assert states
    assert TrialState.RUNNING not in states


class DriverDiesError(Exception):
    pass


def run_until(scheduler, reports):
    """Train on, one worker; the driver dies when so many epochs have been reported."""
    while candidate := scheduler.next_candidate():
        done = len(curve_of(trials(scheduler)[candidate.number].user_attrs))
        for epoch in range(done + 1, EPOCHS + 1):
            if reports == 0:
                raise DriverDiesError
            reports -= 1
            accuracy = final_accuracy(scheduler, candidate) * epoch / EPOCHS
            if scheduler.report(candidate.number, epoch_of(epoch, accuracy)):
                break


def test_an_interrupted_search_goes_on_as_if_it_had_not_been(tmp_path, small_space):
    def record(folder, cuts):
        folder.mkdir()
        for cut in [*cuts, None]:
            with open_scheduler(folder, small_space, trials=12, sampler="known-cost") as scheduler:
                try:
                    run_until(scheduler, -1 if cut is None else cut)
                except DriverDiesError:
                    continue
                return [(t.user_attrs["id"], t.state, t.values, curve_of(t.user_attrs)) for t in trials(scheduler)]
        raise AssertionError

    assert record(tmp_path / "parts", cuts=[0, 3, 1, 7, 6, 2, 9]) == record(tmp_path / "whole", cuts=[])


class InterruptedStopping(DominanceStopping):
    """Ctrl-C after an epoch is written and before its verdict is."""

    def stops(self, trial, epoch, values):
        raise KeyboardInterrupt


def best_and_worst(scheduler):
    """Train a network to the end; returns a candidate that it dominates, of the same space."""
    first = scheduler.next_candidate()
    train(scheduler, first, accuracy=0.9)
    size = scheduler.study.costs(first.architecture)["size"]
    while scheduler.study.costs((candidate := scheduler.next_candidate()).architecture)["size"] < size:
        train(scheduler, candidate, accuracy=0.9)
    return candidate


def test_ctrl_c_between_an_epoch_and_its_verdict_leaves_neither(tmp_path, small_space):
    with open_scheduler(tmp_path, small_space, sampler="random") as scheduler:
        worse = best_and_worst(scheduler)
        scheduler.stopping = InterruptedStopping(rungs(EPOCHS), 3)
        before = (tmp_path / STUDY_FILE).read_bytes()
        with pytest.raises(KeyboardInterrupt):
            scheduler.report(worse.number, epoch_of(1, 0.1))
        assert (tmp_path / STUDY_FILE).read_bytes() == before
        with pytest.raises(RuntimeError, match="open the journal again"):  # its copy in memory has the epoch
            scheduler.fail_trial(worse.number, "too late")
        assert (tmp_path / STUDY_FILE).read_bytes() == before
    with open_scheduler(tmp_path, small_space, sampler="random") as scheduler:
        assert scheduler.next_candidate() == worse
        assert scheduler.report(worse.number, epoch_of(1, 0.1))
        assert trials(scheduler)[worse.number].state == TrialState.PRUNED


@pytest.mark.parametrize(("epochs", "state"), [(1, TrialState.PRUNED), (EPOCHS, TrialState.COMPLETE)])
def test_an_epoch_whose_verdict_is_missing_is_judged_by_a_resume(tmp_path, small_space, epochs, state):
    """As a driver leaves it that dies between two writes of a database, or of an older version's journal."""
    with open_scheduler(tmp_path, small_space, sampler="random") as scheduler:
        worse = best_and_worst(scheduler)
        for epoch in range(1, epochs + 1):
            scheduler.study.record_epoch(worse.number, runs.epoch(epoch, 0.1))
        closed = scheduler.progress.closed
    with open_scheduler(tmp_path, small_space, sampler="random") as scheduler:
        assert trials(scheduler)[worse.number].state == state
        assert (scheduler.progress.closed, scheduler.progress.running) == (closed + 1, 0)
        assert scheduler.next_candidate().number != worse.number


def test_what_a_worker_repeats_from_its_checkpoint_is_not_judged_again(make_scheduler, tmp_path, small_space):
    scheduler = make_scheduler(tmp_path, small_space, sampler="random")
    first = scheduler.next_candidate()
    assert not scheduler.report(first.number, epoch_of(1, 0.1))
    second = scheduler.next_candidate()
    train(scheduler, second, accuracy=0.9)
    before = (tmp_path / STUDY_FILE).read_bytes()
    assert not scheduler.report(first.number, epoch_of(1, 0.1))
    assert (tmp_path / STUDY_FILE).read_bytes() == before


def test_progress_counts(make_scheduler, tmp_path, small_space):
    scheduler = make_scheduler(tmp_path, small_space, trials=5, reduction=1)
    assert scheduler.progress.seconds_left is None
    first = scheduler.next_candidate()
    scheduler.report(first.number, epoch_of(1, 0.01))
    assert scheduler.progress.seconds_left > 0
    scheduler.fail_trial(first.number, "broken")
    run(scheduler)
    assert scheduler.progress.seconds_left == 0
    progress = scheduler.progress
    assert (progress.done, progress.stopped, progress.failed, progress.running) == (4, 0, 1, 0)
    best = max(trial.values[0] for trial in trials(scheduler) if trial.state == TrialState.COMPLETE)
    assert progress.best_accuracy == best
    assert progress.front == len(scheduler.study.study.best_trials)  # Optuna's own front


def test_training_seeds_depend_on_network_run_and_repetition(small_space):
    one, other = Candidate(0, small_space.sample(0)), Candidate(1, small_space.sample(1))
    again = Candidate(2, small_space.sample(0), seed_of="confirmation 1")
    assert training_seed(0, one) == training_seed(0, Candidate(5, one.architecture))
    assert len({training_seed(0, one), training_seed(0, other), training_seed(1, one), training_seed(0, again)}) == 4

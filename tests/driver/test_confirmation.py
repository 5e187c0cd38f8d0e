"""Training the front again, without Ray: this process plays the workers."""

from dataclasses import replace

import pytest
import runs
from commands import SPACE

from nas.driver.confirmation import Confirmation
from nas.driver.final_evaluation import to_evaluate
from nas.driver.run import Run
from nas.driver.search import is_finished
from nas.driver.settings import Settings

SETTINGS = Settings(space=SPACE, objectives=("accuracy", "size"), trials=3, confirm=3, confirm_epochs=2)


@pytest.fixture
def study(tmp_path):
    """A finished search of three trials, with the front's test accuracy; nothing is trained again yet."""
    search = runs.begin(tmp_path, SETTINGS)
    runs.complete(search, 3)
    front = to_evaluate(Run.open(tmp_path))
    search.study.set_user_attr("confirmed", {str(record.number): {"test_accuracy": 0.5} for record in front})
    return search.study


def confirm(folder, study, fails, **options):
    """Train until there is nothing left, two workers; `fails` says which trainings do, by their place."""
    records = to_evaluate(Run.open(folder))
    leader = Confirmation(study, records, seeds=3, epochs=2, **options)
    running = []
    trained = 0
    while True:
        while len(running) < 2 and (candidate := leader.next_candidate()) is not None:
            running.append(candidate)
        if not running:
            return leader, trained
        number = running.pop(0).number
        epoch = {"epoch": 2, "validation_accuracy": 0.6, "seconds": 1.0}
        assert leader.report(number, {"failure": f"{number} broke"} if fails(trained) else {"epoch": epoch})
        trained += 1


def test_each_seed_draws_its_own_validation_images_for_all_networks(tmp_path, study):
    records = Run.open(tmp_path).records
    for resplits in (True, False):
        leader = Confirmation(study, records, seeds=3, epochs=2, resplits=resplits)
        jobs = iter(leader.next_candidate, None)
        splits = {}
        for candidate in jobs:
            splits.setdefault(candidate.seed_of, []).append(candidate.split_of)
        assert len(splits) == 3 and {len(same) for same in splits.values()} == {len(records)}
        assert [len(set(same)) for same in splits.values()] == [1, 1, 1]
        assert len({same[0] for same in splits.values()}) == (3 if resplits else 1)


def test_failures_in_a_row_end_it_and_a_resume_trains_those_again(tmp_path, study):
    before = study.user_attrs["confirmed"]
    leader, trained = confirm(tmp_path, study, fails=lambda place: True, max_failures=2)
    assert "trainings in a row failed, the last with: 2 broke" in leader.broken
    assert trained == 3  # the other worker was busy
    assert study.user_attrs["confirmed"] == before
    assert not is_finished(Run.open(tmp_path), SETTINGS)
    leader, trained = confirm(tmp_path, study, fails=lambda place: False)
    assert trained == 3 * len(before)
    assert is_finished(Run.open(tmp_path), SETTINGS)


@pytest.mark.parametrize("place", [0, 1, -1])
def test_a_training_that_broke_is_done_with(tmp_path, study, place):
    networks = len(study.user_attrs["confirmed"])
    broken = place % (3 * networks)
    leader, trained = confirm(tmp_path, study, fails=lambda number: number == broken, max_failures=2)
    assert (leader.broken, trained, leader.progress.failed) == (None, 3 * networks, 1)
    run = Run.open(tmp_path)
    assert is_finished(run, SETTINGS)
    assert not is_finished(run, replace(SETTINGS, confirm=4))
    accuracies = [len(record.confirmed["accuracies"]) for record in to_evaluate(run)]
    assert sorted(accuracies) == [2] + [3] * (networks - 1)
    _, trained = confirm(tmp_path, study, fails=lambda number: False)
    assert trained == 0

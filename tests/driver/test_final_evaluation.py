"""The end of a search: who reads the test images, and when. A loop in this process plays the workers."""

from pathlib import Path

import pytest
import runs

from nas.architecture.document import Architecture
from nas.driver.conductor import Conductor
from nas.driver.final_evaluation import ThenTestImages, to_judge
from nas.driver.run import Run
from nas.driver.settings import Settings
from nas.driver.stopping import DominanceStopping


def lead(study, folder: Path, said: list[str]) -> ThenTestImages:
    conductor = Conductor(study, stopping=DominanceStopping((), 1), epochs=1, trials=6)
    return ThenTestImages(conductor, study.study, lambda: to_judge(Run.open(folder)), said.append)


def epoch(number: int) -> dict:
    return {"epoch": {**runs.epoch(1, 0), "validation_accuracy": 0.5 + 0.01 * number}}


@pytest.fixture
def begun(tmp_path: Path, small_space):
    """A run whose six networks two workers have in hand, the last one still in training."""
    study = runs.begin(tmp_path, Settings(space=dict(small_space.document), objectives=("accuracy", "size"), trials=6))
    study.enqueue(
        Architecture.from_dict({**small_space.sample(0).to_dict(), "name": "outside", "stem": {"channels": 48}})
    )
    said: list[str] = []
    leader = lead(study, tmp_path, said)
    running = [leader.next_candidate(), leader.next_candidate()]
    for _ in range(5):
        done = running.pop(0)
        assert leader.report(done.number, epoch(done.number))
        if (candidate := leader.next_candidate()) is not None:
            running.append(candidate)
    (last,) = running
    return tmp_path, study, leader, last, said


def test_nobody_reads_test_images_while_a_network_is_trained(begun):
    folder, _, leader, last, said = begun
    assert not last.tested and leader.next_candidate() is None and not said
    leader.report(last.number, epoch(last.number))
    judged = {record.number for record in Run.open(folder).records if record.on_front or record.origin}
    handed_out = []
    while candidate := leader.next_candidate():
        assert candidate.tested
        handed_out.append(candidate.number)
    assert sorted(handed_out) == sorted(judged)
    assert 0 in judged  # the network outside, beside the front
    assert said == [f"reading the test images, for {len(judged)} networks"]


def test_after_an_interruption_only_the_others_are_read(begun):
    folder, study, leader, last, said = begun
    leader.report(last.number, epoch(last.number))
    first, second = leader.next_candidate(), leader.next_candidate()
    assert leader.report(first.number, {"test": {"test_accuracy": 0.75, "test_hits": "e0"}})
    leader.fail_trial(second.number, "the worker process died")
    assert said[-1] == f"trial {second.number}: the test images could not be read with it: the worker process died"
    again = lead(study, folder, said)
    handed_out = []
    while candidate := again.next_candidate():
        handed_out.append(candidate.number)
    judged = {record.number for record in to_judge(Run.open(folder))}
    assert set(handed_out) == judged - {first.number}
    assert second.number in handed_out
    confirmed = {record.number: record.confirmed for record in Run.open(folder).records}
    assert confirmed[first.number] == {"test_accuracy": 0.75, "test_hits": "e0"}

"""The end of a search: who reads the test images, and when."""

import json
import logging
from pathlib import Path

import pytest
import runs

from nas.architecture.document import Architecture
from nas.driver.final_evaluation import FinalTest, to_evaluate
from nas.driver.run import Run
from nas.driver.settings import Settings


@pytest.fixture
def trained(tmp_path: Path, small_space):
    """A run whose six networks are trained, one of them outside the space; their weights stand in their files."""
    study = runs.begin(tmp_path, Settings(space=dict(small_space.document), objectives=("accuracy", "size"), trials=6))
    study.enqueue(
        Architecture.from_dict({**small_space.sample(0).to_dict(), "name": "outside", "stem": {"channels": 48}})
    )
    for number in range(6):
        study.propose()
        study.record_epoch(number, runs.epoch(1, 0.5 + 0.01 * number))
        study.complete(number)
        (tmp_path / "checkpoints" / f"{number}.pt").touch()
    return study.study, tmp_path


def handed_out(scheduler: FinalTest) -> list[int]:
    numbers = []
    while candidate := scheduler.next_candidate():
        assert candidate.tested
        numbers.append(candidate.number)
    return numbers


def test_the_front_and_what_was_asked_for_is_tested(trained, caplog):
    study, folder = trained
    judged = {record.number for record in Run.open(folder).records if record.on_front or record.origin}
    assert 0 in judged  # the network outside, beside the front
    with caplog.at_level(logging.INFO, "nas"):
        assert sorted(handed_out(FinalTest(study, Run.open(folder)))) == sorted(judged)
    assert caplog.messages == [f"reading the test images, for {len(judged)} networks"]


def test_after_an_interruption_only_the_others_are_read(trained, caplog):
    study, folder = trained
    scheduler = FinalTest(study, Run.open(folder))
    first, second = scheduler.next_candidate(), scheduler.next_candidate()
    judged = {"judgement": {"accuracy": 0.75}}
    assert scheduler.report(first.number, {"test": {"test_accuracy": 0.75, "test_hits": "e0"}, **judged})
    assert json.loads((folder / "judged" / f"{first.number}.json").read_text()) == judged["judgement"]
    scheduler.fail_trial(second.number, "the worker process died")
    said = f"trial {second.number}: the test images could not be read with it: the worker process died"
    assert caplog.messages[-1] == said
    judged = {record.number for record in to_evaluate(Run.open(folder))}
    assert set(handed_out(FinalTest(study, Run.open(folder)))) == judged - {first.number}
    (folder / "checkpoints" / f"{second.number}.pt").unlink()  # without its weights it cannot be tested
    assert set(handed_out(FinalTest(study, Run.open(folder)))) == judged - {first.number, second.number}
    confirmed = {record.number: record.confirmed for record in Run.open(folder).records}
    assert confirmed[first.number] == {"test_accuracy": 0.75, "test_hits": "e0"}

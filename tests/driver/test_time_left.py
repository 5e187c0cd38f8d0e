"""The time that is left, as it would have been told while searches ran whose times were recorded.

`recorded_search.json` is the first command of the README twice, on two cores that others used too: 8 networks asked for
by name, then 24 proposals, 6 of them stopped early; and 6, much dearer than the 26 proposals, of which 16 were stopped.
Seconds from the first training on.
"""

import json
import time
from pathlib import Path

import pytest

from nas.driver.display import describe
from nas.driver.scheduler import Progress
from nas.driver.time_left import TimeLeft

RECORDS = json.loads((Path(__file__).parent / "recorded_search.json").read_text())


def told(record: dict) -> list[tuple[float, float, float]]:
    """Whenever a training ends: the time, what was said to be left, and what was."""
    now = 0.0
    left = TimeLeft(record["epochs"], clock=lambda: now)
    trainings = record["trainings"]
    events: list[tuple[float, int, int, float]] = []
    for number, training in enumerate(trainings):
        events.append((training["start"], 2, number, 0.0))
        events.append((training["end"], 1, number, 0.0))
        at = training["end"]
        for seconds in reversed(training["seconds"]):
            events.append((at, 0, number, seconds))
            at -= seconds
    end = max(training["end"] for training in trainings)
    begun: set[int] = set()
    said = []
    for at, kind, number, seconds in sorted(events):
        now = at
        if kind == 2:
            left.start(number, trainings[number]["macs"], asked=trainings[number]["asked"])
            begun.add(number)
        elif kind == 0:
            left.epoch(number, seconds)
        else:
            left.close(number)
            to_come = [training for index, training in enumerate(trainings) if index not in begun]
            queue = [training["macs"] for training in to_come if training["asked"]]
            seconds_left = left.seconds(queue, len(to_come) - len(queue))
            assert seconds_left is not None
            said.append((at, seconds_left, end - at))
    return said


@pytest.mark.parametrize("record", RECORDS, ids=["few stopped", "many stopped"])
def test_at_half_time_the_rest_is_told_within_a_tenth_of_the_search(record: dict) -> None:
    said = told(record)
    end = said[-1][0]
    _, guess, rest = min(said, key=lambda told_at: abs(told_at[0] - end / 2))
    assert abs(guess - rest) < 0.1 * end


def test_networks_that_cost_more_than_the_proposals_do_not_foretell_their_time() -> None:
    """Compared with the time per training so far, times the trainings to come."""
    said = told(RECORDS[1])
    count = len(said)
    ours = [abs(guess - rest) for _, guess, rest in said]
    simple = [abs(at / done * (count - done) - rest) for done, (at, _, rest) in enumerate(said, 1)]
    assert sum(ours) < sum(simple) / 3


@pytest.mark.parametrize("at", [0, 4])
def test_one_proposal_that_is_much_larger_does_not_foretell_the_others(at: int) -> None:
    """One worker, epochs of a second; of 30 proposals one is a hundred times as large, and is not stopped either."""
    now = 0.0
    left = TimeLeft(2, clock=lambda: now)
    for number in range(at + 1):
        macs = 100e6 if number == at else 1e6
        left.start(number, macs, asked=False)
        for _ in range(2):
            now += macs / 1e6
            left.epoch(number, macs / 1e6)
        left.close(number)
    left.start(at + 1, 1e6, asked=False)
    now += 1
    left.epoch(at + 1, 1.0)
    truth, said = 1 + 2 * (28 - at), left.seconds([], 28 - at)
    assert said is not None and truth / 3 < said < 3 * truth


def test_what_waits_is_priced_by_its_macs() -> None:
    """One worker, seconds an exact line over MACs: the answer is exact as soon as two networks differ."""
    now = 0.0
    left = TimeLeft(2, clock=lambda: now)
    assert left.seconds([1e6], 0) is None
    for number, macs in enumerate((1e6, 5e6)):
        left.start(number, macs, asked=True)
        for _ in range(2):
            seconds = 0.5 + 2 * macs / 1e6
            now += seconds
            left.epoch(number, seconds)
        left.close(number)
    assert left.seconds([3e6, 10e6], 0) == pytest.approx(2 * (0.5 + 6) + 2 * (0.5 + 20))
    assert left.seconds([], 0) == 0


def test_what_a_time_affords_takes_that_time() -> None:
    """Rehearsed steps count as an epoch; more MACs than are afforded take longer, fewer less."""
    left = TimeLeft(3)
    assert left.affordable(1.0) == float("inf")
    for macs in (2e6, 5e6, 40e6):
        left.rehearse(macs, 0.5 + 2 * macs / 1e6)
    assert left.affordable(3 * (0.5 + 2 * 7)) == pytest.approx(7e6)
    assert left.training(7e6) == pytest.approx(3 * 14.5)
    assert left.affordable(1.0) == 0.0  # no network's epochs are that short
    even = TimeLeft(3)
    even.rehearse(2e6, 0.5)
    assert (even.affordable(1.6), even.affordable(1.4)) == (float("inf"), 0.0)


def test_the_best_accuracy_has_the_digits_of_its_images() -> None:
    best = [describe(Progress(budget=1, best_accuracy=0.90909, images=images)) for images in (77, 10_000)]
    assert [line.split(" · ")[5] for line in best] == ["best 91 %", "best 90.9 %"]


def test_time_that_passes_between_two_reports_is_no_longer_left() -> None:
    progress = Progress(budget=4, done=2)
    assert "time left unknown yet" in describe(progress)
    progress.expect(90.4)
    assert "about 1 min 30 s left" in describe(progress)
    progress.ends = time.monotonic() + 20.4
    assert "about 20 s left" in describe(progress)

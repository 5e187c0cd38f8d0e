"""The answer: what the front is said to be, and how it is compared with published networks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from studies import invented_run

from nas.driver.record import Record
from nas.driver.run import Run
from nas.report.distance import Distance, distance
from nas.report.summary import front_rows, latency, repeated_accuracy, summary
from nas.significance import Difference


def test_the_front_s_rows_say_what_the_records_hold(run: Run) -> None:
    rows = front_rows(run)
    assert [row["number"] for row in rows] == [record.number for record in run.front_records]
    for rank, (row, record) in enumerate(zip(rows, run.front_records, strict=True), 1):
        assert row["rank"] == rank
        assert row["accuracy"] == f"{100 * record.accuracy:.0f} %"  # 269 images: one is a third of a point
        assert row["test"] == f"{100 * record.confirmed['test_accuracy']:.0f} %"
        low, high = (float(word) for word in row["test_note"].removesuffix(" %").split(" to "))
        assert low <= 100 * record.confirmed["test_accuracy"] <= high and 1 < high - low < 15
        assert row["command"] == f"nas train {run.front_file(rank, record)}"
        low, high = record.confirmed["latency_low_ms"], record.confirmed["latency_high_ms"]
        assert float(row["latency_note"].split()[0]) == pytest.approx(low, rel=0.01)
        assert float(row["latency_note"].split()[2]) == pytest.approx(high, rel=0.01)


@pytest.mark.parametrize(
    ("ratio", "difference", "said"),
    [
        (
            1 / 2.1,
            (0.011, -0.012, 0.034),
            "2.1× smaller than {}, not distinguishable in accuracy (−1.2 to +3.4 points)",
        ),
        (1 / 24, (-0.05, -0.08, -0.02), "24× smaller than {}, 5.0 points less accurate (2.0 to 8.0)"),
        (3.0, (0.031, 0.01, 0.05), "3.0× larger than {}, 3.1 points more accurate (1.0 to 5.0)"),
        (1.01, (0.0, -0.02, 0.02), "as large as {}, not distinguishable in accuracy (−2.0 to +2.0 points)"),
    ],
)
def test_distance_in_words(run: Run, ratio: float, difference: tuple[float, float, float], said: str) -> None:
    rival = next(record for record in run.records if record.published)
    found = Distance(rival, "size", ratio, difference[0], Difference(*difference))
    assert str(found) == said.format(rival.architecture.name)


def judged(run: Run, images: int | None, *records: Record) -> Run:
    """The run with these records alone, and so many validation and test images."""
    data = {} if images is None else {"validation": images, "test": images}
    made = Run(run.path, run.settings, run.environment, run.study, data)
    made.records = list(records)
    return made


def beside(run: Run, index: int, accuracy: float, size: float, **confirmed: Any) -> Record:
    """A published network of the run with other figures."""
    record = [record for record in run.records if record.published][index]
    known = {"state": "complete", "accuracy": accuracy, "confirmed": confirmed, "twin": None, "on_front": False}
    return replace(record, costs={**record.costs, "size": size}, **known)


def found_one(run: Run, accuracy: float, size: float, **confirmed: Any) -> Record:
    record = next(record for record in run.front_records if not record.published)
    return replace(record, accuracy=accuracy, confirmed=confirmed, costs={**record.costs, "size": size})


def test_the_rival_is_the_cheapest_that_cannot_be_told_apart(run: Run) -> None:
    record = found_one(run, 0.9, 1e6)
    rivals = [beside(run, 0, 0.902, 4e6), beside(run, 1, 0.9, 2e6), beside(run, 2, 0.98, 1.5e6)]
    found = distance(judged(run, 400, record, *rivals), record)  # 8 of 90 points apart in 400 images are told apart
    assert found is not None and found.difference is not None
    assert (found.rival, found.ratio, found.difference.is_distinguishable) == (rivals[1], 0.5, False)
    # With 77 images no two of them can be told apart, so the cheapest is the rival.
    found = distance(judged(run, 40, record, *rivals), record)
    assert found is not None and found.rival is rivals[2]
    far = [beside(run, 0, 0.7, 4e6), beside(run, 2, 0.98, 1.5e6)]
    found = distance(judged(run, 400, record, *far), record)
    assert found is not None
    assert (found.rival, found.gap) == (far[1], pytest.approx(-0.08))
    assert distance(judged(run, 400, record), record) is None
    # A run of an older nas does not say how many images it has: then nothing is called equal.
    found = distance(judged(run, None, record, *rivals), record)
    assert found is not None
    assert (found.rival, found.difference) == (rivals[1], None)
    assert str(found).endswith("0.0 points less accurate")


def test_seeds_are_compared_where_both_have_them(run: Run) -> None:
    record = found_one(run, 0.80, 1e6, accuracies=[0.90, 0.91, 0.92], epochs=9)
    rival = beside(run, 0, 0.95, 2e6, accuracies=[0.90, 0.91, 0.93], epochs=9)
    found = distance(judged(run, 400, record, rival), record)
    assert found is not None and found.difference is not None
    assert found.gap == pytest.approx(-1 / 300)
    assert not found.difference.is_distinguishable
    two = replace(rival, confirmed={**rival.confirmed, "accuracies": [0.90, 0.91]})  # tell too little of their spread
    found = distance(judged(run, 400, record, two), record)
    assert found is not None and found.gap == pytest.approx(-0.15)
    other = replace(rival, confirmed={**rival.confirmed, "epochs": 12})  # other trainings: only the search's remain
    found = distance(judged(run, 400, record, other), record)
    assert found is not None and found.gap == pytest.approx(-0.15)


def test_several_seeds_give_mean_and_spread(run: Run) -> None:
    record = replace(run.front_records[0], confirmed={"accuracies": [0.90, 0.92, 0.94]})
    assert repeated_accuracy(record) == "again: 92 ± 2 (3 seeds)"  # the mean is uncertain by 2/sqrt(3) points
    assert repeated_accuracy(replace(record, confirmed={})) == ""
    longer = replace(record, confirmed={"accuracies": [0.910, 0.914], "epochs": 60})
    assert repeated_accuracy(longer) == "again: 91.2 ± 0.3 (2 seeds of 60 epochs)"


def test_latency_says_where_it_comes_from(run: Run) -> None:
    record = run.front_records[0]
    assert latency(replace(record, confirmed={}, costs={"latency": 1.5})) == ("1.50 ms", "predicted")
    assert latency(replace(record, confirmed={}, costs={})) == ("–", "")
    measured = {"latency_ms": 1.52, "latency_low_ms": 1.4, "latency_high_ms": 1.6}
    assert latency(replace(record, confirmed=measured)) == ("1.52 ms", "1.40 to 1.60 ms")
    noisy = {**measured, "latency_noisy": "others used 40 % of the machine"}
    assert latency(replace(record, confirmed=noisy)) == ("1.52 ms", "1.40 to 1.60 ms, noisy")


def test_the_paragraph_counts(run: Run) -> None:
    text = summary(run)
    trained = [record for record in run.records if record.was_trained]
    stopped = sum(record.state == "stopped" for record in trained)
    assert text.startswith(f"{len(trained)} networks of the space inverted_residual were trained on digits")
    assert f"{stopped} stopped early" in text
    assert f"{len(run.front)} networks make the front" in text


def test_of_a_front_of_one_network_the_sentence_is_about_one(run: Run) -> None:
    found, other = found_one(run, 0.9, 1e6), beside(run, 0, 0.1, 1e8)
    assert "1 network makes the front, found by this search: " in summary(judged(run, 300, found, other))
    published = replace(other, on_front=True)
    assert "1 network makes the front, not found by this search: " in summary(judged(run, 300, published))


def test_nothing_trained_is_said() -> None:
    empty = invented_run(Path("results/empty"), trials=5, closed=0, confirmed=False)
    assert summary(empty) == "No network has been trained yet."
    failed = invented_run(Path("results/failed"), trials=5, fails=lambda number: "boom")
    assert summary(failed).endswith("None reached the end, so there is no front.")

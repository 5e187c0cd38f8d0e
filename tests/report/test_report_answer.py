"""The answer: what the front is said to be, and how it is compared with published networks."""

from dataclasses import replace
from pathlib import Path

import pytest
from studies import invented_run

from nas.report.answer import Distance, distance, front_rows, latency, repeated_accuracy, summary
from nas.search.run import Run


def test_the_front_s_rows_say_what_the_records_hold(run: Run) -> None:
    rows = front_rows(run)
    assert [row.number for row in rows] == [record.number for record in run.front_records]
    for rank, (row, record) in enumerate(zip(rows, run.front_records, strict=True), 1):
        assert row.rank == rank
        assert row.accuracy == f"{100 * record.accuracy:.2f} %"
        assert row.test == f"{100 * record.confirmed['test_accuracy']:.2f} %"
        assert row.command == f"nas train {run.front_file(rank, record)} --dataset digits"
        low, high = record.confirmed["latency_low_ms"], record.confirmed["latency_high_ms"]
        assert float(row.latency_note.split()[0]) == pytest.approx(low, rel=0.01)
        assert float(row.latency_note.split()[2]) == pytest.approx(high, rel=0.01)


@pytest.mark.parametrize(
    ("ratio", "gap", "said"),
    [
        (1 / 2.1, 0.001, "2.1× smaller than han-e at the same accuracy"),
        (1 / 24, -0.02, "24× smaller than han-e, 2.0 points less accurate"),
        (3.0, 0.031, "3.0× larger than han-e, 3.1 points more accurate"),
        (1.01, 0.0, "as large as han-e at the same accuracy"),
    ],
)
def test_distance_in_words(ratio: float, gap: float, said: str) -> None:
    assert str(Distance("han-e", "size", ratio, gap)) == said


def test_the_rival_is_the_cheapest_of_the_equally_accurate(run: Run) -> None:
    published = [record for record in run.records if record.published][:3]
    base = next(record for record in run.front_records if not record.published)
    size = base.costs["size"]

    def rival(index: int, accuracy: float, times: float):
        known = {"state": "complete", "accuracy": accuracy, "confirmed": {}, "twin": None}
        return replace(published[index], costs={**published[index].costs, "size": times * size}, **known)

    record = replace(base, accuracy=0.9, confirmed={})
    made = Run(run.path, run.settings, run.environment, run.study)
    made.records = [record, rival(0, 0.902, 4), rival(1, 0.9, 2), rival(2, 0.93, 1.5)]
    found = distance(made, record)
    assert found is not None
    assert (found.rival, found.ratio, found.is_same_accuracy) == (published[1].architecture.name, 0.5, True)
    made.records = [record, rival(0, 0.8, 4), rival(2, 0.93, 1.5)]
    found = distance(made, record)
    assert found is not None
    assert (found.rival, found.gap) == (published[2].architecture.name, pytest.approx(-0.03))
    made.records = [record]
    assert distance(made, record) is None


def test_several_seeds_give_mean_and_spread(run: Run) -> None:
    record = replace(run.front_records[0], confirmed={"accuracies": [0.90, 0.92, 0.94]})
    assert repeated_accuracy(record) == "again: 92.00 ± 2.00, 3 seeds"
    assert repeated_accuracy(replace(record, confirmed={})) == ""
    longer = replace(record, confirmed={"accuracies": [0.90, 0.92], "epochs": 60})
    assert repeated_accuracy(longer) == "again: 91.00 ± 1.41, 2 seeds of 60 epochs"


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


def test_nothing_trained_is_said() -> None:
    empty = invented_run(Path("results/empty"), trials=5, closed=0, confirmed=False)
    assert summary(empty) == "No network has been trained yet."
    failed = invented_run(Path("results/failed"), trials=5, fails=lambda number: "boom")
    assert summary(failed).endswith("None reached the end, so there is no front.")

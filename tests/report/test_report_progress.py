"""How the search went: hypervolume, time, importance, trust."""

import datetime
import itertools
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from scipy import stats
from studies import WORKERS, invented_run

from nas import pareto
from nas.driver.final_evaluation import to_evaluate
from nas.driver.run import Run
from nas.errors import UserError
from nas.report import importance, progress, reliability
from nas.report.effort import ending_rows, time_sentence, time_spent
from nas.report.figures import FIGURES, figure
from nas.report.page import status
from nas.report.points import run_points


@pytest.mark.parametrize("objectives", [("accuracy",), ("accuracy", "size"), ("accuracy", "size", "latency", "macs")])
def test_hypervolume_grows_to_that_of_the_front(objectives: tuple[str, ...]) -> None:
    run = invented_run(Path("results/example"), trials=40, objectives=objectives)
    box = progress.Box.of(run.objectives, run.records)
    drawn = progress.hypervolume_figure(run)
    assert box is not None and drawn is not None
    xs, ys = drawn["data"][0]["x"], drawn["data"][0]["y"]
    assert xs[0] == ys[0] == 0 and xs[-1] == sum(record.was_trained for record in run.records)
    assert np.all(np.diff(xs) >= 0) and np.all(np.diff(ys) >= 0)
    front = [box.place(record) for record in run.front_records]
    assert ys[-1] == pytest.approx(100 * pareto.hypervolume(np.array(front), np.ones(len(objectives))))
    assert 0 < ys[-1] <= 100
    # After half of the trainings, by the count of random points that one of them dominates.
    half = len(run.records) // 2
    seen = [place for record in run.records[:half] if (place := box.place(record)) is not None]
    drops = np.random.default_rng(0).random((20_000, len(objectives)))
    share = np.mean(np.any([np.all(place <= drops, axis=1) for place in seen], axis=0))
    order = [record.number for record in progress.closed_records(run)]
    if set(order[:half]) == set(range(half)):
        assert max(y for x, y in zip(xs, ys, strict=True) if x <= half) == pytest.approx(100 * share, abs=1.5)


def test_hypervolume_against_the_clock_ends_when_the_last_training_does(run: Run) -> None:
    drawn, by_time = progress.hypervolume_figure(run), progress.hypervolume_figure(run, by_seconds=True)
    assert drawn is not None and by_time is not None
    assert by_time["data"][0]["y"] == drawn["data"][0]["y"]
    begin = min(record.started for record in run.records if record.started)
    end = max(record.finished for record in run.records if record.finished)
    assert by_time["data"][0]["x"][-1] == pytest.approx((end - begin).total_seconds(), rel=0.02)


def seconds_in(run: Run) -> float:
    return sum(epoch["seconds"] for record in run.records if record.was_trained for epoch in record.curve)


def test_time_adds_up(run: Run) -> None:
    spent = time_spent(run)
    assert spent.workers == WORKERS
    assert spent.total == pytest.approx(seconds_in(run) + spent.idle)
    shares = [int(word) for word in time_sentence(spent).replace(",", "").split() if word.isdigit()]
    assert "workers" in time_sentence(spent) and shares
    assert spent.idle > 0


@pytest.mark.parametrize("known", [True, False], ids=["says when it was resumed", "of an older version"])
def test_a_pause_of_eight_hours_is_in_no_account_of_time(known: bool) -> None:
    """As if there had been none, but for what interrupted trials waited; the same in table, bar and sentence."""
    small = ("macs<=4M",)  # no trial takes half of the time
    plain, paused = (invented_run(Path("results/paused"), trials=20, published="none", limits=small) for _ in range(2))
    spans = [
        (r.started.timestamp(), r.finished.timestamp())
        for r in plain.records
        if r.was_trained and r.started and r.finished
    ]
    begin, end = min(start for start, _ in spans), max(stop for _, stop in spans)
    moment = statistics.fmean(sorted(spans)[len(spans) // 2])
    pause = datetime.timedelta(hours=8)

    def later(at: datetime.datetime) -> datetime.datetime:
        return at + pause if at.timestamp() > moment else at

    paused.records = [
        replace(r, started=r.started and later(r.started), finished=r.finished and later(r.finished))
        for r in paused.records
    ]
    assert any((r.finished - r.started) > pause for r in paused.records if r.finished and r.started)
    for one, sessions in ((plain, [begin]), (paused, [begin, moment + pause.total_seconds()])):
        if known:
            one.study.set_user_attr("sessions", sessions)
    expected, found = time_spent(plain), time_spent(paused)
    assert found.by_state == expected.by_state
    assert found.workers == WORKERS
    longest = max(record.seconds for record in plain.records)  # where in it the pause was is not known
    assert found.idle == pytest.approx(expected.idle, abs=longest)
    by_title = {"complete": "Trained to the end", "stopped": "Stopped early"}
    for state, title in by_title.items():
        table = sum(r.seconds for r in paused.records if r.state == state)
        assert sum(found.by_state[state]) == pytest.approx(table)
        assert [row["time"] for row in ending_rows(paused) if row["state"] == title]
    drawn = progress.hypervolume_figure(paused, by_seconds=True)
    assert drawn is not None
    assert drawn["data"][0]["x"][-1] == pytest.approx(end - begin, rel=0.1)


def test_states_count_every_trial(run: Run) -> None:
    rows = ending_rows(run)
    assert sum(int(row["count"]) for row in rows) == len(run.records)
    failed = next(row for row in rows if row["state"] == "Failed")
    assert failed["reason"] == "out of memory"


def test_a_run_is_finished_by_its_budget(run: Run) -> None:
    """And not by what an earlier end of it left: `--resume RUN --trials 400` goes on with this one."""
    assert status(run) == ""
    trained, front = sum(record.was_trained for record in run.records), len(run.front_records)
    extended = Run(run.path, replace(run.settings, trials=400), run.environment, run.study)
    assert f": {trained} of 400 trials done. The test set has been read for {front} of {front}" in status(extended)
    again = Run(run.path, replace(run.settings, confirm=9), run.environment, run.study)
    assert status(again).startswith("Not finished")
    assert status(again).endswith(f" trials done, 0 of {len(to_evaluate(run))} networks confirmed by 9 further seeds.")
    unread = invented_run(Path("results/unread"), trials=10, confirmed=False)
    assert status(unread).endswith("The test set has not been read.")


def test_a_run_whose_space_holds_no_more_is_finished() -> None:
    few = invented_run(Path("results/few"), trials=10, published="none")
    extended = Run(few.path, replace(few.settings, trials=400), few.environment, few.study)
    assert status(extended).startswith("Not finished")
    few.study.set_user_attr("exhausted", True)  # as a scheduler whose study proposes nothing
    assert status(extended) == ""


def test_importance_finds_what_decides_the_size() -> None:
    run = invented_run(Path("results/wide"), trials=120, epochs=2, published="none")
    found = importance.importances(run)
    assert set(found) == {"accuracy", "size", "latency"}
    for shares in found.values():
        assert sum(shares.values()) == pytest.approx(1)
    assert max(found["size"], key=found["size"].__getitem__) == "width"
    assert importance.note(run, found) == ""


def test_too_few_networks_are_said() -> None:
    run = invented_run(Path("results/few"), trials=6, published="none")
    found = importance.importances(run)
    assert found == {}
    assert "Too few networks" in importance.note(run, found)


def test_trust_says_what_was_not_read(run: Run) -> None:
    said = reliability.sentences(run)[0]
    pairs = [(r.accuracy, r.confirmed["test_accuracy"]) for r in run.records if "test_accuracy" in r.confirmed]
    signs = [np.sign((a - c) * (b - d)) for (a, b), (c, d) in itertools.combinations(pairs, 2)]
    assert f"order {signs.count(1)} of {len(signs)} pairs of networks alike and {signs.count(-1)} the other way" in said
    unread = invented_run(Path("results/unread"), trials=10, confirmed=False)
    assert reliability.sentences(unread)[0].startswith("The test set has not been read")
    assert reliability.against(run_points(unread), "accuracy") is None


def test_confirmed_accuracies_stand_against_those_of_the_search(run: Run) -> None:
    points = run_points(run)
    made = reliability.confirmed_figure(run, points)
    assert made is not None
    drawn = made["data"][1]
    again = {r.number: r.confirmed["accuracies"] for r in run.records if "accuracies" in r.confirmed}
    assert [points[index].number for index in drawn["meta"]["points"]] == list(again)
    for searched, mean, spread, number in zip(drawn["x"], drawn["y"], drawn["error_y"]["array"], again, strict=True):
        assert searched == pytest.approx(100 * (run.records[number].accuracy or 0))
        assert mean == pytest.approx(100 * np.mean(again[number]))
        assert spread == pytest.approx(100 * np.std(again[number], ddof=1))
    low, high = made["layout"]["yaxis"]["range"]
    assert low < min(np.array(drawn["y"]) - drawn["error_y"]["array"]) and high > max(drawn["x"])
    assert (
        reliability.confirmed_figure(invented_run(Path("results/unsure"), trials=10, confirmed=False), points) is None
    )


@pytest.mark.parametrize("name", sorted(FIGURES.keys() - {"supernet"}))  # this run's networks were trained one by one
def test_figures_for_notebooks(run: Run, name: str) -> None:
    made = figure(run, name)
    assert isinstance(made, go.Figure)
    assert "var(" not in made.to_json()


def test_figures_name_what_is_wrong(run: Run) -> None:
    with pytest.raises(UserError, match="unknown figure 'scatter'; one of: pareto"):
        figure(run, "scatter")
    with pytest.raises(UserError, match="unknown axis 'speed'"):
        figure(run, "pareto", x="speed")
    empty = invented_run(Path("results/empty"), trials=5, closed=0, confirmed=False)
    with pytest.raises(UserError, match="nothing to show"):
        figure(empty, "pareto")


def test_pairs_of_the_front_are_told_apart_by_holm_s_procedure(run: Run) -> None:
    """Step by step as Holm states it: from the smallest p on, until the first that is above 5 % over what is left."""
    front = [record for record in run.front_records if len(record.confirmed.get("accuracies", ())) > 1]
    pairs = list(itertools.combinations(front, 2))
    seeds = [(a.confirmed["accuracies"], b.confirmed["accuracies"]) for a, b in pairs]
    p_values = sorted(stats.ttest_ind(a, b, equal_var=False).pvalue for a, b in seeds)
    rejected = 0
    while rejected < len(pairs) and p_values[rejected] <= 0.05 / (len(pairs) - rejected):
        rejected += 1
    uncorrected = sum(p_value <= 0.05 for p_value in p_values)
    assert rejected < uncorrected
    said = " ".join(reliability.sentences(run))
    assert f"Of the {len(pairs)} pairs on the front these trainings do not tell {len(pairs) - rejected} apart" in said

"""What a search gained over the line of its references."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from studies import invented_run

from nas.driver.record import Record
from nas.driver.run import Run
from nas.report.gain import Line, gain, sentences
from nas.report.points import run_points
from nas.report.scatter import pareto

IMAGES = 400


def made(run: Run, *networks: tuple[str, float, float, dict]) -> Run:
    """A run of these networks alone: origin (empty for found ones), accuracy, size, and what was confirmed of it."""
    template = next(record for record in run.front_records if not record.published)
    known = {"state": "complete", "twin": None, "beside": "", "on_front": True, "params": {}, "curve": [{}]}
    records: list[Record] = [
        replace(template, number=i, origin=o, accuracy=a, costs={**template.costs, "size": s}, confirmed=c, **known)
        for i, (o, a, s, c) in enumerate(networks)
    ]
    found = Run(run.path, run.settings, run.environment, run.study, {"validation": IMAGES, "test": IMAGES})
    found.records = records
    return found


def seeds(*accuracies: float) -> dict:
    return {"epochs": 1, "accuracies": accuracies, "repeats": {"1": {str(i): a for i, a in enumerate(accuracies)}}}


def test_the_line_is_straight_in_log_costs_and_never_falls() -> None:
    line = Line(np.log([1.0, 10.0, 100.0, 1000.0]), np.array([[0.5, 0.7, 0.6, 0.9]]))
    heights = {0.1: 0.5, 1.0: 0.5, np.sqrt(10): 0.6, 10.0: 0.7, 50.0: 0.7, np.sqrt(1e5): 0.8, 1e6: 0.9}
    assert {cost: line.accuracy(np.log(cost)).item() for cost in heights} == pytest.approx(heights)
    costs = {0.4: 1.0, 0.5: 1.0, 0.6: np.sqrt(10), 0.7: 10.0, 0.8: np.sqrt(1e5), 0.9: 1000.0, 0.95: 1000.0}
    assert {a: np.exp(line.log(np.array([a]))).item() for a in costs} == pytest.approx(costs)


def test_gain_is_measured_in_points_at_equal_size_and_in_size_at_equal_accuracy(run: Run) -> None:
    """Without noise between seeds but what all networks share, by hand."""
    shared = (0.0, 0.01, -0.01)  # a seed's draw of images is as hard for all

    def network(origin: str, accuracy: float, size: float) -> tuple[str, float, float, dict]:
        return origin, accuracy, size, {**seeds(*(accuracy + s for s in shared)), "test_accuracy": accuracy - 0.02}

    line = [network("published", 0.6, 1e6), network("published", 0.8, 4e6)]
    found = gain(made(run, *line, network("", 0.7, 1e6), network("", 0.85, 2e6)))
    assert found is not None and found.points is not None and found.times is not None
    # The line has 0.6 at 1 MB, 0.7 at 2 MB, 0.8 at 4 MB, and no more than 4 MB: 0.1 and 0.15; 2 times and 2 times.
    for figure, wanted in ((found.points, 0.125), (found.times, 2.0)):
        assert (figure.low, figure.value, figure.high) == pytest.approx((wanted,) * 3)
    assert (found.networks, found.seeds, found.test) == (2, 3, pytest.approx(0.125))
    said = sentences(made(run, *line, network("", 0.7, 1e6), network("", 0.85, 2e6)))
    assert said[0].startswith(
        "Against the line of the 2 published networks trained here the search gained: +12.5 points of accuracy at "
        "equal size, 2.0 times smaller at equal accuracy; means over 2 networks of the front, trained again with 3 "
    )


def test_what_chance_explains_is_called_nothing_and_a_loss_a_loss(run: Run) -> None:
    line = [("published", 0.80, 1e6, {}), ("published", 0.84, 4e6, {})]
    same = sentences(made(run, *line, ("", 0.83, 2e6, {})))  # half a point above the line, in 400 images
    assert "the search gained nothing that chance does not explain: +1.0 points" in same[0]
    ends = "2.0 times larger to 2.0 times smaller"  # the whole line
    assert f"), no difference in size that can be told at equal accuracy ({ends}); means" in same[0]
    found = gain(made(run, *line, ("", 0.83, 2e6, {})))
    assert found is not None and found.points is not None
    # The network against the line's middle: errors of sqrt(pq/n) each, and half of each of two.
    errors = [np.sqrt(p * (1 - p) / IMAGES) for p in (0.83, 0.80, 0.84)]
    spread = np.sqrt(errors[0] ** 2 + (errors[1] ** 2 + errors[2] ** 2) / 4)
    assert found.points.high - found.points.low == pytest.approx(2 * 1.96 * spread, rel=0.15)
    alone = sentences(made(run, line[0], ("", 0.83, 5e5, {})))
    assert ", the one published network trained here, the search gained" in alone[0]
    # One reference has one cost, whatever its accuracy.
    assert ": 2.0 times smaller at equal accuracy; means over 1 network of the front, by validation" in alone[0]
    worse = sentences(made(run, *line, ("", 0.60, 2e6, {})))
    assert "the search fell short: −" in worse[0] and "at least 2.0 times larger at equal accuracy;" in worse[0]


def test_what_the_line_does_not_reach_is_not_compared(run: Run) -> None:
    line = [("published", 0.80, 1e6, {}), ("published", 0.84, 4e6, {})]
    small = ("", 0.70, 1e5, {})
    assert gain(made(run, *line, small)) is None
    large = gain(made(run, *line, ("", 0.95, 9e6, {})))
    assert large is not None and large.times is None and large.points is not None
    accurate = gain(made(run, *line, ("", 0.83, 5e5, {})))  # smaller than all, no less accurate than the first
    assert accurate is not None and accurate.points is None and accurate.times is not None
    assert sentences(made(run, small)) == sentences(made(run, *line)) == []


def test_networks_below_the_line_are_compared_with_its_beginning(run: Run) -> None:
    """Smaller than all references and no more accurate than the first: that is said in its size and points."""
    line = [("published", 0.80, 1e6, {}), ("published", 0.84, 4e6, {})]
    close = sentences(made(run, *line, ("", 0.78, 1e5, {}), ("", 0.79, 2.5e5, {})))[0]
    assert close.startswith("No published network trained here is as small as those found. The most accurate of ")
    assert "4.0 times smaller than" in close and "no difference in accuracy that can be told" in close
    clear = sentences(made(run, *line, ("", 0.60, 1e5, {})))[0]
    assert "10.0 times smaller" in clear and "), less accurate; 95 % interval, by validation accuracy" in clear
    again = [(o, a, s, seeds(a, a + 0.01, a - 0.01)) for o, a, s, _ in (*line, ("", 0.79, 2.5e5, {}))]
    confirmed = sentences(made(run, *again))[0]
    assert "has −1.0 points of accuracy beside it, less accurate; trained again with 3 seeds." in confirmed


def test_the_line_is_drawn_through_what_published_networks_reach(run: Run) -> None:
    traces = pareto(run_points(run), "size", "accuracy")["data"]
    line = next(trace for trace in traces if trace["meta"]["role"] == "line")
    published = [r for r in run.records if r.published and r.state == "complete"]
    assert len(line["x"]) == len(published) > 3
    for x, y in zip(line["x"], line["y"], strict=True):
        best = max(r.accuracy or 0 for r in published if r.costs["size"] <= x * 1e6 * (1 + 1e-9))
        assert y == pytest.approx(100 * best)


def test_a_search_without_references_says_nothing_of_them() -> None:
    assert sentences(invented_run(Path("results/alone"), trials=8, published="none")) == []

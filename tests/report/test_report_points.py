"""What the page is told of each network."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from studies import invented_run

from nas.architecture import catalogue
from nas.architecture.document import Architecture
from nas.architecture.reported import Printed
from nas.driver.run import Run
from nas.driver.study import SearchStudy
from nas.report.page import embed, render_page
from nas.report.points import command, points_data, run_points, strip, yaml_lines
from nas.report.scatter import dominated, pareto
from nas.report.schedules import drawn, verdict
from nas.report.summary import front_rows, summary
from nas.report.ticks import log_ticks, whole_ticks
from nas.units import QUANTITIES, show, show_seconds


@pytest.mark.parametrize("name", catalogue.network_names())
def test_yaml_lines_are_the_network_s_yaml(name: str) -> None:
    network = catalogue.load(name)
    assert "\n".join(yaml_lines(network, {})) + "\n" == network.to_yaml()
    assert len(strip(network)) == len(network.stages)


def test_a_point_for_every_trained_network(run: Run) -> None:
    points = run_points(run)
    assert [point.number for point in points] == [r.number for r in run.records if r.was_trained]
    assert [p.rank for p in sorted((p for p in points if p.rank), key=lambda p: p.rank)] == [
        *range(1, len(run.front) + 1)
    ]


def test_the_document_holds_the_points(run: Run) -> None:
    points = run_points(run)
    made = json.loads(json.dumps(points_data(points)))
    for point, row in zip(points, made["rows"], strict=True):
        assert point.architecture is not None
        text = "\n".join(made["texts"][line] for line in row["lines"]) + "\n"
        assert text == point.architecture.to_yaml()
        values = {key: value for key, value in zip(made["keys"], row["values"], strict=True) if value is not None}
        assert values == pytest.approx(dict(point.values), rel=1e-6)


def test_printed_networks_never_show_foreign_latency(run: Run) -> None:
    row = Printed("Han and Kwon", "3", "column E", "han-e", "E", "cifar10", accuracy=0.9177, latency_ms=14.0)
    point = run_points(run, [row])[-1]
    assert (point.kind, point.name) == ("printed", "han-e")
    assert point.values == {"accuracy": 0.9177, "test_accuracy": 0.9177}
    assert point.architecture is not None


def test_commands_quote_and_repeat_what_changes_the_data() -> None:
    run = invented_run(Path("results/a run"), trials=3, dataset="imagefolder:my images", seed=7, closed=0)
    assert command(run, "han-e") == "nas train han-e --run 'results/a run'"


def test_the_region_is_a_staircase_over_the_networks_trained_to_the_end(run: Run) -> None:
    points = run_points(run)
    size, accuracy = QUANTITIES["size"], QUANTITIES["accuracy"]
    corners = dominated(points, size, accuracy)
    assert corners[0] == corners[-1]
    for point in points:
        if point.state == "complete":
            better = [c for c in corners if c[0] <= point.values["size"] and c[1] >= point.values["accuracy"]]
            assert better, f"{point.name} lies outside the region"


def test_names_of_neighbours_stand_on_three_lines_whatever_their_groups(run: Run) -> None:
    points = run_points(run)
    outside = next(index for index, point in enumerate(points) if point.kind == "published" and not point.beside)
    points[outside] = replace(points[outside], beside="outside the space")
    named = [
        trace for trace in pareto(points, "size", "accuracy")["data"] if trace.get("textposition") == "bottom center"
    ]
    assert len(named) == 2
    texts = [text for trace in named for text in zip(trace["x"], trace["text"], strict=True)]
    lines = [text.count("<br>") for _, text in sorted(texts)]
    assert len(lines) > 3 and lines == [place % 3 for place in range(len(lines))]


def test_schedules_hold_the_front_and_the_published_smallest_first(run: Run) -> None:
    points = run_points(run)
    chosen = [points[index] for index in drawn(points)]
    assert {point.number for point in chosen} == {p.number for p in points if p.rank or p.kind == "published"}
    sizes = [point.values["size"] for point in chosen]
    assert sizes == sorted(sizes)


def test_a_preference_of_stages_needs_more_networks_than_chance_does(run: Run) -> None:
    early = catalogue.load("han-b")  # t = 3 3 3 3 then 6 6
    base = next(point for point in run_points(run) if point.kind == "found" and point.rank)

    def said(wide_early: int, wide_late: int) -> str:
        networks = [wide(6, 2)] * wide_early + [wide(2, 6)] * wide_late
        return verdict([replace(base, architecture=network) for network in networks])

    def wide(first: int, second: int) -> Architecture:
        document = early.to_dict()
        for index, stage in enumerate(document["stages"]):
            stage["expansion"] = 1 if index == 0 else first if index <= 3 else second
        return Architecture.from_dict(document)

    assert said(2, 0) == said(5, 0) == ""  # half of all coins thrown five times fall alike 6 % of the time
    assert said(6, 0).startswith("Of the 6 networks found on the front 6 have larger expansions t in the first half")
    assert said(6, 0).endswith("as Han and Kwon argue (large t early, small t late).")
    assert said(1, 9).endswith("the opposite of what Han and Kwon argue (large t early, small t late).")
    assert "6 have larger" in said(6, 4) and "no preference that chance would not give" in said(6, 4)


def test_json_cannot_end_its_script_element() -> None:
    text = str(embed({"a": "</script><!-- \u2028 & \u2029"}))
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": "</script><!-- \u2028 & \u2029"}


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("accuracy", 0.91767, "91.8 %"),
        ("size", 3_728_240, "3.73 MB"),
        ("size", 435_296, "435 kB"),
        ("macs", 91_154_944, "91.15 M"),
        ("params", 104_394, "104 k"),
        ("latency", 0.1234, "0.123 ms"),
        ("latency", 0.51, "0.510 ms"),
        ("latency", None, "–"),
    ],
)
def test_numbers_as_people_read_them(key: str, value: float | None, shown: str) -> None:
    assert show(key, value) == shown


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0.4, 9.3),
        (1.0, 1.0),
        (117.3, 117.3),
        (2.0, 3.0),
        (0.001, 900.0),
        (119.0, 130.0),
        (0.099, 0.101),
        (3.62, 9.33),
        (999.0, 1001.0),
        (1.0, 2.99),
        (1.0, 3.0),
        (1.01, 3.04),
        (60.1, 191.0),
    ],
)
def test_log_ticks_enclose_the_values(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert ticks == sorted(set(ticks))
    assert ticks[0] <= low and ticks[-1] >= high
    assert 3 <= len(ticks) <= 14
    # What is labelled is seen: a plot shows little beyond its values.
    edge = (high / low) ** 0.07 if high > low else 1.15
    assert sum(low / edge <= tick <= high * edge for tick in ticks) >= 3


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 30, 200, 1000])
def test_whole_ticks_are_whole_and_few(count: int) -> None:
    step = whole_ticks(count)["dtick"]
    assert isinstance(step, int)
    assert 1 <= count // step <= 12


def test_durations() -> None:
    assert [show_seconds(s) for s in (1.24, 43.2, 59.7, 252, 7500)] == [
        "1.2 s",
        "43 s",
        "1 min 0 s",
        "4 min 12 s",
        "2 h 5 min",
    ]


def test_own_networks_stand_apart_from_found_and_published_ones(queued_run: Run) -> None:
    points = run_points(queued_run)
    record = next(record for record in queued_run.records if record.architecture.name == "mine")
    index = next(index for index, point in enumerate(points) if point.number == record.number)
    assert (record.origin, points[index].kind, points[index].name) == ("own", "own", "mine")
    shown = {
        trace["name"]: trace["meta"]["points"]
        for trace in pareto(points, "size", "accuracy")["data"]
        if trace["meta"]["role"] == "points"
    }
    assert [name for name, indices in shown.items() if index in indices] == (
        ["Your own, trained here"] if record.state == "complete" else []
    )
    assert {points[i].kind for i in shown["Published, trained here"]} == {"published"}
    assert {points[i].kind for i in shown["Found, on the front"]} == {"found"}
    assert index in drawn(points)
    assert "1 your own" in summary(queued_run)


def test_networks_of_an_earlier_run_are_drawn_and_not_called_found(run: Run) -> None:
    later = invented_run(Path("results/later"), trials=8, published="none", seed=3)
    best = max((r for r in run.records if r.state == "complete"), key=lambda r: r.accuracy or 0)
    known = {"objectives": later.objectives, "limits": (), "costs": lambda architecture: best.costs}
    study = SearchStudy(later.study, space=later.settings.open_space(), **known)
    number = study.import_trial(best.architecture, {"accuracy": 0.999}, "results/example")
    again = Run(later.path, later.settings, later.environment, later.study)
    assert again.front_records[0].number == number
    point = next(point for point in run_points(again) if point.number == number)
    assert (point.rank, point.state, point.notes[0]) == (1, "complete", "taken from results/example")
    assert front_rows(again)[0]["mark"] == "earlier run"
    assert "taken from results/example" in render_page(again)

"""Several runs on one page: their fronts on one plot, their hypervolumes against one reference."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from nas import pareto
from nas.driver.objectives import Objective
from nas.driver.run import Run
from nas.errors import UserError
from nas.report import progress
from nas.report.effort import time_spent
from nas.report.figures import default_axes
from nas.report.numbers import QUANTITIES, counted, listed, show, show_seconds
from nas.report.page import page_data, render, write_page
from nas.report.points import Point, known_quantities, run_points
from nas.report.scatter import Document, Plane, pin_ring, regions

COLOURS = ("var(--found)", "var(--published)", "var(--second)", "var(--third)", "var(--failed)", "var(--stopped)")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star")


@dataclass(frozen=True)
class RunRow:
    """One run of the comparison's table; all texts."""

    name: str
    data: str
    trained: str
    front: str
    shared: str
    hypervolume: str
    best: str
    time: str


def write_comparison(runs: Sequence[Run], path: Path) -> Path:
    """Write a page that compares runs.

    Raises:
        UserError: fewer than two runs, or the page cannot be written.
    """
    if len(runs) < 2:
        raise UserError("a comparison needs at least two runs")
    write_page(path, render_comparison(runs))
    return path


def render_comparison(runs: Sequence[Run]) -> str:
    """The comparison's HTML."""
    points = [point for index, run in enumerate(runs) for point in run_points(run, index=index)]
    keys = known_quantities(points)
    objectives = common_objectives(runs)
    axes = default_axes(objectives, keys)
    names = run_names(runs)
    figures = {"pareto": fronts_figure(points, names, axes["x"], axes["y"])} if keys else {}
    volume = common_volume(runs, objectives)
    if volume is not None:
        figures["history"] = histories_figure(runs, names, volume)
    data = page_data(runs, points, figures, [regions(points, keys, index) for index in range(len(runs))])
    for shown, name in zip(data["runs"], names, strict=True):
        shown["name"] = name
    titles = listed([objective.title.lower() for objective in objectives])
    return render(
        "comparison.html.j2",
        data,
        title=f"{len(runs)} searches compared",
        subtitle=" · ".join(str(run.path) for run in runs),
        caveats=caveats(runs),
        rows=run_rows(runs, names, objectives, volume),
        objectives=titles,
        quantities=[(key, QUANTITIES[key].title) for key in keys],
        axes=axes,
        figures=set(figures),
        footer="Written by nas.",
    )


def common_objectives(runs: Sequence[Run]) -> list[Objective]:
    """The objectives that all runs have; without latency where they ran on different machines."""
    shared = [o for o in runs[0].objectives if all(o in run.objectives for run in runs[1:])]
    same_machine = len({_machine(run) for run in runs}) == 1
    return [objective for objective in shared if same_machine or objective.name != "latency"]


def common_volume(runs: Sequence[Run], objectives: Sequence[Objective]) -> progress.Volume | None:
    """One box for all runs; None where none trained a network to the end."""
    return progress.Volume.of(objectives, [record for run in runs for record in run.records])


def run_rows(
    runs: Sequence[Run], names: Sequence[str], objectives: Sequence[Objective], volume: progress.Volume | None
) -> list[RunRow]:
    """The comparison's table."""
    shared = shared_front(runs, objectives)
    rows = []
    for index, (run, name) in enumerate(zip(runs, names, strict=True)):
        trained = [record for record in run.records if record.was_trained]
        front = run.front_records
        places = [place for record in run.records if volume and (place := volume.unit(record)) is not None]
        rows.append(
            RunRow(
                name=name,
                data=f"{run.settings.dataset}, {counted(run.settings.parsed_recipe.epochs, 'epoch')}, "
                f"{run.settings.sampler}",
                trained=f"{len(trained)}, {sum(record.state == 'complete' for record in trained)} to the end",
                front=str(len(front)),
                shared=str(shared[index]),
                hypervolume=f"{100 * volume.covered(places):.1f} %" if volume else "–",
                best=show("accuracy", front[0].accuracy, run.data.get("validation")) if front else "–",
                time=show_seconds(time_spent(run).total),
            )
        )
    return rows


def shared_front(runs: Sequence[Run], objectives: Sequence[Objective]) -> Counter[int]:
    """Return how many networks each run has on the front of all runs together."""
    ended = [
        (index, place)
        for index, run in enumerate(runs)
        for record in run.records
        if (place := progress.losses_of(objectives, record)) is not None
    ]
    if not ended:
        return Counter()
    mask = pareto.front_mask(np.array([place for _, place in ended]))
    return Counter(index for (index, _), on_front in zip(ended, mask, strict=True) if on_front)


def fronts_figure(points: Sequence[Point], names: Sequence[str], x: str, y: str) -> Document:
    """The runs' fronts on one pair of axes, their other networks faint."""
    plane = Plane(points, x, y)
    traces = []
    for index, name in enumerate(names):
        colour, symbol = COLOURS[index % len(COLOURS)], SYMBOLS[index % len(SYMBOLS)]
        traces += plane.region(colour, index, shaded=False)
        for on_front in (False, True):
            size, opacity = (11, 1.0) if on_front else (6, 0.4)
            marker = {"size": size, "opacity": opacity, "symbol": symbol, "color": colour}
            trace = plane.trace(escape(name), _is_shown(index, on_front), marker)
            traces.append({**trace, "legendgroup": str(index), "showlegend": on_front})
    layout = plane.layout(None)
    layout["yaxis"]["domain"] = [0, 1]
    layout["xaxis"]["anchor"] = "y"
    del layout["yaxis2"]
    traces = [trace for trace in traces if trace["meta"].get("points") != []]
    return {"data": [*traces, pin_ring()], "layout": layout}


def histories_figure(runs: Sequence[Run], names: Sequence[str], volume: progress.Volume) -> Document:
    """Hypervolume against trainings, all runs in one box."""
    traces = []
    most = max(sum(record.was_trained for record in run.records) for run in runs)
    for index, (run, name) in enumerate(zip(runs, names, strict=True)):
        found = progress.history(run, volume)
        if found is not None:
            own = progress.history_figure(found, by_seconds=False)["data"][-1]
            line = {**own["line"], "color": COLOURS[index % len(COLOURS)]}
            traces.append({**own, "name": escape(name), "line": line})
    return {"data": traces, "layout": progress.history_layout("Trainings", most)}


def caveats(runs: Sequence[Run]) -> list[str]:
    """Return what makes the runs hard to compare."""
    said = []
    if len({run.settings.dataset for run in runs}) > 1:
        said.append("The runs used different data sets: their accuracies cannot be compared.")
    elif len({(run.settings.train_size, run.settings.validation_fraction, run.settings.seed) for run in runs}) > 1:
        said.append(
            "The runs split their data differently (seed, training size or validation share): small differences in "
            "accuracy mean nothing."
        )
    if len({str(run.settings.recipe) for run in runs}) > 1:
        said.append("The runs trained with different recipes.")
    if len({_machine(run) for run in runs}) > 1:
        said.append("The runs were made on different machines: times cannot be compared, and latency is left out.")
    return said


def run_names(runs: Sequence[Run]) -> list[str]:
    """The folders' names, or their paths where names repeat."""
    names = [run.path.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _is_shown(run: int, on_front: bool) -> Callable[[Point], bool]:
    return lambda point: point.run == run and point.state == "complete" and (point.rank is not None) == on_front


def _machine(run: Run) -> tuple[str, ...]:
    return tuple(str(run.environment.get(key, "")) for key in ("device", "cpu", "cores"))

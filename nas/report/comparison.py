"""Several runs on one page: their fronts on one plot, their hypervolumes against one reference."""

from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from nas import pareto
from nas.driver.objectives import Objective
from nas.driver.run import Run
from nas.errors import UserError
from nas.files import write_file
from nas.report.effort import time_spent
from nas.report.figures import default_axes
from nas.report.page import page_data, render
from nas.report.points import Point, known_quantities, run_points
from nas.report.progress import Box, hypervolume_figure, hypervolume_layout, losses_of
from nas.report.scatter import Figure, Plane, pin_ring, regions
from nas.units import QUANTITIES, counted, listed, show, show_seconds

COLOURS = ("var(--found)", "var(--published)", "var(--second)", "var(--third)", "var(--failed)", "var(--stopped)")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star")


def write_comparison(runs: Sequence[Run], path: Path) -> Path:
    """Write a page that compares runs.

    Raises:
        UserError: fewer than two runs, or the page cannot be written.
    """
    if len(runs) < 2:
        raise UserError("a comparison needs at least two runs")
    write_file(path, render_comparison(runs))
    return path


def render_comparison(runs: Sequence[Run]) -> str:
    """Render the comparison's HTML."""
    points = [point for index, run in enumerate(runs) for point in run_points(run, index=index)]
    keys = known_quantities(points)
    objectives = common_objectives(runs)
    axes = default_axes(objectives, keys)
    if len(_latencies_of(runs)) > 1 and "latency" in keys:
        axes["x"] = "latency"  # a front per device
    names = run_names(runs)
    figures = {"pareto": fronts_figure(points, names, axes["x"], axes["y"])} if keys else {}
    box = common_box(runs, objectives)
    if box is not None:
        figures["hypervolume"] = hypervolumes_figure(runs, names, box)
    data = page_data(runs, points, figures, [regions(points, index) for index in range(len(runs))])
    for shown, name in zip(data["runs"], names, strict=True):
        shown["name"] = name
    titles = listed([objective.title.lower() for objective in objectives])
    return render(
        "comparison.html.j2",
        data,
        title=f"{len(runs)} searches compared",
        subtitle=" · ".join(str(run.path) for run in runs),
        caveats=caveats(runs),
        rows=run_rows(runs, names, objectives, box),
        objectives=titles,
        quantities=[(key, QUANTITIES[key].title) for key in keys],
        axes=axes,
        figures=set(figures),
        footer="Written by nas.",
    )


def common_objectives(runs: Sequence[Run]) -> list[Objective]:
    """Return the objectives that all runs have; without latency where it is that of different machines."""
    shared = [o for o in runs[0].objectives if all(o in run.objectives for run in runs[1:])]
    same_machine = len(_latencies_of(runs)) == 1
    return [objective for objective in shared if same_machine or objective.name != "latency"]


def common_box(runs: Sequence[Run], objectives: Sequence[Objective]) -> Box | None:
    """Span one box over all runs; None where none trained a network to the end."""
    return Box.of(objectives, [record for run in runs for record in run.records])


def run_rows(
    runs: Sequence[Run], names: Sequence[str], objectives: Sequence[Objective], box: Box | None
) -> list[dict[str, str]]:
    """Describe each run as texts, for a table."""
    shared = shared_front(runs, objectives)
    rows = []
    for index, (run, name) in enumerate(zip(runs, names, strict=True)):
        trained = [record for record in run.records if record.was_trained]
        front = run.front_records
        epochs = counted(run.settings.parsed_recipe.epochs, "epoch")
        rows.append(
            {
                "name": name,
                "data": f"{run.settings.dataset}, {epochs}, {run.settings.sampler}",
                "trained": f"{len(trained)}, {sum(record.state == 'complete' for record in trained)} to the end",
                "front": str(len(front)),
                "shared": str(shared[index]),
                "hypervolume": f"{100 * box.covered(run.records):.1f} %" if box else "–",
                "best": show("accuracy", front[0].accuracy, run.data.get("validation")) if front else "–",
                "time": show_seconds(time_spent(run).total),
            }
        )
    return rows


def shared_front(runs: Sequence[Run], objectives: Sequence[Objective]) -> Counter[int]:
    """Count each run's networks on the front of all runs together."""
    ended = [
        (index, losses)
        for index, run in enumerate(runs)
        for record in run.records
        if (losses := losses_of(objectives, record)) is not None
    ]
    if not ended:
        return Counter()
    mask = pareto.front_mask(np.array([losses for _, losses in ended]))
    return Counter(index for (index, _), on_front in zip(ended, mask, strict=True) if on_front)


def fronts_figure(points: Sequence[Point], names: Sequence[str], x: str, y: str) -> Figure:
    """Draw the runs' fronts on one pair of axes, their other networks faint."""
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


def hypervolumes_figure(runs: Sequence[Run], names: Sequence[str], box: Box) -> Figure:
    """Draw hypervolume against trainings, all runs in one box."""
    traces = []
    for index, (run, name) in enumerate(zip(runs, names, strict=True)):
        drawn = hypervolume_figure(run, box)
        if drawn is not None:
            line = {**drawn["data"][0]["line"], "color": COLOURS[index % len(COLOURS)]}
            traces.append({**drawn["data"][0], "name": escape(name), "line": line})
    most = max(sum(record.was_trained for record in run.records) for run in runs)
    return {"data": traces, "layout": hypervolume_layout("Trainings", most)}


def caveats(runs: Sequence[Run]) -> list[str]:
    """Say why the runs are hard to compare."""
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
    elif len(_latencies_of(runs)) > 1:
        said.append("Each run has the latencies of its own device: they are left out of the hypervolumes.")
    return said


def run_names(runs: Sequence[Run]) -> list[str]:
    """Name the runs after their folders, or their paths where names repeat."""
    names = [run.path.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _is_shown(run: int, on_front: bool) -> Callable[[Point], bool]:
    return lambda point: point.run == run and point.state == "complete" and (point.rank is not None) == on_front


def _latencies_of(runs: Sequence[Run]) -> set[tuple[str, ...]]:
    """Return the devices that the runs' latencies are of: their machines, or those of the tables given."""
    return {(run.settings.latency_table or "", *_machine(run)) for run in runs}


def _machine(run: Run) -> tuple[str, ...]:
    return tuple(str(run.environment.get(key, "")) for key in ("device", "cpu", "cores"))

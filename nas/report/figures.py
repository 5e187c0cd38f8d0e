"""A run's figures by name, for the page and for notebooks."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from nas.architecture.reported import Printed
from nas.driver.objectives import Objective
from nas.driver.run import Run
from nas.errors import UserError
from nas.report import effort, importance, progress, reliability
from nas.report.points import known_quantities, run_points
from nas.report.scatter import Figure, pareto

PAGE_ONLY = ("least_width", "narrow_height")
"""Words in a layout that the page's script reads and plotly does not know."""


class Sources:
    """Sources of a run's figures; what takes long is computed when the first figure asks for it."""

    def __init__(self, run: Run, printed: Sequence[Printed] = ()) -> None:
        self.run = run
        self.points = run_points(run, printed)
        self.keys = known_quantities(self.points)
        self.axes = default_axes(run.objectives, self.keys)

    @cached_property
    def importances(self) -> importance.Importances:
        return importance.importances(self.run)


def default_axes(objectives: Sequence[Objective], keys: Sequence[str]) -> dict[str, str]:
    """Choose the first cost across, accuracy up, the second cost as colour; empty texts where there is nothing."""
    costs = [objective.name for objective in objectives if objective.known and objective.name in keys]
    across = next((key for key in (*costs, "size", *keys) if key in keys), "")
    trained = next((objective.name for objective in objectives if not objective.known), "accuracy")
    up = next((key for key in (trained, "accuracy") if key in keys), across)
    return {"x": across, "y": up, "colour": (*costs[1:], "")[0]}


def _pareto(sources: Sources) -> Figure | None:
    axes = sources.axes
    return pareto(sources.points, axes["x"], axes["y"], axes["colour"] or None) if sources.keys else None


FIGURES: Mapping[str, Callable[[Sources], Figure | None]] = {
    "pareto": _pareto,
    "importance": lambda s: importance.importance_figure(s.importances),
    "parallel": lambda s: importance.parallel_figure(s.run, s.importances),
    "hypervolume": lambda s: progress.hypervolume_figure(s.run),
    "hypervolume_by_time": lambda s: progress.hypervolume_figure(s.run, by_seconds=True),
    "curves": lambda s: progress.curves(s.run, s.points),
    "time": lambda s: effort.time_figure(effort.time_spent(s.run)),
    "confirmed": lambda s: reliability.confirmed_figure(s.run, s.points),
    "accuracy": lambda s: reliability.against(s.points, "accuracy"),
    "latency": lambda s: reliability.against(s.points, "latency"),
    "supernet": lambda s: reliability.against(s.points, "supernet"),
}


def run_figures(sources: Sources) -> dict[str, Figure]:
    """Draw the figures that the run has anything to show in, by name."""
    drawn = {name: draw(sources) for name, draw in FIGURES.items()} if sources.points else {}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def figure(run: str | Path | Run, name: str = "pareto", **axes: str) -> go.Figure:
    """Draw one of the report's figures, for notebooks.

    Args:
        run: or its folder; finished or not.
        name: a key of :data:`FIGURES`.
        axes: for ``pareto``: `x`, `y` and `colour`, keys of :data:`nas.units.QUANTITIES`.

    Raises:
        UserError: an unknown name or axis, or the run has nothing to show in it.
    """
    if name not in FIGURES:
        raise UserError(f"unknown figure {name!r}; one of: {', '.join(FIGURES)}")
    if axes and (name != "pareto" or not axes.keys() <= {"x", "y", "colour"}):
        raise UserError(f"figure {name!r} has no axes {', '.join(axes)} to choose; 'pareto' has x, y and colour")
    run = Run.open(run)
    sources = Sources(run)
    for key in axes.values():
        if key and key not in sources.keys:
            raise UserError(f"unknown axis {key!r}; this run has: {', '.join(sources.keys)}")
    sources.axes |= axes
    drawn = FIGURES[name](sources)
    if drawn is None:
        raise UserError(f"{run.path}: nothing to show in {name!r} yet")
    return go.Figure(_coloured(drawn, _palette()))


def _palette() -> dict[str, str]:
    """Read the page's colours on white."""
    style = (resources.files("nas.report") / "style.css").read_text(encoding="utf-8")
    return {f"var({name})": value for name, value in re.findall(r"(--[\w-]+): ([^;]+);", style.partition("@media")[0])}


def _coloured(value: Any, palette: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return palette.get(value, value)
    if isinstance(value, Mapping):
        return {key: _coloured(item, palette) for key, item in value.items() if key not in PAGE_ONLY}
    return [_coloured(item, palette) for item in value] if isinstance(value, list | tuple) else value

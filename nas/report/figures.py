"""A run's figures by name, for notebooks; the page has the same ones."""

import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import plotly.graph_objects as go

from nas.driver.objectives import Objective
from nas.driver.run import Run
from nas.errors import UserError
from nas.report import effort, importance, progress, reliability
from nas.report.points import known_quantities, run_points
from nas.report.scatter import Document, pareto

PAGE_ONLY = ("least_width", "narrow_height")
"""Words in a layout that the page's script reads and plotly does not know."""


def default_axes(objectives: Sequence[Objective], keys: Sequence[str]) -> dict[str, str]:
    """The first cost across, accuracy up, the second cost as colour; empty texts where there is nothing."""
    costs = [objective.name for objective in objectives if objective.known and objective.name in keys]
    across = next((key for key in (*costs, "size", *keys) if key in keys), "")
    return {"x": across, "y": "accuracy" if "accuracy" in keys else across, "colour": (*costs[1:], "")[0]}


def figure(run: Run, name: str = "pareto", **options: Any) -> go.Figure:
    """One of the report's figures, for notebooks.

    Args:
        name: a key of :data:`FIGURES`.
        options: for ``pareto``: `x`, `y` and `colour`, keys of :data:`nas.report.numbers.QUANTITIES`.

    Raises:
        UserError: an unknown name or axis, or the run has nothing to show in it.
    """
    if name not in FIGURES:
        raise UserError(f"unknown figure {name!r}; one of: {', '.join(FIGURES)}")
    document = FIGURES[name](run, **options)
    if document is None:
        raise UserError(f"{run.path}: nothing to show in {name!r} yet")
    return go.Figure(_coloured(document, _palette()))


def _pareto(run: Run, **axes: str) -> Document | None:
    points = run_points(run)
    keys = known_quantities(points)
    for key in axes.values():
        if key and key not in keys:
            raise UserError(f"unknown axis {key!r}; this run has: {', '.join(keys)}")
    chosen = {**default_axes(run.objectives, keys), **axes}
    return pareto(points, chosen["x"], chosen["y"], chosen["colour"] or None) if keys else None


def _hypervolume(run: Run) -> Document | None:
    found = progress.history(run)
    return progress.history_figure(found, by_seconds=False) if found else None


def _importance(run: Run) -> Document | None:
    found = importance.importances(run)
    return importance.importance_figure(found) if found else None


def _time(run: Run) -> Document | None:
    spent = effort.time_spent(run)
    return effort.time_figure(spent) if spent.total else None


FIGURES: Mapping[str, Callable[..., Document | None]] = {
    "pareto": _pareto,
    "importance": _importance,
    "parallel": lambda run: importance.parallel_figure(run, importance.importances(run)),
    "hypervolume": _hypervolume,
    "curves": lambda run: progress.curves(run, run_points(run)),
    "time": _time,
    "confirmed": lambda run: reliability.confirmed_figure(run, run_points(run)),
    "accuracy": lambda run: reliability.accuracy_figure(run_points(run)),
    "latency": lambda run: reliability.latency_figure(run_points(run)),
}


def _palette() -> dict[str, str]:
    """The page's colours on white."""
    style = (resources.files("nas.report") / "style.css").read_text(encoding="utf-8")
    return {f"var({name})": value for name, value in re.findall(r"(--[\w-]+): ([^;]+);", style.partition("@media")[0])}


def _coloured(value: Any, palette: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return palette.get(value, value)
    if isinstance(value, Mapping):
        return {key: _coloured(item, palette) for key, item in value.items() if key not in PAGE_ONLY}
    return [_coloured(item, palette) for item in value] if isinstance(value, list | tuple) else value

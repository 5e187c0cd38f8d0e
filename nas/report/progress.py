"""Progress of a search: hypervolume and learning curves."""

import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas import pareto
from nas.driver.objectives import Objective
from nas.driver.run import Record, Run
from nas.report.clock import holds, searched
from nas.report.numbers import whole_ticks
from nas.report.points import Point
from nas.report.scatter import MARGIN, Document

Numbers = NDArray[np.float64]

RANDOM_ORDERS = 100
"""Shuffles that the random order's mean and band are taken from; fewer where trials are many (see `_orders`)."""

CHECKPOINTS = 40
"""At so many numbers of trainings the random order is computed; between them it is drawn straight."""


@dataclass(frozen=True)
class Volume:
    """Maps networks to the unit box, and fronts to the part of the box that they dominate.

    The box spans the run's networks that were trained to the end, best to worst value and a tenth more, costs on a
    logarithmic scale: as on the scatter.
    """

    objectives: Sequence[Objective]
    ideal: Numbers
    corner: Numbers

    @classmethod
    def of(cls, objectives: Sequence[Objective], records: Sequence[Record]) -> "Volume | None":
        """None where no network was trained to the end."""
        points = [point for record in records if (point := losses_of(objectives, record)) is not None]
        if not points:
            return None
        low, high = np.min(points, axis=0), np.max(points, axis=0)
        width = np.where(high > low, high - low, 1.0)
        return cls(tuple(objectives), low, high + MARGIN * width)

    def unit(self, record: Record) -> Numbers | None:
        """The network's place in the box; None where it was not trained to the end."""
        point = losses_of(self.objectives, record)
        return None if point is None else (point - self.ideal) / (self.corner - self.ideal)

    def covered(self, points: Sequence[Numbers]) -> float:
        """The part of the box that the points dominate."""
        return pareto.hypervolume(np.array(points), np.ones(len(self.ideal))) if len(points) else 0.0


@dataclass(frozen=True)
class History:
    """Hypervolume after every training: in the order in which they ended, and in random order."""

    seconds: list[float]
    reached: list[float]
    random_at: list[int]
    random_mean: list[float]
    random_low: list[float]
    random_high: list[float]


def history(run: Run, volume: Volume | None = None) -> History | None:
    """None where no network was trained to the end.

    Args:
        volume: the box to measure in; default the run's own.
    """
    closed = [record for record in run.records if record.was_trained and record.finished is not None]
    closed.sort(key=lambda record: record.finished or datetime.datetime.min)
    volume = volume or Volume.of(run.objectives, closed)
    if volume is None or not closed:
        return None
    places = [volume.unit(record) for record in closed]
    held = holds(run)
    seconds = [searched(held, record.finished.timestamp()) for record in closed if record.finished is not None]
    at = sorted({max(1, round(k)) for k in np.linspace(1, len(places), min(CHECKPOINTS, len(places)))})
    random = _random_order(volume, places, at)
    low, high = np.quantile(random, [0.1, 0.9], axis=0)
    return History(seconds, _growth(volume, places), at, random.mean(axis=0).tolist(), low.tolist(), high.tolist())


def history_figure(found: History, *, by_seconds: bool) -> Document:
    """Hypervolume against trainings, or against seconds."""
    trainings = len(found.reached)
    total = found.seconds[-1]
    # A random order takes as long as the search did, at its average pace.
    at = [k / trainings * total for k in found.random_at] if by_seconds else [float(k) for k in found.random_at]
    own = found.seconds if by_seconds else [float(k) for k in range(1, trainings + 1)]
    minutes = by_seconds and total > 300
    if minutes:
        at, own = [value / 60 for value in at], [value / 60 for value in own]
    band = {"mode": "lines", "hoverinfo": "skip", "showlegend": False, "line": {"width": 0}}
    title = ("Minutes" if minutes else "Seconds") if by_seconds else "Trainings"
    return {
        "data": [
            {**band, "x": at, "y": _percent(found.random_low)},
            {**band, "x": at, "y": _percent(found.random_high), "fill": "tonexty", "fillcolor": "var(--band)"},
            {
                "name": "Same trainings in random order",
                "x": at,
                "y": _percent(found.random_mean),
                "mode": "lines",
                "line": {"color": "var(--stopped)", "width": 1.5, "dash": "dash"},
                "hovertemplate": "%{x:.4g}: %{y:.1f} %<extra></extra>",
            },
            {
                "name": "This search",
                "x": [0.0, *own],
                "y": _percent([0.0, *found.reached]),
                "mode": "lines",
                "line": {"color": "var(--found)", "width": 2, "shape": "hv"},
                "hovertemplate": "%{x:.4g}: %{y:.1f} %<extra></extra>",
            },
        ],
        "layout": history_layout(title, 0 if by_seconds else trainings),
    }


def history_layout(title: str, trainings: int = 0) -> Document:
    """Axes of hypervolume against time, or against so many trainings."""
    ticks = whole_ticks(trainings) if trainings else {}
    return {
        "xaxis": {"title": {"text": title}, "rangemode": "tozero", **ticks},
        "yaxis": {"title": {"text": "Hypervolume (% of the box)"}, "rangemode": "tozero"},
        "height": 330,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }


def curves(run: Run, points: Sequence[Point]) -> Document | None:
    """Validation accuracy after every epoch, with the rungs at which trials are compared; None without an epoch."""
    indices = {point.number: index for index, point in enumerate(points) if point.number is not None}
    kinds: tuple[tuple[str, str, float, Callable[[Record], bool]], ...] = (
        ("Stopped early", "var(--stopped)", 1.0, lambda r: r.state == "stopped"),
        ("Failed", "var(--failed)", 1.2, lambda r: r.state == "failed"),
        ("Trained to the end", "var(--found-soft)", 1.2, lambda r: r.state == "complete" and not r.on_front),
        ("On the front", "var(--found)", 2.0, lambda r: r.on_front),
    )
    traces = []
    for name, colour, width, belongs in kinds:
        xs: list[float | None] = []
        ys: list[float | None] = []
        shown: list[int | None] = []
        for record in run.records:
            if record.number in indices and record.curve and belongs(record):
                xs += [*(epoch["epoch"] for epoch in record.curve), None]
                ys += [*(100 * epoch["accuracy"] for epoch in record.curve), None]
                shown += [*([indices[record.number]] * len(record.curve)), None]
        if xs:
            line = {"color": colour, "width": width}
            trace = {"name": name, "x": xs, "y": ys, "mode": "lines+markers", "line": line}
            marker = {"size": 3.5, "color": colour}
            traces.append({**trace, "marker": marker, "opacity": 0.8, "meta": {"role": "curve", "points": shown}})
    if not traces:
        return None
    epochs = run.settings.parsed_recipe.epochs
    return {
        "data": traces,
        "layout": {
            "xaxis": {"title": {"text": "Epoch"}, "range": [0.8, epochs + 0.2], **whole_ticks(epochs)},
            "yaxis": {"title": {"text": "Validation accuracy (%)"}},
            "shapes": [
                {
                    "type": "line",
                    "x0": level,
                    "x1": level,
                    "yref": "paper",
                    "y0": 0,
                    "y1": 1,
                    "line": {"color": "var(--published)", "width": 1, "dash": "dot"},
                }
                for level in run.settings.rungs
            ],
            "hovermode": "closest",
            "height": 400,
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        },
    }


def losses_of(objectives: Sequence[Objective], record: Record) -> Numbers | None:
    """A network's objectives, all minimised, costs as logarithms; None where it was not trained to the end, or
    may not stand on the front.
    """
    values = [record.value(objective) for objective in objectives]
    out = record.state != "complete" or record.twin is not None or record.beside
    if out or any(value is None for value in values):
        return None
    return np.array(
        [
            math.log(max(value or 0.0, 1e-12)) if objective.known else -(value or 0.0)
            for objective, value in zip(objectives, values, strict=True)
        ]
    )


def _growth(volume: Volume, places: Sequence[Numbers | None]) -> list[float]:
    """Hypervolume after each of the trainings."""
    seen: list[Numbers] = []
    reached: list[float] = []
    for place in places:
        before = reached[-1] if reached else 0.0
        if place is None or any(np.all(other <= place) for other in seen):
            reached.append(before)
            continue
        seen = [other for other in seen if not np.all(place <= other)] + [place]
        reached.append(volume.covered(seen))
    return reached


def _random_order(volume: Volume, places: Sequence[Numbers | None], at: Sequence[int]) -> Numbers:
    """Hypervolume of the first k trainings in shuffled orders; shape (orders, len(at))."""
    rng = np.random.default_rng(0)
    orders = max(20, min(RANDOM_ORDERS, 20_000 // len(places)))
    rows = []
    for _ in range(orders):
        shuffled = [places[index] for index in rng.permutation(len(places))]
        rows.append([volume.covered([place for place in shuffled[:k] if place is not None]) for k in at])
    return np.array(rows)


def _percent(values: Sequence[float]) -> list[float]:
    return [100 * value for value in values]

"""Progress of a search: hypervolume and learning curves."""

import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas import pareto
from nas.driver.objectives import Objective
from nas.driver.record import Record
from nas.driver.run import Run
from nas.report.effort import holds, searched
from nas.report.points import Point
from nas.report.scatter import LEGEND_ABOVE, MARGIN, Figure
from nas.report.ticks import whole_ticks

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """The box that hypervolumes are measured in, all objectives minimised, costs on a logarithmic scale.

    It spans the networks that were trained to the end, best to worst value and a tenth more, as on the scatter.
    """

    objectives: Sequence[Objective]
    ideal: Numbers
    corner: Numbers

    @classmethod
    def of(cls, objectives: Sequence[Objective], records: Sequence[Record]) -> "Box | None":
        """Span the records; None where no network was trained to the end."""
        losses = [loss for record in records if (loss := losses_of(objectives, record)) is not None]
        if not losses:
            return None
        low, high = np.min(losses, axis=0), np.max(losses, axis=0)
        return cls(tuple(objectives), low, high + MARGIN * np.where(high > low, high - low, 1.0))

    def place(self, record: Record) -> Numbers | None:
        """Scale a network's losses, the box to [0, 1]; None where it was not trained to the end."""
        losses = losses_of(self.objectives, record)
        return None if losses is None else (losses - self.ideal) / (self.corner - self.ideal)

    def covered(self, records: Sequence[Record]) -> float:
        """Return the share of the box that the records dominate."""
        places = [place for record in records if (place := self.place(record)) is not None]
        return pareto.hypervolume(np.array(places), np.ones(len(self.ideal))) if places else 0.0


def losses_of(objectives: Sequence[Objective], record: Record) -> Numbers | None:
    """Return a network's objectives, all minimised, costs as logarithms.

    None where it was not trained to the end, or may not stand on the front.
    """
    values = [record.value(objective) for objective in objectives]
    if not record.ended or record.beside or None in values:
        return None
    return np.array(
        [
            math.log(max(value or 0.0, 1e-12)) if objective.known else -(value or 0.0)
            for objective, value in zip(objectives, values, strict=True)
        ]
    )


def closed_records(run: Run) -> list[Record]:
    """Return the trainings in the order in which they ended."""
    closed = [record for record in run.records if record.was_trained and record.finished is not None]
    return sorted(closed, key=lambda record: record.finished or datetime.datetime.min)


def hypervolume_figure(run: Run, box: Box | None = None, *, by_seconds: bool = False) -> Figure | None:
    """Draw the hypervolume after every training; None where no network was trained to the end.

    Args:
        run: finished or not.
        box: to measure in; default the run's own.
        by_seconds: against the time in which workers were held, instead of the number of trainings.
    """
    closed = closed_records(run)
    box = box or Box.of(run.objectives, closed)
    if box is None or not closed:
        return None
    front, reached = np.empty((0, len(box.objectives))), dict[int, float]()
    for k, record in enumerate(closed):
        if (place := box.place(record)) is not None:
            front = np.concatenate([front, place[None]])
            front = front[pareto.front_mask(front)]
            reached[k] = pareto.hypervolume(front, np.ones(len(place)))
    held = holds(run)
    at = [searched(held, r.finished.timestamp()) if by_seconds and r.finished else k for k, r in enumerate(closed, 1)]
    minutes = by_seconds and at[-1] > 300
    xs = [0.0, *(at[k] / (60 if minutes else 1) for k in reached), at[-1] / (60 if minutes else 1)]
    ys = [0.0, *reached.values(), max(reached.values(), default=0.0)]
    line = {"color": "var(--found)", "width": 2, "shape": "hv"}
    trace = {"name": "This search", "x": xs, "y": [float(100 * y) for y in ys], "mode": "lines", "line": line}
    title = ("Minutes" if minutes else "Seconds") if by_seconds else "Trainings"
    return {
        "data": [{**trace, "hovertemplate": "%{x:.4g}: %{y:.1f} %<extra></extra>"}],
        "layout": hypervolume_layout(title, 0 if by_seconds else len(closed)),
    }


def hypervolume_layout(title: str, trainings: int = 0) -> dict[str, Any]:
    """Return the axes of hypervolume against time, or against so many trainings."""
    ticks = whole_ticks(trainings) if trainings else {}
    return {
        "xaxis": {"title": {"text": title}, "rangemode": "tozero", **ticks},
        "yaxis": {"title": {"text": "Hypervolume (% of the box)"}, "rangemode": "tozero"},
        "height": 330,
        "legend": LEGEND_ABOVE,
    }


def curves(run: Run, points: Sequence[Point]) -> Figure | None:
    """Draw validation accuracy after every epoch, and the rungs at which trials are compared; None without an epoch."""
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
    rung = {"type": "line", "yref": "paper", "y0": 0, "y1": 1}
    dotted = {"color": "var(--published)", "width": 1, "dash": "dot"}
    return {
        "data": traces,
        "layout": {
            "xaxis": {"title": {"text": "Epoch"}, "range": [0.8, epochs + 0.2], **whole_ticks(epochs)},
            "yaxis": {"title": {"text": "Validation accuracy (%)"}},
            "shapes": [{**rung, "x0": level, "x1": level, "line": dotted} for level in run.settings.rungs],
            "hovermode": "closest",
            "height": 400,
            "legend": LEGEND_ABOVE,
        },
    }

"""The scatter of any two figures of the networks: front, region that it dominates, published networks, failures.

The document is drawn as it is in notebooks. In the page the script exchanges its coordinates when other axes are
chosen: a trace's ``meta.points`` says which points it shows, and its ``meta.role`` how they are used.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from nas.report.points import Point, known_quantities
from nas.report.ticks import log_ticks
from nas.units import QUANTITIES, Quantity

Figure = dict[str, Any]
"""A plotly figure as plain values: data and layout. Colours may be names of the page's palette, ``var(--found)``."""

Coordinates = tuple[list[float], list[float]]

MARGIN = 0.1
"""How far beyond the worst value the shaded region reaches, as a part of the range."""

MOST_LABELS = 24
"""With more, names hide each other and the points; hovering still tells them."""

NAME_LINES = 3
"""On which the names of neighbours stand in turn; the page's script finds them better places."""

LEGEND_ABOVE = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
HEATMAP = {
    "type": "heatmap",
    "texttemplate": "%{text}",
    "textfont": {"color": "var(--ink)"},
    "colorscale": [[0, "var(--heat-none)"], [1, "var(--heat)"]],
    "zmin": 0,
    "showscale": False,
}

SCALE = [[0.0, "#3b6fb6"], [0.4, "#3aa6a0"], [0.7, "#d9a531"], [1.0, "#d1495b"]]
"""Colours of a third figure: even in lightness, so that both ends can be seen on white and on black."""


def pareto(points: Sequence[Point], x: str, y: str, colour: str | None = None) -> Figure:
    """Draw two quantities against each other, a third as colour.

    Args:
        points: of one run.
        x, y, colour: keys of :data:`nas.units.QUANTITIES`.
    """
    plane = Plane(points, x, y)
    traces = [
        *plane.region("var(--found)"),
        plane.joins(),
        plane.line(),
        *(plane.trace(name, keep, marker, label) for name, keep, marker, label in _groups()),
        plane.row("Stopped early", "stopped", "var(--stopped)", "line-ns-open"),
        plane.row("Failed", "failed", "var(--failed)", "x-thin-open"),
    ]
    traces = [trace for trace in traces if trace["meta"].get("points") != []]
    if colour is not None:
        for trace in traces:
            # Printed ones keep their colour: what is drawn as a third quantity is mostly not printed.
            if trace["meta"]["role"] == "points" and "open" not in trace["marker"].get("symbol", ""):
                shade = {"color": plane.values(trace["meta"]["points"], colour), "coloraxis": "coloraxis"}
                trace["marker"] = {**trace["marker"], **shade}
    traces += [pin_ring(), *(legend_entry(trace) for trace in traces if trace["meta"]["role"] == "points")]
    return {"data": traces, "layout": plane.layout(colour)}


def _groups() -> Iterator[tuple[str, Callable[[Point], bool], Figure, str]]:
    """Yield the groups of points, in the order in which they are drawn: name, members, marker, label.

    A label is ``rank``, ``name``, or empty for none.
    """
    yield (
        "Others trained to the end",
        lambda p: p.kind == "found" and p.state == "complete" and p.rank is None,
        {"size": 7, "opacity": 0.7, "color": "var(--found-soft)"},
        "",
    )
    yield (
        "Published, as printed",
        lambda p: p.kind == "printed",
        {"size": 9, "symbol": "diamond-open", "color": "var(--published)", "line": {"width": 1.5}},
        "",
    )
    named = (("Published", "published", "diamond"), ("Your own", "own", "square"))
    for title, kind, symbol in named:
        marker = {"size": 10, "symbol": symbol, "color": f"var(--{kind})", "line": {"width": 0}}
        yield f"{title}, trained here", functools.partial(_is_of, kind, False), marker, "name"
    for title, kind, symbol in named:
        line = {"width": 1, "color": "var(--paper)"}
        marker = {"size": 13, "symbol": f"{symbol}-cross", "color": f"var(--{kind})", "line": line}
        yield f"{title}, outside the space or limits", functools.partial(_is_of, kind, True), marker, "name"
    yield (
        "Found, on the front",
        lambda p: p.kind == "found" and p.rank is not None,
        {"size": 13, "color": "var(--found)", "line": {"width": 1.5, "color": "var(--paper)"}},
        "rank",
    )


def _is_of(kind: str, is_outside: bool, point: Point) -> bool:
    return point.kind == kind and point.state == "complete" and bool(point.beside) == is_outside


@dataclass(frozen=True)
class Axis:
    """A quantity's axis: shown are values times `factor`, at `ticks`, or where plotly puts them."""

    title: str
    factor: float
    is_log: bool
    ticks: Sequence[float] | None


def axes_of(points: Sequence[Point]) -> dict[str, Axis]:
    """Make an axis, with one unit, for every quantity that the points have."""
    axes = {}
    for key in known_quantities(points):
        quantity = QUANTITIES[key]
        values = [point.values[key] for point in points if key in point.values]
        factor, unit = quantity.axis_unit(values)
        positive = [value * factor for value in values if value > 0]
        ticks = log_ticks(min(positive), max(positive)) if quantity.log and positive else None
        axes[key] = Axis(f"{quantity.title} ({unit})" if unit else quantity.title, factor, quantity.log, ticks)
    return axes


def regions(points: Sequence[Point], run: int = 0) -> dict[str, Coordinates]:
    """Return the shaded region of one run for every pair of axes that can be chosen, by ``x y``."""
    axes = axes_of(points)
    return {f"{x} {y}": _scaled_region(points, axes, x, y, run) for x in axes for y in axes}


def dominated(points: Sequence[Point], x: Quantity, y: Quantity, run: int = 0) -> list[tuple[float, float]]:
    """Return the corners of the region that a run's networks dominate in two quantities, those beside it left out.

    Empty where there is none. It reaches to the reference of all runs, so that those of several runs can be compared.
    """
    ended = [p for p in points if p.state == "complete" and x.key in p.values and y.key in p.values]
    pairs = [(p.values[x.key], p.values[y.key]) for p in ended if p.run == run and not p.beside]
    if not pairs:
        return []
    worst_x, worst_y = (reference([p.values[quantity.key] for p in ended], quantity) for quantity in (x, y))
    sign_x, sign_y = (-1 if quantity.maximise else 1 for quantity in (x, y))
    corners: list[tuple[float, float]] = []
    best = worst_y
    for a, b in sorted(pairs, key=lambda pair: (sign_x * pair[0], sign_y * pair[1])):
        if sign_y * b < sign_y * best:
            corners += [(a, best), (a, b)]
            best = b
    return [*corners, (worst_x, best), (worst_x, worst_y), corners[0]] if corners else []


def reference(values: Sequence[float], quantity: Quantity) -> float:
    """Return the worst value and a tenth of the range more: a corner that every network of the run dominates."""
    low, high = min(values), max(values)
    worst, best = (low, high) if quantity.maximise else (high, low)
    if quantity.log and best > 0:
        return worst * max(worst / best, 1.1) ** MARGIN
    return worst + MARGIN * ((worst - best) or (-1 if quantity.maximise else 1) * max(abs(worst), 1e-9))


class Plane:
    """Makes the traces of some points on one pair of axes."""

    def __init__(self, points: Sequence[Point], x: str, y: str) -> None:
        self.points, self.x, self.y = points, x, y
        self.axes = axes_of(points)

    def values(self, indices: Sequence[int], key: str) -> list[float | None]:
        """Return a quantity of some points in its axis' unit; None, which plotly leaves out, where it is not known."""
        factor = self.axes[key].factor
        known = [self.points[index].values.get(key) for index in indices]
        return [None if value is None else value * factor for value in known]

    def trace(self, name: str, keep: Callable[[Point], bool], marker: Figure, label: str = "") -> Figure:
        """Draw the points that `keep` keeps; `label` is ``rank``, ``name``, or empty for none."""
        indices = [index for index, point in enumerate(self.points) if keep(point)]
        trace: Figure = {
            "meta": {"role": "points", "points": indices, "colour": marker["color"]},
            "name": name,
            "mode": "markers",
            "x": self.values(indices, self.x),
            "y": self.values(indices, self.y),
            "hovertext": [escape(self.points[index].name) for index in indices],
            "hovertemplate": "%{hovertext}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
            "marker": marker,
        }
        if label and len(indices) <= MOST_LABELS:
            # Numbers stand above.
            texts = [escape(str(getattr(self.points[index], label))) for index in indices]
            lower = ["<br>" * self.name_lines[index] if label == "name" else "" for index in indices]
            trace |= {
                "mode": "markers+text",
                "text": [line + text for line, text in zip(lower, texts, strict=True)],
                "textposition": "bottom center" if label == "name" else "top center",
                "textfont": {"size": 11},
                "cliponaxis": False,  # a name at the edge stays whole
            }
        return trace

    @functools.cached_property
    def name_lines(self) -> dict[int, int]:
        """Give, by point, the lines that its name stands lower: in turn across the plot, whatever the groups."""
        named = [i for i, p in enumerate(self.points) if p.kind in ("published", "own") and p.state == "complete"]
        across = sorted(named, key=lambda index: self.points[index].values.get(self.x) or 0.0)
        return {index: place % NAME_LINES for place, index in enumerate(across)}

    def row(self, name: str, state: str, colour: str, symbol: str) -> Figure:
        """Lay out what did not reach the end in a row of its own below the plot, where its cost puts it."""
        marker = {"symbol": symbol, "size": 9, "color": colour, "line": {"width": 1.4, "color": colour}}
        trace = self.trace(name, lambda point: point.state == state, marker)
        indices = trace["meta"]["points"]
        trace["meta"]["role"] = "row"
        hover = [": ".join([self.points[index].name, *self.points[index].notes[:1]]) for index in indices]
        return trace | {
            "y": [name] * len(indices),
            "yaxis": "y2",
            "hovertext": [escape(text) for text in hover],
            "hovertemplate": "%{hovertext}<extra></extra>",
            "showlegend": False,
        }

    def region(self, colour: str, run: int = 0, *, shaded: bool = True) -> list[Figure]:
        """Draw the region that a run's networks dominate, and its edge."""
        xs, ys = _scaled_region(self.points, self.axes, self.x, self.y, run)
        quiet = {"mode": "lines", "hoverinfo": "skip", "showlegend": False}
        shade = {"x": xs, "y": ys, "fill": "toself", "fillcolor": "var(--region)", "line": {"width": 0}}
        stairs = {"x": xs[:-2], "y": ys[:-2], "line": {"color": colour, "width": 1}}
        traces = [{"meta": {"role": "stairs", "run": run}, **stairs, **quiet}]
        return [{"meta": {"role": "region", "run": run}, **shade, **quiet}, *traces] if shaded else traces

    def line(self) -> Figure:
        """Draw the best accuracy that published networks trained here reach up to a cost; what a search has to beat."""
        shown = [i for i, p in enumerate(self.points) if p.kind == "published" and p.state == "complete"]
        is_useful = self.y.endswith("accuracy") and not self.x.endswith("accuracy")
        pairs = zip(self.values(shown, self.x), self.values(shown, self.y), strict=True)
        known = sorted((x, y) for x, y in pairs if is_useful and x is not None and y is not None)
        return {
            "meta": {"role": "line", "points": shown},
            "name": "Line of published networks",
            "x": [x for x, _ in known],
            "y": list(itertools.accumulate((y for _, y in known), max)),
            "mode": "lines",
            "line": {"color": "var(--published)", "width": 1.5, "dash": "dot"},
            "hoverinfo": "skip",
        }

    def joins(self) -> Figure:
        """Draw thin lines from a published network as printed to the same one as trained here."""
        trained = {p.name: i for i, p in enumerate(self.points) if p.kind == "published" and p.state == "complete"}
        ends = [
            end
            for index, point in enumerate(self.points)
            if point.kind == "printed" and point.name in trained
            for end in (index, trained[point.name])
        ]
        return {
            "meta": {"role": "joins", "ends": ends},
            "x": _apart(self.values(ends, self.x)),
            "y": _apart(self.values(ends, self.y)),
            "mode": "lines",
            "line": {"color": "var(--published)", "width": 0.8},
            "hoverinfo": "skip",
            "showlegend": False,
        }

    def layout(self, colour: str | None) -> Figure:
        return {
            "xaxis": {**self.axis(self.x), "anchor": "y2"},
            "yaxis": {**self.axis(self.y), "domain": [0.17, 1]},
            "yaxis2": {
                "domain": [0, 0.11],
                "type": "category",
                "categoryarray": ["Failed", "Stopped early"],
                "categoryorder": "array",
                "tickvals": ["Failed", "Stopped early"],
                "range": [-0.6, 1.6],
                "fixedrange": True,
                "showgrid": False,
            },
            "coloraxis": {
                "colorscale": SCALE,
                "showscale": colour is not None,
                "colorbar": {"title": {"text": self.axes[colour or self.x].title, "side": "right"}, "thickness": 12},
            },
            "hovermode": "closest",
            "legend": {**LEGEND_ABOVE, "tracegroupgap": 0},
            "height": 560,
            "narrow_height": 640,
        }

    def axis(self, key: str) -> Figure:
        axis = self.axes[key]
        logarithmic = {"type": "log", "tickvals": axis.ticks} if axis.is_log else {"type": "linear"}
        return {"title": {"text": axis.title}, "zeroline": False, **logarithmic}


def pin_ring() -> Figure:
    """Draw the ring that the page's script puts around the pinned network."""
    return {
        "meta": {"role": "pin"},
        "x": [None],
        "y": [None],
        "mode": "markers",
        "marker": {"symbol": "circle-open", "size": 23, "color": "var(--ink)", "line": {"width": 1.5}},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def legend_entry(trace: Figure) -> Figure:
    """Make a legend entry for a trace whose own colours may be those of a third quantity."""
    marker = {**trace["marker"], "color": trace["meta"]["colour"], "coloraxis": None}
    trace |= {"legendgroup": trace["name"], "showlegend": False}
    kept = {"name": trace["name"], "legendgroup": trace["name"], "mode": "markers"}
    return {"meta": {"role": "legend"}, "x": [None], "y": [None], "marker": marker, "hoverinfo": "skip", **kept}


def _scaled_region(points: Sequence[Point], axes: Mapping[str, Axis], x: str, y: str, run: int) -> Coordinates:
    corners = dominated(points, QUANTITIES[x], QUANTITIES[y], run)
    return [a * axes[x].factor for a, _ in corners], [b * axes[y].factor for _, b in corners]


def _apart(values: Sequence[float | None]) -> list[float | None]:
    """Put a gap after each pair of values."""
    return [value for index in range(0, len(values), 2) for value in (*values[index : index + 2], None)]

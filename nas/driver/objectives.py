"""Objectives of a search, and the limits that it keeps."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.errors import UserError
from nas.units import QUANTITIES


@dataclass(frozen=True)
class Objective:
    """One figure of a network.

    `unit` scales stored values to the ones that people read: shown = stored * `scale` `unit`.
    """

    name: str
    title: str
    unit: str
    scale: float
    maximise: bool = False

    @property
    def known(self) -> bool:
        """Return whether the figure follows from the document (or the device's latency table) without training."""
        return self.name not in ("accuracy", "balanced_accuracy")

    def show(self, value: float) -> str:
        """The value as people read it, such as ``91.77 %`` or ``3.69 MB``."""
        shown, unit = self.scaled(value)
        return f"{shown:.4g} {unit}".rstrip()

    def scaled(self, value: float) -> tuple[float, str]:
        """Return the number and the unit that people read a value in: kB below a megabyte."""
        if self.unit != "MB":
            return value * self.scale, self.unit
        scale, unit = QUANTITIES[self.name].axis_unit([value])
        return value * scale, unit


OBJECTIVES: Mapping[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective("accuracy", "Validation accuracy", "%", 100, maximise=True),
        Objective("balanced_accuracy", "Balanced validation accuracy", "%", 100, maximise=True),
        Objective("size", "Size", "MB", 1e-6),
        Objective("latency", "Latency", "ms", 1),
        Objective("params", "Parameters", "M", 1e-6),
        Objective("macs", "MACs", "M", 1e-6),
        Objective("peak_memory", "Peak memory", "MB", 1e-6),
        Objective("memory", "Memory", "MB", 1e-6),
    )
}

_NO_ALIASES: Mapping[str, str] = {}

_BYTES: Mapping[str, float] = {"": 1, "B": 1, "kB": 1e3, "MB": 1e6, "KiB": 1024, "MiB": 1024**2}
_UNITS: Mapping[str, Mapping[str, float]] = {
    "size": _BYTES,
    "memory": _BYTES,
    "peak_memory": _BYTES,
    "latency": {"": 1, "ms": 1, "us": 1e-3, "s": 1e3},
    "params": {"": 1, "k": 1e3, "M": 1e6},
    "macs": {"": 1, "k": 1e3, "M": 1e6, "G": 1e9},
}


def trained_for(objectives: Sequence[Objective]) -> Objective:
    """The objective that a network has to be trained for: accuracy or balanced accuracy."""
    return next(objective for objective in objectives if not objective.known)


def parse_objectives(text: str | Sequence[str], aliases: Mapping[str, str] = _NO_ALIASES) -> tuple[Objective, ...]:
    """Objectives from names, comma-separated or in a list; `aliases` are a target's further names.

    Raises:
        UserError: an unknown or repeated name, more than four, or not one of accuracy and balanced accuracy.
    """
    given = [name.strip() for name in (text.split(",") if isinstance(text, str) else text)]
    names = [aliases.get(name, name) for name in given]
    for name in names:
        if name not in OBJECTIVES:
            raise UserError(f"unknown objective {name!r}; allowed: {', '.join(OBJECTIVES)}")
        if names.count(name) > 1:
            raise UserError(f"objective {name!r} is given twice")
    unknown = [name for name in names if not OBJECTIVES[name].known]
    if not unknown:
        raise UserError("the objectives need accuracy: every other figure is known without a search")
    if len(unknown) > 1:
        raise UserError(f"the objectives need one of {' and '.join(unknown)}: they say nearly the same")
    if len(names) > 4:
        raise UserError(f"{len(names)} objectives; at most 4, or nearly every network is on the front")
    return tuple(OBJECTIVES[name] for name in names)


@dataclass(frozen=True)
class Limit:
    """A largest value that a network may have; `value` in stored units (bytes, ms, counts)."""

    objective: Objective
    value: float

    def __str__(self) -> str:
        """The limit's name in the study, whose unit never changes."""
        return f"{self.objective.name}<={self.value * self.objective.scale:g}{self.objective.unit}"

    @property
    def text(self) -> str:
        """The limit as people write it."""
        value, unit = self.objective.scaled(self.value)
        return f"{self.objective.name}<={value:g}{unit}"

    def excess(self, costs: Mapping[str, float]) -> float:
        """Return how far the costs break the limit, as a part of it; at most 0 where they keep it.

        A predicted latency keeps a limit when the upper end of its interval does.
        """
        return self._held(costs) / self.value - 1

    def show(self, costs: Mapping[str, float]) -> str:
        """Return what is held against the limit, as people read it; of a predicted latency also the prediction."""
        value, held = costs[self.objective.name], self._held(costs)
        shown = self.objective.show(value)
        return shown if held == value else f"{shown} predicted, {self.objective.show(held)} at the upper end"

    def loosened(self, factor: float) -> "Limit":
        """The limit times a factor, rounded up to three digits as people read it."""
        shown = self.value * factor * self.objective.scale
        step = 10.0 ** (math.floor(math.log10(shown)) - 2)
        return Limit(self.objective, math.ceil(shown / step - 1e-9) * step / self.objective.scale)

    def _held(self, costs: Mapping[str, float]) -> float:
        name = self.objective.name
        return costs.get(f"{name}_high", costs[name])


def over_limits(limits: Sequence[Limit], costs: Mapping[str, float]) -> str:
    """Return which limits the costs break, or cannot be said to keep; empty where they keep all."""
    unknown = [limit for limit in limits if limit.objective.name not in costs]
    broken = [limit for limit in limits if limit not in unknown and limit.excess(costs) > 0]
    said = [f"over the limit {limit.text}" for limit in broken]
    said += [f"not known to keep {limit.text}" for limit in unknown]
    return ", ".join(said)


def parse_limit(text: str, aliases: Mapping[str, str] = _NO_ALIASES) -> Limit:
    """A limit such as ``size<=4MB`` or ``latency<=5ms``; `aliases` are a target's further names.

    Raises:
        UserError: not of that form, an unknown unit, or a figure that cannot be limited.
    """
    match = re.fullmatch(r"\s*(\w+)\s*<=?\s*([0-9.eE+-]+)\s*([A-Za-z%]*)\s*", text)
    if match is None:
        raise UserError(f"limit {text!r}: write it as FIGURE<=VALUE, such as size<=4MB or latency<=5ms")
    name, number, unit = match.groups()
    name = aliases.get(name, name)
    if name not in OBJECTIVES or not OBJECTIVES[name].known:
        allowed = ", ".join(objective.name for objective in OBJECTIVES.values() if objective.known)
        raise UserError(f"limit {text!r}: {name!r} cannot be limited; allowed: {allowed}")
    units = {key.lower(): factor for key, factor in _UNITS[name].items()}
    if unit.lower() not in units:
        raise UserError(f"limit {text!r}: unknown unit {unit!r}; allowed: {', '.join(filter(None, _UNITS[name]))}")
    try:
        value = float(number) * units[unit.lower()]
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"limit {text!r}: {number!r} must be a positive number")
    return Limit(OBJECTIVES[name], value)


def losses(objectives: Sequence[Objective], values: Sequence[float]) -> list[float]:
    """Values with every objective turned so that less is better, as :mod:`nas.pareto` wants them."""
    return [-value if objective.maximise else value for objective, value in zip(objectives, values, strict=True)]

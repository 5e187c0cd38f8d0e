"""A latency table: timed segments and layer prices of one space on one device, with where they come from."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from nas.architecture import Architecture
from nas.cost.latency.layers import Segment, segments
from nas.cost.latency.machine import Provenance
from nas.cost.latency.model import PRICES, Context, LayerModel, kinds_of, weights_of
from nas.errors import UserError
from nas.files import parse_json, read_text, write_atomic
from nas.space import Space

SCHEMA = 3
REDO = "make a new one with nas latency calibrate"
LATER = 0.04
"""Standard deviation of the logarithm of the machine's speed between a calibration and what is measured later: the
coefficient of variation of a measurement repeated minutes later was 2.0% (EPYC, n = 2 x 4) and 3.6% (Xeon, n = 4), so
that of the ratio of two was 2.8 and 5.1%. Without it, intervals of 95% held 69% of 100 networks (EPYC)."""
MAX_MS = 1e9
"""No time of ours is longer, nor shorter than 1 / MAX_MS: what is computed from a table stays a number."""
MAX_LOG = 10.0
"""No logarithm of a factor is larger."""


class Prediction(NamedTuple):
    """Milliseconds for one batch, with an interval for 95% of networks that are measured at another time."""

    value_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True)
class HeldOut:
    """How well the table predicts networks that it was not fitted to (cross-validation over the timed networks)."""

    networks: int
    within_10: float
    """Share of networks predicted to within 10%."""
    spearman: float
    error_95: float
    """95% of the relative errors, as logarithms, are smaller."""


@dataclass(frozen=True)
class Table:
    """Predicts the latency of a space's networks on one device; see :func:`nas.cost.latency.calibrate`.

    A segment's time is its layers' prices, moved towards its own measured time by as much as that can be trusted.
    """

    space_name: str
    space_id: str
    num_classes: int
    provenance: Provenance
    model: LayerModel
    context: Context
    """Whole networks over the sum of their segments."""
    measured: Mapping[str, tuple[float, int]]
    """Mean ms and number of timings of each timed segment, by :attr:`Segment.key`."""
    model_variance: float
    """Variance of log(measured / model) over segments, timing noise taken out."""
    timing_variance: float
    """Variance of the logarithm of one timing of a segment."""
    held_out: HeldOut
    complaint: str = ""
    """What was wrong while it was made, such as a busy machine; empty where nothing was."""
    _known: dict[Segment, tuple[float, int, frozenset[str]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def predict(self, architecture: Architecture) -> Prediction:
        """The network's latency, in microseconds of run time once its blocks have been met.

        Raises:
            UserError: the network has a kind of layer that was never timed.
        """
        value = self.total(segments(architecture, self.num_classes))
        factor = math.exp(self.error_95)
        return Prediction(value, value / factor, value * factor)

    @property
    def error_95(self) -> float:
        """95% of networks measured at another time shall differ by less (a logarithm): by the model's error, as it was
        on held-out networks, and by the machine's speed, which is another one then."""
        return math.hypot(self.held_out.error_95, 1.96 * LATER)

    def total(self, chain: Iterable[Segment]) -> float:
        """The time in ms of a network with these segments."""
        total, weights, kinds = self.model.per_run, 0, frozenset[str]()
        for segment in chain:
            known = self._known.get(segment)
            if known is None:
                known = self._segment(segment), weights_of([segment]), kinds_of([segment])
                self._known[segment] = known
            total += known[0]
            weights += known[1]
            kinds |= known[2]
        return total * self.context(total, weights, len(kinds)) if total > 0 else 0.0

    def knows(self, segment: Segment) -> bool:
        """Whether every kind of the segment's layers was timed."""
        return kinds_of([segment]) <= self.model.prices.keys()

    def _segment(self, segment: Segment) -> float:
        modelled = self.model(segment)
        if segment.key not in self.measured or modelled <= 0:
            return modelled
        measured, count = self.measured[segment.key]
        trust = self.model_variance / (self.model_variance + self.timing_variance / count + 1e-12)
        return modelled * math.exp(trust * math.log(measured / self.model.alone(segment)))

    def check(self, *, space: Space | None = None, num_classes: int | None = None, engine: str | None = None) -> None:
        """Raise UserError, one line, where the table is for another space, number of classes or engine."""
        if space is not None and space_id(space) != self.space_id:
            raise UserError(
                f"latency table: made for space {self.space_name} ({self.space_id}), "
                f"not {space.name} ({space_id(space)}); {REDO} --space {space.name}"
            )
        if num_classes is not None and num_classes != self.num_classes:
            raise UserError(f"latency table: made for {self.num_classes} classes, not {num_classes}; {REDO}")
        if engine is not None and engine != self.provenance.engine:
            raise UserError(
                f"latency table: made with engine {self.provenance.engine}, not {engine}; "
                f"give --engine {self.provenance.engine} or {REDO}"
            )

    def to_json(self) -> str:
        """The table as its file holds it."""
        document = {
            "schema": SCHEMA,
            "space": {"name": self.space_name, "id": self.space_id},
            "num_classes": self.num_classes,
            "provenance": self.provenance.to_dict(),
            "held_out": asdict(self.held_out),
            "complaint": self.complaint,
            "context": asdict(self.context),
            "model_variance": self.model_variance,
            "timing_variance": self.timing_variance,
            "per_run": self.model.per_run,
            "per_edge": self.model.per_edge,
            "prices": {kind: list(prices) for kind, prices in self.model.prices.items()},
            "segments": {key: list(value) for key, value in self.measured.items()},
        }
        return json.dumps(document, indent=1, allow_nan=False) + "\n"

    def save(self, path: Path) -> None:
        """Write the table, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, self.to_json())


def load_table(path: Path) -> Table:
    """Read a table.

    Raises:
        UserError: one line that says what is wrong with it and what to do.
    """
    return parse_table(read_text(path), str(path))


def parse_table(text: str, where: str) -> Table:
    """Read a table from its text; see :func:`load_table`."""
    try:
        document = parse_json(text, where)
    except UserError as error:
        raise UserError(f"{error}; not a latency table; {REDO}") from None
    if not isinstance(document, dict) or "schema" not in document:
        raise UserError(f"{where}: not a latency table; {REDO}")
    if document["schema"] != SCHEMA:
        raise UserError(f"{where}: schema {document['schema']!r}, this version of nas reads {SCHEMA}; {REDO}")
    try:
        table = _from_document(document, where)
        table.to_json()  # which refuses what is no number
        return table
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where}: damaged latency table ({type(error).__name__}: {error}); {REDO}") from None


def _from_document(document: dict[str, Any], where: str) -> Table:
    prices = {
        str(kind): tuple(_number(price, f"{where}: price of {kind}") for price in values)
        for kind, values in document["prices"].items()
    }
    measured = {
        str(key): (_number(ms, f"{where}: segment {key!r}", above=True), _count(count, f"{where}: segment {key!r}"))
        for key, (ms, count) in document["segments"].items()
    }
    if not prices or any(len(values) != PRICES for values in prices.values()):
        raise UserError(f"{where}: blocks are missing from the table; {REDO}")
    held_out = TypeAdapter(HeldOut).validate_python(document["held_out"])
    _number(held_out.error_95, f"{where}: held_out.error_95", most=MAX_LOG)
    return Table(
        space_name=str(document["space"]["name"]),
        space_id=str(document["space"]["id"]),
        num_classes=_count(document["num_classes"], f"{where}: num_classes"),
        provenance=TypeAdapter(Provenance).validate_python(document["provenance"]),
        model=LayerModel(
            prices,
            _number(document["per_run"], f"{where}: per_run"),
            _number(document["per_edge"], f"{where}: per_edge"),
        ),
        context=_context(document["context"], f"{where}: context"),
        measured=measured,
        model_variance=_number(document["model_variance"], f"{where}: model_variance"),
        timing_variance=_number(document["timing_variance"], f"{where}: timing_variance"),
        held_out=held_out,
        complaint=str(document["complaint"]),
    )


def _context(document: dict[str, Any], where: str) -> Context:
    def read(name: str, value: Any) -> float:
        if name in ("least_ms", "most_ms"):
            return _number(value, f"{where}.{name}", above=True)
        return _finite(value, f"{where}.{name}", most=MAX_LOG)

    return Context(**{name: read(name, value) for name, value in document.items()})


def _number(value: Any, what: str, *, above: bool = False, most: float = MAX_MS) -> float:
    """A time or a variance: a finite number, not negative."""
    number = _finite(value, what, most=most)
    if number < 0 or (above and number < 1 / MAX_MS):
        raise UserError(f"{what} is {value}; a time is above 0; {REDO}")
    return number


def _finite(value: Any, what: str, *, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= most:
        raise UserError(f"{what} is {value!r}, not a number up to {most:g}; {REDO}")
    return float(value)


def _count(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{what} is {value!r}, not a count: damaged; {REDO}")
    return value


def space_id(space: Space) -> str:
    """Twelve hexadecimal digits, equal for equal documents."""
    document = {key: value for key, value in space.document.items() if key not in ("name", "source")}
    text = json.dumps(document, sort_keys=True, default=list, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]

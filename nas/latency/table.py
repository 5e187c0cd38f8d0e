"""A latency table: timed segments and layer prices of one space on one device, with where they come from."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.errors import UserError, first_mistake
from nas.files import parse_json, read_text, write_atomic
from nas.latency.layers import Segment, segments
from nas.latency.machine import Provenance
from nas.latency.model import MAX_LOG, PRICES, Context, LayerModel, NotNegative, Positive, kinds_of, weights_of

SCHEMA = 3
REDO = "make a new one with nas latency calibrate"
LATER = 0.04
"""Standard deviation of the logarithm of the machine's speed between a calibration and what is measured later: the
coefficient of variation of a measurement repeated minutes later was 2.0% (EPYC, n = 2 x 4) and 3.6% (Xeon, n = 4), so
that of the ratio of two was 2.8 and 5.1%. Without it, intervals of 95% held 69% of 100 networks (EPYC)."""
Count = Annotated[int, Field(ge=1)]


class Prediction(NamedTuple):
    """Milliseconds for one batch, with an interval for 95% of networks that are measured at another time."""

    value_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True)
class HeldOut:
    """Errors of a table on networks that it was not fitted to (cross-validation over the timed networks)."""

    networks: int
    within_10: FiniteFloat
    """Share of networks predicted to within 10%."""
    spearman: FiniteFloat
    error_95: Annotated[float, Field(ge=0, le=MAX_LOG)]
    """95% of the relative errors, as logarithms, are smaller."""


@dataclass(frozen=True)
class Table:
    """Predicts the latency of a space's networks on one device; see :func:`nas.latency.calibrate`.

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
        """Return whether every kind of the segment's layers was timed."""
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
            **{name: getattr(self, name) for name in _SAME},
            "per_run": self.model.per_run,
            "per_edge": self.model.per_edge,
            "prices": self.model.prices,
            "segments": self.measured,
        }
        return json.dumps(document, indent=1, allow_nan=False, default=asdict) + "\n"

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
        read = _DOCUMENT.validate_json(text, strict=True)
    except ValidationError as error:
        raise UserError(f"{where}: damaged latency table: {': '.join(first_mistake(error))}; {REDO}") from None
    return Table(
        space_name=read["space"]["name"],
        space_id=read["space"]["id"],
        model=LayerModel(
            {kind: tuple(prices) for kind, prices in read["prices"].items()}, read["per_run"], read["per_edge"]
        ),
        measured=read["segments"],
        **{name: read[name] for name in _SAME},  # type: ignore[literal-required]
    )


class _SpaceName(TypedDict):
    name: str
    id: str


class _Document(TypedDict):
    """A table's file: no number in it lets a prediction be anything but a finite time."""

    schema: int
    space: _SpaceName
    num_classes: Count
    provenance: Provenance
    held_out: HeldOut
    complaint: str
    context: Context
    model_variance: NotNegative
    timing_variance: NotNegative
    per_run: NotNegative
    per_edge: NotNegative
    prices: Annotated[
        dict[str, Annotated[list[NotNegative], Field(min_length=PRICES, max_length=PRICES)]], Field(min_length=1)
    ]
    segments: dict[str, tuple[Positive, Count]]


_SAME = ("num_classes", "provenance", "held_out", "complaint", "context", "model_variance", "timing_variance")
_DOCUMENT = TypeAdapter(_Document)


def space_id(space: Space) -> str:
    """Twelve hexadecimal digits, equal for equal documents."""
    document = {key: value for key, value in space.document.items() if key not in ("name", "source")}
    text = json.dumps(document, sort_keys=True, default=list, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]

"""A latency table: timed segments and layer prices of one space on one device, with where they come from."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.errors import UserError, first_mistake
from nas.files import read_text, write_file
from nas.latency.layers import segments
from nas.latency.machine import Provenance
from nas.latency.model import MAX_LOG, Count, LatencyModel

SCHEMA: Literal[3] = 3
REDO = "make a new one with nas latency calibrate"
LATER = 0.04
"""Standard deviation of the logarithm of the machine's speed between a calibration and what is measured later: the
coefficient of variation of a measurement repeated minutes later was 2.0% (EPYC, n = 2 x 4) and 3.6% (Xeon, n = 4), so
that of the ratio of two was 2.8 and 5.1%. Without it, intervals of 95% held 69% of 100 networks (EPYC)."""


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


class SpaceName(BaseModel, frozen=True):
    """The space that a table is of; `id` is that of :func:`space_id`."""

    name: str
    id: str


class Table(LatencyModel):
    """Predicts the latency of a space's networks on one device; see :func:`nas.latency.calibrate`.

    The fields are those of its file.
    """

    schema_number: Literal[3] = Field(alias="schema")
    space: SpaceName
    num_classes: Count
    provenance: Provenance
    held_out: HeldOut
    complaint: str
    """What was wrong while it was made, such as a busy machine; empty where nothing was."""

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

    def check(self, *, space: Space | None = None, num_classes: int | None = None, engine: str | None = None) -> None:
        """Raise UserError, one line, where the table is for another space, number of classes or engine."""
        if space is not None and space_id(space) != self.space.id:
            side = f" --resolution {space.resolutions[0]}" if len(space.resolutions) == 1 else ""
            raise UserError(
                f"latency table: made for space {self.space.name} ({self.space.id}), not {space.name} "
                f"({space_id(space)}); {REDO} --space {space.name} --channels {space.sample(0).input.channels}{side}"
            )
        if num_classes is not None and num_classes != self.num_classes:
            raise UserError(
                f"latency table: made for {self.num_classes} classes, not {num_classes}; "
                f"{REDO} --num-classes {num_classes}"
            )
        if engine is not None and engine != self.provenance.engine:
            raise UserError(
                f"latency table: made with engine {self.provenance.engine}, not {engine}; "
                f"give --engine {self.provenance.engine} or {REDO}"
            )

    def to_json(self) -> str:
        """The table as its file holds it."""
        return self.model_dump_json(indent=1, by_alias=True) + "\n"

    def save(self, path: Path) -> None:
        """Write the table, whole or not at all; raises `UserError` where that cannot be."""
        write_file(path, self.to_json(), new_folder=True)


def load_table(path: Path) -> Table:
    """Read a table.

    Raises:
        UserError: one line that says what is wrong with it and what to do.
    """
    return parse_table(read_text(path), str(path))


def parse_table(text: str, where: str) -> Table:
    """Read a table from its text; see :func:`load_table`."""
    try:
        return Table.model_validate_json(text, strict=True)
    except ValidationError as error:
        mistakes = {mistake["loc"]: mistake for mistake in error.errors(include_url=False)}
        of_schema = mistakes.get(("schema",))
        if () in mistakes or (of_schema and of_schema["type"] == "missing"):
            wrong = "not a latency table"
        elif of_schema:
            wrong = f"schema {of_schema['input']!r}, this version of nas reads {SCHEMA}"
        else:
            wrong = f"damaged latency table: {': '.join(first_mistake(error))}"
        raise UserError(f"{where}: {wrong}; {REDO}") from None


def space_id(space: Space) -> str:
    """Twelve hexadecimal digits, equal for equal documents."""
    document = {key: value for key, value in space.document.items() if key not in ("name", "source")}
    text = json.dumps(document, sort_keys=True, default=list, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]

"""The papers' printed figures: their tables, one CSV each in ``results/published``, with what we compute beside
it.

The columns are described in ``results/published/README.md``. Where the tables are missing there are
simply no printed figures.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nas.errors import UserError
from nas.files import shipped_folder

CLASSES = {"cifar10": 10, "cifar100": 100, "svhn": 10, "stl10": 10, "imagenet": 1000, "imagenet-56-100": 100}
"""The papers' data sets, with the classes that the computed columns are for."""

ROOT = shipped_folder("results/published")


@dataclass(frozen=True, slots=True)
class Printed:
    """One row of one table. None (or an empty text) is what the paper does not say."""

    paper: str
    table: str
    row: str
    name: str
    """Our name of the network, empty where we do not have it."""
    printed_name: str
    dataset: str
    """A data set's name as the command line has it, or ``imagenet``."""
    accuracy: float | None = None
    """Top-1, in [0, 1]."""
    params: float | None = None
    macs: float | None = None
    size_bytes: float | None = None
    latency_ms: float | None = None
    batch: int | None = None
    """Images per inference that `latency_ms` is for."""
    hardware: str = ""
    protocol: str = ""
    """How the accuracy was reached."""
    note: str = ""
    """Where printed and computed differ, and why."""
    computed_params: int | None = None
    computed_macs: int | None = None
    computed_size_bytes: int | None = None
    other: Mapping[str, str] = field(default_factory=dict, hash=False)
    """The columns that this table alone has."""

    @property
    def source(self) -> str:
        """Paper, table and row, for people."""
        table = f"Table {self.table}" if self.table.isdigit() else self.table
        return f"{self.paper}, {table}, {self.row}"

    @property
    def figures(self) -> int:
        """Return how many figures the row has."""
        figures = (self.accuracy, self.params, self.macs, self.size_bytes, self.latency_ms)
        return sum(value is not None for value in figures)


def table_names(root: Path = ROOT) -> list[str]:
    """Names of the tables, such as ``han-table3``."""
    return sorted(path.stem for path in root.glob("*.csv"))


def read_table(name: str, root: Path = ROOT) -> list[Printed]:
    """The rows of a table, in the paper's order.

    Raises:
        UserError: no such table, or a value in it that is no number.
    """
    path = root / f"{name}.csv"
    if name not in table_names(root):
        raise UserError(f"unknown table {name!r}; one of: {', '.join(table_names(root)) or 'none is installed'}")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    printed = []
    for line, row in enumerate(rows, start=2):
        try:
            printed.append(_parse(row))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}, line {line}: {error}") from error
    return printed


def read_all(root: Path = ROOT) -> list[Printed]:
    """The rows of all tables."""
    return [row for name in table_names(root) for row in read_table(name, root)]


def printed_for(dataset: str, root: Path = ROOT) -> list[Printed]:
    """Return what the papers print of networks on a data set: one row with an accuracy per paper, network and accuracy.

    Several tables of one paper repeat each other; the first that has most of the figures stays.
    """
    best: dict[tuple[str, str, float], Printed] = {}
    for row in read_all(root):
        if row.dataset == dataset and row.accuracy is not None:
            key = (row.paper, row.name or row.printed_name, row.accuracy)
            if key not in best or row.figures > best[key].figures:
                best[key] = row
    return list(best.values())


def _parse(row: dict[str, str]) -> Printed:
    row = dict(row)

    def text(column: str) -> str:
        return row.pop(column)

    def real(column: str) -> float | None:
        value = row.pop(column)
        return float(value) if value else None

    def whole(column: str) -> int | None:
        value = row.pop(column)
        return int(value) if value else None

    return Printed(
        paper=text("paper"),
        table=text("table"),
        row=text("row"),
        name=text("name"),
        printed_name=text("printed_name"),
        dataset=text("dataset"),
        accuracy=real("accuracy"),
        params=real("params"),
        macs=real("macs"),
        size_bytes=real("size_bytes"),
        latency_ms=real("latency_ms"),
        batch=whole("batch"),
        hardware=text("hardware"),
        protocol=text("protocol"),
        note=text("note"),
        computed_params=whole("computed_params"),
        computed_macs=whole("computed_macs"),
        computed_size_bytes=whole("computed_size_bytes"),
        other=row,
    )

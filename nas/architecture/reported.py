"""The papers' printed figures: their tables, one CSV each in ``results/published``, with what we compute beside it.

``results/published/README.md`` describes the columns. Where the tables are missing there are no printed figures.
"""

import csv
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

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


_NUMBERS: Mapping[str, type[float] | type[int]] = {
    **dict.fromkeys(("accuracy", "params", "macs", "size_bytes", "latency_ms"), float),
    **dict.fromkeys(("batch", "computed_params", "computed_macs", "computed_size_bytes"), int),
}


def table_names() -> list[str]:
    """List the tables, such as ``han-table3``."""
    return sorted(path.stem for path in ROOT.glob("*.csv"))


def read_table(name: str) -> list[Printed]:
    """Read the rows of a table, in the paper's order.

    Raises:
        UserError: no such table, or a value in it that is no number.
    """
    path = ROOT / f"{name}.csv"
    if name not in table_names():
        raise UserError(f"unknown table {name!r}; one of: {', '.join(table_names()) or 'none is installed'}")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    printed = []
    for line, row in enumerate(rows, start=2):
        try:
            printed.append(_parse(row))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}, line {line}: {error}") from error
    return printed


def read_all() -> list[Printed]:
    """Read the rows of all tables."""
    return [row for name in table_names() for row in read_table(name)]


def printed_for(dataset: str) -> list[Printed]:
    """Return what the papers print of networks on a data set: one row with an accuracy per paper, network and accuracy.

    Several tables of one paper repeat each other.
    """
    rows = [row for row in read_all() if row.dataset == dataset and row.accuracy is not None]
    return fullest(rows, lambda row: (row.paper, row.name or row.printed_name, row.accuracy))


def fullest(rows: Iterable[Printed], key: Callable[[Printed], Hashable]) -> list[Printed]:
    """Keep, of the rows with one key, the first that has most of the figures."""
    groups: dict[Hashable, list[Printed]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return [max(group, key=lambda row: row.figures) for group in groups.values()]


def _parse(row: Mapping[str, str]) -> Printed:
    columns = [item.name for item in fields(Printed) if item.name != "other"]
    values: dict[str, Any] = {column: row[column] for column in columns}
    for column, kind in _NUMBERS.items():
        values[column] = kind(row[column]) if row[column] else None
    return Printed(**values, other={column: text for column, text in row.items() if column not in columns})

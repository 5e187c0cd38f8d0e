"""The networks of a run as points to draw: trained here, stopped, failed, or printed in a paper."""

import shlex
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nas.architecture import catalogue
from nas.architecture.document import Architecture, dump_yaml, scale, versioned
from nas.architecture.reported import Printed
from nas.driver.record import Record
from nas.driver.run import Run
from nas.units import QUANTITIES, percent, show

MOST_YAML = 400_000
"""So many characters of different lines of YAML are put into a page."""

PRINTED_IMAGES = 10_000
"""The test images of the data sets that the papers print accuracies for (CIFAR)."""

DIGITS = 7
"""Significant digits of the numbers in the page: more than anybody reads, a third of what a float prints."""


@dataclass(frozen=True)
class Point:
    """One network on the plots.

    Attributes:
        kind: ``found``, ``own`` (queued by the user), ``published`` or ``printed``.
        state: as of the record; ``printed`` for a printed one.
        rank: on the front, from 1; None elsewhere.
        beside: why it may not stand on the front; empty where it may.
        values: by :data:`nas.units.QUANTITIES` key; what is not known is left out.
        images: by the key of an accuracy: on how many it was counted.
        notes: what else a reader should know, such as the reason of the state or the paper's table.
        command: trains it; empty where a file must be saved first.
        run: which run of a comparison.
    """

    name: str
    kind: str
    state: str
    values: Mapping[str, float]
    images: Mapping[str, int | None]
    rank: int | None = None
    beside: str = ""
    number: int | None = None
    architecture: Architecture | None = None
    notes: Sequence[str] = field(default_factory=tuple)
    command: str = ""
    run: int = 0

    def show(self, key: str) -> str:
        """Format one of the values; ``–`` where it is not known."""
        return show(key, self.values.get(key), self.images.get(key))


def run_points(run: Run, printed: Sequence[Printed] = (), index: int = 0) -> list[Point]:
    """Return a run's networks that were trained, or imported so, then the printed ones.

    Latencies printed for other hardware are left out: they have no place on this machine's axis.
    """
    ranks = {record.number: rank for rank, record in enumerate(run.front_records, 1)}
    names = set(catalogue.network_names())
    points = [
        Point(
            name=shown_name(run, record),
            kind=record.origin or "found",
            state=record.state,
            values=record_values(record),
            images={
                **dict.fromkeys(("accuracy", "balanced_accuracy"), run.data.get("validation")),
                "test_accuracy": run.data.get("test"),
            },
            rank=ranks.get(record.number),
            beside=record.beside,
            number=record.number,
            architecture=record.architecture,
            notes=[
                note
                for note in (record.beside, record.reason, record.architecture.source, shipped_note(run, record))
                if note
            ],
            command=train_command(run, record, ranks.get(record.number), names),
            run=index,
        )
        for record in run.records
        if record.was_trained or record.was_imported
    ]
    return points + [_printed_point(run, row, names, index) for row in printed if row.accuracy is not None]


def shipped_note(run: Run, record: Record) -> str:
    """Say of a network in int8 what it was in fp32, and what was measured of its file; empty where nothing was."""
    fp32 = {"validation": record.fp32_accuracy, "test": record.confirmed.get("fp32_test_accuracy")}
    said = [f"{part} {percent(value, run.data.get(part))} in fp32" for part, value in fp32.items() if value is not None]
    measured = [f"{name} {show(name, record.measured[name])}" for name in ("size", "memory") if name in record.measured]
    return "; ".join(said + ([f"measured: {', '.join(measured)}"] if measured else []))


def shown_name(run: Run, record: Record) -> str:
    """Name the network: by its id alone where its name is only the space's name and the id."""
    architecture = record.architecture
    space = run.settings.space.get("name", "")
    return architecture.id if architecture.name == f"{space}-{architecture.id}" else architecture.name


def record_values(record: Record) -> dict[str, float]:
    """Return a trial's known figures by key."""
    values = {
        **record.costs,
        "accuracy": record.accuracy,
        "balanced_accuracy": record.balanced_accuracy,
        "test_accuracy": record.confirmed.get("test_accuracy"),
        "measured_latency": record.confirmed.get("latency_ms"),
        "supernet_accuracy": record.supernet_accuracy if record.state == "complete" else None,
    }
    return {key: value for key, value in values.items() if key in QUANTITIES and value is not None}


def train_command(run: Run, record: Record, rank: int | None, names: Container[str]) -> str:
    """Write the command that trains a network of the run in full; empty where the user must save its YAML first.

    Args:
        rank: its rank on the front.
        names: of the networks that ship with the package.
    """
    if rank is not None:
        return shlex.join(["nas", "train", str(run.front_file(rank, record))])
    return command(run, record.architecture.name) if record.published and record.architecture.name in names else ""


def command(run: Run, reference: str) -> str:
    """Write ``nas train`` of a network that is no file of the run's front, on its data and as it trained."""
    return shlex.join(["nas", "train", reference, "--run", str(run.path)])


def known_quantities(points: Iterable[Point]) -> list[str]:
    """Return the keys of the figures that at least one point has, in the order of :data:`QUANTITIES`."""
    known = {key for point in points for key in point.values}
    return [key for key in QUANTITIES if key in known]


def points_data(points: Sequence[Point]) -> dict[str, Any]:
    """Encode the points for the page's script.

    A line of YAML, a stage and a note stand once, however many networks share them: a space has few different stages
    and a search many networks. Values stand in the order of :func:`known_quantities`.
    """
    keys = known_quantities(points)
    texts: dict[str, int] = {}
    stages: dict[tuple[Any, ...], int] = {}
    flow: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for point in points:
        row: dict[str, Any] = {
            "name": point.name,
            "kind": point.kind,
            "state": point.state,
            "values": [shorten(point.values[key]) if key in point.values else None for key in keys],
            "shown": [point.show(key) for key in keys],
            "run": point.run,
            "rank": point.rank,
            "number": point.number,
            "command": point.command,
            "notes": [texts.setdefault(note, len(texts)) for note in point.notes],
        }
        if point.architecture is not None:
            row["stages"] = [stages.setdefault(stage, len(stages)) for stage in strip(point.architecture)]
        rows.append({key: value for key, value in row.items() if value not in (None, "", [])})
    # Whoever pins a network that was not trained to the end rarely wants its YAML: it goes first where room is short.
    for point, row in sorted(zip(points, rows, strict=True), key=lambda pair: pair[0].state != "complete"):
        if point.architecture is not None and sum(map(len, flow.values())) < MOST_YAML:
            row["lines"] = [texts.setdefault(line, len(texts)) for line in yaml_lines(point.architecture, flow)]
    short = [[texts.setdefault(block, len(texts)), *rest] for block, *rest in stages]
    return {"keys": keys, "rows": rows, "texts": list(texts), "stages": short}


def yaml_lines(architecture: Architecture, known: dict[str, str]) -> list[str]:
    """Write the network's YAML, as lines.

    Args:
        known: lines by what they say; grows. Writing YAML is slow, and most lines of a search repeat.
    """
    lines = []
    for key, value in versioned(architecture.to_dict()).items():
        parts: list[Any] = [[stage] for stage in value] if key == "stages" else [value]
        lines += ["stages:"] if key == "stages" else []
        for part in parts:
            said = f"{key} {part!r}"
            if said not in known:
                known[said] = dump_yaml({key: part}).splitlines()[-1]
            lines.append(known[said])
    return lines


def strip(architecture: Architecture) -> list[tuple[Any, ...]]:
    """Return what is drawn of each stage: block, t, c, n, s, kernels, how they are combined, SE ratio, experts.

    None where the block has no such thing or it is plain (3x3, no SE, one expert).
    """
    drawn = []
    for stage in architecture.stages:
        kernels = tuple(getattr(stage, "kernels", ())) or (getattr(stage, "kernel", 3),)
        drawn.append(
            (
                stage.block,
                getattr(stage, "expansion", None),
                scale(stage.channels, architecture.width),
                stage.repeats,
                stage.stride,
                kernels if kernels != (3,) else None,
                getattr(stage, "combine", None) if len(kernels) > 1 else None,
                getattr(stage, "se_ratio", 0) or None,
                experts if (experts := getattr(stage, "experts", 1)) > 1 else None,
            )
        )
    return drawn


def shorten(value: float) -> float:
    """Round to :data:`DIGITS` significant digits."""
    return value if isinstance(value, int) else float(f"{value:.{DIGITS}g}")


def _printed_point(run: Run, row: Printed, names: Container[str], index: int) -> Point:
    # Where the paper gives no figure, ours for its network does: it is a property of the structure.
    given = {"params": row.params, "macs": row.macs, "size": row.size_bytes}
    computed = {"params": row.computed_params, "macs": row.computed_macs, "size": row.computed_size_bytes}
    values = {key: value if value is not None else computed[key] for key, value in given.items()}
    ours = [
        QUANTITIES[key].title.lower() for key, value in given.items() if value is None and computed[key] is not None
    ]
    notes = [f"as printed: {row.source}", row.protocol, row.hardware, row.note]
    if ours:
        notes.append(f"not printed, computed: {', '.join(ours)}")
    known = row.name in names
    return Point(
        name=row.name or row.printed_name,
        architecture=catalogue.load(row.name) if known else None,
        command=command(run, row.name) if known else "",
        kind="printed",
        state="printed",
        # What papers print was read on test images; on the axis of validation accuracy it stands for lack of another.
        values=dict.fromkeys(("accuracy", "test_accuracy"), row.accuracy or 0.0)
        | {key: value for key, value in values.items() if value is not None},
        images=dict.fromkeys(("accuracy", "test_accuracy"), PRINTED_IMAGES),
        notes=[note for note in notes if note],
        run=index,
    )

"""Networks side by side: what they cost, what the papers print of them, and Han's derived columns.

They are published ones, files, and what trainings and searches left in their folders.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nas.architecture.catalogue import load, network_names
from nas.architecture.document import Architecture
from nas.architecture.reported import CLASSES, Printed, fullest, read_all
from nas.costs.analytic import cost
from nas.driver.run import Run
from nas.errors import UserError
from nas.training.checkpoint import load_trained
from nas.training.session import CHECKPOINT, MODEL

_FIGURES = ("accuracy", "validation_", "printed_", "time_")
"""Beginnings of the names of columns of numbers."""


@dataclass(frozen=True)
class Trained:
    """A network that was trained here.

    Attributes:
        accuracy: validation top-1 in [0, 1] that it reached; None before the first epoch.
        num_classes: that it was trained on; None where that is not known.
        images: for validation; None where that is not known.
    """

    architecture: Architecture
    accuracy: float | None = None
    num_classes: int | None = None
    images: int | None = None


def networks_of(reference: str | Path | Architecture) -> list[Architecture | Trained]:
    """The networks that a name, a file or a folder stands for.

    Raises:
        UserError: it stands for none.
    """
    if not isinstance(reference, str | Path) or str(reference) in network_names() or not Path(reference).is_dir():
        return [load(reference)]
    folder = Path(reference)
    if (folder / "run.yaml").is_file():
        run = Run.open(folder)
        if not run.front_records:
            raise UserError(f"{folder}: no network of this run was trained to the end")
        classes, images = run.data.get("classes"), run.data.get("validation")
        return [Trained(record.architecture, record.accuracy, classes, images) for record in run.front_records]
    weights = next((file for name in (MODEL, CHECKPOINT) if (file := folder / name).is_file()), None)
    if weights is not None:
        saved = load_trained(weights)
        architecture = Architecture.from_dict(saved.architecture, str(weights))
        return [Trained(architecture, saved.accuracy, len(saved.classes))]
    if (folder / "architecture.yaml").is_file():
        return [load(folder / "architecture.yaml")]
    raise UserError(f"{folder}: no run and no training here (neither run.yaml nor architecture.yaml)")


def compare(
    networks: Iterable[Architecture | Trained], *, dataset: str | None = None, num_classes: int | None = None
) -> pd.DataFrame:
    """List networks, one row per data set that the papers print them for, in the order given; one where they do not.

    ``accuracy_per_size`` (% per 100 kB) and ``time_per_size`` (µs per kB) are those of Han and Kwon's Table 4, whose
    units are printed as %/B and µsec/B. They take the printed size where there is one and our own otherwise, the
    printed accuracy where there is one and ours otherwise, and the printed latency.

    Args:
        networks: the networks.
        dataset: only what is printed for this data set (default: all).
        num_classes: classes to compute the costs for (default: those that it was trained on here, else the row's data
            set's, or 10).

    Returns:
        Missing values are NaN or an empty text.
    """
    printed = [row for row in read_all() if row.name and dataset in (None, row.dataset)]
    rows = []
    for item in networks:
        network = item if isinstance(item, Trained) else Trained(item)
        named = [row for row in printed if row.name == network.architecture.name]
        nowhere = Printed("", "", "", "", "", dataset or "")
        for row in fullest(named, lambda row: row.dataset) or [nowhere]:
            rows.append(_row(network, row, num_classes or network.num_classes or CLASSES.get(row.dataset, 10)))
    frame = pd.DataFrame(rows)
    return frame.astype({column: float for column in frame if str(column).startswith(_FIGURES)})


def _row(network: Trained, printed: Printed, num_classes: int) -> dict[str, object]:
    architecture = network.architecture
    counted = cost(architecture, num_classes)
    accuracy = network.accuracy if printed.accuracy is None else printed.accuracy
    size, latency = printed.size_bytes or counted.size_bytes, printed.latency_ms
    return {
        "name": architecture.name,
        "id": architecture.id,
        "dataset": printed.dataset if printed.paper else "",
        "params": counted.params,
        "macs": counted.macs,
        "size_bytes": counted.size_bytes,
        "peak_activation_bytes": counted.peak_activation_bytes,
        "accuracy": network.accuracy,
        "validation_images": network.images,
        "printed_accuracy": printed.accuracy,
        "printed_params": printed.params,
        "printed_macs": printed.macs,
        "printed_size_bytes": printed.size_bytes,
        "printed_latency_ms": latency,
        "accuracy_per_size": None if accuracy is None else 100 * accuracy / (size / 100_000),
        "time_per_size": None if latency is None else 1000 * latency / (size / 1000),
        "hardware": printed.hardware,
        "source": printed.source if printed.paper else architecture.source,
        "note": printed.note,
    }

"""What is found out when the trainings are over: test accuracy, and latency on the quiet device."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.cost.latency import measure
from nas.search.run import Record, Run
from nas.training.checkpoint import load_checkpoint
from nas.training.data import Dataset
from nas.training.evaluate import Scores, evaluate
from nas.training.weights import restored

MEASURE_SECONDS = 10.0


def to_judge(run: Run) -> list[Record]:
    """The networks of the front, and the queued (published, own) ones trained beside them."""
    return [
        record
        for record in run.records
        if record.on_front or (record.origin and record.state == "complete" and not record.untrained)
    ]


def judge(run: Run, dataset: Dataset, *, here: bool) -> dict[str, dict[str, Any]]:
    """Read the test set, once per network, and measure latencies; nothing else may run on this machine.

    Args:
        run: whose front, and queued networks, are judged.
        dataset: with its test part.
        here: whether latencies are this device's; those of another are predicted only.

    Returns:
        What was found out, by trial number as text; what was known already is kept.
    """
    confirmed: dict[str, dict[str, Any]] = {
        number: dict(known) for number, known in run.study.user_attrs.get("confirmed", {}).items()
    }
    records = to_judge(run)
    for record in records:
        entry = confirmed.setdefault(str(record.number), {})
        if "test_accuracy" not in entry and run.checkpoint(record).exists():
            scores = read_test_set(run, record, dataset)
            entry["test_accuracy"], entry["test_hits"] = scores.accuracy, pack_hits(scores.hits)
    if here:
        _measure(
            [record for record in records if "latency_ms" not in confirmed[str(record.number)]], dataset, confirmed
        )
    return confirmed


def pack_hits(hits: Tensor) -> str:
    """Which images were judged right, eight in two hexadecimal digits: two networks are compared image by image."""
    return np.packbits(hits.numpy()).tobytes().hex()


def read_test_set(run: Run, record: Record, dataset: Dataset) -> Scores:
    """How a trial's weights judge the test images."""
    checkpoint = load_checkpoint(run.checkpoint(record))
    image = record.architecture.input
    network = restored(checkpoint, str(run.checkpoint(record)))
    network.to(memory_format=torch.channels_last)  # as it was trained: several times faster
    images = dataset.for_network(image.channels, image.resolution)
    return evaluate(network, images, "test")


def _measure(records: Sequence[Record], dataset: Dataset, confirmed: dict[str, dict[str, Any]]) -> None:
    figures = measure(
        [record.architecture for record in records],
        num_classes=len(dataset.classes),
        max_seconds=MEASURE_SECONDS,
    )
    for record, figure in zip(records, figures, strict=True):
        confirmed[str(record.number)] |= {
            "latency_ms": figure.value_ms,
            "latency_low_ms": figure.low_ms,
            "latency_high_ms": figure.high_ms,
            "latency_noisy": figure.reason if figure.noisy else "",
        }

"""What `nas latency` does, as functions: names and files in, results and files out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.architecture import Architecture
from nas.catalog import load, load_space
from nas.cost.latency import Measurement, Table, calibrate, export_blocks, import_timings, measure
from nas.space import Space


def measure_latency(references: Sequence[str | Path | Architecture], **options: Any) -> list[Measurement]:
    """Latencies of networks; options as of :func:`nas.cost.latency.measure`."""
    return measure([load(reference) for reference in references], **options)


def calibrate_latency(
    space: str | Path | Space,
    out: str | Path,
    *,
    channels: int | None = None,
    resolution: int | None = None,
    **options: Any,
) -> Table:
    """Time a space's blocks here and write the table; options as of :func:`nas.cost.latency.calibrate`.

    A calibration that was interrupted goes on from the file ``<out>.partial``.
    """
    path = Path(out)
    fitted = _with_images(load_space(space), channels, resolution)
    table = calibrate(fitted, partial=path.with_suffix(".partial"), **options)
    table.save(path)
    return table


def export_latency_blocks(
    space: str | Path | Space,
    folder: str | Path,
    *,
    channels: int | None = None,
    resolution: int | None = None,
    **options: Any,
) -> int:
    """Write a space's blocks as ONNX files; options as of :func:`nas.cost.latency.export_blocks`."""
    return export_blocks(_with_images(load_space(space), channels, resolution), Path(folder), **options)


def import_latency_timings(
    timings: str | Path, out: str | Path, *, manifest: str | Path | None = None, **options: Any
) -> Table:
    """A table from measured times of exported blocks; options as of :func:`nas.cost.latency.import_timings`."""
    path = Path(timings)
    table = import_timings(path, manifest=Path(manifest) if manifest else path.parent / "manifest.json", **options)
    table.save(Path(out))
    return table


def _with_images(space: Space, channels: int | None, resolution: int | None) -> Space:
    own = space.sample(0).input.channels
    return space.with_input(channels=channels or own, resolution=resolution)

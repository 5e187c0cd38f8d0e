"""Tables for devices without Python: the blocks go out as ONNX files, their times come back as a CSV file."""

import csv
import io
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NotRequired

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor, nn
from typing_extensions import TypedDict

from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.errors import UserError
from nas.files import parse_json, read_text, write_atomic
from nas.latency.calibration import draw_networks
from nas.latency.engines import Runtime, to_onnx
from nas.latency.fitting import Chain, make_table
from nas.latency.layers import Segment, segments
from nas.latency.machine import Provenance
from nas.latency.model import MAX_MS
from nas.latency.segments import example, shipped, split
from nas.latency.table import Count, Table, space_id
from nas.latency.worker import Progress

SCHEMA = 1
MANIFEST = "manifest.json"
TIMINGS = "timings.csv"
BLOCKS = 200
NETWORKS = 8
SHOWN = 3
"""File names that an error message lists."""


class _Space(TypedDict):
    name: str
    id: str


class _Entry(TypedDict):
    file: str
    architecture: dict[str, Any]
    segment: NotRequired[Annotated[int, Field(ge=0)]]
    key: NotRequired[str]


class _Manifest(TypedDict):
    schema: int
    space: _Space
    num_classes: Count
    batch: Count
    entries: Annotated[list[_Entry], Field(min_length=1)]


_MANIFEST = TypeAdapter(_Manifest)


def export_blocks(
    space: Space,
    folder: Path,
    *,
    num_classes: int = 10,
    batch: int = 1,
    blocks: int = BLOCKS,
    networks: int = NETWORKS,
    on_progress: Progress | None = None,
) -> int:
    """Write a sample of the space's distinct blocks, and a few whole networks, as ONNX files with a manifest.

    ``manifest.json`` lists the files with their input shapes; ``timings.csv`` is the form to fill in.

    Args:
        folder: new or empty.
        blocks: at most this many blocks.
        networks: whole networks, which tell how their time differs from the sum over their blocks.

    Returns:
        The number of ONNX files.

    Raises:
        UserError: the folder is not empty or cannot be written, or onnx is missing.
    """
    runtime = Runtime("onnxruntime", batch=batch)
    runtime.check()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder}: not empty; give a new folder")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror or error}") from error
    drawn = list(draw_networks(space, max(networks, blocks // 4), num_classes))
    entries: list[dict[str, Any]] = []
    seen: set[Segment] = set()

    def write(name: str, module: nn.Module, images: Tensor, **entry: Any) -> None:
        (folder / name).write_bytes(to_onnx(module, images))
        entries.append({"file": name, "input": list(images.shape), **entry})
        if on_progress is not None:
            on_progress(len(entries), blocks + networks)

    with torch.inference_mode():
        for index, architecture in enumerate(drawn):
            if len(seen) >= blocks and index >= networks:
                break
            network, tensor = shipped(architecture, num_classes), example(architecture, runtime)
            if index < networks:
                write(f"network-{index:02}.onnx", network, tensor, architecture=architecture.to_dict())
            chain = segments(architecture, num_classes)
            for number, (segment, module) in enumerate(zip(chain, split(network), strict=True)):
                if segment not in seen and len(seen) < blocks:
                    name = f"block-{len(seen):04}.onnx"
                    write(name, module, tensor, architecture=architecture.to_dict(), segment=number, key=segment.key)
                    seen.add(segment)
                tensor = module(tensor)
    manifest = {
        "schema": SCHEMA,
        "space": {"name": space.name, "id": space_id(space)},
        "num_classes": num_classes,
        "batch": batch,
        "entries": entries,
    }
    write_atomic(folder / TIMINGS, "file,ms\n" + "".join(f"{entry['file']},\n" for entry in entries))
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return len(entries)


def import_timings(
    timings: Path, *, manifest: Path, device: str, engine: str = "onnxruntime", threads: int = 1
) -> Table:
    """A table from measured times.

    Args:
        timings: CSV with the columns ``file`` and ``ms``; a file may have several rows, one per repetition.
        manifest: the ``manifest.json`` that came with the blocks.
        device: the device's name, for the provenance.
        engine: what ran the blocks there, for the provenance.
        threads: threads that it ran on.

    Raises:
        UserError: one line: blocks are missing, a time is no positive number, or a file is not what it should be.
    """
    document = _read_manifest(manifest)
    times = _read_times(timings, {entry["file"] for entry in document["entries"]}, manifest)
    num_classes = document["num_classes"]
    chains = []
    for entry in document["entries"]:
        chain = tuple(segments(Architecture.from_dict(entry["architecture"], str(manifest)), num_classes))
        for ms in times[entry["file"]]:
            if "segment" in entry:
                segment = chain[entry["segment"]] if entry["segment"] < len(chain) else None
                if segment is None or segment.key != entry.get("key"):
                    raise UserError(f"{manifest}: made by another version of nas; export the blocks again")
                chains.append(Chain((segment,), (ms,), ms))
            else:
                chains.append(Chain(chain, (), ms))
    provenance = Provenance(
        device=device,
        engine=engine,
        layout="contiguous",
        threads=threads,
        batch=document["batch"],
        cores=0,
        clock_mhz=0,
        governor="unknown",
        versions=f"timed elsewhere, imported from {timings.name}",
        quantile=0.5,
        foreign_load=0.0,
        when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    return make_table(
        chains,
        space_name=document["space"]["name"],
        space_id=document["space"]["id"],
        num_classes=num_classes,
        provenance=provenance,
    )


def _read_manifest(path: Path) -> "_Manifest":
    document = parse_json(read_text(path), f"{path}: not the manifest of nas latency export-blocks")
    if isinstance(document, dict) and document.get("schema", SCHEMA) != SCHEMA:
        raise UserError(f"{path}: schema {document['schema']!r}, this version reads {SCHEMA}; export the blocks again")
    try:
        return _MANIFEST.validate_python(document)
    except ValidationError as error:
        raise UserError(f"{path}: not the manifest of nas latency export-blocks") from error


def _read_times(path: Path, wanted: set[str], manifest: Path) -> dict[str, list[float]]:
    try:
        return _times(csv.reader(io.StringIO(read_text(path))), path, wanted, manifest)
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV file: {error}") from error


def _times(rows: Iterator[list[str]], path: Path, wanted: set[str], manifest: Path) -> dict[str, list[float]]:
    header = [cell.strip() for cell in next(rows, [])]
    if not {"file", "ms"} <= set(header):
        raise UserError(f"{path}: the first line must name the columns file and ms, it is {','.join(header)!r}")
    name_at, ms_at = header.index("file"), header.index("ms")
    times: dict[str, list[float]] = {}
    for line, row in _rows(rows):
        where = f"{path}: line {line}"
        if len(row) <= max(name_at, ms_at):
            raise UserError(f"{where}: {len(row)} cells, the header has {len(header)}")
        name, text = row[name_at].strip(), row[ms_at].strip()
        if name not in wanted:
            raise UserError(f"{where}: {name!r} is not in {manifest}; is it the manifest of these blocks?")
        if not text:
            continue  # the form as it came, not filled in: reported as missing below
        try:
            ms = float(text)
        except ValueError:
            ms = math.nan
        if not 1 / MAX_MS <= ms <= MAX_MS:
            raise UserError(f"{where}: {name}: {text!r} is not a time in ms above 0; measure it again")
        times.setdefault(name, []).append(ms)
    missing = sorted(wanted - times.keys())
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise UserError(f"{path}: no time for {', '.join(missing[:SHOWN])}{more}; time every file of the manifest")
    return times


def _rows(rows: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, with their line numbers."""
    for line, row in enumerate(rows, start=2):
        if any(cell.strip() for cell in row):
            yield line, row

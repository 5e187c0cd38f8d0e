"""Tables for devices without Python: the blocks go out as ONNX files, their times come back as a CSV file."""

import csv
import io
import math
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor, nn

from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.errors import UserError, first_mistake
from nas.files import parse_json, read_text, write_file
from nas.latency.calibration import draw_networks
from nas.latency.engine import example, shipped, split
from nas.latency.engines import Runtime
from nas.latency.file_engines import to_onnx
from nas.latency.fitting import Timed, make_table
from nas.latency.layers import Segment, segments
from nas.latency.machine import Provenance
from nas.latency.model import MAX_MS, Count
from nas.latency.table import SpaceName, Table, space_id
from nas.units import counted

SCHEMA: Literal[1] = 1
MANIFEST = "manifest.json"
TIMINGS = "timings.csv"
BLOCKS = 200
NETWORKS = 8
SHOWN = 3
"""File names that an error message lists."""


class Entry(BaseModel):
    """A file, and what is in it: a segment of a network, or all of it."""

    file: str
    input: list[int] = []
    """Shape of the images."""
    architecture: dict[str, Any]
    segment: Annotated[int, Field(ge=0)] | None = None
    """Its place in the network."""
    key: str | None = None
    """:attr:`nas.latency.layers.Segment.key`, which tells whether this version still divides the network so."""


class Manifest(BaseModel):
    """`manifest.json`: what the files of a folder are."""

    schema_number: Literal[1] = Field(alias="schema")
    space: SpaceName
    num_classes: Count
    batch: Count
    entries: Annotated[list[Entry], Field(min_length=1)]


def export_blocks(
    space: Space,
    folder: Path,
    *,
    num_classes: int = 10,
    batch: int = 1,
    blocks: int = BLOCKS,
    networks: int = NETWORKS,
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
    Runtime("onnxruntime", batch=batch).check()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder}: not empty; give a new folder")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror or error}") from error
    entries: list[Entry] = []

    def write(name: str, module: nn.Module, images: Tensor, **entry: Any) -> None:
        write_file(folder / name, to_onnx(module, images))
        entries.append(Entry(file=name, input=list(images.shape), architecture=architecture.to_dict(), **entry))

    seen: set[Segment] = set()
    with torch.inference_mode():
        for index, architecture in enumerate(draw_networks(space, max(networks, blocks // 4), num_classes)):
            if len(seen) >= blocks and index >= networks:
                break
            network, tensor = shipped(architecture, num_classes), example(architecture, batch)
            if index < networks:
                write(f"network-{index:02}.onnx", network, tensor)
            chain = segments(architecture, num_classes)
            for number, (segment, module) in enumerate(zip(chain, split(network), strict=True)):
                if segment not in seen and len(seen) < blocks:
                    write(f"block-{len(seen):04}.onnx", module, tensor, segment=number, key=segment.key)
                    seen.add(segment)
                tensor = module(tensor)
    manifest = Manifest(
        schema=SCHEMA,
        space=SpaceName(name=space.name, id=space_id(space)),
        num_classes=num_classes,
        batch=batch,
        entries=entries,
    )
    write_file(folder / TIMINGS, "file,ms\n" + "".join(f"{entry.file},\n" for entry in entries))
    write_file(folder / MANIFEST, manifest.model_dump_json(indent=1, by_alias=True, exclude_none=True) + "\n")
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
    times = _read_times(timings, {entry.file for entry in document.entries}, manifest)
    timed = []
    for entry in document.entries:
        chain = segments(Architecture.from_dict(entry.architecture, str(manifest)), document.num_classes)
        if entry.segment is not None:
            chain = chain[entry.segment : entry.segment + 1]
            if [segment.key for segment in chain] != [entry.key]:
                raise UserError(f"{manifest}: made by another version of nas; export the blocks again")
        timed += [Timed(tuple(chain), () if entry.segment is None else (ms,), ms) for ms in times[entry.file]]
    provenance = Provenance(
        device=device,
        engine=engine,
        layout="contiguous",
        threads=threads,
        batch=document.batch,
        cores=0,
        clock_mhz=0,
        governor="unknown",
        versions=f"timed elsewhere, imported from {timings.name}",
        quantile=0.5,
        foreign_load=0.0,
        when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    try:
        return make_table(timed, space=document.space, num_classes=document.num_classes, provenance=provenance)
    except ValidationError as error:
        mistake = ": ".join(first_mistake(error))
        raise UserError(f"{timings}: times that no table holds ({mistake}); measure them again") from error


def _read_manifest(path: Path) -> Manifest:
    where = f"{path}: not the manifest of nas latency export-blocks"
    document = parse_json(read_text(path), where)  # bounds the documents of architectures in it
    if isinstance(document, dict) and document.get("schema", SCHEMA) != SCHEMA:
        raise UserError(f"{path}: schema {document['schema']!r}, this version reads {SCHEMA}; export the blocks again")
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        raise UserError(where) from error


def _read_times(path: Path, wanted: set[str], manifest: Path) -> dict[str, list[float]]:
    """Read the times in ms of each file, all of which are wanted."""
    times: dict[str, list[float]] = {}
    rows = csv.reader(io.StringIO(read_text(path)))
    try:
        header = [cell.strip() for cell in next(rows, [])]
        if not {"file", "ms"} <= set(header):
            raise UserError(f"{path}: the first line must name the columns file and ms, it is {','.join(header)!r}")
        columns = header.index("file"), header.index("ms")
        for row in rows:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            where = f"{path}: line {rows.line_num}"
            if len(cells) <= max(columns):
                raise UserError(f"{where}: {counted(len(cells), 'cell')}, the header has {len(header)}")
            name, text = (cells[column] for column in columns)
            if name not in wanted:
                raise UserError(f"{where}: {name!r} is not in {manifest}; is it the manifest of these blocks?")
            if text:  # else the form as it came, not filled in: reported as missing below
                times.setdefault(name, []).append(_time(text, f"{where}: {name}"))
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV file: {error}") from error
    if missing := sorted(wanted - times.keys()):
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise UserError(f"{path}: no time for {', '.join(missing[:SHOWN])}{more}; time every file of the manifest")
    return times


def _time(text: str, where: str) -> float:
    try:
        ms = float(text)
    except ValueError:
        ms = math.nan
    if not 1 / MAX_MS <= ms <= MAX_MS:
        raise UserError(f"{where}: {text!r} is not a time in ms above 0; measure it again")
    return ms

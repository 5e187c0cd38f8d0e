"""A training on disk: what `nas evaluate`, `nas export` and `nas train --resume` read.

As ``.pt`` with all that going on takes, or as ``.safetensors``, which other programs read too: the weights as tensors,
everything else but the trainer's state as JSON in the metadata entry ``nas``.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nas.errors import UserError
from nas.files import check_extent, check_size, parse_json, write_file
from nas.options import check_fields
from nas.training.card import check_split
from nas.training.recipe import Recipe

SUFFIX = ".safetensors"
_FORMAT, _KEY, _VERSION = "nas-checkpoint", "nas", 1
_MAX_BYTES = 2**31
"""A training of 100 million parameters leaves 1.2 GB; the networks of this program are small ones."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Checkpoint:
    """A trained (or half-trained) network with all that is needed to use it, to judge it and to go on.

    `architecture`: its document. `weights`: the state dict worth keeping. `mean`, `std`: what its inputs are normalised
    with, per channel, in [0, 1]. `recipe`: `Recipe.to_dict()`. `dataset`: name, and `split` what it was split by.
    `accuracy`: on the validation part, in [0, 1]. `trainer`: `Trainer.state_dict()`, None in a checkpoint that is only
    to be used.
    """

    architecture: dict[str, Any]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dataset: str
    split: dict[str, Any]
    recipe: dict[str, Any]
    epoch: Annotated[int, Field(ge=0)]
    accuracy: float
    weights: dict[str, Tensor]
    trainer: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint with everything; `path` is never half-written.

    Raises `UserError` when it cannot be written (no space, no permission, no folder).
    """
    write_checkpoint(path, checkpoint_bytes(checkpoint))


def checkpoint_bytes(checkpoint: Checkpoint) -> bytes:
    """Return the content of a checkpoint's file, for a process that cannot write it."""
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, "version": _VERSION, **vars(checkpoint)}, buffer)
    return buffer.getvalue()


def write_checkpoint(path: Path, content: bytes) -> None:
    """Write a checkpoint's file; see :func:`save_checkpoint`."""
    write_file(path, content, f"checkpoint {path}")


def save_weights(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint without the trainer's state as safetensors.

    Raises:
        UserError: the file cannot be written.
    """
    described = {name: value for name, value in vars(checkpoint).items() if name not in ("weights", "trainer")}
    # safetensors takes neither channels_last nor two names of one tensor.
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.weights.items()}
    # One entry: safetensors writes several in any order, and equal trainings should leave equal files.
    content = save(tensors, {_KEY: json.dumps({"version": _VERSION} | described, ensure_ascii=False)})
    write_file(path, content, f"weights {path}")


def load_trained(path: Path) -> Checkpoint:
    """Read a trained network from either kind of file.

    Raises:
        UserError: the file is missing, damaged or something else.
    """
    return _load_safetensors(path) if path.suffix == SUFFIX else load_checkpoint(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a ``.pt`` file onto the CPU; nothing in it is executed (`weights_only=True`).

    Raises `UserError` for a file that is missing, damaged, or something else.
    """
    where = f"checkpoint {path}"
    damaged = f"{where}: damaged, or not a checkpoint of nas"
    if path.is_dir():
        raise UserError(f"{where}: cannot be read: a folder; give the weights in it, such as model.safetensors")
    _check_size(path, "checkpoint")
    try:
        file = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror or error})") from error
    try:
        whole = _is_whole(file)
        content = torch.load(file, map_location="cpu", weights_only=True) if whole else None
    except Exception as error:  # what a damaged archive or pickle breaks in its reader can be anything
        raise UserError(damaged) from error
    if not whole:
        raise UserError(damaged)
    if not isinstance(content, Mapping) or content.get("format") != _FORMAT:
        raise UserError(f"{where}: not a checkpoint of nas")
    return _checked(content, where)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of either kind of file; a safetensors file may be another program's.

    Raises:
        UserError: it cannot be read.
    """
    return _open_safetensors(path)[0] if path.suffix == SUFFIX else load_checkpoint(path).weights


def _load_safetensors(path: Path) -> Checkpoint:
    where = f"weights {path}"
    weights, metadata = _open_safetensors(path)
    if _KEY not in metadata:
        raise UserError(f"{where}: not written by nas (they may be given to --init)")
    described = parse_json(metadata[_KEY], f"{where}: damaged metadata")
    if not isinstance(described, dict) or "version" not in described:
        raise UserError(f"{where}: damaged metadata")
    for name in ("classes", "mean", "std"):  # JSON has no tuples
        if isinstance(described.get(name), list):
            described[name] = tuple(described[name])
    return _checked({**described, "weights": weights}, where)


def _open_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    if not path.is_file():
        raise UserError(f"weights {path}: cannot be read (no such file)")
    _check_size(path, "weights")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"weights {path}: damaged, or not safetensors") from error


def _checked(values: Mapping[str, Any], where: str) -> Checkpoint:
    """Make a checkpoint of what a file holds: nothing in it is sure to have the type that it was written with.

    The architecture is checked by those who build it, the trainer's state by the trainer.

    Raises:
        UserError: of another version, or a field is missing, of another type, or larger than any of ours.
    """
    # First, since what refers to itself a thousandfold could not even be printed.
    check_extent({name: value for name, value in values.items() if name not in ("weights", "trainer")}, where)
    if values.get("version") != _VERSION:
        raise UserError(f"{where}: version {values.get('version')}, this nas reads version {_VERSION}")
    try:
        checkpoint = Checkpoint(**{item.name: values[item.name] for item in fields(Checkpoint) if item.name in values})
        check_fields(checkpoint, "damaged")
        check_split(checkpoint.split)
        Recipe.from_dict(checkpoint.recipe)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except TypeError as error:  # Python's sentence names the missing fields
        raise UserError(f"{where}: damaged, {str(error).partition(' ')[2]}") from error
    return checkpoint


def _check_size(path: Path, kind: str) -> None:
    try:
        check_size(path, most=_MAX_BYTES)
    except UserError as error:
        raise UserError(f"{kind} {error}") from error


def _is_whole(file: io.BytesIO) -> bool:
    """Verify the archive's checksums, which torch.load does not, and rewind the file."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        # torch stores without compression. What is packed, or stands in the archive twice, may unpack to anything.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            return False
        if sum(entry.file_size for entry in entries) > file.getbuffer().nbytes:
            return False
        whole = archive.testzip() is None
    file.seek(0)
    return whole

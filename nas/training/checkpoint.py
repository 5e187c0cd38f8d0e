"""A training on disk: what `nas evaluate`, `nas export` and `nas train --resume` read."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, NotRequired

import torch
from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from nas.errors import UserError, first_mistake
from nas.files import check_extent, check_size, write_atomic
from nas.training.card import SplitFields
from nas.training.recipe import Recipe

_FORMAT = "nas-checkpoint"
_VERSION = 1
MAX_BYTES = 2**31
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
    epoch: int
    accuracy: float
    weights: dict[str, torch.Tensor]
    trainer: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


_AS_WRITTEN = ConfigDict(strict=True, extra="allow", arbitrary_types_allowed=True)


class _Trainer(TypedDict):
    __pydantic_config__ = _AS_WRITTEN  # type: ignore[misc]

    epoch: Annotated[int, Field(ge=0)]


class _Fields(TypedDict):
    """The fields of :class:`Checkpoint` as a file has to hold them."""

    __pydantic_config__ = _AS_WRITTEN  # type: ignore[misc]

    architecture: dict[str, Any]
    classes: tuple[str, ...]
    mean: tuple[FiniteFloat, ...]
    std: tuple[FiniteFloat, ...]
    dataset: str
    split: SplitFields
    recipe: dict[str, Any]
    epoch: Annotated[int, Field(ge=0)]
    accuracy: float
    weights: dict[str, torch.Tensor]
    trainer: NotRequired[_Trainer | None]
    extra: NotRequired[dict[str, Any]]


_FIELDS = TypeAdapter(_Fields)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes beside `path`, flushes to disk, renames: `path` is never half-written.

    Raises `UserError` when it cannot be written (no space, no permission, no folder).
    """
    values = {item.name: getattr(checkpoint, item.name) for item in fields(checkpoint)}
    content = {"format": _FORMAT, "version": _VERSION, **values}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        write_atomic(path, buffer.getvalue())
    except OSError as error:
        raise UserError(f"checkpoint {path}: cannot be written ({error.strerror or error})") from error


def load_checkpoint(path: Path, *, device: torch.device | str = "cpu") -> Checkpoint:
    """Reads a checkpoint; nothing in the file is executed (`weights_only=True`).

    Raises `UserError` for a file that is missing, damaged, or something else.
    """
    where = f"checkpoint {path}"
    damaged = f"{where}: damaged, or not a checkpoint of nas"
    try:
        check_size(path, most=MAX_BYTES)
        file = io.BytesIO(path.read_bytes())
    except UserError as error:
        raise UserError(f"checkpoint {error}") from error
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror or error})") from error
    try:
        whole = _is_whole(file)
        content = torch.load(file, map_location=device, weights_only=True) if whole else None
    except Exception as error:  # what a damaged archive or pickle breaks in its reader can be anything
        raise UserError(damaged) from error
    if not whole:
        raise UserError(damaged)
    if not isinstance(content, Mapping) or content.get("format") != _FORMAT:
        raise UserError(f"{where}: not a checkpoint of nas")
    check_extent(version := content.get("version"), where)
    if version != _VERSION:
        raise UserError(f"{where}: version {version}, this nas reads version {_VERSION}")
    return checked({name: value for name, value in content.items() if name not in ("format", "version")}, where)


def checked(values: Mapping[str, Any], where: str) -> Checkpoint:
    """A checkpoint from what a file holds: nothing in it is sure to have the type that it was written with.

    Args:
        values: by field. The architecture is checked by those who build it, the trainer's state by the trainer.
        where: what an error calls the file.

    Raises:
        UserError: a field is missing or of another type, or larger than any of ours.
    """
    # First, since what refers to itself a thousandfold could not even be printed.
    check_extent({name: value for name, value in values.items() if name not in ("weights", "trainer")}, where)
    try:
        _FIELDS.validate_python(values)
        Recipe.from_dict(values["recipe"])
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except ValidationError as error:
        path, mistake = first_mistake(error)
        raise UserError(f"{where}: damaged, {path}: {mistake}") from error
    return Checkpoint(**{item.name: values[item.name] for item in fields(Checkpoint) if item.name in values})


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

"""A training on disk: what `nas evaluate`, `nas export` and `nas train --resume` read."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from nas.errors import UserError
from nas.files import write_atomic

_FORMAT = "nas-checkpoint"
_VERSION = 1


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
    damaged = f"checkpoint {path}: damaged, or not a checkpoint of nas"
    try:
        file = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise UserError(f"checkpoint {path}: cannot be read ({error.strerror or error})") from error
    try:
        with zipfile.ZipFile(file) as archive:
            whole = archive.testzip() is None  # torch.load does not compare checksums
        file.seek(0)
        content = torch.load(file, map_location=device, weights_only=True) if whole else None
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OSError,
        zipfile.BadZipFile,
    ) as error:
        raise UserError(damaged) from error
    if not whole:
        raise UserError(damaged)
    if not isinstance(content, Mapping) or content.get("format") != _FORMAT:
        raise UserError(f"checkpoint {path}: not a checkpoint of nas")
    if content.get("version") != _VERSION:
        raise UserError(f"checkpoint {path}: version {content.get('version')}, this nas reads version {_VERSION}")
    try:
        return Checkpoint(**{item.name: content[item.name] for item in fields(Checkpoint)})
    except KeyError as error:
        raise UserError(f"checkpoint {path}: damaged, {error.args[0]!r} is missing") from error

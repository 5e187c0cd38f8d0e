"""Weights in safetensors: read by other programs without running anything, and by `nas` like a checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from nas.architecture.document import Architecture
from nas.errors import UserError
from nas.files import check_size, parse_json, write_atomic
from nas.network.build import build
from nas.training.card import Card
from nas.training.checkpoint import MAX_BYTES, Checkpoint, checked, load_checkpoint
from nas.training.data import FOLDER_PREFIX

SUFFIX = ".safetensors"
_KEY, _VERSION = "nas", 1


def save_weights(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint's weights, and all the rest but the trainer's state as the file's metadata.

    Raises:
        UserError: the file cannot be written.
    """
    described = {"version": _VERSION} | {
        item.name: getattr(checkpoint, item.name)
        for item in fields(checkpoint)
        if item.name not in ("weights", "trainer")
    }
    # safetensors takes neither channels_last nor two names of one tensor.
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.weights.items()}
    # One entry: safetensors writes several in any order, and equal trainings should leave equal files.
    content = save(tensors, {_KEY: json.dumps(described, ensure_ascii=False)})
    try:
        write_atomic(path, content)
    except OSError as error:
        raise UserError(f"weights {path}: cannot be written ({error.strerror or error})") from error


def load_trained(path: Path) -> Checkpoint:
    """A trained network, from a checkpoint or from the safetensors that a training leaves; `trainer` may be None.

    Raises:
        UserError: the file is missing, damaged or something else.
    """
    return _load_weights(path) if path.suffix == SUFFIX else load_checkpoint(path)


def card(checkpoint: Checkpoint, where: str) -> Card:
    """Build the metadata of a shipped network.

    Args:
        checkpoint: of a training or a search.
        where: what an error calls it, such as its path.
    """
    source = checkpoint.extra.get("source_resolution")
    architecture = Architecture.from_dict(checkpoint.architecture, where)
    try:
        return Card(
            architecture=architecture,
            classes=tuple(checkpoint.classes),
            mean=tuple(checkpoint.mean),
            std=tuple(checkpoint.std),
            decoded_at=source if isinstance(source, int) and source > 0 else None,
            crop=checkpoint.extra.get("crop", "box"),
            # A folder's path is nobody's business where the model is shipped to.
            dataset="" if checkpoint.dataset.startswith(FOLDER_PREFIX) else checkpoint.dataset,
            split=checkpoint.split,
        )
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def restored(checkpoint: Checkpoint, where: str) -> nn.Module:
    """The trained network, in eval mode on the CPU.

    Args:
        checkpoint: of a training or a search.
        where: what an error calls it, such as its path.

    Raises:
        UserError: its weights are another network's.
    """
    try:
        return restore(card(checkpoint, where), checkpoint.weights)
    except UserError as error:
        raise error.at(where) from error


def restore(card: Card, weights: Mapping[str, Tensor]) -> nn.Module:
    """The trained network in eval mode, on the CPU.

    Raises:
        UserError: the weights are another network's.
    """
    with torch.random.fork_rng(devices=[]):  # its fresh weights are drawn for nothing
        network = build(card.architecture, len(card.classes))
    try:
        network.load_state_dict(dict(weights))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"the weights do not fit {card.architecture.name}: {_first_reason(error)}") from error
    return network.eval().requires_grad_(False)


@dataclass(frozen=True)
class Initialised:
    """Tensors that a network took over from another. `loaded`, `fresh`: names of its tensors; `unused`: the other's."""

    path: Path
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        line = f"{self.path}: {len(self.loaded)} of {len(self.loaded) + len(self.fresh)} tensors taken over"
        return f"{line}; new: {_some(self.fresh)}" if self.fresh else line


def initialise(network: nn.Module, path: Path) -> Initialised:
    """Copy into a network every tensor of a trained one that has its name and shape; the others keep their values.

    So a network begins on new classes with all but a fresh classifier, and on a variant with the stages that they
    share.

    Args:
        network: changed in place.
        path: a checkpoint or safetensors, of `nas` or with the same names.

    Raises:
        UserError: the file cannot be read, or no weight of it fits.
    """
    given = _tensors(path)
    own = network.state_dict()
    loaded = {name: given[name] for name, tensor in own.items() if name in given and given[name].shape == tensor.shape}
    # A norm's count of batches fits everywhere and says nothing.
    if not any(tensor.ndim for tensor in loaded.values()):
        raise UserError(f"--init {path}: none of its {len(given)} tensors has a name and shape of this network's")
    network.load_state_dict(loaded, strict=False)
    return Initialised(
        path,
        loaded=tuple(loaded),
        fresh=tuple(name for name in own if name not in loaded),
        unused=tuple(name for name in given if name not in loaded),
    )


def _tensors(path: Path) -> dict[str, Tensor]:
    return _open(path)[0] if path.suffix == SUFFIX else load_checkpoint(path).weights


def _open(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    if not path.is_file():
        raise UserError(f"weights {path}: cannot be read (no such file)")
    try:
        check_size(path, most=MAX_BYTES)
    except UserError as error:
        raise UserError(f"weights {error}") from error
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"weights {path}: damaged, or not safetensors") from error


def _load_weights(path: Path) -> Checkpoint:
    weights, metadata = _open(path)
    if _KEY not in metadata:
        raise UserError(f"weights {path}: not written by nas (they may be given to --init)")
    where = f"weights {path}"
    described = parse_json(metadata[_KEY], f"{where}: damaged metadata")
    if not isinstance(described, dict) or "version" not in described:
        raise UserError(f"{where}: damaged metadata")
    version = described.pop("version")
    if version != _VERSION:
        raise UserError(f"{where}: version {version}, this nas reads version {_VERSION}")
    for name in ("classes", "mean", "std"):  # JSON has no tuples
        if isinstance(described.get(name), list):
            described[name] = tuple(described[name])
    return checked({**described, "weights": weights}, where)


def _some(names: tuple[str, ...], most: int = 4) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _first_reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[1] if len(lines) > 1 else (lines or [type(error).__name__])[0]

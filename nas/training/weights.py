"""Networks from what a training left: as trained, or as the beginning of another training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.architecture.document import Architecture
from nas.errors import UserError
from nas.network.build import build
from nas.training.card import Card, stated_fit
from nas.training.checkpoint import Checkpoint, load_tensors
from nas.training.data import FOLDER_PREFIX
from nas.training.fingerprint import read_fingerprint


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
            classes=checkpoint.classes,
            mean=checkpoint.mean,
            std=checkpoint.std,
            decoded_at=source if isinstance(source, int) and source > 0 else None,
            fit=stated_fit(checkpoint.extra),
            white=checkpoint.extra.get("white"),
            # A folder's path is nobody's business where the model is shipped to.
            dataset="" if checkpoint.dataset.startswith(FOLDER_PREFIX) else checkpoint.dataset,
            split=checkpoint.split,
            data=read_fingerprint(checkpoint.extra.get("data"), f"{where}: data"),
        )
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def restored(checkpoint: Checkpoint, where: str) -> nn.Module:
    """Build a checkpoint's network, as :func:`restore` does; `where` is what an error calls it, such as its path."""
    try:
        return restore(card(checkpoint, where), checkpoint.weights)
    except UserError as error:
        raise error.at(where) from error


def restore(card: Card, weights: Mapping[str, Tensor]) -> nn.Module:
    """Build a trained network: in eval mode, on the CPU.

    Raises:
        UserError: the weights are another network's.
    """
    with torch.random.fork_rng(devices=[]):  # its fresh weights are drawn for nothing
        network = build(card.architecture, len(card.classes))
    try:
        network.load_state_dict(dict(weights))
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]  # the first one names the class
        reason = lines[1] if len(lines) > 1 else (lines or [type(error).__name__])[0]
        raise UserError(f"the weights do not fit {card.architecture.name}: {reason}") from error
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
        if not self.fresh:
            return line
        more = f" and {len(self.fresh) - 4} more" if len(self.fresh) > 4 else ""
        return f"{line}; new: {', '.join(self.fresh[:4])}{more}"


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
    given, own = load_tensors(path), network.state_dict()
    loaded = {name: given[name] for name, tensor in own.items() if name in given and given[name].shape == tensor.shape}
    # A norm's count of batches fits everywhere and says nothing.
    if not any(tensor.ndim for tensor in loaded.values()):
        raise UserError(f"--init {path}: none of its {len(given)} tensors has a name and shape of this network's")
    network.load_state_dict(loaded, strict=False)
    fresh, unused = (tuple(name for name in names if name not in loaded) for names in (own, given))
    return Initialised(path, loaded=tuple(loaded), fresh=fresh, unused=unused)

"""The network that is shipped, and the proof that what was written computes the same."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.errors import first_line
from nas.training.card import Card

BATCHES = (1, 7)
"""Batch sizes that every exported form is run with."""


class ExportError(RuntimeError):
    """Raised where an exported model does not compute what the network computes: a bug, here or in a library."""


@dataclass(frozen=True)
class Shipped:
    """Files of an exported model, and their agreement with torch.

    `files`: the model first, then what must lie beside it. `difference`: the largest one of a logit from torch's, as
    part of the largest logit (of 1 where that is smaller).
    """

    files: tuple[Path, ...]
    difference: float

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.stat().st_size for file in self.files)


@dataclass(frozen=True)
class Quantised:
    """A model before and after it was quantised: its file, and sizes in bytes."""

    path: Path
    size: int
    size_before: int
    calibration_images: int


class Normalised(nn.Module):
    """A network behind its normalisation: (N, C, R, R) in [0, 1] -> (N, classes) logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, card: Card) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(card.mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(card.std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.std)


def compare(expected: nn.Module, got: Callable[[Tensor], Tensor], card: Card, *, tolerance: float, form: str) -> float:
    """Run both on random images in [0, 1], in batches of 1 and 7.

    Returns:
        The largest difference, see :class:`Shipped`.

    Raises:
        ExportError: it is above `tolerance`, or not a number.
    """
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch in BATCHES:
        images = torch.rand(batch, *card.shape, generator=generator)
        with torch.inference_mode():
            logits, others = expected(images), got(images)
        if others.shape != logits.shape:
            raise ExportError(f"{form}: gives {tuple(others.shape)} where torch gives {tuple(logits.shape)}")
        difference = ((others - logits).abs().max() / logits.abs().max().clamp(min=1)).item()
        if not difference <= tolerance:  # also where it is NaN
            raise ExportError(f"{form}: differs from torch by {difference:.2g}, more than {tolerance:.0e}")
        worst = max(worst, difference)
    return worst


@contextlib.contextmanager
def one_line(what: str) -> Iterator[None]:
    """Raise an ExportError that says what failed and the first line of why."""
    try:
        yield
    except Exception as error:  # what a converter's steps raise has no common base
        raise ExportError(f"{what}: {first_line(error)}") from error


def granularity(per_tensor: bool) -> str:
    """Say of what each scale of weights is."""
    return "per tensor" if per_tensor else "per channel"

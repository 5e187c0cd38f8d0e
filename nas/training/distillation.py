"""Distillation: a trained network's judgement of a batch as a target beside the labels."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.errors import UserError
from nas.network.fold import fold
from nas.training.checkpoint import load_trained
from nas.training.data import Dataset
from nas.training.weights import card, restore


def distillation_loss(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Compute the summed divergence of softened predictions from softened targets, both logits (B, classes).

    T^2 * KL(softmax(targets / T) || softmax(logits / T)): the factor keeps the gradient's size whatever the
    temperature T. Source: G. Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2.
    """
    softened = F.log_softmax(logits / temperature, 1), F.log_softmax(targets / temperature, 1)
    return F.kl_div(*softened, reduction="sum", log_target=True) * temperature**2


class Teacher:
    """A trained network that judges a student's batches: in eval mode, without gradients, folded.

    Args:
        path: its checkpoint or safetensors, of `nas`.
        dataset: in the student's format, on the device that trains.

    Raises:
        UserError: the file cannot be read, or the network knows other classes or reads other channels.
    """

    def __init__(self, path: Path, dataset: Dataset) -> None:
        where = f"--teacher {path}"
        saved = load_trained(path)
        described = card(saved, where)
        self.name = described.architecture.name
        if strange := sorted({*described.classes} ^ {*dataset.classes}):
            raise UserError(f"{where}: class {strange[0]!r} is not both its and the data set's; train it on this one")
        source = described.architecture.input
        if source.channels != dataset.channels:
            raise UserError(f"{where}: it reads {source.channels} channels, the network {dataset.channels}")
        self._network = fold(restore(described, saved.weights)).to(dataset.device)
        self._resolution = source.resolution
        self._classes = torch.tensor([described.classes.index(label) for label in dataset.classes])
        self._classes = self._classes.to(dataset.device)
        # From the student's normalisation to the teacher's: (x * std + mean - own mean) / own std.
        own, given = (
            [torch.tensor(values, device=dataset.device).view(1, -1, 1, 1) for values in pair]
            for pair in ((described.mean, described.std), (dataset.mean, dataset.std))
        )
        self._scale, self._shift = given[1] / own[1], (given[0] - own[0]) / own[1]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Judge a student's batch, normalised float (B, C, H, W): float logits (B, classes), as the data set counts."""
        images = torch.addcmul(self._shift, images, self._scale)
        if images.shape[-1] != self._resolution:
            images = F.interpolate(images, size=(self._resolution,) * 2, mode="bilinear", antialias=True)
        logits: Tensor = self._network(images).float()
        return logits[:, self._classes]

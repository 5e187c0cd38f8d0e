"""Images as small pictures that stand in a page themselves, without a file."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nas.preprocessing import convert
from nas.training.augment import Normaliser, draw_epoch, prepare
from nas.training.data import Dataset
from nas.training.recipe import Recipe

PICTURE = r"^data:image/jpeg;base64,[A-Za-z0-9+/]+={0,2}$"
"""Form of a picture; nothing in it can end an attribute of HTML."""

SAMPLES, MOST_IN_REPORT, MOST_ON_PAGE = 8, 96, 1600
"""Images of a class, of all classes in a search's report, and on a page of their own."""
GAP = 2
"""White pixels between two images."""
_SIDE = 64


def picture(images: Tensor) -> str:
    """Images, uint8 (N, C, S, S) with C 1 or 3, side by side as one JPEG of at most 64 pixels height: a data URI."""
    count, channels, side, _ = images.shape
    if side > _SIDE:
        images, side = convert(images, channels, _SIDE), _SIDE
    images = F.pad(images.cpu(), (0, GAP), value=255)
    row = images.permute(2, 0, 3, 1).reshape(side, count * (side + GAP), channels)[:, :-GAP]
    file = io.BytesIO()
    Image.fromarray(row.squeeze(2).contiguous().numpy()).save(file, "JPEG", quality=90, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def samples(
    dataset: Dataset, recipe: Recipe, *, resolution: int | None = None, most: int = MOST_IN_REPORT, seed: int = 0
) -> dict[str, str]:
    """Pictures of training images by class, as they reach a network in the first epoch: decoded and augmented.

    Args:
        dataset: on the CPU.
        recipe: whose augmentation is drawn.
        resolution: side of the network's input; default the images'.
        most: images of all classes together; of each at most 8, and of each of the first `most` classes at least one.
        seed: of what is drawn.
    """
    each = min(SAMPLES, max(1, most // len(dataset.classes)))
    shown = range(min(most, len(dataset.classes)))
    labels = dataset.train.labels
    images = dataset.train.take(torch.cat([(labels == label).nonzero()[:each, 0] for label in shown]))
    generator, count, side = torch.Generator().manual_seed(seed), len(images), resolution or dataset.resolution
    pixels = convert(images.images[:], dataset.channels, side)
    augmentation = recipe.augmentation(resolution=side, flip_safe=dataset.flip_safe)
    draws = draw_epoch(
        # mixup needs images of a whole batch, and shows two classes in one image
        replace(augmentation, mixup=0.0),
        count=count,
        steps=1,
        batch=count,
        resolution=side,
        epoch=0,
        first_flips=torch.rand(count, generator=generator) < 0.5,
        generator=generator,
    ).step(0)
    normalise = Normaliser(dataset.mean, dataset.std, torch.device("cpu"))
    prepared = prepare(pixels[draws.order], augmentation, draws, normalise)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (dataset.mean, dataset.std))
    seen = torch.empty_like(pixels)
    seen[draws.order] = ((prepared * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return {dataset.classes[label]: picture(seen[images.labels == label]) for label in shown}

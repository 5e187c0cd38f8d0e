"""Classification of image files, by a checkpoint or an exported ONNX or LiteRT model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nas.errors import UserError
from nas.export.check import Normalised
from nas.export.shipping import ENDINGS, open_exported
from nas.network.fold import fold
from nas.training.card import Card
from nas.training.checkpoint import load_trained
from nas.training.weights import card, restored

_BATCH = 32


@dataclass(frozen=True)
class Guess:
    """A class, and its probability in [0, 1]."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """An image, and the classes that the network holds likeliest, the first most so."""

    image: Path
    guesses: tuple[Guess, ...]


def predict(
    model: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    top: int = 5,
    on_unreadable: Callable[[UserError], None] | None = None,
) -> list[Prediction]:
    """Classify image files.

    Images are read as those of a training folder are: any format and mode that Pillow knows, turned as the camera's
    EXIF entry says, transparency on white, the longer side cut at both ends, then resized.

    Args:
        model: a checkpoint (``.pt``), a training's ``.safetensors``, or an ``.onnx`` or ``.tflite`` of `nas export`.
        images: files, or one.
        top: so many classes, or all where there are fewer.
        on_unreadable: told of an image that cannot be read, which is then left out; default: raised.

    Returns:
        One prediction per image, in the order given.

    Raises:
        UserError: a file is missing, damaged or none of ours, and its name.
    """
    if isinstance(images, str | Path):
        images = [images]
    if not images:
        raise UserError("no image given")
    if top < 1:
        raise UserError(f"top {top}: at least 1 class is needed")
    run, description = load_model(Path(model))
    predictions: list[Prediction] = []
    paths = [Path(image) for image in images]
    for first in range(0, len(paths), _BATCH):
        batch: list[Path] = []
        read: list[Tensor] = []
        for path in paths[first : first + _BATCH]:
            try:
                read.append(description.preprocessing.read(path))
                batch.append(path)
            except UserError as error:
                if on_unreadable is None:
                    raise
                on_unreadable(error)
        if not batch:
            continue
        pixels = torch.cat(read)
        with torch.inference_mode():
            shares = run(pixels.float() / 255).softmax(1)
        best = shares.topk(min(top, shares.shape[1]), dim=1)
        for path, values, indices in zip(batch, best.values.tolist(), best.indices.tolist(), strict=True):
            guesses = zip(indices, values, strict=True)
            labelled = (Guess(description.classes[index], value) for index, value in guesses)
            predictions.append(Prediction(path, tuple(labelled)))
    return predictions


def load_model(path: Path) -> tuple[Callable[[Tensor], Tensor], Card]:
    """A trained network of any form that `predict` takes: images (N, C, R, R) in [0, 1] -> logits, and its card.

    Raises:
        UserError: see :func:`predict`.
    """
    if path.suffix in ENDINGS:
        return open_exported(path)
    checkpoint = load_trained(path)
    description = card(checkpoint, str(path))
    return Normalised(fold(restored(checkpoint, str(path))), description).eval(), description

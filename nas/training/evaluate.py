"""Accuracy of a network, in float32, as it ships."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nas.network.fold import fold
from nas.training.augment import Normaliser
from nas.training.data import Dataset, PartName
from nas.training.precision import full_precision

_WORTH_FOLDING = 500  # images; folding takes 15 ms


@dataclass(frozen=True)
class Scores:
    """Top-1 accuracy in [0, 1] on one part of a data set, and how each of its images was judged, on the CPU.

    `balanced_accuracy`: mean of the accuracies on the images of each class. `hits`: bool, (images,), judged right.
    `predicted`: int64, (images,), the likeliest class, and `probabilities`: float32, (images,), its probability.
    """

    accuracy: float
    balanced_accuracy: float
    hits: Tensor
    predicted: Tensor
    probabilities: Tensor


def scores(labels: Tensor, predicted: Tensor, probabilities: Tensor) -> Scores:
    """Score predictions, all three (images,), by the labels."""
    # to the CPU: the first synchronisation
    labels, predicted, probabilities = labels.cpu(), predicted.cpu(), probabilities.cpu()
    hits = predicted == labels
    images = torch.bincount(labels)
    recalls = (torch.bincount(labels, weights=hits.double()) / images)[images > 0]
    balanced = float(recalls.mean()) if len(recalls) else 0.0
    return Scores(int(hits.sum()) / max(len(labels), 1), balanced, hits, predicted, probabilities)


def pack_hits(hits: Tensor) -> str:
    """Pack the correctly classified images, eight in two hexadecimal digits, to compare networks image by image."""
    return np.packbits(hits.numpy()).tobytes().hex()


def evaluate(
    network: nn.Module,
    dataset: Dataset,
    part: PartName = "validation",
    *,
    batch: int = 256,
) -> Scores:
    """Measure the accuracy of `network` on a part of `dataset`, both on the same device; no augmentation.

    The network's mode is kept.

    In float32 whatever the network was trained in: that is what ships, and torch and an exported model then agree. On a
    CPU that trains in bfloat16 it makes an epoch 6% longer (E at 32x32, 15% of the images held out, one core of a busy
    AMD EPYC, Zen 4; n = 3, spread 30%). Many images are judged by the folded network (`nas.network.fold`), 1.5 times as
    fast for E at 32x32 (512 images on one core of an AMD EPYC, Zen 5; n = 3, spread 4%), where few would not repay the
    folding.
    """
    was_training = network.training
    try:
        judged = fold(network) if len(dataset.part(part)) >= _WORTH_FOLDING else network.eval()
        return evaluate_forward(judged, dataset, part, batch=batch)
    finally:
        network.train(was_training)


def evaluate_forward(
    forward: Callable[[Tensor], Tensor],
    dataset: Dataset,
    part: PartName = "validation",
    *,
    batch: int = 256,
    prepare: Callable[[Tensor], Tensor] | None = None,
) -> Scores:
    """Let a function, images (N, C, H, W) -> logits, judge a part of a data set in float32.

    `prepare`: makes its images of stored ones, uint8; default: normalises them.
    """
    images = dataset.part(part)
    prepare = prepare or Normaliser(dataset.mean, dataset.std, dataset.device)
    predicted = torch.empty(len(images), dtype=torch.int64, device=dataset.device)
    probabilities = torch.empty(len(images), device=dataset.device)
    with torch.inference_mode(), full_precision():
        for first in range(0, len(images), batch):
            some = slice(first, first + batch)
            logits = forward(prepare(images.images[some]))
            predicted[some], probabilities[some] = logits.argmax(1), logits.softmax(1).amax(1)
    return scores(images.labels, predicted, probabilities)

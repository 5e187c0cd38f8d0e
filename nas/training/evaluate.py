"""Accuracy of a network, in float32, as it ships."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.network.fold import fold
from nas.training.augment import Normaliser
from nas.training.data import Dataset, PartName
from nas.training.precision import full_precision

_WORTH_FOLDING = 500  # images; folding takes 15 ms


@dataclass(frozen=True)
class Scores:
    """Scores on one part of a data set.

    Top-1 and top-5 accuracy in [0, 1] (top-5 is 1 for five classes and fewer), mean cross-entropy, and which images
    were judged right: bool, (images,), on the CPU.
    """

    accuracy: float
    top5: float
    loss: float
    images: int
    hits: Tensor


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
    images = dataset.part(part)
    device = dataset.device
    normalise = Normaliser(dataset.mean, dataset.std, device)
    was_training = network.training
    judged = fold(network) if len(images) >= _WORTH_FOLDING else network.eval()
    sums = torch.zeros(3, device=device)
    right = torch.empty(len(images), dtype=torch.bool, device=device)
    try:
        with torch.inference_mode(), full_precision():
            for first in range(0, len(images), batch):
                labels = images.labels[first : first + batch]
                logits = judged(normalise(images.images[first : first + batch]))
                top = logits.topk(min(5, logits.shape[1]), dim=1).indices
                hits = top == labels.unsqueeze(1)
                right[first : first + batch] = hits[:, 0]
                sums += torch.stack((hits[:, 0].sum(), hits.sum(), F.cross_entropy(logits, labels, reduction="sum")))
    finally:
        network.train(was_training)
    count = len(images)
    first_hits, top_hits, loss = sums.tolist()  # the first synchronisation; counts are exact in float32 up to 2^24
    whole = max(count, 1)
    return Scores(first_hits / whole, top_hits / whole, loss / whole, count, right.cpu())

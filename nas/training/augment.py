"""Augmentation of whole batches, on the device that trains.

The random draws of an epoch are made at once, on the CPU, from one generator, and sent over in one copy per kind. So a
step needs no random numbers and no synchronisation, and a seed gives the same draws on every device. Every
transformation is a pure function of images and draws; the tests hold each against torchvision's on the same draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.training.photo import draw_boxes, draw_maps, draw_operations, erase, recolour, resample, with_geometry

PadMode = Literal["zero", "reflect"]
FlipMode = Literal["none", "random", "alternating"]


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of training images. `pad` in pixels per side, `cutout` the side of the square in pixels, `mixup`
    Beta's alpha, `photo` the strength of :mod:`nas.training.photo`, up to 1, which takes the place of `pad`.

    0 turns each off.
    """

    pad: int = 0
    pad_mode: PadMode = "zero"
    flip: FlipMode = "none"
    cutout: int = 0
    mixup: float = 0.0
    photo: float = 0.0


@dataclass(frozen=True, eq=False)
class Draws:
    """The random draws of one epoch of S steps with B images each; None where the augmentation does not need them.

    `order`: int64 (S, B), indices into the training part. `offsets`: int64 (S, B, 2), top and left corner of the crop
    in the padded image. `flips`: bool (S, B). `centres`: int64 (S, B, 2), row and column of the cutout's centre.
    `shares`: float32 (S,), mixup's share of the image itself. Of photographs, whose mirroring is in the maps:
    `maps`: float32 (S, B, 2, 3); `operations`: int64 (S, B); `magnitudes`: float32 (S, B); `boxes`: int64 (S, B, 4).
    """

    order: Tensor
    offsets: Tensor | None = None
    flips: Tensor | None = None
    centres: Tensor | None = None
    shares: Tensor | None = None
    maps: Tensor | None = None
    operations: Tensor | None = None
    magnitudes: Tensor | None = None
    boxes: Tensor | None = None

    def to(self, device: torch.device) -> Draws:
        return self._each(lambda draw: draw.to(device))

    def step(self, index: int) -> Draws:
        """The draws of one step: as above without the leading S."""
        return self._each(lambda draw: draw[index])

    def share(self, index: int, count: int) -> Draws:
        """The draws of every step for one of `count` equal shares of its images; mixup's are a step's."""
        return self._each(lambda draw: draw if draw is self.shares else draw[:, index::count])

    def clone(self) -> Draws:
        return self._each(Tensor.clone)

    def copy_(self, other: Draws) -> None:
        """Take over the values of draws of the same shapes."""
        for own, draw in zip(self._fields(), other._fields(), strict=True):
            if own is not None and draw is not None:
                own.copy_(draw)

    def _fields(self) -> tuple[Tensor | None, ...]:
        return tuple(getattr(self, item.name) for item in fields(self))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Draws:
        return Draws(*(None if draw is None else change(draw) for draw in self._fields()))  # type: ignore[arg-type]


def draw_epoch(
    augmentation: Augmentation,
    *,
    count: int,
    steps: int,
    batch: int,
    resolution: int,
    epoch: int,
    first_flips: Tensor,
    generator: torch.Generator,
) -> Draws:
    """Draw one epoch: a new order of `count` images, the first `steps * batch` of which are used, and their changes.

    Where steps need more than all images, these are seen again, in another order.

    `first_flips`: bool (count,), which images alternating flip mirrors in even epochs; the others are mirrored in odd
    ones (K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, section 3.6). So two epochs show each
    image both ways.
    """
    orders = [torch.randperm(count, generator=generator) for _ in range(-(-steps * batch // count))]
    order = torch.cat(orders)[: steps * batch].view(steps, batch)
    offsets = flips = centres = shares = None
    if augmentation.pad and not augmentation.photo:
        offsets = torch.randint(0, 2 * augmentation.pad + 1, (steps, batch, 2), generator=generator)
    if augmentation.flip == "random":
        flips = torch.rand(steps, batch, generator=generator) < 0.5
    elif augmentation.flip == "alternating":
        flips = first_flips[order] ^ bool(epoch % 2)
    if augmentation.cutout:
        centres = torch.randint(0, resolution, (steps, batch, 2), generator=generator)
    if augmentation.mixup:
        alpha = torch.full((steps, 2), augmentation.mixup, dtype=torch.float64)
        gammas = torch._standard_gamma(alpha, generator=generator)
        shares = (gammas[:, 0] / gammas.sum(1)).float()
    draws = Draws(order, offsets, flips, centres, shares)
    if not augmentation.photo:
        return draws
    shape, strength = (steps, batch), augmentation.photo
    maps = draw_maps(flips, shape, strength, generator)
    operations, magnitudes = draw_operations(shape, strength, generator)
    return replace(
        draws,
        flips=None,
        maps=with_geometry(maps, operations, magnitudes),
        operations=operations,
        magnitudes=magnitudes,
        boxes=draw_boxes(shape, resolution, strength, generator),
    )


def pad_crop(images: Tensor, offsets: Tensor, pad: int, mode: PadMode = "zero") -> Tensor:
    """Pad `pad` pixels on every side and cut each image's own window of the old size.

    `images`: (N, C, H, W), any type. `offsets`: int64 (N, 2), top and left in [0, 2 * pad]. Returns (N, C, H, W).
    """
    _, _, height, width = images.shape
    if mode == "zero":
        padded = F.pad(images, (pad, pad, pad, pad))
    else:  # F.pad reflects floating point only
        rows, columns = _reflected(height, pad, images.device), _reflected(width, pad, images.device)
        padded = images[:, :, rows][:, :, :, columns]
    # (N, C, 2 pad + 1, 2 pad + 1, H, W): every window as a view; picking one per image copies whole rows
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    picked = torch.arange(images.shape[0], device=images.device)
    return windows[picked, :, offsets[:, 0], offsets[:, 1]]


def _reflected(size: int, pad: int, device: torch.device) -> Tensor:
    """Return the source index of every position of a padded axis; the border itself is not repeated."""
    position = torch.arange(-pad, size + pad, device=device).abs()
    return torch.where(position >= size, 2 * (size - 1) - position, position)


def flip(images: Tensor, flips: Tensor) -> Tensor:
    """Mirror left to right the images (N, C, H, W) where `flips` (bool, (N,)) is true."""
    return torch.where(flips.view(-1, 1, 1, 1), images.flip(-1), images)


def cutout(images: Tensor, centres: Tensor, size: int) -> Tensor:
    """Set a `size` x `size` square around each centre to 0; it is cut off at the image's edge.

    `images`: normalised (N, C, H, W), so that 0 is the mean colour. `centres`: int64 (N, 2), row and column. An even
    square reaches one pixel further up and left. Source: T. DeVries, G. Taylor, "Improved Regularization of CNNs with
    Cutout", 2017.
    """
    boxes = torch.cat([centres - size // 2, torch.full_like(centres, size)], dim=1)
    return erase(images, boxes)


def mixup(images: Tensor, share: Tensor) -> Tensor:
    """Mix each image of a batch with its counterpart in the reversed batch: share * own + (1 - share) * other.

    `share`: scalar tensor. The loss is mixed the same way, with the reversed labels. The batch is already in random
    order, so that reversing it pairs at random. Source: H. Zhang et al., "mixup: Beyond Empirical Risk Minimization",
    2018.
    """
    return images.lerp(images.flip(0), 1 - share)


class Normaliser:
    """uint8 images -> normalised float32 in channels_last, in one pass: (x / 255 - mean) / std per channel."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        mean_, std_ = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        self._scale = (1 / (255 * std_)).float().view(1, -1, 1, 1).to(device)
        self._shift = (-mean_ / std_).float().view(1, -1, 1, 1).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        as_float = images.to(dtype=torch.float32, memory_format=torch.channels_last)
        return torch.addcmul(self._shift, as_float, self._scale)


def prepare(images: Tensor, augmentation: Augmentation, draws: Draws, normalise: Normaliser) -> Tensor:
    """Prepare one training batch: uint8 (B, C, H, W) -> augmented, normalised float32 (B, C, H, W), channels_last.

    Crop and flip run on uint8, a quarter of the traffic; padding is black as in torchvision's usual chain (crop, flip,
    normalise).
    """
    if draws.offsets is not None:
        images = pad_crop(images, draws.offsets, augmentation.pad, augmentation.pad_mode)
    if draws.flips is not None:
        images = flip(images, draws.flips)
    if draws.maps is not None and draws.operations is not None and draws.magnitudes is not None:
        images = recolour(resample(images, draws.maps), draws.operations, draws.magnitudes)
    batch = normalise(images)
    if draws.boxes is not None:
        batch = erase(batch, draws.boxes)
    if draws.centres is not None:
        batch = cutout(batch, draws.centres, augmentation.cutout)
    if draws.shares is not None:
        batch = mixup(batch, draws.shares)
    return batch

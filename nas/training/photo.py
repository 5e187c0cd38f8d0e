"""Augmentation of photographs: random resized crop, mirroring, one operation of TrivialAugment, random erasing.

Every image of a batch has its own parameters, and whole batches are computed: no loop over images, and on a GPU no
branch on values, so that a CUDA graph can hold them. Crop, mirroring and TrivialAugment's geometry are
one affine map, and the image is resampled once. Of TrivialAugment's fourteen operations, equalisation is left out: its
histograms per image cost as much as all the others.

Sources: C. Szegedy et al., "Going deeper with convolutions", 2015
(resized crop); S. Mueller, F. Hutter, "TrivialAugment", ICCV 2021, its wide space; Z. Zhong et al., "Random Erasing
Data Augmentation", 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_GEOMETRY = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_COLOURS = ("brightness", "saturation", "contrast", "sharpness", "posterize", "solarize", "autocontrast")
OPERATIONS = ("identity", *_GEOMETRY, *_COLOURS)
"""Operations of TrivialAugment, of which each image meets one."""

SMALLEST_AREA = 0.25
"""Of the crop, as a part of the image, at full strength."""
ERASED = 0.25
"""Share of the images of which a rectangle is erased, at full strength."""

FEWEST = 100_000
"""Parameters below which networks are better off without."""
WEAKEST, TENFOLD = 0.2, 0.3
"""Strength at `FEWEST` parameters, and what ten times as many add."""

_RATIOS, _ERASED_RATIOS, _ERASED_AREAS = (3 / 4, 4 / 3), (0.3, 3.3), (0.02, 1 / 3)
_SHEAR, _TRANSLATE, _ROTATE, _BLEND, _BITS = 0.99, 32 / 224, 135.0, 0.99, 6
"""TrivialAugment's largest magnitudes, of its wide space; a shift as a part of the side."""
_RED, _GREEN, _BLUE = 0.2989, 0.587, 0.114


def photo_strength(params: int | None) -> float:
    """Return the strength of the augmentation for a network of so many parameters; None: full.

    A small network has no weights to spare for what its augmentation made up. On few images (`docs/benchmarks.md`,
    `augmentation.py`) 0.3 costs one of 42,050 parameters 1.7 points and helps those of 170,050 and 1,024,714 a little;
    full strength costs all three.
    """
    if params is None:
        return 1.0
    return min(max(WEAKEST + TENFOLD * math.log10(max(params, 1) / FEWEST), WEAKEST), 1.0)


def draw_maps(flips: Tensor | None, shape: tuple[int, int], strength: float, generator: torch.Generator) -> Tensor:
    """Draw the crops: float32 (S, B, 2, 3), affine maps from positions in the result to positions in the image.

    Both run from -1 to 1 over the square, (x, y), as :func:`torch.nn.functional.affine_grid` has them.

    Args:
        flips: bool (S, B), which images are mirrored; None: none.
        shape: (S, B).
        strength: from 0, the whole image, to 1, crops of a quarter of it and more.
        generator: on the CPU.
    """
    area = 1 - strength * (1 - SMALLEST_AREA) * torch.rand(shape, generator=generator)
    ratio = _log_uniform(_RATIOS, shape, generator)
    width, height = ((area * each).sqrt().clamp(max=1) for each in (ratio, 1 / ratio))
    x, y = ((2 * torch.rand(shape, generator=generator) - 1) * (1 - side) for side in (width, height))
    if flips is not None:
        width = torch.where(flips, -width, width)
    zero = torch.zeros(shape)
    return torch.stack([torch.stack([width, zero, x], -1), torch.stack([zero, height, y], -1)], -2)


def draw_operations(shape: tuple[int, int], strength: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw an operation for each image: (int64 (S, B), index into `OPERATIONS`; float32 (S, B), its magnitude).

    Magnitudes lie in [-strength, strength]; of operations without a direction the size counts.
    """
    chosen = torch.randint(0, len(OPERATIONS), shape, generator=generator)
    return chosen, strength * (2 * torch.rand(shape, generator=generator) - 1)


def draw_boxes(shape: tuple[int, int], side: int, strength: float, generator: torch.Generator) -> Tensor:
    """Draw the rectangles that are erased: int64 (S, B, 4), top, left, height, width in pixels; without: size 0."""
    low, high = _ERASED_AREAS
    area = low + (high - low) * torch.rand(shape, generator=generator)
    ratio = _log_uniform(_ERASED_RATIOS, shape, generator)
    sides = [(side * (area * each).sqrt()).round().clamp(max=side).long() for each in (ratio, 1 / ratio)]
    starts = [(torch.rand(shape, generator=generator) * (side - extent + 1)).long() for extent in sides]
    erased = torch.rand(shape, generator=generator) < ERASED * strength
    return torch.stack([*starts, *sides], -1) * erased.unsqueeze(-1)


def with_geometry(maps: Tensor, operations: Tensor, magnitudes: Tensor) -> Tensor:
    """Put the geometric operations, which follow crop and mirroring, into their maps (..., 2, 3)."""
    shear_x, shear_y, shift_x, shift_y, turn = (
        torch.where(operations == OPERATIONS.index(name), magnitudes * most, 0.0)
        for name, most in (
            ("shear_x", _SHEAR),
            ("shear_y", _SHEAR),
            ("translate_x", 2 * _TRANSLATE),
            ("translate_y", 2 * _TRANSLATE),
            ("rotate", math.radians(_ROTATE)),
        )
    )
    cosine, sine = turn.cos(), turn.sin()
    rows = [
        torch.stack([cosine, shear_x - sine, -shift_x], -1),
        torch.stack([shear_y + sine, cosine, -shift_y], -1),
    ]
    operation = torch.stack(rows, -2)
    mapped = maps[..., :2] @ operation
    return torch.cat([mapped[..., :2], mapped[..., 2:] + maps[..., 2:]], -1)


def resample(images: Tensor, maps: Tensor) -> Tensor:
    """Resample each image (N, C, H, W) by its own map (N, 2, 3), bilinear, black outside; float32 of the same size."""
    images = images.to(torch.float32)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def recolour(images: Tensor, operations: Tensor, magnitudes: Tensor) -> Tensor:
    """Apply to each image (N, C, H, W), float from 0 to 255, its operation, (N,), where that is one of colour.

    Each is torchvision's of the same name: blends have the factor 1 + 0.99 * magnitude, `posterize` keeps
    8 - round(6 * |magnitude|) bits, `solarize` inverts from 255 * (1 - |magnitude|) on. A CPU computes each operation
    for its images alone, which takes a seventh of the time; other devices for all, since they would have to wait for
    how many these are.
    """
    for name in _COLOURS:
        chosen = operations == OPERATIONS.index(name)
        if images.device.type != "cpu":
            images = torch.where(_per_image(chosen), _recoloured(name, images, magnitudes), images)
        elif len(rows := chosen.nonzero().squeeze(1)):
            images = images.index_copy(0, rows, _recoloured(name, images[rows], magnitudes[rows]))
    return images


def _recoloured(name: str, images: Tensor, magnitudes: Tensor) -> Tensor:
    magnitude = _per_image(magnitudes)
    if name == "posterize":
        step = (_BITS * magnitude.abs()).round().exp2()
        return (images / step).floor() * step
    if name == "solarize":
        return torch.where(images >= 255 * (1 - magnitude.abs()), 255 - images, images)
    if name == "autocontrast":
        low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
        return torch.where(high > low, (images - low) * (255 / (high - low).clamp(min=1e-3)), images)
    others: dict[str, Callable[[Tensor], Tensor]] = {
        "brightness": torch.zeros_like,
        "saturation": _gray,
        "contrast": lambda images: _gray(images).mean((2, 3), keepdim=True),
        "sharpness": _blurred,
    }
    return torch.lerp(others[name](images).expand_as(images), images, 1 + _BLEND * magnitude).clamp(0, 255)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _gray(images: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images
    return _RED * images[:, :1] + _GREEN * images[:, 1:2] + _BLUE * images[:, 2:]


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Set a rectangle of each image (N, C, H, W) to 0, the mean colour of normalised ones.

    `boxes`: int64 (N, 4), top, left, height, width.
    """
    inside = []
    for axis, extent in enumerate(images.shape[-2:]):
        position = torch.arange(extent, device=images.device)
        start, size = boxes[:, axis, None], boxes[:, axis + 2, None]
        inside.append((position >= start) & (position < start + size))
    return images.masked_fill((inside[0].unsqueeze(2) & inside[1].unsqueeze(1)).unsqueeze(1), 0)


def _log_uniform(limits: tuple[float, float], shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    low, high = map(math.log, limits)
    return (low + (high - low) * torch.rand(shape, generator=generator)).exp()


def _blurred(images: Tensor) -> Tensor:
    """Smooth by [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13; the border stays."""
    inner = (9 * F.avg_pool2d(images, 3, 1) + 4 * images[:, :, 1:-1, 1:-1]) / 13
    blurred = images.clone()
    blurred[:, :, 1:-1, 1:-1] = inner
    return blurred

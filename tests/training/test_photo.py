"""Augmentation of photographs against torchvision's functionals, with the same parameters."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference
from training_networks import small_network

from nas.errors import UserError
from nas.training.augment import Augmentation, draw_epoch
from nas.training.data import Dataset
from nas.training.loop import Trainer
from nas.training.photo import OPERATIONS, draw_maps, draw_operations, erase, recolour, resample, with_geometry
from nas.training.recipe import RECIPES, Recipe

BILINEAR = InterpolationMode.BILINEAR
SIDE = 24


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.randint(0, 256, (6, 3, SIDE, SIDE), generator=generator).float()


IDENTITY = torch.eye(2, 3).expand(6, 2, 3)


def test_the_crops_are_torchvisions_and_mirrored(images: Tensor) -> None:
    """Where a crop ends within the image, ours sees the next pixel and torchvision's repeats the last: not compared."""
    for index, (top, left, height, width) in enumerate([(0, 0, 24, 24), (2, 3, 12, 18), (7, 1, 16, 12)]):
        centre = [(2 * start + extent) / SIDE - 1 for start, extent in ((left, width), (top, height))]
        for sign in (1, -1):
            crop = torch.tensor([[sign * width / SIDE, 0, centre[0]], [0, height / SIDE, centre[1]]])
            found = resample(images[index : index + 1], crop.unsqueeze(0))
            expected = reference.resized_crop(
                images[index : index + 1], top, left, height, width, [SIDE, SIDE], BILINEAR, False
            )
            expected = reference.horizontal_flip(expected) if sign < 0 else expected
            inner = slice(1, -1) if height == SIDE else slice(2, -2)
            torch.testing.assert_close(found[..., inner, inner], expected[..., inner, inner], atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("rotate", lambda m: {"angle": -135 * m}),
        ("translate_x", lambda m: {"translate": [SIDE * 32 / 224 * m, 0]}),
        ("translate_y", lambda m: {"translate": [0, SIDE * 32 / 224 * m]}),
        ("shear_x", lambda m: {"shear": [math.degrees(math.atan(0.99 * m)), 0]}),
        ("shear_y", lambda m: {"shear": [0, math.degrees(math.atan(0.99 * m))]}),
    ],
)
def test_geometry_is_torchvisions(images: Tensor, name: str, parameters: Callable[[float], dict[str, object]]) -> None:
    magnitudes = torch.tensor([-1, -0.4, 0.0, 0.1, 0.5, 0.9])
    chosen = torch.full((6,), OPERATIONS.index(name))
    found = resample(images, with_geometry(IDENTITY, chosen, magnitudes))
    for index, magnitude in enumerate(magnitudes.tolist()):
        given = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0, 0]} | parameters(magnitude)
        expected = reference.affine(images[index : index + 1], interpolation=BILINEAR, fill=[0.0], **given)
        inside = (
            reference.affine(torch.full((1, 1, SIDE, SIDE), 1.0), interpolation=BILINEAR, fill=[0.0], **given) > 0.999
        )
        difference = (found[index : index + 1] - expected).abs() * inside
        assert float(difference.max()) < 0.05, (name, magnitude)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("brightness", lambda image, m: reference.adjust_brightness(image, 1 + 0.99 * m)),
        ("saturation", lambda image, m: reference.adjust_saturation(image, 1 + 0.99 * m)),
        ("contrast", lambda image, m: reference.adjust_contrast(image, 1 + 0.99 * m)),
        ("sharpness", lambda image, m: reference.adjust_sharpness(image, 1 + 0.99 * m)),
        ("posterize", lambda image, m: reference.posterize((image * 255).round().byte(), 8 - round(6 * abs(m))) / 255),
        ("solarize", lambda image, m: reference.solarize(image, 1 - abs(m))),
        ("autocontrast", lambda image, m: reference.autocontrast(image)),
        ("identity", lambda image, m: image),
        ("rotate", lambda image, m: image),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_torchvisions(
    images: Tensor, name: str, expected: Callable[[Tensor, float], Tensor], channels: int
) -> None:
    """One image in two has the operation, as a CPU computes it; on a GPU all are computed, by the same function."""
    magnitudes = torch.tensor([0.0, -0.4, 0.0, 0.9, 0.5, -1])
    images = 40 + images[:, :channels] * 0.6
    images = images.round()
    chosen = torch.full((6,), OPERATIONS.index(name))
    chosen[::2] = 0
    found = recolour(images, chosen, magnitudes)
    wanted = [255 * expected(image / 255, m) for image, m in zip(images, magnitudes.tolist(), strict=True)]
    torch.testing.assert_close(found[1::2], torch.stack(wanted)[1::2], atol=0.05, rtol=0)
    assert torch.equal(found[::2], images[::2])


def test_erasing_is_torchvisions(images: Tensor) -> None:
    boxes = torch.tensor([[0, 0, 5, 7], [3, 4, 1, 1], [0, 0, 0, 0], [10, 2, 14, 22], [23, 23, 1, 1], [1, 1, 23, 23]])
    expected = [
        reference.erase(image, *box, torch.zeros(3, box[2], box[3]))
        for image, box in zip(images, boxes.tolist(), strict=True)
    ]
    assert torch.equal(erase(images, boxes), torch.stack(expected))


def test_draws_lie_in_their_ranges_and_grow_with_the_strength(generator: torch.Generator) -> None:
    for strength in (0.3, 1.0):
        maps = draw_maps(None, (50, 40), strength, generator)
        area = maps[..., 0, 0] * maps[..., 1, 1]
        ends = maps[..., 2].abs() + torch.stack([maps[..., 0, 0], maps[..., 1, 1]], -1)
        assert float(ends.max()) <= 1 + 1e-5  # within the image
        lowest = 1 - 0.75 * strength
        assert lowest * 0.85 < float(area.min()) < lowest + 0.1 and float(area.max()) <= 1
        chosen, magnitudes = draw_operations((50, 40), strength, generator)
        assert len(chosen.unique()) == len(OPERATIONS)
        assert strength * 0.95 < float(magnitudes.abs().max()) <= strength
    flips = torch.tensor([[True, False]])
    assert [x < 0 for x in draw_maps(flips, (1, 2), 1.0, generator)[0, :, 0, 0].tolist()] == [True, False]


def test_an_epoch_of_photographs_draws_everything_once() -> None:
    def drawn(seed: int) -> list[Tensor]:
        draws = draw_epoch(
            Augmentation(pad=3, flip="random", photo=1.0),
            count=64,
            steps=2,
            batch=32,
            resolution=96,
            epoch=0,
            first_flips=torch.zeros(64, dtype=torch.bool),
            generator=torch.Generator().manual_seed(seed),
        )
        assert draws.offsets is draws.flips is None  # they are in the maps
        return [draw for draw in draws._fields() if draw is not None]

    one, again, other = drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    boxes = one[-1].view(-1, 4)
    erased = boxes[boxes[:, 2] > 0]
    assert 5 <= len(erased) <= 30  # a quarter of 64
    assert int((erased[:, :2] + erased[:, 2:]).max()) <= 96


def test_photographs_are_augmented_as_such_by_default() -> None:
    """From 96 pixels on, but for small networks; the papers' protocols stay, and so does what is asked for."""
    plain = RECIPES["train"]
    assert [plain.augmentation(resolution=side, flip_safe=True).photo > 0 for side in (32, 95, 96, 224)] == [0, 0, 1, 1]
    sizes = [plain.augmentation(resolution=96, flip_safe=True, params=params).photo for params in (99_999, 100_000)]
    assert sizes == [0, pytest.approx(0.2, abs=1e-3)]
    assert RECIPES["han"].augmentation(resolution=224, flip_safe=True).photo == 0
    assert plain.with_options(augment="small").augmentation(resolution=224, flip_safe=True).photo == 0
    assert plain.with_options(augment="photo").augmentation(resolution=32, flip_safe=True).photo > 0
    with pytest.raises(UserError, match="augment 'heavy': allowed are small, photo"):
        plain.with_options(augment="heavy")


def test_a_photo_preset_trains(digits: Dataset) -> None:
    recipe = Recipe(lr=0.05, epochs=6, batch_size=64, warmup_epochs=1, augment="photo", flip="none")
    assert [*Trainer(small_network(), digits, recipe).epochs()][-1].validation_accuracy > 0.6


@pytest.mark.parametrize(
    ("params", "strength"), [(1_000, 0.2), (100_000, 0.2), (1_000_000, 0.5), (10_000_000, 0.8), (10**9, 1), (None, 1)]
)
def test_small_networks_are_augmented_less(params: int | None, strength: float) -> None:
    drawn = Recipe(augment="photo").augmentation(resolution=96, flip_safe=True, params=params)
    assert drawn.photo == pytest.approx(strength, abs=1e-3)

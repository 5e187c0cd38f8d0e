"""Each transformation against torchvision's (or the paper's formula) on the same draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as reference

from nas.training.augment import (
    Augmentation,
    Draws,
    Normaliser,
    PadMode,
    cutout,
    draw_epoch,
    flip,
    mixup,
    pad_crop,
    prepare,
)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.randint(0, 256, (20, 3, 11, 11), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("mode", "name"), [("zero", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize("pad", [1, 4])
def test_pad_crop_equals_torchvision(
    images: Tensor, generator: torch.Generator, mode: PadMode, name: str, pad: int
) -> None:
    offsets = torch.randint(0, 2 * pad + 1, (20, 2), generator=generator)
    expected = torch.stack(
        [
            reference.crop(reference.pad(image, [pad], padding_mode=name), top, left, 11, 11)
            for image, (top, left) in zip(images, offsets.tolist(), strict=True)
        ]
    )
    assert torch.equal(pad_crop(images, offsets, pad, mode), expected)
    as_float = images.float().to(memory_format=torch.channels_last)
    assert torch.equal(pad_crop(as_float, offsets, pad, mode), expected.float())


def test_flip_equals_torchvision(images: Tensor, generator: torch.Generator) -> None:
    flips = torch.rand(20, generator=generator) < 0.5
    expected = torch.stack(
        [reference.hflip(image) if mirrored else image for image, mirrored in zip(images, flips.tolist(), strict=True)]
    )
    assert torch.equal(flip(images, flips), expected)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_cutout_equals_torchvisions_erase(images: Tensor, generator: torch.Generator, size: int) -> None:
    centres = torch.randint(0, 11, (20, 2), generator=generator)
    expected = []
    for image, (row, column) in zip(images.float(), centres.tolist(), strict=True):
        top, left = max(0, row - size // 2), max(0, column - size // 2)
        bottom, right = min(11, row - size // 2 + size), min(11, column - size // 2 + size)
        zeros = torch.zeros(3, bottom - top, right - left)
        expected.append(reference.erase(image, top, left, bottom - top, right - left, zeros))
    assert torch.equal(cutout(images.float(), centres, size), torch.stack(expected))


def test_mixup_pairs_with_the_reversed_batch(images: Tensor) -> None:
    batch = images.float()
    assert torch.allclose(mixup(batch, torch.tensor(0.3)), 0.3 * batch + 0.7 * batch.flip(0), atol=1e-4)


def test_normaliser_equals_torchvision(images: Tensor) -> None:
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    normalised = Normaliser(mean, std, torch.device("cpu"))(images)
    expected = reference.normalize(reference.convert_image_dtype(images, torch.float32), list(mean), list(std))
    assert torch.allclose(normalised, expected, atol=1e-5)
    assert normalised.is_contiguous(memory_format=torch.channels_last)


def test_prepare_is_torchvisions_usual_chain(images: Tensor, generator: torch.Generator) -> None:
    augmentation = Augmentation(pad=2, flip="random")
    draws = Draws(
        order=torch.arange(20),
        offsets=torch.randint(0, 5, (20, 2), generator=generator),
        flips=torch.rand(20, generator=generator) < 0.5,
    )
    assert draws.offsets is not None and draws.flips is not None
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.2, 0.3]
    batch = prepare(images, augmentation, draws, Normaliser(tuple(mean), tuple(std), torch.device("cpu")))
    for index, image in enumerate(images):
        top, left = draws.offsets[index].tolist()
        one = reference.crop(reference.pad(image, [2]), top, left, 11, 11)
        one = reference.hflip(one) if draws.flips[index] else one
        one = reference.normalize(reference.convert_image_dtype(one, torch.float32), mean, std)
        assert torch.allclose(batch[index], one, atol=1e-5)


def epoch_draws(augmentation: Augmentation, epoch: int = 0, seed: int = 0, steps: int = 5) -> Draws:
    return draw_epoch(
        augmentation,
        count=103,
        steps=steps,
        batch=20,
        resolution=8,
        epoch=epoch,
        first_flips=torch.rand(103, generator=torch.Generator().manual_seed(9)) < 0.5,
        generator=torch.Generator().manual_seed(seed),
    )


def test_steps_that_need_more_than_all_images_see_them_equally_often() -> None:
    seen = torch.bincount(epoch_draws(Augmentation(), steps=12).order.flatten(), minlength=103)
    assert seen.min() == 2 and seen.max() == 3


def test_an_epoch_uses_every_image_at_most_once() -> None:
    order = epoch_draws(Augmentation()).order
    assert order.shape == (5, 20)
    assert len(order.unique()) == 100


def test_alternating_flip_shows_each_image_both_ways_in_two_epochs() -> None:
    mirrored = {}
    for epoch in (0, 1):
        draws = epoch_draws(Augmentation(flip="alternating"), epoch, seed=epoch)
        assert draws.flips is not None
        mirrored[epoch] = dict(zip(draws.order.flatten().tolist(), draws.flips.flatten().tolist(), strict=True))
    shared = mirrored[0].keys() & mirrored[1].keys()
    assert len(shared) > 90
    assert all(mirrored[0][image] != mirrored[1][image] for image in shared)
    assert 30 < sum(mirrored[0].values()) < 70


def test_draws_cover_their_ranges_and_repeat_with_the_seed() -> None:
    everything = Augmentation(pad=2, flip="random", cutout=3, mixup=0.2)
    one, two = epoch_draws(everything), epoch_draws(everything)
    assert one.offsets is not None and one.centres is not None and one.shares is not None and one.flips is not None
    assert (int(one.offsets.min()), int(one.offsets.max())) == (0, 4)
    assert (int(one.centres.min()), int(one.centres.max())) == (0, 7)
    assert bool(((one.shares >= 0) & (one.shares <= 1)).all())
    assert two.offsets is not None and torch.equal(one.offsets, two.offsets)
    nothing = epoch_draws(Augmentation())
    assert nothing.offsets is nothing.flips is nothing.centres is nothing.shares is None

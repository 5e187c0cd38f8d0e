from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional as reference

from nas.errors import UserError
from nas.preprocessing import convert
from nas.training.data import Dataset, Images, load_dataset, resplit
from nas.training.images import channel_statistics
from nas.training.origin import Origin
from nas.training.split import stratified_order


def contents(part: Images) -> set[bytes]:
    return {image.numpy().tobytes() for image in part.images}


def class_counts(part: Images, classes: int) -> list[int]:
    return torch.bincount(part.labels, minlength=classes).tolist()


def test_digits_are_whole_and_typed(digits: Dataset) -> None:
    assert len(digits.train) + len(digits.validation) + len(digits.test) == 1797
    for part in (digits.train, digits.validation, digits.test):
        assert part.images.dtype == torch.uint8
        assert part.images.shape[1:] == (1, 8, 8)
        assert part.labels.dtype == torch.int64
    assert digits.classes == tuple("0123456789")
    assert int(digits.train.images.max()) == 255
    assert not digits.flip_safe


def test_parts_share_no_image(digits: Dataset) -> None:
    train, validation, test = (contents(part) for part in (digits.train, digits.validation, digits.test))
    assert len(train) + len(validation) + len(test) == 1797, "the digits hold no image twice"
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_test_part_is_the_same_for_every_seed_and_the_split_is_not(digits: Dataset) -> None:
    again, other = load_dataset("digits", seed=0), load_dataset("digits", seed=1)
    assert torch.equal(digits.train.images, again.train.images)
    assert torch.equal(digits.test.images, other.test.images)
    assert torch.equal(digits.test.labels, other.test.labels)
    assert contents(digits.train) != contents(other.train)


def test_a_data_set_that_is_split_again_is_the_one_loaded_with_that_seed(digits: Dataset) -> None:
    loaded, again = load_dataset("digits", seed=3), resplit(resplit(digits, 8), 3)
    for part in ("train", "validation", "test"):
        assert torch.equal(again.part(part).images, loaded.part(part).images)
        assert torch.equal(again.part(part).labels, loaded.part(part).labels)
    assert (again.mean, again.std, again.split) == (loaded.mean, loaded.std, loaded.split)


def test_a_larger_data_sets_validation_part_is_not_split_again() -> None:
    with pytest.raises(UserError, match=r"--resplit: not with --train-size"):
        resplit(load_dataset("digits", train_size=100), 1)


def test_every_part_is_stratified(digits: Dataset) -> None:
    whole = np.array([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    for part in (digits.train, digits.validation, digits.test):
        share = np.array(class_counts(part, 10)) / len(part)
        assert np.abs(share - whole / 1797).max() < 0.01


def test_train_sizes_are_stratified_and_nested() -> None:
    small, large = load_dataset("digits", train_size=100), load_dataset("digits", train_size=500)
    assert (len(small.train), len(large.train)) == (100, 500)
    assert class_counts(small.train, 10) == pytest.approx([10] * 10, abs=1)
    assert contents(small.train) < contents(large.train)
    assert not contents(large.train) & contents(small.validation)


@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_every_prefix_of_the_order_is_stratified(counts: list[int], seed: int) -> None:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    order = stratified_order(labels, seed=seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    running = torch.nn.functional.one_hot(labels[order], len(counts)).cumsum(0)
    expected = torch.arange(1, len(labels) + 1).unsqueeze(1) * torch.tensor(counts) / len(labels)
    # half an image of rounding, and the class's share of the others' rounding
    bound = 0.5 + torch.tensor(counts) / len(labels) * len(counts) / 2
    assert bool(((running - expected).abs() <= bound + 1e-6).all())


def test_statistics_equal_the_plain_formula(digits: Dataset) -> None:
    images = torch.randint(0, 256, (50, 3, 7, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = channel_statistics(images)
    values = images.double() / 255
    assert mean == pytest.approx(values.mean((0, 2, 3)).tolist())
    assert std == pytest.approx(values.std((0, 2, 3), correction=0).tolist())
    assert (digits.mean, digits.std) == channel_statistics(digits.train.images)


def test_a_constant_channel_has_a_usable_deviation() -> None:
    assert channel_statistics(torch.full((2, 1, 3, 3), 7, dtype=torch.uint8))[1] == (1 / 255,)


def test_channels_and_size_convert_as_pillow_does() -> None:
    generator = np.random.default_rng(0)
    # smooth pictures: what interpolation is meant for
    pictures = [
        Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((32, 32)) for _ in range(5)
    ]
    images = torch.stack([reference.pil_to_tensor(picture) for picture in pictures])
    grey = torch.stack([reference.pil_to_tensor(picture.convert("L")) for picture in pictures])
    assert torch.equal(convert(images, 1, 32), grey)
    for size in (8, 20, 48):
        resized = torch.stack(
            [reference.pil_to_tensor(picture.resize((size, size), Image.Resampling.BILINEAR)) for picture in pictures]
        )
        assert torch.equal(convert(images, 3, size), resized)


def test_for_network_repeats_grey_and_takes_statistics_again(digits: Dataset) -> None:
    wide = digits.for_network(3, 16)
    assert (wide.channels, wide.resolution, wide.train.images.shape[1:]) == (3, 16, (3, 16, 16))
    assert torch.equal(wide.test.images[:, 0], wide.test.images[:, 2])
    assert len(wide.mean) == 3
    assert wide.mean == channel_statistics(wide.train.images)[0]
    same = digits.for_network(1, 8)
    assert torch.equal(same.train.images, digits.train.images)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mnits", {}, "unknown data set 'mnits': allowed are digits, cifar10"),
        (".", {}, "; for the folder of that name give imagefolder:"),
        ("digits", {"train_size": 5}, "allows 10"),
        ("digits", {"train_size": 50_000}, "to 1222"),
        ("digits", {"validation_fraction": 1.0}, "between 0 and 1"),
        ("digits", {"resolution": 0}, "at least 1"),
        ("imagefolder:", {}, "give the folder"),
    ],
)
def test_mistakes_end_in_one_line(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(name, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_two_channels_cannot_be_made(digits: Dataset) -> None:
    with pytest.raises(UserError, match="only 1 and 3"):
        digits.for_network(2, 8)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "stl10", "fashion_mnist"])
def test_without_network_the_manual_way_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(UserError, match="could not be downloaded") as caught:
        load_dataset(name, data_dir=tmp_path / "data")
    assert str(tmp_path / "data") in str(caught.value)
    assert "http" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert socket.getdefaulttimeout() is None


def test_a_data_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not be downloaded"):
        load_dataset("cifar10", data_dir=tmp_path / "file" / "data")


def test_cifar10_is_read_from_its_own_archive(cifar10_folder: Path) -> None:
    dataset = load_dataset("cifar10", data_dir=cifar10_folder, train_size=5000)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (5000, 2000, 10_000)
    assert class_counts(dataset.train, 10) == [500] * 10
    assert class_counts(dataset.test, 10) == [1000] * 10
    assert dataset.classes[0] == "airplane"
    assert dataset.flip_safe
    # the well-known statistics of CIFAR-10
    assert dataset.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.005)
    assert not contents(dataset.train) & contents(dataset.test)


@pytest.mark.parametrize(("asked", "said"), [({"strict": True}, "--strict"), ({"fit": "pad"}, "--fit pad")])
def test_options_of_a_folder_are_refused_for_other_data_sets(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"^digits: .*; {said} is for imagefolder:PATH$"):
        load_dataset("digits", **asked)


def test_another_data_set_is_not_read_as_the_folder_of_the_search_was() -> None:
    searched = Origin(dataset="imagefolder:/photos", reading={"seed": 3, "fit": "pad", "resolution": 96})
    assert len(load_dataset("digits", **searched.reading_as("digits", None)).classes) == 10

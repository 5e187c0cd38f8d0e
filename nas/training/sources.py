"""Sources of the named data sets: scikit-learn's bundled digits, and torchvision's downloadable sets."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.errors import UserError, first_line
from nas.files import home_folder
from nas.training.images import Images
from nas.training.listing import Facts
from nas.training.split import fixed_test_part

_CONNECT_SECONDS = 30.0


@dataclass(frozen=True, eq=False)
class Source:
    """A data set before its split; the test part is already apart.

    `validation` is set where the data bring a validation part of their own, `facts` where they are a folder of images.
    """

    name: str
    classes: tuple[str, ...]
    pool: Images
    test: Images
    flip_safe: bool
    validation: Images | None = None
    facts: Facts | None = None


def read_digits() -> Source:
    """The 1,797 handwritten digits that scikit-learn brings along: 8x8, one channel, values 0..16 scaled to 0..255.

    They have no official test part (scikit-learn bundles only the test half of the UCI set): a fixed, stratified fifth
    is it. Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
    1998.
    """
    from sklearn.datasets import load_digits  # a second of import that a worker on other data does not need

    bunch = load_digits()
    images = torch.from_numpy(np.asarray(bunch.images)).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(np.asarray(bunch.target)).long()
    everything = Images(images, labels)
    rest, test = fixed_test_part(labels)
    return Source(
        name="digits",
        classes=tuple(str(digit) for digit in range(10)),
        pool=everything.take(rest),
        test=everything.take(test),
        flip_safe=False,
    )


@dataclass(frozen=True)
class _Downloaded:
    """One of torchvision's data sets, and instructions for a user without network."""

    name: str  # torchvision's
    manual: str  # what to fetch and where to put it below the data directory
    flip_safe: bool
    by_split: bool = False  # its parts are asked for by name

    def open(self, root: Path, part: str, *, download: bool) -> Any:
        from torchvision import datasets

        chosen: dict[str, Any] = {"split": part} if self.by_split else {"train": part == "train"}
        return getattr(datasets, self.name)(str(root), **chosen, download=download)


_DOWNLOADED = MappingProxyType(
    {
        "cifar10": _Downloaded(
            "CIFAR10",
            "unpack https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz to {root}/cifar-10-batches-py",
            flip_safe=True,
        ),
        "cifar100": _Downloaded(
            "CIFAR100",
            "unpack https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz to {root}/cifar-100-python",
            flip_safe=True,
        ),
        "svhn": _Downloaded(
            "SVHN",
            "put train_32x32.mat and test_32x32.mat of http://ufldl.stanford.edu/housenumbers into {root}",
            flip_safe=False,
            by_split=True,
        ),
        "stl10": _Downloaded(
            "STL10",
            "unpack http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz to {root}/stl10_binary",
            flip_safe=True,
            by_split=True,
        ),
        "fashion_mnist": _Downloaded(
            "FashionMNIST",
            "put the four *-ubyte.gz files of https://github.com/zalandoresearch/fashion-mnist "
            "into {root}/FashionMNIST/raw and gunzip them there",
            flip_safe=True,
        ),
    }
)
DOWNLOADED: tuple[str, ...] = tuple(_DOWNLOADED)


def default_data_dir() -> Path:
    """`$NAS_DATA_DIR`, or `~/.cache/nas/data`."""
    given = os.environ.get("NAS_DATA_DIR")
    return Path(given).expanduser() if given else (home_folder() or Path(tempfile.gettempdir())) / ".cache/nas/data"


def read_downloaded(name: str, data_dir: str | Path | None = None) -> Source:
    """Reads one of `DOWNLOADED` from `data_dir`; downloads it there when it is missing.

    Raises `UserError` telling the manual way when it can be neither found nor fetched.
    """
    root = default_data_dir() if data_dir is None else Path(data_dir).expanduser()
    spec = _DOWNLOADED[name]
    train, test = _open(name, spec, root, "train"), _open(name, spec, root, "test")
    pool = _images(train)
    return Source(
        name=name,
        classes=_class_names(train, pool.labels),
        pool=pool,
        test=_images(test),
        flip_safe=spec.flip_safe,
    )


def _open(name: str, spec: _Downloaded, root: Path, part: str) -> Any:
    try:
        return spec.open(root, part, download=False)
    except Exception:  # torchvision answers a missing or damaged set with whatever its reader raises
        pass
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _patience(_CONNECT_SECONDS):
            return spec.open(root, part, download=True)
    except Exception as error:
        for folder in missing:
            with suppress(OSError):  # not empty: part of a download
                folder.rmdir()
        reason = first_line(error)
        raise UserError(
            f"data set {name!r} is not (or not whole) in {root} and could not be downloaded ({reason}): "
            f"{spec.manual.format(root=root)}, or name its folder with --data-dir"
        ) from error


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """torchvision's downloader sets no timeout; without one, a network that swallows packets holds the program for
    minutes.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _images(dataset: Any) -> Images:
    """torchvision keeps images as (N, H, W, 3) arrays (CIFAR), (N, 3, H, W) arrays (SVHN, STL10) or (N, H, W) tensors
    (MNIST).
    """
    images = torch.as_tensor(np.ascontiguousarray(dataset.data))
    if images.ndim == 3:
        images = images.unsqueeze(1)
    elif images.shape[-1] == 3:
        images = images.permute(0, 3, 1, 2)
    labels = dataset.targets if hasattr(dataset, "targets") else dataset.labels
    return Images(images.contiguous(), torch.as_tensor(np.asarray(labels)).long())


def _class_names(dataset: Any, labels: Tensor) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None)
    return tuple(names) if names else tuple(str(label) for label in range(int(labels.max()) + 1))

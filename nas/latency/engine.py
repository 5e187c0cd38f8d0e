"""The interface of an engine (:mod:`nas.latency.engines` lists them), and the networks that it runs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nas.architecture.document import Architecture
from nas.network.build import Network, build
from nas.network.fold import fold

Layout = Literal["contiguous", "channels_last"]
Run = Callable[[Any], Any]
"""Runs a module once on an input in the engine's own form; returns the output in that form."""


class Engine(ABC):
    """A way to run folded networks."""

    layouts: Sequence[Layout] = ("contiguous",)
    """Memory layouts that a network is tried in; the fastest one is its own."""
    splits: bool = False
    """A network's segments can be made runs of their own besides, each at little cost (:meth:`load_segments`)."""

    def check(self, device: str) -> None:  # noqa: B027  (most need nothing more)
        """Raise UserError where this machine cannot run networks so."""

    def check_network(self, architecture: Architecture) -> None:  # noqa: B027  (most run all)
        """Raise UserError where the engine does not know the network's operators."""

    def prepare(self) -> None:  # noqa: B027  (most load in no time)
        """Import what takes seconds, once, in the process whose forks load networks; start no thread."""

    def versions(self) -> list[str]:
        """Names and versions of the libraries beside torch."""
        return []

    @abstractmethod
    def load(self, network: nn.Module, images: Tensor, threads: int) -> tuple[Sequence[Run], Any]:
        """Make a network ready to run.

        Args:
            network: folded, in eval mode, on the images' device, in the layout to run in.
            images: (N, C, R, R), in that layout too.
            threads: of a run on the CPU.

        Returns:
            The steps of a run, each of which takes what the one before it returns, and what the first one takes: all of
            the network, or its segments, which are then timed one by one.
        """

    def load_segments(self, network: nn.Module, images: Tensor, threads: int) -> tuple[Sequence[Run], Any]:
        """Make a network's segments ready to run one after the other, each a model of its own; see :meth:`load`."""
        raise NotImplementedError


def shipped(architecture: Architecture, num_classes: int, device: str = "cpu") -> nn.Module:
    """The network folded, with fresh weights of a fixed seed (its latency does not depend on them), on the device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(architecture, num_classes)
    return fold(network).to(device)


def example(architecture: Architecture, batch: int = 1, device: str = "cpu") -> Tensor:
    """A batch of noise, (N, C, R, R)."""
    image = architecture.input
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(batch, image.channels, image.resolution, image.resolution, generator=generator)
    return noise.to(device)


def split(network: nn.Module) -> list[nn.Module]:
    """A folded network's segments as modules, in the order of :func:`nas.latency.layers.segments`."""
    assert isinstance(network, Network) and isinstance(network.blocks, nn.Sequential)
    if network.convolutional:
        tail = nn.Sequential(network.head, network.classifier, network.pool, nn.Flatten())
    else:
        tail = nn.Sequential(network.head, network.pool, nn.Flatten(), network.classifier)
    return [network.stem, *network.blocks, tail]

"""A network as it ships, in one piece and as its chain of segments."""

import torch
from torch import Tensor, nn

from nas.architecture.document import Architecture
from nas.network.build import Network, build
from nas.network.fold import fold


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

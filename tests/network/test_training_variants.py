"""The kernel variants in which a network trains: it learns what torch's own convolutions do."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import Tensor, nn

import nas
from nas.blocks.layers import DepthwiseConv2d, use_training_variants


@pytest.mark.parametrize(
    ("conv", "replaced"),
    [
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), True),
        (nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8, bias=False), True),
        (nn.Conv2d(8, 8, 3, padding=1), False),
        (nn.Conv2d(8, 16, 3, padding=1, groups=8), False),
        (nn.Conv2d(8, 8, 3, padding=1, groups=4), False),
        (nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=8), False),
        (nn.Conv2d(8, 8, 3, padding="same", groups=8), False),
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8), False),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8, padding_mode="reflect"), False),
        (nn.Conv2d(8, 8, 1, groups=8), False),
        (nn.Conv2d(1, 1, 3, padding=1), False),
    ],
)
def test_depthwise_convolutions_are_replaced_in_place(conv: nn.Conv2d, replaced: bool) -> None:
    network = nn.Sequential(conv, nn.ReLU())
    parameters = dict(network.named_parameters())
    plain = copy.deepcopy(network)
    use_training_variants(network)
    assert isinstance(network[0], DepthwiseConv2d) is replaced
    assert all(parameter is parameters[name] for name, parameter in network.named_parameters())
    x = torch.randn(3, conv.in_channels, 9, 9)
    torch.testing.assert_close(network(x), plain(x))
    torch.testing.assert_close(network.eval()(x), plain.eval()(x))


def step(network: nn.Module, x: Tensor) -> list[Tensor]:
    out = network.train()(x)
    out.square().sum().backward()
    return [out, *(parameter.grad for parameter in network.parameters() if parameter.grad is not None)]


@pytest.mark.parametrize("resolution", [8, 32])
@pytest.mark.parametrize("seed", range(3))
def test_a_network_learns_the_same_in_its_training_variants(resolution: int, seed: int) -> None:
    space = nas.load_space("inverted_residual").with_input(channels=3, resolution=resolution)
    torch.manual_seed(seed)
    network = nas.build(space.sample(seed), 10).double()
    x = torch.randn(4, 3, resolution, resolution, dtype=torch.double)
    expected = step(copy.deepcopy(network), x)
    use_training_variants(network)
    torch.testing.assert_close(step(network, x), expected)


def test_another_librarys_network_learns_the_same() -> None:
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.25, dropout=0.0).double()
    x = torch.randn(4, 3, 32, 32, dtype=torch.double)
    expected = step(copy.deepcopy(network), x)
    use_training_variants(network)
    assert sum(isinstance(module, DepthwiseConv2d) for module in network.modules()) == 17
    torch.testing.assert_close(step(network, x), expected)

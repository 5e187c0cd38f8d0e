"""Folding changes nothing that a network computes."""

import pytest
import torch
from torch import nn

from nas.architecture.catalogue import load, load_space, network_names, space_names
from nas.blocks.layers import CondConv2d, Pyramid, norm_act
from nas.network.build import build
from nas.network.fold import fold


def trained(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with norms as training leaves them, not as they start."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low, high in (
                (layer.running_mean, -0.3, 0.3),
                (layer.running_var, 0.5, 2.0),
                (layer.weight.data, 0.5, 2.0),
                (layer.bias.data, -0.5, 0.5),
            ):
                tensor.uniform_(low, high, generator=generator)
    return module


def assert_same(module: nn.Module, images: torch.Tensor) -> nn.Module:
    folded = fold(module)
    module.eval()
    with torch.inference_mode():
        expected, found = module(images), folded(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    return folded


@pytest.mark.parametrize("name", ["han-e", "kuo-se-condconv", "pydmobilenet-add-29-0.5", "shufflenet-2", "squeezenet"])
def test_published_network_computes_the_same(name: str) -> None:
    architecture = load(name)
    if architecture.input.resolution > 32:
        architecture = architecture.with_input(resolution=32)
    image = architecture.input
    folded = assert_same(
        trained(build(architecture, 10)), torch.randn(2, image.channels, image.resolution, image.resolution)
    )
    assert not any(isinstance(layer, nn.BatchNorm2d | nn.Dropout) for layer in folded.modules())


@pytest.mark.slow
@pytest.mark.parametrize("name", network_names())
def test_every_published_network_computes_the_same(name: str) -> None:
    architecture = load(name)
    if architecture.input.resolution > 96:
        architecture = architecture.with_input(resolution=96)
    image = architecture.input
    assert_same(trained(build(architecture, 10)), torch.randn(2, image.channels, image.resolution, image.resolution))


@pytest.mark.parametrize("name", space_names())
@pytest.mark.parametrize("seed", range(2))
def test_drawn_network_computes_the_same(name: str, seed: int) -> None:
    architecture = load_space(name).sample(seed)
    image = architecture.input
    assert_same(
        trained(build(architecture, 10), seed), torch.randn(2, image.channels, image.resolution, image.resolution)
    )


@pytest.mark.parametrize("bias", [False, True])
def test_added_pyramid_becomes_one_convolution(bias: bool) -> None:
    layer = norm_act(Pyramid(8, (3, 5, 7), "add", stride=2, bias=bias), 8, "relu")
    for branch in layer[0].branches:
        if bias:
            nn.init.normal_(branch.bias)
    folded = assert_same(trained(layer), torch.randn(2, 8, 9, 9))
    convolutions = [child for child in folded.modules() if isinstance(child, nn.Conv2d)]
    assert [conv.kernel_size for conv in convolutions] == [(7, 7)]


def test_other_pyramids_keep_their_branches() -> None:
    for pyramid in (
        Pyramid(8, (3, 5), "concat", stride=1),
        Pyramid(8, (3, 5), "add", stride=1, experts=2),
        Pyramid(8, (3, 5), "concat", stride=1, experts=2),
    ):
        folded = assert_same(trained(norm_act(pyramid, pyramid.out_channels, "relu")), torch.randn(2, 8, 7, 7))
        assert any(isinstance(layer, Pyramid) for layer in folded.modules())


def test_norm_before_a_pointwise_convolution_is_folded_and_before_a_padded_one_is_not() -> None:
    assert not any(
        isinstance(layer, nn.BatchNorm2d)
        for layer in assert_same(
            trained(nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1))), torch.randn(2, 4, 5, 5)
        ).modules()
    )
    padded = assert_same(
        trained(nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1))), torch.randn(2, 4, 5, 5)
    )
    assert isinstance(padded[0], nn.BatchNorm2d)


def test_the_original_is_left_alone() -> None:
    network = trained(build(load("han-e"), 10)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold(network)
    assert network.training and not folded.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_conditional_convolution_with_bias_and_norm() -> None:
    conv = CondConv2d(4, 6, 3, bias=True, experts=3)
    nn.init.normal_(conv.bias)
    assert_same(trained(nn.Sequential(conv, nn.BatchNorm2d(6))), torch.randn(3, 4, 7, 7))

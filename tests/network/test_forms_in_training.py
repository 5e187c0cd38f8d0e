"""The form in which a network trains: named by a rule, and learning what torch's own does."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torchvision
from torch import Tensor, nn

import nas
from nas.blocks.forms import Case, fast_on_cpu, forms_of
from nas.blocks.layers import DepthwiseConv2d, train_in_forms

OPERATIONS = ("depthwise", "depthwise per image", "pointwise per image")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_the_rule_names_a_form_of_every_case(operation: str, dtype: str) -> None:
    for side, kernel, stride, experts in itertools.product((1, 2, 4, 8, 16, 32), (2, 3, 5, 7), (1, 2), (1, 4, 8)):
        case = Case(operation, dtype, side, kernel, stride, experts)  # type: ignore[arg-type]
        assert fast_on_cpu(case) in forms_of(case)


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
    train_in_forms(network, lambda case: "split")
    assert isinstance(network[0], DepthwiseConv2d) is replaced
    assert all(parameter is parameters[name] for name, parameter in network.named_parameters())
    x = torch.randn(3, conv.in_channels, 9, 9)
    torch.testing.assert_close(network(x), plain(x))
    torch.testing.assert_close(network.eval()(x), plain.eval()(x))


def step(network: nn.Module, x: Tensor) -> list[Tensor]:
    out = network.train()(x)
    out.square().sum().backward()
    return [out, *(parameter.grad for parameter in network.parameters() if parameter.grad is not None)]


@pytest.mark.parametrize("form", ["usual", "other", "fast"])
@pytest.mark.parametrize("seed", range(3))
def test_a_network_learns_the_same_in_every_form(form: str, seed: int) -> None:
    space = nas.load_space("inverted_residual").with_input(channels=3, resolution=8)
    torch.manual_seed(seed)
    network = nas.build(space.sample(seed), 10).double()
    x = torch.randn(4, 3, 8, 8, dtype=torch.double)
    expected = step(copy.deepcopy(network), x)
    position = 0 if form == "usual" else -1
    train_in_forms(network, fast_on_cpu if form == "fast" else lambda case: forms_of(case)[position])
    torch.testing.assert_close(step(network, x), expected)


def test_another_librarys_network_learns_the_same() -> None:
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.25, dropout=0.0).double()
    x = torch.randn(4, 3, 32, 32, dtype=torch.double)
    expected = step(copy.deepcopy(network), x)
    train_in_forms(network, lambda case: "split")
    assert sum(isinstance(module, DepthwiseConv2d) for module in network.modules()) == 17
    torch.testing.assert_close(step(network, x), expected)

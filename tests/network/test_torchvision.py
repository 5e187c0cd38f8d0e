"""The same weights give the same outputs as torchvision's networks: semantics that no counting can see."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

import nas


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("mobilenetv2", lambda: torchvision.models.mobilenet_v2()),
        ("mobilenetv2-1.4", lambda: torchvision.models.mobilenet_v2(width_mult=1.4)),
        ("squeezenet", lambda: torchvision.models.squeezenet1_0()),
    ],
)
def test_same_weights_same_output(name: str, theirs: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    reference, network = theirs().eval(), nas.build(nas.load(name), 1000).eval()
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):  # away from their neutral start, so that they matter
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    tensors = reference.state_dict()
    assert len(tensors) == len(network.state_dict())
    network.load_state_dict(dict(zip(network.state_dict(), tensors.values(), strict=True)))
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = reference(x)
        torch.testing.assert_close(network(x), expected, atol=1e-5 * expected.abs().max().item(), rtol=0)

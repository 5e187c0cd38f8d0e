"""The layers that torch does not have, as they are usually written, with the weights of ours."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.blocks.layers import CondConv2d, Pyramid


class UsualCondConv2d(CondConv2d):
    """A kernel per image as one convolution, the batch folded into its groups; so do timm and the authors' code."""

    def forward(self, x: Tensor) -> Tensor:
        routing = self.route(x.mean((2, 3)))
        n, channels, height, width = x.shape
        out = F.conv2d(
            x.reshape(1, n * channels, height, width),
            self.kernels(routing).flatten(0, 1),
            stride=self.stride,
            padding=self.padding,
            groups=n * self.groups,
        )
        out = out.view(n, self.out_channels, *out.shape[2:])
        return out if self.bias is None else out + (routing @ self.bias)[:, :, None, None]


class UsualPyramid(Pyramid):
    """A convolution per kernel size."""

    def forward(self, x: Tensor) -> Tensor:
        outputs = [branch(x) for branch in self.branches]
        return torch.cat(outputs, dim=1) if self.combine == "concat" else sum(outputs[1:], outputs[0])


def usual(network: nn.Module) -> nn.Module:
    """The network, its layers in their usual form from now on."""
    for module in network.modules():
        if type(module) is CondConv2d:
            module.__class__ = UsualCondConv2d
        elif type(module) is Pyramid and len(module.branches) > 1:
            module.__class__ = UsualPyramid
    return network

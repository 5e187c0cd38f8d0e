"""A trained network -> the network as it is shipped: the same function with fewer layers.

Folded away, exactly up to rounding: BatchNorm into the convolution before it (or into the 1x1 convolution after it), a
pyramid of plain convolutions that are added into one convolution of the largest kernel, dropout and nested containers.
What has no such form stays as it is: conditional convolutions keep their routing and take the norm into their experts,
a concatenated pyramid keeps its branches.
"""

import copy

import torch
from torch import Tensor, nn

from nas.blocks.kernel_variants import add_kernels
from nas.blocks.layers import CondConv2d, Pyramid


class Shifted(nn.Module):
    """A layer without bias, and a bias per channel: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, layer: nn.Module, bias: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.bias = nn.Parameter(bias.reshape(1, -1, 1, 1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).add_(self.bias)


def fold(network: nn.Module) -> nn.Module:
    """Fold the norms and sums of kernels into the convolutions, for inference.

    Args:
        network: any module of ours, a whole network or a block; it is left as it is.

    Returns:
        A deep copy in eval mode, without gradients, whose outputs agree with ``network.eval()`` to about 1e-6 of their
        size. Its parameters have other names than the original's.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    with torch.no_grad():
        return _fold(folded)


def _fold(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, _fold(child))
    if isinstance(module, nn.Dropout):
        return nn.Identity()
    if isinstance(module, Pyramid):
        return _one_convolution(module)
    # A subclass of Sequential has a meaning of its own (torchvision's blocks), so only the plain container is rebuilt.
    return nn.Sequential(*_merge(_flat(module))) if type(module) is nn.Sequential else module


def _flat(sequence: nn.Sequential) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for layer in sequence:
        if type(layer) is nn.Sequential:
            layers.extend(layer)
        elif not isinstance(layer, nn.Identity):
            layers.append(layer)
    return layers


def _merge(layers: list[nn.Module]) -> list[nn.Module]:
    """Merge each norm with its neighbour where that is exact; the layers keep their order."""
    merged: list[nn.Module] = []
    for layer in layers:
        previous = merged[-1] if merged else None
        if isinstance(layer, nn.BatchNorm2d) and previous is not None and _takes_norm(previous):
            merged[-1] = _norm_after(previous, *_affine(layer))
        elif isinstance(previous, nn.BatchNorm2d) and isinstance(layer, nn.Conv2d) and _is_pointwise(layer):
            merged[-1] = _norm_before(layer, *_affine(previous))
        else:
            if isinstance(previous, nn.ZeroPad2d) and isinstance(layer, nn.Conv2d):
                merged[-1] = _padding_before(previous, layer)
            merged.append(layer)
    return merged


def _padding_before(pad: nn.ZeroPad2d, conv: nn.Conv2d) -> nn.ZeroPad2d:
    """Take the convolution's own zeros into the layer before it: one node, or none where a runtime pads unevenly."""
    assert isinstance(conv.padding, tuple)
    down, across = conv.padding
    conv.padding = (0, 0)
    left, right, top, bottom = pad.padding
    return nn.ZeroPad2d((left + across, right + across, top + down, bottom + down))


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Write the norm in eval mode as x * scale + shift, each of shape (C,)."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.affine:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift + norm.bias if norm.affine else shift


def _takes_norm(layer: nn.Module) -> bool:
    if isinstance(layer, Pyramid):
        return all(_takes_norm(branch) for branch in layer.branches)
    return isinstance(layer, nn.Conv2d | CondConv2d)


def _norm_after(layer: nn.Module, scale: Tensor, shift: Tensor) -> nn.Module:
    """Make one layer that computes ``layer(x) * scale + shift``; the scale goes into the weights."""
    if isinstance(layer, Pyramid):
        branches = list(layer.branches)
        if layer.combine == "concat":
            scales, shifts = scale.chunk(len(branches)), shift.chunk(len(branches))
        else:
            scales = (scale,) * len(branches)
            shifts = (shift, *(torch.zeros_like(shift) for _ in branches[1:]))
        layer.branches = nn.ModuleList(map(_norm_after, branches, scales, shifts))
        return layer
    if isinstance(layer, CondConv2d):
        layer.weight.view(layer.experts, layer.out_channels, -1).mul_(scale.view(1, -1, 1))
        if layer.bias is not None:
            layer.bias.mul_(scale)
        return Shifted(layer, shift)
    assert isinstance(layer, nn.Conv2d)
    layer.weight.mul_(scale.view(-1, 1, 1, 1))
    bias = shift if layer.bias is None else layer.bias * scale + shift
    layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def _is_pointwise(conv: nn.Conv2d) -> bool:
    """Return whether a shift of its input shifts every output pixel alike: no padding, one group."""
    return conv.groups == 1 and conv.padding in ((0, 0), 0)


def _norm_before(conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> nn.Conv2d:
    """Make one convolution that computes ``conv(x * scale + shift)``."""
    bias = conv.weight.sum((2, 3)) @ shift
    conv.weight.mul_(scale.view(1, -1, 1, 1))
    conv.bias = nn.Parameter(bias if conv.bias is None else conv.bias + bias, requires_grad=False)
    return conv


def _one_convolution(pyramid: Pyramid) -> nn.Module:
    """Return the only branch, or the sum of plain convolutions as one with their kernels padded and added."""
    branches = list(pyramid.branches)
    if len(branches) == 1:
        return branches[0]
    convs = [branch for branch in branches if isinstance(branch, nn.Conv2d)]
    if pyramid.combine == "concat" or len(convs) < len(branches):
        return pyramid
    largest = max(convs, key=lambda conv: conv.kernel_size[0])
    largest.weight.copy_(add_kernels([conv.weight for conv in convs]))
    if largest.bias is not None:
        largest.bias.copy_(torch.stack([conv.bias for conv in convs if conv.bias is not None]).sum(0))
    return largest

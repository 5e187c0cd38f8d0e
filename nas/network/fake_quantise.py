"""A network in training that computes as its int8 model will: quantisation-aware training.

Weights are rounded to int8 per output channel or per tensor, symmetrically; activations per tensor, asymmetrically, in
ranges that are observed and then kept: what ONNX Runtime's and LiteRT's static quantisers do
(:mod:`nas.network.onnx_int8`, :mod:`nas.network.litert`). Gradients go straight through the rounding. The network keeps
its own weights in float32.

BatchNorm is folded in what ships, and a pyramid's added kernels are one: so weights are rounded as they are folded, and
unfolded again, since the norms train on as they are.

Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
2018, section 3.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas.blocks.kernel_variants import add_kernels
from nas.blocks.layers import CondConv2d, Pyramid, SqueezeExcitation
from nas.blocks.stage import ResidualBlock

_LEAST = 1e-12
"""Of a scale: an all-zero channel has no range."""


class FakeQuantised:
    """A network as int8 engines compute it: (N, C, H, W) normalised images -> (N, classes).

    Layers between which a runtime keeps no tensor are rounded once. Of conditional convolutions, whose kernels are
    mixed for every image, the experts are rounded in place of the mixtures.

    Args:
        network: any of ours; its weights are read at every call.
        forward: computes the network's logits, where a wrapper does (`DistributedDataParallel`).
        per_tensor: one scale for all of a layer's weights, in place of one per output channel.
    """

    def __init__(self, network: nn.Module, forward: nn.Module | None = None, *, per_tensor: bool = False) -> None:
        self._network, self._forward, self._per_tensor = network, forward or network, per_tensor
        self._prefix = "" if forward in (None, network) else "module."
        self._outputs = list(_outputs(network.children()))
        self._ranges: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def observe(self, batches: Iterable[Tensor]) -> None:
        """Set the ranges of the activations to those that they take in the network in float32 and eval mode."""
        self._ranges = {}

        def note(module: nn.Module, values: Tensor) -> None:
            low, high = (bound.clone() for bound in torch.aminmax(values.float()))
            if module in self._ranges:
                low, high = low.minimum(self._ranges[module][0]), high.maximum(self._ranges[module][1])
            self._ranges[module] = low.clamp(max=0), high.clamp(min=0)  # 0 is a value: paddings are

        was_training = self._network.training
        self._network.eval()
        with self._hooks(note):
            for batch in batches:
                note(self._network, batch)
                self._network(batch)
        self._network.train(was_training)

    def __call__(self, images: Tensor) -> Tensor:
        """Compute logits with everything rounded."""
        weights = {self._prefix + name: weight for name, weight in _rounded_weights(self._network, self._per_tensor)}
        with self._hooks(self._rounded):
            return functional_call(self._forward, weights, (self._rounded(self._network, images),))

    def _rounded(self, module: nn.Module, values: Tensor) -> Tensor:
        low, high = self._ranges[module]
        scale = ((high - low) / 255).clamp(min=_LEAST)
        zero_point = (-128 - low / scale).round().clamp(-128, 127).int()
        return torch.fake_quantize_per_tensor_affine(values, scale, zero_point, -128, 127)

    def _hooks(self, hook: Callable[[nn.Module, Tensor], Tensor | None]) -> ExitStack:
        """Call a function with every module that writes a tensor, and its output; a result takes the output's place."""

        def called(module: nn.Module, _: Any, output: Tensor) -> Tensor | None:
            return hook(module, output)

        stack = ExitStack()
        for module in self._outputs:
            stack.callback(module.register_forward_hook(called).remove)
        return stack


def _outputs(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Yield the modules whose outputs an int8 engine writes: all but those that it computes within the next one."""
    layers = [layer for module in modules for layer in _layers(module)]
    for before, layer, after in zip([None, *layers], layers, [*layers[1:], None], strict=False):
        if isinstance(layer, SqueezeExcitation):
            yield from _outputs((layer.avgpool, layer.fc1, layer.activation, layer.fc2, layer.scale_activation))
        elif not isinstance(layer, Pyramid | CondConv2d):
            yield from _outputs(layer.children())
        fused = isinstance(after, nn.BatchNorm2d | nn.ReLU | nn.ReLU6) or _is_folded_forward(before, layer, after)
        passes_on = type(layer) is ResidualBlock and layer.shortcut is None
        if not (fused or passes_on):
            yield layer


def _layers(module: nn.Module) -> list[nn.Module]:
    """List the layers of plain containers within each other."""
    if type(module) is nn.Sequential:
        return [layer for child in module for layer in _layers(child)]
    return [] if isinstance(module, nn.Identity | nn.Dropout) else [module]


def _is_folded_forward(before: nn.Module | None, layer: nn.Module, after: nn.Module | None) -> bool:
    """Return whether a norm is folded into the convolution after it, as :mod:`nas.network.fold` does."""
    follows = isinstance(before, nn.Conv2d | CondConv2d | Pyramid)
    pointwise = isinstance(after, nn.Conv2d) and after.kernel_size == (1, 1) and after.groups == 1
    return isinstance(layer, nn.BatchNorm2d) and pointwise and not follows


def _rounded_weights(network: nn.Module, per_tensor: bool) -> Iterator[tuple[str, Tensor]]:
    """Yield all weights that int8 engines round, by their names, as these compute with them."""
    summed: set[nn.Module] = set()
    for module in network.modules():
        if isinstance(module, Pyramid) and module.combine == "add" and len(module.branches) > 1:
            summed.update(branch for branch in module.branches if isinstance(branch, nn.Conv2d))
    scales = _folded_scales(network)

    def rounded(weight: Tensor, layer: nn.Module, *, shared: bool = per_tensor) -> Tensor:
        scale = scales.get(layer)
        folded = weight if scale is None else weight * scale
        folded = _per_channel(folded[None])[0] if shared else _per_channel(folded)
        return folded if scale is None else folded / scale

    for name, module in network.named_modules():
        if isinstance(module, Pyramid) and not summed.isdisjoint(module.branches):
            kernels = [branch.weight for branch in module.branches if isinstance(branch, nn.Conv2d)]
            total, last = add_kernels(kernels), len(kernels) - 1
            yield f"{name}.branches.{last}.weight", rounded(total, module.branches[last]) - total + kernels[last]
        elif isinstance(module, nn.Conv2d | nn.Linear) and module not in summed:
            yield f"{name}.weight", rounded(module.weight, module)
        elif isinstance(module, CondConv2d):
            weight = module.weight.view(module.experts, module.out_channels, -1)
            if per_tensor or (module.kernel_size == 1 and module.groups == 1):  # a product of matrices: one scale
                weight = rounded(weight, module, shared=True)
            else:
                weight = torch.stack([rounded(expert, module) for expert in weight])
            yield f"{name}.weight", weight.view_as(module.weight)


def _folded_scales(network: nn.Module) -> dict[nn.Module, Tensor]:
    """Return what the norms folded into a convolution's weights multiply them by, by convolution.

    Weights that share a scale over several channels round otherwise with it.
    """
    scales: dict[nn.Module, Tensor] = {}

    def multiply(layer: nn.Module, scale: Tensor) -> None:
        if isinstance(layer, Pyramid):
            parts = scale.chunk(len(layer.branches)) if layer.combine == "concat" else (scale,) * len(layer.branches)
            for branch, part in zip(layer.branches, parts, strict=True):
                multiply(branch, part)
        elif isinstance(layer, nn.Conv2d | CondConv2d):
            scales[layer] = scale.view(-1, *([1, 1, 1] if isinstance(layer, nn.Conv2d) else [1]))

    sequences = [_layers(module) for module in network.modules() if type(module) is nn.Sequential]
    for layers in sequences:
        for before, layer in itertools.pairwise(layers):
            if isinstance(layer, nn.BatchNorm2d):
                multiply(before, _scale(layer))
    for layers in sequences:
        first, second = [*layers, None, None][:2]
        if isinstance(first, nn.BatchNorm2d) and second is not None and _is_folded_forward(None, first, second):
            scales[second] = scales.get(second, torch.ones(())) * _scale(first).view(1, -1, 1, 1)
    return scales


def _scale(norm: nn.BatchNorm2d) -> Tensor:
    """Return what a norm in eval mode multiplies by, (C,); a channel that it silences keeps its values."""
    assert norm.running_var is not None
    scale = (norm.weight * torch.rsqrt(norm.running_var + norm.eps)).detach()
    return torch.where(scale.abs() < _LEAST, 1, scale)


def _per_channel(weight: Tensor) -> Tensor:
    """Round to 255 symmetric steps, of one size per output channel: (C_out, ...) -> (C_out, ...)."""
    scale = (weight.detach().flatten(1).abs().amax(1) / 127).clamp(min=_LEAST)
    zero_points = torch.zeros(len(scale), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero_points, 0, -127, 127)

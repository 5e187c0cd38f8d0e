"""Weights of a smaller layer as slices of a larger one's: what each layer kind keeps.

A block kind lists its layers as *wires* beside its forward (:meth:`nas.blocks.stage.Stage.wires`): which group of
channels each reads and which it writes. The groups ``in`` and ``out`` are the stream between the blocks, others are the
block's own. From that follow which channels matter (:func:`importance`) and what every tensor of the smaller layer is
(:class:`Slices`). All of it is differentiable, so that a supernet's members run on slices of its weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas.blocks.kernel_variants import add_kernels
from nas.blocks.layers import CondConv2d, Pyramid, SqueezeExcitation

Weights = Mapping[str, Tensor]
EXPERTS_APART = 0.1
"""Experts that begin from one kernel are this share larger and smaller than it, or they would stay equal for ever."""
RIDGE = 1e-2
"""Added to a covariance's diagonal, as a part of its mean: few images leave more channels than samples."""


class Wire(NamedTuple):
    """A layer of a block: a convolution or pyramid with its norm, a norm, SE, or a shuffle of channels."""

    role: str
    """Its name: the layer of a larger block that has the same one is the one that it inherits from."""
    module: str
    """Its path within the block's module."""
    reads: str
    writes: str
    begins: int = 0
    """Where in the group that it writes its channels begin."""


@dataclass(frozen=True)
class Channels:
    """Channels that a group keeps: their places in the larger group, and what readers multiply their weights by."""

    index: Tensor
    gain: Tensor | None = None

    def times(self, gain: Tensor) -> Channels:
        return replace(self, gain=gain if self.gain is None else self.gain * gain)


class DoesNotFitError(ValueError):
    """A layer that is larger than the one that it would inherit from: the field's name, and why."""


def best(scores: Tensor, count: int) -> Tensor:
    """Return the places of the highest scores, in order; of equal ones the first."""
    return torch.argsort(scores, descending=True, stable=True)[:count].sort().values


def layers(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers with weights of a wire's module, with their paths."""
    if isinstance(module, nn.Sequential):
        for name, child in module.named_children():
            yield from layers(child, f"{path}.{name}")
    elif isinstance(module, nn.Conv2d | CondConv2d | Pyramid | nn.BatchNorm2d | SqueezeExcitation | nn.ChannelShuffle):
        yield path, module


def read_importance(module: nn.Module, path: str, weights: Weights) -> Tensor | None:
    """Return the norm of the weights that read each channel; None for layers that keep channels apart."""
    if isinstance(module, Pyramid):
        found = [read_importance(branch, f"{path}.branches.{i}", weights) for i, branch in enumerate(module.branches)]
        norms = [norm for norm in found if norm is not None]
        return torch.stack(norms).sum(0) if norms else None
    if not isinstance(module, nn.Conv2d | CondConv2d) or module.groups == module.in_channels > 1:
        return None
    return _dense(_experts(module, path, weights), module.groups).square().sum((0, 1, 3, 4)).sqrt()


def write_importance(module: nn.Module, path: str, weights: Weights) -> Tensor | None:
    """Return the scale of each channel that a norm writes."""
    return weights[f"{path}.weight"].abs() if isinstance(module, nn.BatchNorm2d) else None


class Slices:
    """Collects the tensors of a smaller network, layer by layer, from those of a larger one.

    `covariances`: of what some of its layers read, by path; their weights then make up for the channels left out.
    """

    def __init__(self, weights: Weights, covariances: Mapping[str, Tensor]) -> None:
        self.weights = weights
        self.covariances = covariances
        self.found: dict[str, Tensor] = {}

    def take(
        self, path: str, small: nn.Module, place: str, large: nn.Module, reads: Channels, writes: Channels
    ) -> None:
        """Slice the layer `large` at `place` of the larger network for the layer `small` at `path`."""
        if isinstance(small, nn.BatchNorm2d):
            self._norm(path, place, writes)
        elif isinstance(small, Pyramid):
            assert isinstance(large, Pyramid)
            self._pyramid(path, small, place, large, reads, writes)
        elif isinstance(small, nn.Conv2d | CondConv2d):
            assert isinstance(large, nn.Conv2d | CondConv2d)
            kernels, bias, routing = _whole(large, place, self.weights)
            if isinstance(large, nn.Conv2d):
                kernels = self.explained(place, kernels[0], reads)[None]
            self._convolution(path, small, large, (kernels, bias, routing), reads, writes)

    def explained(self, place: str, weight: Tensor, reads: Channels) -> Tensor:
        """Let the weights (C_out, C_in, ...) of the layer at `place` make up for the channels that are not kept.

        y = W x is computed from the channels k of x alone, with the least error on what the layer read, by
        W C[:, k] C[k, k]^-1 in the place of W[:, k], where C is the covariance of x.
        """
        covariance, kept = self.covariances.get(place), reads.index
        if covariance is None or reads.gain is not None or len(kept) == len(covariance):
            return weight
        own = covariance[kept][:, kept]
        own = own + RIDGE * own.diagonal().mean() * torch.eye(len(kept), dtype=own.dtype)
        best_weights = torch.linalg.solve(own, covariance[kept] @ weight.flatten(1).cpu().to(own).T).T
        weight = weight.clone()
        weight[:, kept] = best_weights.to(weight).view_as(weight[:, kept])
        return weight

    def _norm(self, path: str, place: str, kept: Channels) -> None:
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.found[f"{path}.{name}"] = self.weights[f"{place}.{name}"][kept.index]
        self.found[f"{path}.num_batches_tracked"] = self.weights[f"{place}.num_batches_tracked"].clone()

    def _convolution(
        self,
        path: str,
        small: nn.Conv2d | CondConv2d,
        large: nn.Conv2d | CondConv2d,
        whole: _Whole,
        reads: Channels,
        writes: Channels,
    ) -> None:
        kernels, bias, routing = whole
        if _is_depthwise(small) and _is_depthwise(large):
            kernels = kernels[:, writes.index]
            kernels = _gained(kernels, reads, 1)
        else:
            kernels = _dense(kernels, large.groups)[:, writes.index][:, :, reads.index]
            kernels = _gained(kernels, reads, 2)
            kernels = _grouped(kernels, small.groups)
        if _side(small) > kernels.shape[-1]:
            raise DoesNotFitError("kernel", f"{_side(small)} is larger than the parent's {kernels.shape[-1]}")
        kernels = crop(kernels, _side(small))
        bias = None if bias is None else bias[:, writes.index]
        if isinstance(small, nn.Conv2d):
            shares = None if routing is None else torch.sigmoid(routing[1]).to(kernels)
            self.found[f"{path}.weight"] = (
                kernels[0] if shares is None else torch.einsum("m,moikl->oikl", shares, kernels)
            )
            if bias is not None:
                self.found[f"{path}.bias"] = bias[0] if shares is None else shares @ bias
            return
        experts = small.experts
        if routing is None:
            # At a routing of nothing each expert has a share of one half: their sum is the one kernel.
            apart = 1 + EXPERTS_APART * torch.linspace(-1, 1, experts)
            shares = (apart * 2 / experts).to(kernels)
            kernels = shares.view(-1, 1, 1, 1, 1) * kernels
            bias = None if bias is None else shares.view(-1, 1) * bias
            routing = kernels.new_zeros(experts, small.in_channels), kernels.new_zeros(experts)
        else:
            if experts > len(kernels):
                raise DoesNotFitError("experts", f"{experts} are more than the parent's {len(kernels)}")
            more = len(kernels) / experts
            kernels = kernels[:experts] * more
            bias = None if bias is None else bias[:experts] * more
            routing = _gained(routing[0][:experts, reads.index], reads, 1), routing[1][:experts]
        self.found[f"{path}.weight"] = kernels.flatten(1)
        self.found[f"{path}.routing.weight"], self.found[f"{path}.routing.bias"] = routing
        if bias is not None:
            self.found[f"{path}.bias"] = bias

    def _pyramid(
        self, path: str, small: Pyramid, place: str, large: Pyramid, reads: Channels, writes: Channels
    ) -> None:
        """Slice each branch from the parent's kernels; added ones share the taps that they have in common."""
        sides, theirs = _sides(small), _sides(large)
        if sides[-1] > theirs[-1]:
            raise DoesNotFitError("kernels", f"{sides[-1]} is larger than the parent's {theirs[-1]}")
        parts = [_whole(branch, f"{place}.branches.{i}", self.weights) for i, branch in enumerate(_branches(large))]
        if small.combine == large.combine and sides == theirs:
            given = parts
        elif small.combine == large.combine == "concat":
            given = [parts[_source(side, theirs)] for side in sides]
        elif small.combine == "concat":
            given = [_added(parts)] * len(sides)
        else:
            kernels, bias, routing = _added(parts) if large.combine == "add" else parts[-1]
            kernels = kernels / _cover(sides, kernels.shape[-1]).to(kernels)
            given = [(kernels, None if bias is None else bias / len(sides), routing)] * len(sides)
        for number, (branch, whole) in enumerate(zip(_branches(small), given, strict=True)):
            self._convolution(f"{path}.branches.{number}", branch, _branches(large)[-1], whole, reads, writes)

    def squeeze(self, path: str, place: str, kept: Channels, inner: Tensor) -> None:
        """Slice SE that scales the channels kept; `inner` are the places of its own ones."""
        fc1, fc2 = f"{place}.fc1", f"{place}.fc2"
        columns = self.weights[f"{fc1}.weight"][inner][:, kept.index]
        self.found[f"{path}.fc1.weight"] = _gained(columns, kept, 1)
        self.found[f"{path}.fc1.bias"] = self.weights[f"{fc1}.bias"][inner]
        self.found[f"{path}.fc2.weight"] = self.weights[f"{fc2}.weight"][kept.index][:, inner]
        self.found[f"{path}.fc2.bias"] = self.weights[f"{fc2}.bias"][kept.index]

    def new_squeeze(self, path: str, module: SqueezeExcitation, kept: Channels) -> Channels:
        """Begin SE that the larger block lacks: a gate of one half, which the readers make up for.

        A gate of 1 would lie where the sigmoid is flat and learn nothing.
        """
        weight = next(iter(self.weights.values()))
        self.found[f"{path}.fc2.weight"] = weight.new_zeros(module.fc2.weight.shape)
        self.found[f"{path}.fc2.bias"] = weight.new_zeros(module.fc2.out_channels)
        return kept.times(weight.new_full((len(kept.index),), 2.0))

    def without_squeeze(self, place: str, kept: Channels) -> Channels:
        """Leave SE out: the readers take its gates at an input of nothing."""
        inner = torch.relu(self.weights[f"{place}.fc1.bias"])
        gates = torch.sigmoid(
            self.weights[f"{place}.fc2.weight"].flatten(1) @ inner + self.weights[f"{place}.fc2.bias"]
        )
        return kept.times(gates[kept.index])

    def silence(self, own: Sequence[tuple[str, nn.Module]]) -> None:
        """Begin layers that the larger block lacks so that they add nothing, and can learn."""
        last, layer = own[-1]
        weight = next(iter(self.weights.values()))
        for name, tensor in layer.named_parameters():
            self.found[f"{last}.{name}"] = weight.new_zeros(tensor.shape)


def after(small: nn.Module, large: nn.Module, kept: Channels, total: int) -> Channels:
    """Return what a group is after a layer that multiplies or reorders its channels; the larger one has `total`."""
    if isinstance(small, nn.ChannelShuffle) and isinstance(large, nn.ChannelShuffle):
        order = torch.arange(total).view(large.groups, -1).t().flatten()
        return replace(kept, index=order.argsort()[kept.index.view(small.groups, -1).t().flatten()])
    if not isinstance(small, Pyramid) or not isinstance(large, Pyramid):
        return kept
    theirs = _sides(large)
    total = _branches(large)[0].out_channels  # of each branch
    if small.combine == "add":
        begins = total * (len(theirs) - 1) if large.combine == "concat" else 0
        return replace(kept, index=kept.index + begins)
    sources = [0 if large.combine == "add" else _source(side, theirs) for side in _sides(small)]
    index = torch.cat([kept.index + total * source for source in sources])
    shares = torch.tensor([1 / sources.count(source) for source in sources]).repeat_interleave(len(kept.index))
    wide = Channels(index, None if kept.gain is None else kept.gain.repeat(len(sources)))
    return wide if len(sources) == len(set(sources)) else wide.times(shares)


def written_channels(module: nn.Module) -> int:
    """Return how many channels a wire's module writes, of each branch where a pyramid concatenates."""
    for _, layer in layers(module, ""):
        if isinstance(layer, Pyramid):
            return _branches(layer)[0].out_channels
        if isinstance(layer, nn.Conv2d | CondConv2d):
            return layer.out_channels
    return 0


def _gained(weight: Tensor, reads: Channels, axis: int) -> Tensor:
    """Multiply the weights that read channels, along this axis, by what these ask for."""
    if reads.gain is None:
        return weight
    shape = [-1 if dimension == axis else 1 for dimension in range(weight.ndim)]
    return weight * reads.gain.to(weight).view(shape)


def crop(kernels: Tensor, side: int) -> Tensor:
    """Return the centre of kernels (..., k, k)."""
    margin = (kernels.shape[-1] - side) // 2
    return kernels[..., margin : margin + side, margin : margin + side]


def _cover(sides: list[int], largest: int) -> Tensor:
    """Count the kernels that have each tap: (k, k)."""
    return add_kernels(
        [torch.ones(min(side, largest), min(side, largest)) for side in sides] + [torch.zeros(largest, largest)]
    ).clamp(min=1)


def _source(side: int, theirs: list[int]) -> int:
    """Return the smallest kernel that is at least this one."""
    return next(number for number, other in enumerate(theirs) if other >= side)


def _sides(pyramid: Pyramid) -> list[int]:
    return [_side(branch) for branch in _branches(pyramid)]


def _branches(pyramid: Pyramid) -> list[nn.Conv2d | CondConv2d]:
    return [branch for branch in pyramid.branches if isinstance(branch, nn.Conv2d | CondConv2d)]


def _side(conv: nn.Conv2d | CondConv2d) -> int:
    return conv.kernel_size if isinstance(conv, CondConv2d) else conv.kernel_size[0]


def _is_depthwise(conv: nn.Conv2d | CondConv2d) -> bool:
    return conv.groups == conv.in_channels == conv.out_channels > 1


_Whole = tuple[Tensor, Tensor | None, tuple[Tensor, Tensor] | None]
"""Kernels (M, C_out, C_in / groups, k, k) and biases (M, C_out) of M experts, weight and bias of their routing."""


def _added(parts: list[_Whole]) -> _Whole:
    """Add branches into one kernel, its routing that of the largest."""
    biases = [bias for _, bias, _ in parts if bias is not None]
    return add_kernels([kernels for kernels, *_ in parts]), torch.stack(biases).sum(0) if biases else None, parts[-1][2]


def _experts(module: nn.Conv2d | CondConv2d, path: str, weights: Weights) -> Tensor:
    """Return a convolution's kernels as those of M experts: (M, C_out, C_in / groups, k, k)."""
    weight = weights[f"{path}.weight"]
    return weight.view(-1, *module.kernel_shape) if isinstance(module, CondConv2d) else weight[None]


def _whole(module: nn.Conv2d | CondConv2d, path: str, weights: Weights) -> _Whole:
    """Return all of a convolution as that of M experts."""
    kernels, bias = _experts(module, path, weights), weights.get(f"{path}.bias")
    if isinstance(module, CondConv2d):
        return kernels, bias, (weights[f"{path}.routing.weight"], weights[f"{path}.routing.bias"])
    return kernels, None if bias is None else bias[None], None


def _dense(kernels: Tensor, groups: int) -> Tensor:
    """Write kernels of several groups as those of one, with zeros between the groups."""
    if groups == 1:
        return kernels
    experts, outs, ins, *sides = kernels.shape
    dense = kernels.new_zeros(experts, groups, outs // groups, groups, ins, *sides)
    place = torch.arange(groups)
    dense[:, place, :, place] = kernels.reshape(experts, groups, outs // groups, ins, *sides).movedim(1, 0)
    return dense.view(experts, outs, groups * ins, *sides)


def _grouped(kernels: Tensor, groups: int) -> Tensor:
    """Invert :func:`_dense`; what lies between the groups is lost."""
    if groups == 1:
        return kernels
    experts, outs, ins, *sides = kernels.shape
    place = torch.arange(groups)
    blocks = kernels.reshape(experts, groups, outs // groups, groups, ins // groups, *sides)[:, place, :, place]
    return blocks.movedim(0, 1).reshape(experts, outs, ins // groups, *sides)

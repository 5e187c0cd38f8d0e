"""Importance of a network's channels, by its weights alone or by what its layers read on images.

By the weights: the scale that BatchNorm gives a channel (Liu et al., "Learning Efficient Convolutional Networks through
Network Slimming", 2017) and the norms of the weights that read it (Li et al., "Pruning Filters for Efficient ConvNets",
2017), each as a share of its mean, added over all layers that the channel passes.

On images, a channel weighs with a layer what it brings to it: the root of its mean square times the norm of the weights
that read it (M. Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", ICLR 2024). The
covariance of what a layer reads says with which weights the channels that are kept make up for the others
(:meth:`nas.blocks.inheritance.Slices.explained`).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas.architecture.document import Architecture
from nas.blocks import Block
from nas.blocks.inheritance import Weights, layers, read_importance, write_importance, written_channels
from nas.blocks.layers import SqueezeExcitation
from nas.network.build import Network

Scores = Mapping[str, Tensor]
"""Importance of a network's channels: of the streams ``stem``, ``stages[0]`` ..., of the groups within a block, such as
``blocks.0.hidden``, and of ``head``."""

_UNSCORED = ("", 0)


def placed_blocks(architecture: Architecture) -> Iterator[tuple[int, Block, str]]:
    """Yield the blocks with their stages' numbers and their paths in the network."""
    stage = -1
    for number, block in enumerate(architecture.blocks()):
        stage += block.first
        yield stage, block, f"blocks.{number}"


def stage_streams(architecture: Architecture) -> list[str]:
    """Name the stream that each stage writes: an addition makes one stream of those before and after it."""
    streams, stream = [], "stem"
    for stage, block, _ in placed_blocks(architecture):
        if block.first:
            stream = stream if block.shortcut == "identity" else f"stages[{stage}]"
            streams.append(stream)
    return streams


Group = tuple[str, int]
"""A group's name and the number of its channels."""


def links(architecture: Architecture, network: Network) -> Iterator[tuple[str, nn.Module, Group, Group, int]]:
    """Yield a network's modules up to the head: path, module, the groups that it reads and writes, and where in the
    latter its channels begin. Of groups whose channels are not told apart the name is empty.
    """
    streams = stage_streams(architecture)
    stream = ("stem", architecture.stem_channels)
    yield "stem", network.stem, _UNSCORED, stream, 0
    for stage, block, path in placed_blocks(architecture):
        before, stream = stream, (streams[stage], block.out_channels)
        groups = {"stream": before, "in": before, "out": stream}
        shuffled: set[str] = set()
        for wire in block.spec.all_wires(block):
            place = f"{path}.{wire.module}"
            module = network.get_submodule(place)
            if isinstance(module, nn.ChannelShuffle):
                shuffled.add(wire.reads)  # what reads it from here on has it in another order
            if wire.writes not in groups:
                groups[wire.writes] = f"{path}.{wire.writes}", written_channels(module)
            reads, writes = (_UNSCORED if group in shuffled else groups[group] for group in (wire.reads, wire.writes))
            yield place, module, reads, writes, wire.begins
            if isinstance(module, SqueezeExcitation):
                yield f"{place}.fc2", module.fc2, (f"{path}.se", module.fc1.out_channels), _UNSCORED, 0
    if architecture.head_channels:
        yield "head", network.head, stream, ("head", architecture.head_channels), 0


def importance(parent: Architecture, network: Network, weights: Weights) -> dict[str, Tensor]:
    """Score the channels of every stream and group of a network; higher is more important.

    Args:
        parent: the document.
        network: as built from it, on any device; its own weights are not read.
        weights: its state dict.
    """
    found: dict[str, list[Tensor]] = {}

    def note(group: Group, scores: Tensor | None, begins: int = 0) -> None:
        name, count = group
        if not name:
            return
        known = found.setdefault(name, [torch.zeros(count)])
        if scores is None:
            return
        scores = scores.detach().cpu()
        if len(scores) > count:  # of the branches that a pyramid concatenates
            scores = scores.view(-1, count).sum(0)
        whole = torch.zeros(count)
        whole[begins : begins + len(scores)] = scores
        known.append(shares(whole))

    for place, module, reads, writes, begins in links(parent, network):
        for path, layer in layers(module, place):
            note(reads, read_importance(layer, path, weights))
            note(writes, write_importance(layer, path, weights), begins)
    streams = stage_streams(parent)
    for stage, stream in enumerate(streams):
        found.setdefault(f"stages[{stage}]", found[stream])
    classifier = weights.get("classifier.weight", weights.get("classifier.0.weight"))
    assert classifier is not None
    last = "head" if parent.head_channels else streams[-1]
    found[last].append(shares(classifier.detach().flatten(1).norm(dim=0)))
    return {group: torch.stack(parts).sum(0) for group, parts in found.items()}


def shares(scores: Tensor) -> Tensor:
    """Divide scores by their mean, so that layers count alike."""
    return scores.cpu() / scores.cpu().mean().clamp(min=1e-12)


class Read(NamedTuple):
    """Statistics of what a layer reads on images, float64 on the CPU: mean (C,), covariance (C, C)."""

    mean: Tensor
    covariance: Tensor


@torch.no_grad()
def observe(network: nn.Module, batches: Iterable[Tensor]) -> dict[str, Read]:
    """Return what a network's dense 1x1 layers read, by path, while it sees `batches` (N, C, H, W) in eval mode."""
    sums: dict[str, tuple[int, Tensor, Tensor]] = {}

    def note(path: str, read: Tensor) -> None:
        values = read.movedim(1, -1).flatten(0, -2).float()
        count, total, square = sums.get(path, (0, torch.zeros(()), torch.zeros(())))
        total, square = total + values.sum(0).double().cpu(), square + (values.T @ values).double().cpu()
        sums[path] = count + len(values), total, square

    hooks = [
        module.register_forward_pre_hook(lambda _, read, path=path: note(path, read[0]))
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and _is_dense(module))
    ]
    network.eval()
    for batch in batches:
        network(batch)
    for hook in hooks:
        hook.remove()
    means = {path: (total / count, square / count) for path, (count, total, square) in sums.items()}
    return {path: Read(mean, square - torch.outer(mean, mean)) for path, (mean, square) in means.items()}


def importance_on_images(
    architecture: Architecture, network: Network, weights: Weights, known: Mapping[str, Read]
) -> Scores:
    """Score the channels of every stream and group by what they bring to their readers.

    Where no reader's statistics are known, the weights alone say it (:func:`nas.network.importance.importance`).

    Args:
        architecture: the document.
        network: as built from it; its own weights are not read.
        weights: its state dict.
        known: of :func:`observe`.
    """
    streams = stage_streams(architecture)
    readers = [
        (name, group)
        for path, module, (group, _), *_ in links(architecture, network)
        for name, _ in layers(module, path)
    ]
    last = "head" if architecture.head_channels else streams[-1]
    readers += [("classifier", last), ("classifier.0", last)]
    scores, found = importance(architecture, network, weights), dict[str, Tensor]()
    for name, group in readers:
        if name in known and len(known[name].mean) == len(scores.get(group, ())):
            size = (known[name].covariance.diagonal() + known[name].mean.square()).sqrt().float()
            brought = shares(size * weights[f"{name}.weight"].detach().cpu().flatten(1).norm(dim=0))
            found[group] = found.get(group, 0) + brought
    scores |= found
    return scores | {f"stages[{stage}]": scores[stream] for stage, stream in enumerate(streams)}


def _is_dense(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (1, 1) and conv.groups == 1

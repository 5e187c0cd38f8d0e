"""Importance of a network's channels, by its weights alone.

The scale that BatchNorm gives a channel (Liu et al., "Learning Efficient Convolutional Networks through Network
Slimming", 2017) and the norms of the weights that read it (Li et al., "Pruning Filters for Efficient ConvNets", 2017),
each as a share of its mean, added over all layers that the channel passes.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from nas.architecture.document import Architecture
from nas.blocks import Block
from nas.blocks.inheritance import Weights, layers, read_importance, write_importance, written_channels
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


def importance(parent: Architecture, network: Network, weights: Weights) -> dict[str, Tensor]:
    """Score the channels of every stream and group of a network; higher is more important.

    Args:
        parent: the document.
        network: as built from it, on any device; its own weights are not read.
        weights: its state dict.
    """
    scores = _Scores(weights)
    stream = ("stem", parent.stem_channels)
    scores.add("stem", network.stem, _UNSCORED, stream)
    for stage, block, path in placed_blocks(parent):
        before = stream
        if block.first and block.shortcut != "identity":  # an addition makes one stream of those before and after it
            stream = f"stages[{stage}]", block.out_channels
        groups = {"stream": before, "in": before, "out": stream}
        shuffled: set[str] = set()
        for wire in block.spec.all_wires(block):
            place = f"{path}.{wire.module}"
            module = network.get_submodule(place)
            if isinstance(module, nn.ChannelShuffle):
                shuffled.add(wire.reads)  # what reads it from here on has it in another order
            if wire.writes not in groups:
                groups[wire.writes] = f"{path}.{wire.writes}", written_channels(module)
            kept = [_UNSCORED if group in shuffled else groups[group] for group in (wire.reads, wire.writes)]
            scores.add(place, module, kept[0], kept[1], wire.begins)
            if isinstance(module, SqueezeExcitation):
                scores.add(f"{place}.fc2", module.fc2, (f"{path}.se", module.fc1.out_channels), _UNSCORED)
        scores.found.setdefault(f"stages[{stage}]", scores.found[stream[0]])
    if parent.head_channels:
        before, stream = stream, ("head", parent.head_channels)
        scores.add("head", network.head, before, stream)
    classifier = weights.get("classifier.weight", weights.get("classifier.0.weight"))
    assert classifier is not None
    scores.found[stream[0]].append(_shares(classifier.detach().flatten(1).norm(dim=0)))
    return {group: torch.stack(parts).sum(0) for group, parts in scores.found.items()}


class _Scores:
    """Scores so far: for each group those that its readers and writers give its channels."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.found: dict[str, list[Tensor]] = {}

    def add(
        self, path: str, module: nn.Module, reads: tuple[str, int], writes: tuple[str, int], begins: int = 0
    ) -> None:
        """Add those of a module's layers; `reads` and `writes` are groups and the number of their channels."""
        for name, layer in layers(module, path):
            self._note(*reads, read_importance(layer, name, self.weights), 0)
            self._note(*writes, write_importance(layer, name, self.weights), begins)

    def _note(self, group: str, count: int, scores: Tensor | None, begins: int) -> None:
        if not group:
            return
        known = self.found.setdefault(group, [torch.zeros(count)])
        if scores is None:
            return
        scores = scores.detach().cpu()
        if len(scores) > count:  # of the branches that a pyramid concatenates
            scores = scores.view(-1, count).sum(0)
        whole = torch.zeros(count)
        whole[begins : begins + len(scores)] = scores
        known.append(_shares(whole))


def _shares(scores: Tensor) -> Tensor:
    return scores.cpu() / scores.cpu().mean().clamp(min=1e-12)

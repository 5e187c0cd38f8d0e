"""Importance of a network's channels by what its layers read on images.

A channel weighs with a layer what it brings to it: the root of its mean square times the norm of the weights that read
it (M. Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", ICLR 2024). The covariance of
what a layer reads says with which weights the channels that are kept make up for the others
(:meth:`nas.blocks.inheritance.Slices.explained`).
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas.architecture.document import Architecture
from nas.blocks.inheritance import Weights, layers
from nas.network.build import Network
from nas.network.importance import Scores, importance, links, shares, stage_streams


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

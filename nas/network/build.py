"""Architecture document -> ``nn.Module``."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nas.architecture.catalogue import check_classes, load
from nas.architecture.document import Architecture
from nas.blocks import Block
from nas.blocks.layers import ACTIVATIONS, conv_norm_act, max_pool, use_training_variants


class Network(nn.Module):
    """Stem, blocks, head, classifier.

    Shapes: (N, C, R, R) images -> (N, num_classes) logits. Any side of at least the strides' product works, R is what
    the costs are given for.
    """

    def __init__(self, architecture: Architecture, num_classes: int, blocks: Sequence[nn.Module] | None = None) -> None:
        super().__init__()
        activation, norm, stem = architecture.activation, architecture.norm, architecture.stem
        self.stem = conv_norm_act(
            architecture.input.channels,
            architecture.stem_channels,
            stem.kernel,
            stride=stem.stride,
            padding=stem.padding,
            size=architecture.input.resolution,
            activation=activation,
            norm=norm,
        )
        if stem.pool == "max":
            self.stem.append(max_pool(stem.pool_stride, stem.padding))
        described = list(architecture.blocks())
        self.blocks = nn.Sequential(*(blocks or [block.spec.build(block) for block in described]))
        channels = described[-1].out_channels
        self.head: nn.Module = nn.Identity()
        if architecture.head_channels:
            self.head = conv_norm_act(channels, architecture.head_channels, activation=activation, norm=norm)
            channels = architecture.head_channels
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(architecture.head.dropout)
        self.convolutional = architecture.head.classifier == "conv"
        if self.convolutional:
            self.classifier: nn.Module = nn.Sequential(
                nn.Conv2d(channels, num_classes, 1), ACTIVATIONS[activation](inplace=True)
            )
        else:
            self.classifier = nn.Linear(channels, num_classes)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.stem(x)))
        if self.convolutional:
            return self.pool(self.classifier(self.dropout(x))).flatten(1)
        return self.classifier(self.dropout(self.pool(x).flatten(1)))


def build(architecture: str | Path | Architecture, num_classes: int) -> Network:
    """Build a network with fresh weights, drawn from torch's global generator.

    Args:
        architecture: a name, a file or a document.
        num_classes: outputs of the last layer, at least 1.

    Raises:
        UserError: no such name or file, or no class.
    """
    check_classes(num_classes)
    return Network(load(architecture), num_classes)


@lru_cache(maxsize=64)
def skeleton(architecture: Architecture, num_classes: int) -> Network:
    """Build a network whose tensors have shapes and no values, on the device ``meta``; nobody changes it.

    Called with the weights of a supernet it trains in the kernel variants that the largest network trains in.
    """
    met: Counter[Block] = Counter()
    blocks = []
    for block in architecture.blocks():
        met[block] += 1
        blocks.append(block_skeleton(block, met[block]))
    with torch.device("meta"), _WithoutValues():
        network = Network(architecture, num_classes, blocks)
    use_training_variants(network)
    return network


@lru_cache(maxsize=1024)
def block_skeleton(block: Block, number: int) -> nn.Module:
    """Build the block that skeletons share: members of a space have most of theirs in common. The `number`-th equal
    one of a network is another module, since a module has one place in it.
    """
    del number
    with torch.device("meta"), _WithoutValues():
        return block.spec.build(block)


@lru_cache(maxsize=64)
def weight_shapes(architecture: Architecture, num_classes: int) -> dict[str, torch.Size]:
    """Return the shapes of a network's state dict by name."""
    return {name: tensor.shape for name, tensor in skeleton(architecture, num_classes).state_dict().items()}


_DRAWING = frozenset({"normal_", "uniform_", "fill_", "zero_"})
"""Tensors' methods that initialisation ends in."""


class _WithoutValues(TorchFunctionMode):
    """Skips initialisation: on ``meta`` it takes three quarters of the time of building a network (93 of 119 ms)."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init" or getattr(func, "__name__", "") in _DRAWING:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def initialise(module: nn.Module) -> None:
    """Initialise as torchvision does MobileNetV2; conditional convolutions initialise their experts themselves."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)

"""Networks for the tests of export and prediction: one per block kind, and one trained on digits."""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import nn

import nas
from nas.export import Card
from nas.training.data import load_dataset
from nas.training.recipe import load_recipe
from nas.training.session import Trained, train

KINDS: dict[str, list[dict[str, Any]]] = {
    "inverted_residual": [
        {"block": "inverted_residual", "channels": 8, "expansion": 1},
        {"block": "inverted_residual", "channels": 12, "repeats": 2, "stride": 2, "kernels": [3, 5], "se_ratio": 0.25},
        {"block": "inverted_residual", "channels": 12, "expansion": 2, "kernels": [3, 7], "combine": "concat"},
    ],
    "bottleneck": [
        {"block": "bottleneck", "channels": 16, "repeats": 2, "stride": 2, "kernels": [3, 5]},
        {"block": "bottleneck", "channels": 16, "conv": "standard", "se_ratio": 0.5},
    ],
    "depthwise_separable": [
        {"block": "depthwise_separable", "channels": 12, "stride": 2},
        {"block": "depthwise_separable", "channels": 12, "repeats": 2, "intermediate": False, "shortcut": "identity"},
    ],
    "conv": [
        {"block": "conv", "channels": 12, "kernel": 5, "padding": "valid"},
        {"block": "conv", "channels": 16, "repeats": 2, "stride": 2, "shortcut": "conv_strided"},
    ],
    "separable": [{"block": "separable", "channels": 16, "repeats": 2, "stride": 2, "depth": 3, "expansion": 0.5}],
    "shuffle": [{"block": "shuffle", "channels": 24, "repeats": 2, "stride": 2, "group_first": False}],
    "fire": [{"block": "fire", "channels": 16, "stride": 2, "expansion": 0.25}, {"block": "fire", "channels": 16}],
    "conditional": [
        {"block": "inverted_residual", "channels": 8, "repeats": 2, "kernels": [3, 5], "experts": 3},
        {"block": "conv", "channels": 12, "stride": 2, "experts": 2},
    ],
}
"""The stages of a small network per block kind, and one with conditional convolutions."""


def small(stages: list[dict[str, Any]], **fields: Any) -> nas.Architecture:
    """A network of these stages for 16x16 RGB."""
    document = {"name": "small", "input": {"resolution": 16}, "stem": {"channels": 8}, "stages": stages}
    return nas.Architecture.from_dict({**document, **fields})


def imported(path: Path) -> Any:
    """An exported Python file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lived_in(architecture: nas.Architecture, classes: int = 10) -> nn.Module:
    """A network in eval mode whose norms, biases and logits are not those of a fresh one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nas.build(architecture, classes).eval()
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and tensor.ndim == 1:
                positive = name.endswith(("running_var", ".weight"))
                tensor.uniform_(0.5, 1.5) if positive else tensor.uniform_(-0.3, 0.3)
    if isinstance(network.classifier, nn.Linear):
        nn.init.normal_(network.classifier.weight, generator=torch.Generator().manual_seed(1))
    return network


def card_of(architecture: nas.Architecture, classes: int = 10) -> Card:
    channels = architecture.input.channels
    return Card(
        architecture,
        classes=tuple(f"class {index}" for index in range(classes)),
        mean=(0.49, 0.45, 0.4, 0.5)[:channels],
        std=(0.25, 0.2, 0.3, 0.22)[:channels],
    )


def expected_logits(network: nn.Module, card: Card, images: torch.Tensor) -> torch.Tensor:
    """The definition: normalise, then the network as it was trained."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (card.mean, card.std))
    with torch.inference_mode():
        return network((images - mean) / std)


TINY = {
    "name": "tiny",
    "input": {"channels": 1, "resolution": 8},
    "stem": {"channels": 16},
    "stages": [
        {"block": "inverted_residual", "channels": 16, "expansion": 1},
        {"block": "inverted_residual", "channels": 24, "repeats": 2, "stride": 2, "expansion": 3, "kernels": [3, 5]},
        {"block": "inverted_residual", "channels": 32, "expansion": 4, "se_ratio": 0.25},
    ],
    "head": {"channels": 96},
}


def train_tiny(out: Path, epochs: int = 6, **options: Any) -> Trained:
    """A network of 96% or so, in two seconds."""
    torch.set_num_threads(1)
    architecture = nas.Architecture.from_dict(TINY)
    return train(architecture, load_dataset("digits"), load_recipe("search").with_epochs(epochs), out=out, **options)

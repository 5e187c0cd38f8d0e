"""What several tests check networks with: a document with everything in it, and counts made without our formulas."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

import nas
from nas.blocks.complexity import ACTIVATIONS, Operator
from nas.blocks.layers import CondConv2d, SqueezeExcitation
from nas.costs.analytic import cost, parts
from nas.costs.profile import profile


def reference_seconds() -> float:
    """Processor time of 20,000 steps of the interpreter, some 0.75 ms on a Xeon's core: time bounds are multiples."""
    start = time.process_time()
    total = 0
    for number in range(20_000):
        total += number * number
    return time.process_time() - start


EVERYTHING: dict[str, Any] = {
    "name": "everything",
    "input": {"resolution": 64},
    "activation": "hard_swish",
    "stem": {"channels": 16, "kernel": 5, "stride": 2, "pool": "max"},
    "stages": [
        {"block": "inverted_residual", "channels": 24, "kernels": [3, 5], "se_ratio": 0.25, "experts": 3},
        {
            "block": "bottleneck",
            "channels": 24,
            "conv": "standard",
            "kernels": [3, 5],
            "combine": "concat",
            "experts": 2,
        },
        {"block": "depthwise_separable", "channels": 24, "repeats": 2, "shortcut": "conv_strided", "stride": 2},
        {"block": "separable", "channels": 32, "stride": 2, "depth": 3, "expansion": 0.5},
        {"block": "shuffle", "channels": 48, "repeats": 2, "stride": 2},
        {"block": "fire", "channels": 64},
        {"block": "conv", "channels": 16, "padding": "valid", "kernel": 1, "experts": 2},
    ],
    "head": {"channels": 64, "classifier": "conv"},
}


class Layer(NamedTuple):
    """One layer of a network, as counted."""

    kind: str
    """``conv``, ``depthwise``, ``grouped``, each also as ``conditional ...``; ``linear``, ``norm``, ``max pool``..."""
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    resolution: int
    """Side of the output in pixels."""
    params: int
    macs: int


class PlacedLayer(NamedTuple):
    """One layer of a network, and the part of the document that it belongs to."""

    part: str
    """``stem``, ``stages[i]`` or ``head``."""
    block: int
    """Which block of the stage, from 0; 0 for stem and head."""
    layer: Layer


def layers(architecture: nas.Architecture, num_classes: int = 10) -> list[PlacedLayer]:
    """List the layers in the order in which they run; their params and MACs add up to the network's."""
    stem, *blocks, head = parts(architecture, num_classes)
    places = [("stem", 0, stem)]
    stage, index = -1, 0
    for block, part in zip(architecture.blocks(), blocks, strict=True):
        stage, index = (stage + 1, 0) if block.first else (stage, index + 1)
        places.append((f"stages[{stage}]", index, part))
    places.append(("head", 0, head))
    return [
        PlacedLayer(name, index, layer)
        for name, index, part in places
        for operator in part.record()
        for layer in _layers_of(operator)
    ]


_LAYERLESS = ("add", "sum", "concat", *ACTIVATIONS)


def _layers_of(operator: Operator) -> Iterator[Layer]:
    """Yield what counts as layers of an operator: none of joins and activations, the two linear ones of SE."""
    (read, *_), out = operator.reads, operator.writes
    if operator.kind == "squeeze-excitation":
        for ends in ((read.channels, operator.width), (operator.width, read.channels)):
            weights = ends[0] * ends[1]
            yield Layer("linear", *ends, 1, 1, 1, weights + ends[1], weights)
    elif operator.kind not in _LAYERLESS:
        features = read.channels * read.size**2 if operator.kind == "linear" else read.channels
        shape = (features, out.channels, operator.kernel, operator.stride, out.size)
        yield Layer(operator.kind, *shape, operator.params, operator.macs)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, CondConv2d | SqueezeExcitation) or super().is_leaf_module(module, name)


IN_PLACE = (
    nn.BatchNorm2d,
    nn.ReLU,
    nn.ReLU6,
    nn.Hardswish,
    nn.SiLU,
    nn.Dropout,
    nn.Identity,
    nn.ZeroPad2d,  # a runtime pads while it convolves
    SqueezeExcitation,
)


def measured_peak(architecture: nas.Architecture, num_classes: int) -> int:
    """Peak activation bytes from the traced graph: each tensor lives from its writer to its last reader.

    Norm, activation, SE, addition and concatenation are in place, as the definition of the cost says.
    """
    image = architecture.input
    with torch.device("meta"):
        network = nas.build(architecture, num_classes).eval()
        example = torch.empty(1, image.channels, image.resolution, image.resolution)
    graph = _Tracer().trace(network)
    ShapeProp(fx.GraphModule(network, graph)).propagate(example)
    buffers: dict[fx.Node, set[int]] = {}
    size: dict[int, int] = {}
    last_use: dict[int, int] = {}
    nodes = list(graph.nodes)
    for index, node in enumerate(nodes):
        inputs = node.all_input_nodes
        for used in inputs:
            last_use.update(dict.fromkeys(buffers[used], index))
        module: Any = network.get_submodule(node.target) if node.op == "call_module" else None
        if node.op == "output":
            continue
        if node.target is torch.cat:
            buffers[node] = set().union(*(buffers[used] for used in inputs))
        elif isinstance(module, IN_PLACE) or node.op in ("call_method", "call_function"):
            assert module is not None or node.target in ("flatten",) or "add" in str(node.target)
            buffers[node] = buffers[inputs[0]]
        else:
            buffers[node] = {index}
            size[index] = 4 * node.meta["tensor_meta"].shape.numel()
    return max(
        sum(size[b] for b in size if b <= index and last_use.get(b, index) >= index)
        for index, node in enumerate(nodes)
        if index in size
    )


def check_counts(architecture: nas.Architecture, num_classes: int) -> None:
    counted = cost(architecture, num_classes)
    with torch.device("meta"):
        network = nas.build(architecture, num_classes)
    state = network.state_dict().values()
    assert counted.params == sum(parameter.numel() for parameter in network.parameters())
    assert counted.size_bytes == sum(tensor.numel() * tensor.element_size() for tensor in state)
    assert counted.peak_activation_bytes == measured_peak(architecture, num_classes)
    assert counted.conv_params == sum(
        module.weight.numel()
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | CondConv2d) and ".fc" not in name
    )
    described = profile(architecture, num_classes)
    assert described["thop"]["agrees"], described["thop"]
    assert described["flop_counter"]["agrees"], described["flop_counter"]
    placed = layers(architecture, num_classes)
    assert sum(item.layer.params for item in placed) == counted.params
    assert sum(item.layer.macs for item in placed) == counted.macs
    assert sum(part["macs"] for part in described["parts"]) == counted.macs


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Of accuracy and size, by definition."""
    return one[0] >= other[0] and one[1] <= other[1] and one != other


def dominated(row: dict[str, str], rows: list[dict[str, str]]) -> bool:
    """Return whether one of a table's other rows dominates this one in accuracy and size."""
    own, *others = ((float(item["accuracy"]), float(item["size_bytes"])) for item in (row, *rows))
    return any(dominates(other, own) for other in others)

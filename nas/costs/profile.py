"""Everything that is known of a network before it is trained, and what two independent counters make of it.

The closed form of :mod:`nas.costs.analytic` is checked against ``thop`` and torch's ``FlopCounterMode``. They look at a
copy on torch's meta device, which is thrown away: nothing is computed, and thop leaves buffers in the module that it
profiles.

thop counts by module type. By itself it counts BatchNorm and pooling as MACs and is blind to conditional convolutions,
which call functions. Here it is given rules with which it counts what we count: convolutions (conditional ones with
their routing and mixing) and linear layers.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd
import thop
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas.architecture.document import Architecture
from nas.blocks.layers import CondConv2d
from nas.costs.analytic import cost, parts
from nas.network.build import build

Rules = dict[type[nn.Module], Callable[..., None]]


def profile(architecture: Architecture, num_classes: int = 10) -> dict[str, Any]:
    """Return what `nas profile --json` prints: plain values.

    Keys: ``name, id, source, resolution, num_classes``; the counts of :class:`nas.costs.analytic.Cost`; ``thop`` with
    its ``macs`` and ``params`` under our rules, whether it ``agrees``, and its ``own_macs`` without them;
    ``flop_counter`` with ``macs`` and ``agrees``; ``parts``, the network part by part (see :func:`parts_table`).

    Args:
        architecture: the document.
        num_classes: outputs of the last layer.
    """
    counted = cost(architecture, num_classes)
    network, image = _throw_away(architecture, num_classes)
    flop_counter_macs = _count_with_flop_counter(network, image)
    thop_macs, thop_params = _count_with_thop(network, image, rules=_RULES)
    own_macs, _ = _count_with_thop(network, image, rules={})
    return {
        "name": architecture.name,
        "id": architecture.id,
        "source": architecture.source,
        "resolution": architecture.input.resolution,
        "num_classes": num_classes,
        **counted._asdict(),
        "thop": {
            "macs": thop_macs,
            "params": thop_params,
            "agrees": (thop_macs, thop_params) == (counted.macs, counted.params),
            "own_macs": own_macs,
        },
        "flop_counter": {"macs": flop_counter_macs, "agrees": flop_counter_macs == counted.macs},
        "parts": parts_table(architecture, num_classes).to_dict("records"),
    }


def parts_table(architecture: Architecture, num_classes: int = 10) -> pd.DataFrame:
    """The network part by part (stem, each stage, head), as rows.

    Columns: ``part``, ``block`` (kind), ``blocks`` (how many), ``channels`` and ``resolution`` of the output,
    ``params``, ``macs`` and the shares of both in [0, 1].
    """
    counted = cost(architecture, num_classes)
    stem, *blocks, head = parts(architecture, num_classes)
    groups = {"stem": [stem]}
    ends = {"stem": (architecture.stem_channels, architecture.stem.out_size(architecture.input.resolution))}
    stage = -1
    for block, part in zip(architecture.blocks(), blocks, strict=True):
        stage += block.first
        groups.setdefault(f"stages[{stage}]", []).append(part)
        ends[f"stages[{stage}]"] = (block.out_channels, block.out_resolution)
    groups["head"] = [head]
    kinds = {f"stages[{index}]": stage.block for index, stage in enumerate(architecture.stages)}
    rows = []
    for name, group in groups.items():
        params, macs = sum(part.params for part in group), sum(part.macs for part in group)
        channels, resolution = ends.get(name, (num_classes, 1))
        rows.append(
            {
                "part": name,
                "block": kinds.get(name, ""),
                "blocks": len(group),
                "channels": channels,
                "resolution": resolution,
                "params": params,
                "macs": macs,
                "params_share": params / counted.params,
                "macs_share": macs / counted.macs,
            }
        )
    return pd.DataFrame(rows)


def _count_with_thop(network: nn.Module, image: Tensor, *, rules: Rules) -> tuple[int, int]:
    """Count MACs and params as thop does."""
    macs, params = thop.profile(network, inputs=(image,), custom_ops=rules, verbose=False)
    return int(macs), int(params)


def _count_with_flop_counter(network: nn.Module, image: Tensor) -> int:
    """Count MACs as torch's own counter sees them (2 FLOPs per MAC)."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(image)
    return int(counter.get_total_flops()) // 2


def _throw_away(architecture: Architecture, num_classes: int) -> tuple[nn.Module, Tensor]:
    """Make the network and one image on the meta device: shapes without values."""
    image = architecture.input
    with torch.device("meta"):
        network = build(architecture, num_classes).eval()
        return network, torch.empty(1, image.channels, image.resolution, image.resolution)


def _count_conditional(module: CondConv2d, _inputs: tuple[Tensor], output: Tensor) -> None:
    """Count a conditional convolution for thop: one convolution, the mixing of the experts, the routing."""
    n, _, height, width = output.shape
    kernel = module.weight[0].numel()
    mixed = kernel if module.bias is None else kernel + module.out_channels
    routing = module.in_channels * module.experts
    assert isinstance(module.total_ops, Tensor)
    module.total_ops += n * (height * width * kernel + module.experts * mixed + routing)


def _count_nothing(_module: nn.Module, _inputs: tuple[Tensor], _output: Tensor) -> None:
    """Count nothing, for thop, of what is no MAC."""


_RULES: Rules = {
    CondConv2d: _count_conditional,
    nn.BatchNorm2d: _count_nothing,
    nn.AvgPool2d: _count_nothing,
    nn.AdaptiveAvgPool2d: _count_nothing,
}

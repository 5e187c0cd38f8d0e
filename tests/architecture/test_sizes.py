"""Sides in pixels of what layers give: torch's, and the least that a network takes."""

from typing import Any

import pytest
import torch

import nas


@pytest.mark.parametrize(
    "stages",
    [
        [{"block": "conv", "channels": 8, "padding": "valid", "kernel": 5, "repeats": 2, "stride": 2}],
        [{"block": "fire", "channels": 8, "stride": 2}, {"block": "fire", "channels": 8, "stride": 3}],
        [{"block": "separable", "channels": 8, "stride": 2}, {"block": "shuffle", "channels": 8, "stride": 2}],
    ],
)
@pytest.mark.parametrize(
    "stem", [{"channels": 8}, {"channels": 8, "kernel": 7, "stride": 2, "padding": "valid", "pool": "max"}]
)
def test_the_least_resolution_is_the_least_that_torch_takes(stages: list[dict[str, Any]], stem: dict[str, Any]) -> None:
    document = {"name": "least", "input": {"resolution": 256}, "stem": stem, "stages": stages}
    architecture = nas.Architecture.from_dict(document)
    least = architecture.least_resolution
    with torch.device("meta"):
        network = nas.build(architecture, 2).eval()
        assert network(torch.empty(1, 3, least, least)).shape == (1, 2)
    nas.Architecture.from_dict(document).with_input(resolution=least)
    with pytest.raises(nas.UserError, match=f"too small for the strides; give at least {least}"):
        architecture.with_input(resolution=least - 1)


@pytest.mark.parametrize("resolution", range(20, 30))
def test_sizes_are_torchs(resolution: int) -> None:
    stages = [
        {"block": "fire", "channels": 8, "stride": 2},
        {"block": "conv", "channels": 8, "padding": "valid", "kernel": 3},
        {"block": "separable", "channels": 8, "stride": 2},
    ]
    stem = {"channels": 8, "kernel": 3, "padding": "valid", "pool": "max"}
    document = {"name": "sizes", "input": {"resolution": resolution}, "stem": stem, "stages": stages}
    architecture = nas.Architecture.from_dict(document)
    with torch.device("meta"):
        network = nas.build(architecture, 2).eval()
        x = network.stem(torch.empty(1, 3, resolution, resolution))
        for block, module in zip(architecture.blocks(), network.blocks, strict=True):
            assert x.shape[2] == block.resolution
            x = module(x)
            assert x.shape[1:3] == (block.out_channels, block.out_resolution)

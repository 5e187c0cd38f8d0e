"""Inherited weights compute what the parent computes, as far as the child can."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nas
from nas.architecture.catalogue import network_names
from nas.network.inherit import inherit

STAGES: dict[str, dict[str, Any]] = {
    "inverted_residual": {"block": "inverted_residual", "expansion": 2, "kernels": [3, 5], "se_ratio": 0.25},
    "concat": {"block": "inverted_residual", "expansion": 2, "kernels": [3, 5], "combine": "concat"},
    "experts": {"block": "inverted_residual", "expansion": 1, "keep_expansion": True, "experts": 2, "shortcut": "conv"},
    "upper": {"block": "inverted_residual", "expansion": 1, "kernels": [5], "padding": "same_upper"},
    "bottleneck": {"block": "bottleneck", "kernels": [3, 5], "combine": "concat"},
    "resnet": {"block": "bottleneck", "conv": "standard"},
    "depthwise_separable": {"block": "depthwise_separable", "kernels": [3, 5], "se_ratio": 0.5, "shortcut": "identity"},
    "no_intermediate": {"block": "depthwise_separable", "intermediate": False},
    "conv": {"block": "conv", "kernel": 5, "shortcut": "conv_strided"},
    "separable": {"block": "separable", "depth": 3, "expansion": 0.5},
    "shuffle": {"block": "shuffle", "groups": 2, "expansion": 0.5},
    "fire": {"block": "fire", "expansion": 0.25},
}


def document(stage: dict[str, Any], channels: int = 16, repeats: int = 3, **fields: Any) -> dict[str, Any]:
    """A network of two stages of a kind, the second of twice the channels and strided."""
    stages = [
        {**stage, "channels": channels, "repeats": repeats - 1},
        {**stage, "channels": 2 * channels, "repeats": repeats, "stride": 2},
    ]
    image = {"channels": 3, "resolution": 12}
    stem, head = {"channels": channels}, {"channels": 2 * channels}
    return {"name": "net", "input": image, "stem": stem, "stages": stages, "head": head, **fields}


def network(document: dict[str, Any], seed: int = 0) -> tuple[nas.Architecture, nn.Module]:
    """A network in eval mode whose norms are away from their neutral start."""
    architecture = nas.Architecture.from_dict(document)
    torch.manual_seed(seed)
    module = nas.build(architecture, 5).eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 1, 1.5)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return architecture, module


def child_of(parent: nas.Architecture, module: nn.Module, document: dict[str, Any]) -> nn.Module:
    architecture, child = network(document, seed=1)
    child.load_state_dict(inherit(parent, module.state_dict(), architecture), strict=False)
    return child


@torch.no_grad()
def assert_same(found: nn.Module, expected: nn.Module, architecture: nas.Architecture) -> None:
    image = architecture.input
    images = torch.randn(3, image.channels, image.resolution, image.resolution)
    wanted = expected(images)
    torch.testing.assert_close(found(images), wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def without_last_blocks(architecture: nas.Architecture, module: nn.Module) -> dict[str, Any]:
    """Take the last block out of every stage with several, in place; return the document of what is left."""
    document = architecture.to_dict()
    ends = [index for index, block in enumerate(architecture.blocks()) if block.first][1:]
    ends.append(len(module.blocks))
    shorter = [index - 1 for index, stage in zip(ends, architecture.stages, strict=True) if stage.repeats > 1]
    module.blocks = nn.Sequential(*(block for index, block in enumerate(module.blocks) if index not in shorter))
    stages = [{**stage, "repeats": max(1, stage.get("repeats", 1) - 1)} for stage in document["stages"]]
    return {**document, "stages": stages}


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_equal_and_shallower_children_compute_what_the_parent_does(kind: str, norm: str) -> None:
    architecture, module = network(document(STAGES[kind], norm=norm))
    weights = module.state_dict()
    assert inherit(architecture, weights, architecture).keys() == weights.keys()
    assert_same(child_of(architecture, module, architecture.to_dict()), module, architecture)
    _, child = network(shorter := without_last_blocks(architecture, module), seed=1)
    child.load_state_dict(inherit(architecture, weights, nas.Architecture.from_dict(shorter)))
    assert_same(child, module, architecture)


@pytest.mark.slow
@pytest.mark.parametrize("name", network_names())
def test_every_published_network_and_its_shallower_child(name: str) -> None:
    wide = nas.load(name).to_dict()
    narrow = {**wide, "width": wide.get("width", 1) / 8}
    least = max(16, nas.Architecture.from_dict(narrow).least_resolution)
    architecture, module = network({**narrow, "input": {"channels": 3, "resolution": least}})
    weights = module.state_dict()
    assert_same(child_of(architecture, module, architecture.to_dict()), module, architecture)
    _, child = network(shorter := without_last_blocks(architecture, module), seed=1)
    child.load_state_dict(inherit(architecture, weights, nas.Architecture.from_dict(shorter)))
    assert_same(child, module, architecture)


def silence(module: nn.Module, channels: Tensor) -> None:
    """Let a layer write nothing into these channels."""
    for tensor in (module.weight, module.bias):
        tensor.data[channels] = 0


@pytest.mark.parametrize("kind", [kind for kind in STAGES if kind != "shuffle"])
def test_a_narrower_child_keeps_the_channels_that_matter(kind: str) -> None:
    """A parent with half of its channels silent is its child of half the width."""
    stage = {key: value for key, value in STAGES[kind].items() if key != "se_ratio"}  # its inner channels all speak
    architecture, module = network(document(stage))
    branches = 2 if kind in ("concat", "bottleneck") else 1
    for name, layer in module.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            # A norm after a concatenated pyramid has its channels once for each branch.
            parts = branches if ".body.1.1" in name and kind == "concat" else 1
            parts = branches if ".body.2.1" in name and kind == "bottleneck" else parts
            silence(layer, torch.arange(layer.num_features).view(parts, -1, 2)[..., 1].flatten())
    child = child_of(architecture, module, document(stage, channels=8))
    assert_same(child, module, architecture)


def test_shuffled_groups_keep_their_channels() -> None:
    """Where input and output are concatenated and shuffled, a child's group is a part of the parent's."""
    architecture, module = network(document(STAGES["shuffle"], stem={"channels": 8}))
    child = child_of(architecture, module, document(STAGES["shuffle"], channels=8, stem={"channels": 4}))
    wide, narrow = module.blocks[1].body, child.blocks[1].body  # the one after that which concatenates
    for whole, part in zip(wide[0][0].weight.chunk(2), narrow[0][0].weight.chunk(2), strict=True):
        assert {*part.flatten().tolist()} <= {*whole.flatten().tolist()}
    kernels = [kernel.tolist() for kernel in wide[2][0].weight]
    places = [kernels.index(kernel.tolist()) for kernel in narrow[2][0].weight]
    assert [place % 2 for place in places] == [0, 1, 0, 1]  # the groups take turns, as in the parent


PLAIN = {"block": "inverted_residual", "expansion": 2, "kernels": [5]}


@pytest.mark.parametrize(
    "more",
    [
        {"kernels": [3, 5]},
        {"kernels": [1, 3, 5]},
        {"kernels": [5], "se_ratio": 0.25},
        {"kernels": [3, 5], "experts": 3},
        {"kernels": [5], "shortcut": "conv"},
        {"kernels": [3, 5], "experts": 2, "se_ratio": 0.5},
    ],
)
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_what_the_parent_lacks_changes_nothing_at_the_start_and_learns(more: dict[str, Any], norm: str) -> None:
    architecture, module = network(document(PLAIN, norm=norm))
    child = child_of(architecture, module, document({**PLAIN, **more}, norm=norm))
    assert_same(child, module, architecture)
    child(torch.randn(3, 3, 12, 12)).square().sum().backward()
    still = [name for name, value in child.named_parameters() if not value.grad.abs().sum() > 0]
    # What a zero follows begins to learn one step later.
    assert all("fc1" in name or "shortcut.0" in name for name in still)


def test_a_concatenated_pyramid_of_equal_kernels_begins_as_the_parents_one() -> None:
    architecture, module = network(document({**PLAIN, "kernels": [3, 5], "combine": "concat"}))
    child = child_of(architecture, module, document({**PLAIN, "kernels": [3], "combine": "concat"}))
    whole, part = module.blocks[0].body, child.blocks[0].body
    torch.testing.assert_close(part[1][0].branches[0].weight, whole[1][0].branches[0].weight)
    torch.testing.assert_close(part[2][0].weight, whole[2][0].weight[:, :32])


def test_smaller_kernels_are_the_centre_of_the_sum() -> None:
    architecture, module = network(document({**PLAIN, "kernels": [3, 5]}))
    child = child_of(architecture, module, document({**PLAIN, "kernels": [3]}))
    small, large = module.blocks[0].body[1][0].branches
    torch.testing.assert_close(
        child.blocks[0].body[1][0].branches[0].weight, small.weight + large.weight[..., 1:-1, 1:-1]
    )


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"stages": [{**PLAIN, "channels": 24}]}, r"net: stages\[0\].channels: 24 channels, the parent has 16 \(net\)"),
        ({"stages": [{**PLAIN, "channels": 16, "repeats": 3}]}, r"stages\[0\].repeats: 3 are more than the parent's 2"),
        ({"stages": [{**PLAIN, "channels": 16, "expansion": 3}]}, r"stages\[0\].expansion: 48 channels, .* has 32"),
        ({"stages": [{**PLAIN, "channels": 16, "kernels": [7]}]}, r"stages\[0\].kernels: 7 is larger than .* 5"),
        ({"stages": [{"block": "conv", "channels": 16}]}, r"stages\[0\].block: conv, the parent net has inverted"),
        ({"stem": {"channels": 16, "kernel": 5}}, r"stem.kernel: 5 is larger than the parent's 3"),
        ({"stem": {"channels": 32}}, r"stem.channels: 32 channels, the parent has 16"),
        ({"head": {"channels": 64}}, r"head.channels: 64 channels, the parent has 32"),
        ({"activation": "silu"}, "activation: silu, the parent net has relu: another family"),
        ({"input": {"channels": 1, "resolution": 12}}, "input.channels: 1, the parent net has 3"),
    ],
)
def test_a_child_that_does_not_fit_is_refused_in_one_line(change: dict[str, Any], line: str) -> None:
    architecture, module = network(document(PLAIN))
    with pytest.raises(nas.UserError, match=line) as error:
        inherit(architecture, module.state_dict(), nas.Architecture.from_dict({**document(PLAIN), **change}))
    assert "\n" not in str(error.value)


def test_weights_of_another_network_are_refused() -> None:
    _, module = network(document(PLAIN))
    other, _ = network(document(PLAIN, channels=8))
    with pytest.raises(nas.UserError, match=r"do not fit the parent net: stem.0.weight is \(16, 3, 3, 3\), not \(8, 3"):
        inherit(other, module.state_dict(), other)

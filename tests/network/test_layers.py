"""Layers against plain loops over stock convolutions."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from checks import EVERYTHING
from torch import Tensor, nn

import nas
from nas.blocks.layers import CondConv2d, Pyramid, conv_norm_act
from nas.network.fold import fold


def image_by_image(layer: CondConv2d, x: Tensor) -> Tensor:
    """The definition: mix the kernels for each image, then convolve that image."""
    shape = (layer.out_channels, layer.in_channels // layer.groups, layer.kernel_size, layer.kernel_size)
    experts = [expert.view(shape) for expert in layer.weight]
    outputs = []
    for image in x:
        routing = torch.sigmoid(layer.routing(image.mean((1, 2))))
        kernel = sum(share * expert for share, expert in zip(routing, experts, strict=True))
        bias = None if layer.bias is None else routing @ layer.bias
        outputs.append(
            F.conv2d(image[None], kernel, bias, stride=layer.stride, padding=layer.padding, groups=layer.groups)
        )
    return torch.cat(outputs)


CONDITIONAL = [
    pytest.param({"in_channels": 8, "out_channels": 12, "kernel_size": 1}, id="pointwise"),
    pytest.param({"in_channels": 8, "out_channels": 12, "kernel_size": 1, "groups": 2}, id="grouped pointwise"),
    pytest.param({"in_channels": 8, "out_channels": 8, "kernel_size": 3, "groups": 8}, id="depthwise 3"),
    pytest.param({"in_channels": 8, "out_channels": 8, "kernel_size": 5, "groups": 8}, id="depthwise 5"),
    pytest.param({"in_channels": 8, "out_channels": 12, "kernel_size": 3}, id="full"),
    pytest.param({"in_channels": 8, "out_channels": 12, "kernel_size": 3, "padding": 0, "bias": True}, id="no padding"),
]


@pytest.mark.parametrize("arguments", CONDITIONAL)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("side", [2, 9])  # few pixels are computed in another order
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_conditional_convolution_mixes_kernels_per_image(
    arguments: dict[str, int], stride: int, batch: int, side: int, memory_format: torch.memory_format
) -> None:
    if arguments.get("padding") == 0 and side < arguments["kernel_size"]:
        pytest.skip("the image is smaller than the kernel")
    torch.manual_seed(0)
    layer = CondConv2d(**arguments, stride=stride, experts=4).double()
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    x = torch.randn(batch, 8, side, side, dtype=torch.double).contiguous(memory_format=memory_format)
    expected = image_by_image(layer, x)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer._exported(x, layer.route(x.mean((2, 3)))), expected)

    layer(x).square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    expected.square().sum().backward()
    torch.testing.assert_close(gradients, [parameter.grad for parameter in layer.parameters()])


def test_one_expert_is_an_ordinary_convolution() -> None:
    stage = {"block": "inverted_residual", "channels": 16, "experts": 1}
    document = {"name": "one", "stem": {"channels": 8}, "stages": [stage]}
    network = nas.build(nas.Architecture.from_dict(document), 10)
    assert not any(isinstance(module, CondConv2d) for module in network.modules())


@pytest.mark.parametrize("combine", ["add", "concat"])
@pytest.mark.parametrize("kernels", [(3,), (3, 5), (7, 3, 5)])
@pytest.mark.parametrize("stride", [1, 2])
def test_pyramid_is_separate_depthwise_convolutions(combine: str, kernels: tuple[int, ...], stride: int) -> None:
    torch.manual_seed(0)
    pyramid = Pyramid(6, kernels, combine, stride=stride)  # type: ignore[arg-type]
    x = torch.randn(3, 6, 11, 11)
    separate = []
    for branch, kernel in zip(pyramid.branches, sorted(kernels), strict=True):
        alone = nn.Conv2d(6, 6, kernel, stride, kernel // 2, groups=6, bias=False)
        alone.weight.data.copy_(branch.weight)
        separate.append(alone(x))
    expected = torch.stack(separate).sum(0) if combine == "add" else torch.cat(separate, 1)
    torch.testing.assert_close(pyramid(x), expected)
    assert pyramid.out_channels == expected.shape[1]


@pytest.mark.parametrize("experts", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_pyramid_learns_as_its_branches_do(experts: int, bias: bool, depthwise: bool, stride: int) -> None:
    """In training its kernels are added up first; outputs and gradients are those of one branch after the other."""
    torch.manual_seed(0)
    pyramid = Pyramid(6, (3, 5, 7), "add", stride=stride, depthwise=depthwise, experts=experts, bias=bias).double()
    for branch in pyramid.branches:
        if branch.bias is not None:
            nn.init.normal_(branch.bias)
    x = torch.randn(3, 6, 11, 11, dtype=torch.double)
    results = []
    for forward in (pyramid, lambda x: torch.stack([branch(x) for branch in pyramid.branches]).sum(0)):
        pyramid.zero_grad()
        out = forward(x)
        out.square().sum().backward()
        results.append((out, [parameter.grad for parameter in pyramid.parameters()]))
    torch.testing.assert_close(*results)


def test_squeeze_and_excitation_is_torchvisions_between_depthwise_and_projection() -> None:
    torch.manual_seed(0)
    stage = {"block": "inverted_residual", "channels": 8, "expansion": 4, "se_ratio": 0.25}
    network = nas.build(
        nas.Architecture.from_dict({"name": "se", "stem": {"channels": 8}, "stages": [stage]}), 10
    ).eval()
    expand, depthwise, squeeze, project = network.blocks[0].body
    theirs = torchvision.ops.SqueezeExcitation(32, 8)
    theirs.load_state_dict(squeeze.state_dict())
    x = torch.randn(2, 8, 16, 16)
    torch.testing.assert_close(network.blocks[0](x), x + project(theirs(depthwise(expand(x)))))


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Up to rounding, in proportion to the outputs: fresh networks' outputs can be tiny."""
    torch.testing.assert_close(actual, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_every_block_works_in_every_mode(norm: str) -> None:
    """Memory formats, mixed precision and batch sizes give one network's one answer, and all weights learn."""
    torch.manual_seed(0)
    network = nas.build(nas.Architecture.from_dict({**EVERYTHING, "norm": norm}), 10)
    x = torch.randn(4, 3, 64, 64)
    network(x).square().sum().backward()
    missing = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not missing

    network.eval()
    with torch.no_grad():
        expected = network(x)
        assert_same(torch.cat([network(image[None]) for image in x]), expected)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.isfinite(network(x)).all()
        last = network.to(memory_format=torch.channels_last)
        assert_same(last(x.contiguous(memory_format=torch.channels_last)), expected)


def test_export_with_a_free_batch() -> None:
    torch.manual_seed(0)
    network = nas.build(nas.Architecture.from_dict(EVERYTHING), 10).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(network, (torch.randn(2, 3, 64, 64),), dynamic_shapes=({0: batch},))
    for n in (1, 7):
        x = torch.randn(n, 3, 64, 64)
        assert_same(program.module()(x), network(x))


@pytest.mark.slow
def test_compile() -> None:
    torch.manual_seed(0)
    network = nas.build(nas.Architecture.from_dict(EVERYTHING), 10).eval()
    compiled = torch.compile(network, backend="aot_eager")  # what can be traced; Inductor's kernels are torch's affair
    with torch.no_grad():
        for n in (2, 5):
            x = torch.randn(n, 3, 64, 64)
            assert_same(compiled(x), network(x))


@pytest.mark.parametrize("groups", [1, 2, 3, 8])
@pytest.mark.parametrize("channels", [24, 30, 35])
def test_a_shuffle_stage_takes_any_channels(groups: int, channels: int) -> None:
    stages = [{"block": "shuffle", "channels": channels, "repeats": 2, "stride": 2, "groups": groups}]
    network = nas.build(nas.Architecture.from_dict({"name": "shuffle", "stem": {"channels": 20}, "stages": stages}), 10)
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_channel_shuffle_deals_the_groups_out() -> None:
    stages = [{"block": "shuffle", "channels": 12, "groups": 3, "expansion": 1}]
    network = nas.build(nas.Architecture.from_dict({"name": "shuffle", "stem": {"channels": 12}, "stages": stages}), 10)
    (shuffle,) = [module for module in network.modules() if isinstance(module, nn.ChannelShuffle)]
    order = shuffle(torch.arange(12.0).view(1, 12, 1, 1)).flatten().int().tolist()
    assert order == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]  # Zhang et al., Figure 1 (c)


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(8, 3, 2), (8, 5, 2), (7, 3, 2), (9, 5, 3), (8, 5, 4), (6, 3, 1)]
)
def test_same_upper_pads_as_tensorflow_does(size: int, kernel: int, stride: int) -> None:
    """TensorFlow's rule: (ceil(size / stride) - 1) * stride + kernel - size zeros in all, the odd one behind."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    before = total // 2
    x = torch.randn(2, 4, size, size)
    layer = conv_norm_act(4, 6, kernel, stride=stride, padding="same_upper", size=size, activation=None, norm="none")
    (weight, bias) = layer.parameters()
    expected = F.conv2d(F.pad(x, (before, total - before) * 2), weight, bias, stride)
    torch.testing.assert_close(layer(x), expected)
    stage = {"block": "inverted_residual", "channels": 4, "expansion": 1, "stride": stride, "kernels": [kernel]}
    document = {"name": "net", "input": {"channels": 3, "resolution": size}, "stem": {"channels": 4}}
    net = nas.build(nas.Architecture.from_dict({**document, "stages": [{**stage, "padding": "same_upper"}]}), 2)
    depthwise, _ = net.blocks[0].body[0][:2]
    (weight,) = depthwise.parameters()
    expected = F.conv2d(F.pad(x, (before, total - before) * 2), weight, None, stride, groups=4)
    torch.testing.assert_close(depthwise(x), expected)
    torch.testing.assert_close(fold(depthwise)(x), expected)

"""Channels and weights that a child inherits where its parent has seen images: against least squares by torch."""

import torch
from torch import Tensor

import nas
from nas.network.build import Network
from nas.network.importance import importance_on_images, observe
from nas.network.inherit import inherit

STAGE = {"block": "inverted_residual", "channels": 6, "keep_expansion": True}
DOCUMENT = {
    "name": "parent",
    "input": {"channels": 3, "resolution": 8},
    "stem": {"channels": 6},
    "head": {"channels": 20},
}
PARENT = nas.Architecture.from_dict({**DOCUMENT, "stages": [{**STAGE, "expansion": 4}]})
CHILD = nas.Architecture.from_dict({**DOCUMENT, "stages": [{**STAGE, "expansion": 2}]})


def seen(network: Network) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Images, and what the importance of the channels and the covariances are on them."""
    torch.manual_seed(1)
    images = torch.randn(64, 3, 8, 8)
    known = observe(network, images.split(16))
    scores = importance_on_images(PARENT, network, network.state_dict(), known)
    return images, dict(scores), {path: read.covariance for path, read in known.items()}


def hidden(network: Network, images: Tensor) -> Tensor:
    """What the projection reads, (values, channels)."""
    block = network.blocks[0].body
    with torch.no_grad():
        return block[:-1](network.stem(images)).movedim(1, -1).flatten(0, -2)


def parent_network() -> Network:
    torch.manual_seed(0)
    return nas.build(PARENT, 5).eval()


def test_what_layers_read_has_the_covariance_that_numpy_gives() -> None:
    network = parent_network()
    images, _, covariances = seen(network)
    torch.testing.assert_close(covariances["blocks.0.body.2.0"].float(), hidden(network, images).T.cov(correction=0))


def test_a_child_reads_with_the_weights_of_least_squares() -> None:
    network = parent_network()
    images, scores, covariances = seen(network)
    child = inherit(PARENT, network.state_dict(), CHILD, scores=scores, covariances=covariances)
    kept = scores["blocks.0.hidden"].argsort(descending=True)[:12].sort().values
    values = hidden(network, images)
    values = values - values.mean(0)
    computed = values @ network.state_dict()["blocks.0.body.2.0.weight"].flatten(1).T
    expected = torch.linalg.lstsq(values[:, kept], computed).solution.T
    found = child["blocks.0.body.2.0.weight"].flatten(1)
    error = (values[:, kept] @ found.T - computed).square().sum()
    plain = inherit(PARENT, network.state_dict(), CHILD, scores=scores)["blocks.0.body.2.0.weight"].flatten(1)
    assert error <= 1.05 * (values[:, kept] @ expected.T - computed).square().sum()
    assert error < 0.9 * (values[:, kept] @ plain.T - computed).square().sum()


def test_channels_that_images_do_not_light_up_are_left_out() -> None:
    network = parent_network()
    norm = network.blocks[0].body[1][1]
    with torch.no_grad():
        norm.weight[::2], norm.bias[::2] = 9.0, -200.0  # large by its weights, and never above 0
    _, scores, _ = seen(network)
    assert {*scores["blocks.0.hidden"].argsort(descending=True)[:12].tolist()} == {*range(1, 24, 2)}

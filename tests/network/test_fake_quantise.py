"""Simulated int8 against the values that real int8 engines compute."""

import pytest
import torch
from shipping import KINDS, card_of, expected_logits, lived_in, small

import nas
from nas.network.fake_quantise import FakeQuantised

NETWORK = small([*KINDS["inverted_residual"], *KINDS["bottleneck"]], input={"resolution": 32})
ONE_LAYER = small([{"block": "conv", "channels": 8}], head={"channels": 0})


def simulated(
    network: torch.nn.Module, card: nas.export.Card, images: torch.Tensor, per_tensor: bool = False
) -> FakeQuantised:
    fake = FakeQuantised(network, per_tensor=per_tensor)
    fake.observe([normalised(card, images)])
    return fake


def normalised(card: nas.export.Card, images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (card.mean, card.std))
    return (images.float() / 255 - mean) / std


def by_onnxruntime(network, card, images, folder, per_tensor):
    pytest.importorskip("onnxruntime")
    from nas.export import quantise, to_onnx
    from nas.export.shipping import open_exported

    to_onnx(card, network.state_dict(), folder / "fp32.onnx")
    quantise(folder / "fp32.onnx", folder / "int8.onnx", images, per_tensor=per_tensor)
    return open_exported(folder / "int8.onnx")[0]


def by_litert(network, card, images, folder, per_tensor):
    pytest.importorskip("litert_torch")
    from nas.export.litert import Session, litert_bytes, litert_int8_bytes

    del folder
    return Session(litert_int8_bytes(litert_bytes(card, network.state_dict()), images, per_tensor=per_tensor))


@pytest.mark.parametrize("engine", [by_onnxruntime, by_litert])
@pytest.mark.parametrize(
    ("architecture", "per_tensor"), [(ONE_LAYER, False), (ONE_LAYER, True), (NETWORK, False), (NETWORK, True)]
)
def test_logits_are_those_of_the_int8_model(engine, architecture, per_tensor, tmp_path):
    """To a step of the output for one layer; a tie of rounding may go either way, which deeper layers pass on."""
    network, card = lived_in(architecture), card_of(architecture)
    images = (torch.rand(64, *card.shape, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    model = engine(network, card, images, tmp_path, per_tensor)
    expected, fp32 = model(images / 255), expected_logits(network, card, images / 255)
    with torch.no_grad():
        logits = simulated(network, card, images, per_tensor)(normalised(card, images))
    if architecture is ONE_LAYER:
        assert (logits - expected).abs().max() < 1.1 * (fp32.amax() - fp32.amin()) / 255
    assert (logits - expected).abs().mean() < 0.5 * (fp32 - expected).abs().mean()


def test_gradients_go_straight_through():
    """Every weight's gradient points where the float network's does, of kernels that are added for rounding too."""
    network, card = lived_in(NETWORK), card_of(NETWORK)
    images = (torch.rand(64, *card.shape, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    labels = torch.arange(64) % 10
    gradients = []
    for forward in (simulated(network, card, images), network):
        network.zero_grad()
        torch.nn.functional.cross_entropy(forward(normalised(card, images)), labels).backward()
        gradients.append({name: weight.grad.flatten() for name, weight in network.named_parameters()})
    assert not network.state_dict().keys() ^ nas.build(NETWORK, 10).state_dict().keys()
    for name, gradient in gradients[0].items():
        assert torch.cosine_similarity(gradient, gradients[1][name], dim=0) > 0.9, name

"""Networks with public weights, as parents."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image
from torch import Tensor

import nas
from nas.training.parents import at_hand, imagenet_classes, load_parent


def photo(name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """One of scikit-learn's two photos, as an ImageNet network sees it: (1, 3, 224, 224)."""
    image = Image.fromarray(load_sample_image(name))
    image = ImageOps.fit(image, (224, 224), Image.Resampling.BILINEAR, bleed=0.0625)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return ((pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))[None]


@torch.no_grad()
def test_efficientnet_lite0_knows_a_palace_and_a_daisy() -> None:
    parent = load_parent("efficientnet-lite0")
    network = nas.build(parent.architecture, 1000).eval()
    network.load_state_dict(dict(parent.weights))
    for name, number, label, at_least in (("china.jpg", 698, "palace", 0.35), ("flower.jpg", 985, "daisy", 0.2)):
        shares = network(photo(name, parent.mean, parent.std)).softmax(1)[0]
        assert int(shares.argmax()) == number and imagenet_classes()[number] == label
        assert shares[number] > at_least


@torch.no_grad()
def test_a_child_of_other_inputs_sees_the_same() -> None:
    parent = load_parent("efficientnet-lite0")
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    child = nas.build(parent.architecture, 1000).eval()
    child.load_state_dict(parent.begin(parent.architecture, imagenet_classes(), mean, std))
    shares = child(photo("china.jpg", mean, std)).softmax(1)[0]
    assert int(shares.argmax()) == 698 and shares[698] > 0.3  # zeros at the borders mean another colour now
    fresh = parent.begin(parent.architecture, ("cat", "dog"), parent.mean, parent.std)
    assert {*parent.weights} - {*fresh} == {"classifier.weight", "classifier.bias"}


@torch.no_grad()
def test_mobilenetv2_is_torchvisions_once_it_was_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
    assert not at_hand("mobilenetv2")
    file = tmp_path / "hub" / "checkpoints" / "mobilenet_v2-7ebf99e0.pth"
    with pytest.raises(nas.UserError, match="mobilenetv2: its weights cannot be downloaded") as error:
        load_parent("mobilenetv2")
    assert f"put https://download.pytorch.org/models/{file.name} at {file}" in str(error.value)
    torch.manual_seed(0)
    theirs = torchvision.models.mobilenet_v2().eval()
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(theirs.state_dict(), file)
    assert at_hand("mobilenetv2")
    parent = load_parent("mobilenetv2")
    network = nas.build(parent.architecture, 1000).eval()
    network.load_state_dict(dict(parent.weights))
    images = torch.randn(1, 3, 96, 96)
    expected = theirs(images)
    torch.testing.assert_close(network(images), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_what_is_no_parent_is_said_in_one_line() -> None:
    with pytest.raises(nas.UserError, match="--init resnet: neither a file nor a network with public weights: effic"):
        load_parent("resnet")
    parent = load_parent("efficientnet-lite0")
    with pytest.raises(nas.UserError, match=r"--init efficientnet-lite0: han-e: activation: relu, the parent effic"):
        parent.begin(nas.load("han-e"), ("cat", "dog"), parent.mean, parent.std)

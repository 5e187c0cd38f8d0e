"""Searches whose networks begin with a parent's weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import SPACE
from PIL import Image

import nas
from nas.driver.asked import default_space, parent_for
from nas.network.inherit import inherit
from nas.training.checkpoint import load_checkpoint, load_trained
from nas.training.data import load_dataset
from nas.training.evaluator import TrainingEvaluator
from nas.training.parents import Parent
from nas.training.recipe import Recipe

SPACES = {"efficientnet_lite": "efficientnet-lite0", "mobilenet_v2": "mobilenetv2"}


@pytest.mark.parametrize("name", SPACES)
def test_members_of_photo_spaces_are_slices_of_their_parent(name: str) -> None:
    parent, space = nas.load(SPACES[name]), nas.load_space(name)
    weights = nas.build(parent, 3).state_dict()
    rng = np.random.default_rng(0)
    sizes = []
    for _ in range(3):
        child = nas.build(member := space.sample(rng), 3)
        child.load_state_dict(inherit(parent, weights, member))
        sizes.append(nas.cost(member).params)
        classifier = child.classifier.weight
        assert {*classifier.flatten().tolist()} <= {*weights["classifier.weight"].flatten().tolist()}
    assert len({*sizes}) == 3 and max(sizes) < nas.cost(parent).params


def test_the_default_is_a_parent_for_photos_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "nas")
    assert parent_for(None, nas.load_space("inverted_residual")) is None
    assert not caplog.messages
    assert parent_for(None, nas.load_space("efficientnet_lite")) == "efficientnet-lite0"
    assert parent_for("none", nas.load_space("efficientnet_lite")) is None
    (line,) = caplog.messages
    assert "slices of efficientnet-lite0's ImageNet weights (--init none: with fresh ones)" in line
    with pytest.raises(nas.UserError, match=r"--init efficientnet-lite0: inverted_residual: activation: relu, the"):
        parent_for("efficientnet-lite0", nas.load_space("inverted_residual"))


def test_the_kind_of_images_chooses_the_space(tmp_path: Path) -> None:
    assert default_space("cifar10") == "inverted_residual"
    for side, space in ((32, "inverted_residual"), (120, "efficientnet_lite")):
        for label in ("a", "b"):
            (tmp_path / f"{side}" / label).mkdir(parents=True)
            for number in range(3):
                noise = np.random.default_rng(number).integers(0, 256, (side, 2 * side, 3), dtype=np.uint8)
                Image.fromarray(noise).save(tmp_path / f"{side}" / label / f"{number}.png")
        assert default_space(f"imagefolder:{tmp_path / str(side)}") == space
    assert default_space(f"imagefolder:{tmp_path / 'nowhere'}") == "inverted_residual"  # reading it says what is wrong


@pytest.mark.slow
@pytest.mark.usefixtures("shared_ray")
def test_trials_begin_with_the_parents_slices(tmp_path: Path) -> None:
    """Nothing is learned here, so that what is kept is what it began with."""
    space = nas.Space(SPACE)
    values = {name: parameter.values[-1] for name, parameter in space.parameters_by_name.items()}
    still = Recipe(lr=1e-8, weight_decay=0, epochs=1, schedule="constant")
    largest = nas.train(
        space.architecture(values), dataset="digits", train_size=200, recipe=still, out=tmp_path / "parent"
    )
    run = nas.search(
        space,
        objectives=("accuracy", "params"),
        published="none",
        trials=3,
        train_size=200,
        recipe=still,
        init=largest.model,
        keep="all",
        out=tmp_path / "run",
    )
    assert run.settings.init == str(largest.model)
    stem = load_trained(largest.model).weights["stem.0.weight"]
    files = list((tmp_path / "run" / "checkpoints").glob("*.pt"))
    assert len(files) == 3
    for file in files:
        saved = load_checkpoint(file)
        assert saved.extra["parent"] == str(largest.model)
        torch.testing.assert_close(saved.weights["stem.0.weight"], stem, atol=1e-6, rtol=1e-5)
    begun = nas.train(run.front_records[0].architecture, run=run.path, recipe=still, out=tmp_path / "again")
    assert begun.initialised is not None and not begun.initialised.fresh


def test_a_beginning_is_the_same_whenever_it_is_made() -> None:
    data = load_dataset("digits", train_size=100)
    parent_network = nas.load("han-e").with_input(channels=1, resolution=8)
    child = nas.Architecture.from_dict({**parent_network.to_dict(), "width": 0.5})
    torch.manual_seed(0)
    weights = nas.build(parent_network, 10).state_dict()
    parent = Parent("x", parent_network, weights, data.classes, data.mean, data.std)
    evaluator = TrainingEvaluator(data, Recipe(epochs=1, ema=0.9), parent=parent)
    first, second = (evaluator.trainer(child, 3) for _ in range(2))
    for one, other in ((first.network, second.network), (first.network, first.evaluated_network)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name

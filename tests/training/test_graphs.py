"""CUDA graphs of the training step: what can be known without a GPU, and what a GPU has to show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from checks import EVERYTHING as EVERY_BLOCK
from test_loop import EVERYTHING, PLAIN, curve
from torch import nn
from training_networks import small_network

import nas
from nas.training.augment import Draws, draw_epoch
from nas.training.data import Dataset, Images
from nas.training.loop import Trainer
from nas.training.recipe import Recipe

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def on_meta(dataset: Dataset) -> Dataset:
    """Shapes without values: reading one fails, and so does mixing in a tensor from another device."""
    train = dataset.train.to("meta")
    return replace(dataset, train=train, validation=train, test=train)


def epoch_of(trainer: Trainer) -> Draws:
    return draw_epoch(
        trainer._augmentation,
        count=len(trainer.dataset.train),
        steps=trainer._steps,
        batch=trainer._batch,
        resolution=trainer.dataset.resolution,
        epoch=0,
        first_flips=torch.zeros(len(trainer.dataset.train), dtype=torch.bool),
        generator=torch.Generator(),
    )


@pytest.mark.parametrize("optimizer", ["nag", "adamw"])
@pytest.mark.parametrize(("augment", "pad_mode"), [("small", "zero"), ("small", "reflect"), ("photo", "zero")])
def test_a_step_reads_no_value(digits: Dataset, optimizer: Any, augment: Any, pad_mode: Any) -> None:
    """What a graph captures runs without a synchronisation and without a tensor from the host, whatever the network."""
    network = nas.build(nas.Architecture.from_dict(EVERY_BLOCK), 10)
    images = Images(torch.zeros(64, 3, 64, 64, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64))
    dataset = on_meta(replace(digits, channels=3, resolution=64, train=images, mean=(0.5,) * 3, std=(0.2,) * 3))
    recipe = replace(EVERYTHING, optimizer=optimizer, augment=augment, pad_mode=pad_mode, batch_size=16)
    trainer = Trainer(network, dataset, recipe)
    draws = epoch_of(trainer).to(dataset.device)
    of_the_other = {"small": {"maps", "operations", "magnitudes", "boxes"}, "photo": {"offsets", "flips"}}[augment]
    assert {name for name, draw in vars(draws).items() if draw is None} == of_the_other
    trainer._step(draws.step(0))
    assert trainer._average is not None
    trainer._average.update(0)


class Curious(nn.Module):
    """Looks at a value in its forward pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum().item() > 0 else -x


def test_a_step_that_reads_a_value_is_found(digits: Dataset) -> None:
    network = nn.Sequential(small_network(), Curious())
    trainer = Trainer(network, on_meta(digits), PLAIN)
    with pytest.raises(RuntimeError, match="meta"):
        trainer._step(epoch_of(trainer).to(torch.device("meta")).step(0))


def test_draws_of_a_graph_are_its_own(digits: Dataset) -> None:
    trainer = Trainer(small_network(), digits, EVERYTHING)
    draws = epoch_of(trainer)
    own = draws.step(0).clone()
    kept = [draw.data_ptr() for draw in own._fields() if draw is not None]
    own.copy_(draws.step(1))
    assert kept == [draw.data_ptr() for draw in own._fields() if draw is not None]
    for mine, theirs in zip(own._fields(), draws.step(1)._fields(), strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or theirs is None or torch.equal(mine, theirs)
    assert not torch.equal(own.order, draws.step(0).order)


class Asking(nn.Module):
    """Notes whether cuDNN may time its kernels while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.training_asked: set[bool] = set()
        self.other_asked: set[bool] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (self.training_asked if torch.is_grad_enabled() else self.other_asked).add(torch.backends.cudnn.benchmark)
        return x


@pytest.mark.parametrize("before", [False, True])
def test_cudnn_times_its_kernels_for_steps_alone(digits: Dataset, monkeypatch: Any, before: bool) -> None:
    """An evaluation's last batch has a shape of its own, which is not worth that; the user's setting comes back."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", before)
    asking = Asking()
    trainer = Trainer(nn.Sequential(small_network(), asking), digits, PLAIN)
    trainer.run_epoch()
    assert asking.training_asked == {True}
    assert before in asking.other_asked
    assert torch.backends.cudnn.benchmark is before


# Not yet run: no GPU was at hand.

GRAPHED = replace(EVERYTHING, restart_from_best=False, epochs=12, batch_size=32, precision="fp32")


def trained(digits: Dataset, recipe: Recipe, **options: Any) -> tuple[Trainer, list[Any]]:
    trainer = Trainer(small_network(dropout=0.3), digits.for_network(1, 8, "cuda"), recipe, seed=1, **options)
    return trainer, list(trainer.epochs())


@needs_gpu
@pytest.mark.parametrize("optimizer", ["nag", "sgd", "adamw"])
def test_a_graph_trains_as_the_kernels_one_by_one(digits: Dataset, optimizer: Any) -> None:
    recipe = replace(GRAPHED, optimizer=optimizer, lr=0.003 if optimizer == "adamw" else 0.05)
    graphed, graph_epochs = trained(digits, recipe)
    eager, eager_epochs = trained(digits, recipe, graph=False)
    assert graphed.graphed
    assert not eager.graphed
    # rounding, and dropout's other draws
    assert graph_epochs[-1].loss == pytest.approx(eager_epochs[-1].loss, rel=0.1)
    assert graph_epochs[-1].validation_accuracy == pytest.approx(eager_epochs[-1].validation_accuracy, abs=0.02)
    assert [epoch.lr for epoch in graph_epochs] == [epoch.lr for epoch in eager_epochs]


@needs_gpu
def test_a_graph_follows_the_learning_rate(digits: Dataset) -> None:
    """With a rate of almost nothing from the third epoch on, the weights stay where they are."""
    recipe = replace(GRAPHED, schedule="step", milestones=(6,), gamma=1e-6, weight_decay=0.0, ema=0.0)
    trainer = Trainer(small_network(), digits.for_network(1, 8, "cuda"), recipe)
    for _ in range(6):
        trainer.run_epoch()
    assert trainer.graphed
    before = trainer.network[0].weight.detach().clone()  # type: ignore[index]
    trainer.run_epoch()
    assert torch.allclose(trainer.network[0].weight, before, atol=1e-4)  # type: ignore[index]


@needs_gpu
def test_a_graphed_training_goes_on(digits: Dataset) -> None:
    first, _ = trained(digits, GRAPHED.with_epochs(6))
    assert first.graphed
    state = first.state_dict()
    assert all(isinstance(group["lr"], float) for group in state["optimizer"]["param_groups"])
    second = Trainer(small_network(), digits.for_network(1, 8, "cuda"), GRAPHED.with_epochs(6), seed=1)
    second.load_state_dict(state)
    assert second.done
    assert second.evaluate("validation") == first.evaluate("validation")


@needs_gpu
def test_memory_comes_back_with_the_trainer(digits: Dataset) -> None:
    trained(digits, GRAPHED)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    for _ in range(3):
        trained(digits, GRAPHED)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before


@needs_gpu
def test_a_step_that_cannot_be_captured_goes_on_without(digits: Dataset) -> None:
    network = nn.Sequential(small_network(), Curious())
    trainer = Trainer(network, digits.for_network(1, 8, "cuda"), replace(PLAIN, batch_size=32))
    epochs = list(trainer.epochs())
    assert not trainer.graphed
    assert len(curve(epochs)) == 4

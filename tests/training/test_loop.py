from __future__ import annotations

import io
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_networks import small_network

from nas.blocks.layers import channels_last_
from nas.errors import UserError
from nas.training.augment import Draws
from nas.training.data import Dataset, PartName
from nas.training.evaluate import evaluate
from nas.training.failures import DivergedError, EpochTimeoutError, OutOfTimeError
from nas.training.loop import Epoch, Trainer
from nas.training.optimizer import build_optimizer, xavier_
from nas.training.precision import autocast_dtype
from nas.training.recipe import RECIPES, Recipe, steps_per_epoch

PLAIN = Recipe(lr=0.05, epochs=4, batch_size=64, warmup_epochs=1)
EVERYTHING = replace(
    PLAIN, label_smoothing=0.1, pad=1, flip="alternating", cutout=0.3, mixup=0.2, ema=0.9, restart_from_best=True
)


def curve(epochs: list[Epoch]) -> list[tuple[float, ...]]:
    return [(epoch.loss, epoch.train_accuracy, epoch.validation_accuracy, epoch.lr) for epoch in epochs]


def test_digits_are_learned(digits: Dataset, network: nn.Module) -> None:
    epochs = list(Trainer(network, digits, PLAIN).epochs())
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3, 4]
    assert epochs[-1].validation_accuracy > 0.95
    assert epochs[-1].loss < 0.2
    assert evaluate(network, digits, "test").accuracy > 0.95


@pytest.mark.parametrize("epochs", [1, 2])
def test_one_epoch_equals_a_plain_loop(digits: Dataset, epochs: int) -> None:
    """Our loop against torch's optimizer and loss, written out; same order of images, no augmentation.

    In all epochs but the last, BatchNorm is then recalibrated.
    """
    recipe = replace(PLAIN, optimizer="nag", epochs=epochs, warmup_epochs=0.5, label_smoothing=0.1, precision="fp32")
    trained, plain = small_network(), small_network()
    orders = []

    class Spy(Trainer):
        def _step(self, draws: Draws) -> None:
            orders.append(draws.order.clone())
            super()._step(draws)

    epoch = Spy(trained, digits, recipe).run_epoch()
    assert len(orders) == 1222 // 64

    decayed = [p for p in plain.parameters() if p.ndim > 1]
    free = [p for p in plain.parameters() if p.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 5e-4}, {"params": free, "weight_decay": 0.0}],
        lr=0.05,
        momentum=0.9,
        nesterov=True,
    )
    losses = []
    plain.train()
    batches = [(digits.train.images[order].float() / 255 - digits.mean[0]) / digits.std[0] for order in orders]
    for step, (order, batch) in enumerate(zip(orders, batches, strict=True)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate(step / len(orders))
        loss = F.cross_entropy(plain(batch), digits.train.labels[order], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert epoch.loss == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    if epochs > 1:
        recalibrate(plain, batches[-4:])
    for ours, theirs in zip(trained.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.allclose(ours.float(), theirs.float(), rtol=1e-2, atol=2e-3)  # rounding, grown over 19 steps


def recalibrate(network: nn.Module, batches: list[Tensor]) -> None:
    """Mean and variance of all that goes into each BatchNorm over these batches, as its statistics."""
    seen: dict[nn.BatchNorm2d, list[Tensor]] = {}
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.register_forward_pre_hook(lambda norm, given: seen.setdefault(norm, []).append(given[0]))
    with torch.no_grad():
        for batch in batches:
            network(batch)
    for norm, given in seen.items():
        norm.running_mean, norm.running_var = torch.cat(given).mean((0, 2, 3)), torch.cat(given).var((0, 2, 3))
        norm.num_batches_tracked = torch.tensor(len(given))


QAT = replace(PLAIN, qat=0.5, ema=0.9)


@pytest.mark.parametrize("recipe", [PLAIN, EVERYTHING, QAT, replace(PLAIN, optimizer="adamw", lr=0.003)])
@pytest.mark.parametrize("stop", [1, 3])
def test_going_on_equals_never_having_stopped(digits: Dataset, recipe: Recipe, stop: int) -> None:
    recipe = replace(recipe, schedule="step", milestones=(2,)) if recipe.restart_from_best else recipe
    whole = Trainer(small_network(dropout=0.3), digits, recipe, seed=3)
    expected = curve(list(whole.epochs()))

    first = Trainer(small_network(dropout=0.3), digits, recipe, seed=3)
    got = [epoch for _, epoch in zip(range(stop), first.epochs(), strict=False)]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    torch.rand(17)  # the global state is no part of it
    second = Trainer(small_network(dropout=0.3, seed=99), digits, recipe, seed=3)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.epoch == stop
    got += list(second.epochs())

    assert curve(got) == expected
    assert (second.accuracy, second.best_accuracy) == (whole.accuracy, whole.best_accuracy)
    for name, value in whole.evaluated_network.state_dict().items():
        assert torch.equal(value, second.evaluated_network.state_dict()[name]), name


def test_a_seed_repeats_and_another_differs(digits: Dataset) -> None:
    curves = [
        curve(list(Trainer(small_network(dropout=0.3), digits, EVERYTHING.with_epochs(2), seed=seed).epochs()))
        for seed in (1, 1, 2)
    ]
    assert curves[0] == curves[1]
    assert curves[0] != curves[2]


def test_the_global_random_state_is_left_alone(digits: Dataset) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Trainer(small_network(dropout=0.3), digits, EVERYTHING).run_epoch()
    assert torch.equal(torch.get_rng_state(), before)


def test_state_is_a_copy(digits: Dataset, network: nn.Module) -> None:
    trainer = Trainer(network, digits, PLAIN)
    trainer.run_epoch()
    state = trainer.state_dict()
    before = state["network"]["0.weight"].clone()
    trainer.run_epoch()
    assert torch.equal(state["network"]["0.weight"], before)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.update(seed=9),
        lambda state: state.update(recipe=RECIPES["han"].to_dict()),
        lambda state: state["network"].pop("0.weight"),
        lambda state: state.pop("generator"),
        lambda state: state.update(optimizer={}),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    digits: Dataset, network: nn.Module, spoil: Callable[[dict[str, Any]], Any]
) -> None:
    trainer = Trainer(network, digits, PLAIN)
    state = trainer.state_dict()
    spoil(state)
    with pytest.raises(UserError, match="the saved training") as caught:
        trainer.load_state_dict(state)
    assert "\n" not in str(caught.value)


def test_han_restarts_each_step_from_the_best(digits: Dataset, network: nn.Module) -> None:
    trainer = Trainer(network, digits, RECIPES["han"].with_epochs(6))
    accuracies: list[float] = []
    for epoch in trainer.epochs():
        accuracies.append(epoch.validation_accuracy)
        if epoch.epoch in (2, 4, 6):
            assert trainer.accuracy == trainer.best_accuracy == max(accuracies)
            assert trainer.evaluate("validation").accuracy == max(accuracies)
    assert trainer.done


def test_only_the_last_epochs_compute_as_int8(digits: Dataset) -> None:
    plain = curve(list(Trainer(small_network(), digits, PLAIN).epochs()))
    rounded = curve(list(Trainer(small_network(), digits, replace(PLAIN, qat=0.3)).epochs()))
    assert [ours == theirs for ours, theirs in zip(rounded, plain, strict=True)] == [True, True, False, False]
    assert rounded[-1][2] > 0.95
    from_the_start = Trainer(small_network(), digits, replace(PLAIN, qat=1)).run_epoch()
    assert (from_the_start.loss,) != plain[0][:1]
    with pytest.raises(UserError, match="at least 2 epochs"):
        Trainer(small_network(), digits, replace(PLAIN, warmup_epochs=0, epochs=1, qat=0.3))


def test_divergence_is_told(digits: Dataset, network: nn.Module) -> None:
    with torch.no_grad():
        network[0].weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="epoch 1 is nan"):
        Trainer(network, digits, PLAIN).run_epoch()


def test_an_epoch_can_be_timed_out(digits: Dataset, network: nn.Module) -> None:
    with pytest.raises(EpochTimeoutError, match="epoch 1 took over 0 s: step 1 of 19"):
        Trainer(network, digits, PLAIN, epoch_timeout=0.0).run_epoch()


def test_a_training_ends_within_an_epoch_when_its_time_is_over(digits: Dataset, network: nn.Module) -> None:
    trainer = Trainer(network, digits, PLAIN)
    trainer.run_epoch()
    trainer.deadline = time.monotonic()
    with pytest.raises(OutOfTimeError, match=f"step 20 of {19 * PLAIN.epochs}"):
        trainer.run_epoch()


class Hungry(nn.Module):
    """Runs out of memory for batches of more than `limit` images while it trains."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.network = small_network()
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.batches.append(len(x))
            if len(x) > self.limit:
                raise torch.OutOfMemoryError("injected")
        out: Tensor = self.network(x)
        return out


def test_out_of_memory_halves_the_batch_once(digits: Dataset) -> None:
    network = Hungry(limit=40)
    trainer = Trainer(network, digits, replace(PLAIN, precision="fp32"))
    epochs = list(trainer.epochs())
    assert network.batches[:4] == [64, 32, 32, 32]
    assert set(network.batches[1:]) == {32}
    assert epochs[-1].validation_accuracy > 0.95
    assert trainer.state_dict()["parts"] == 2


def test_out_of_memory_at_half_the_batch_too_ends_it(digits: Dataset) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        Trainer(Hungry(limit=20), digits, PLAIN).run_epoch()


def test_accumulated_gradients_are_the_whole_batchs(digits: Dataset) -> None:
    """Without batch normalisation, which sees half a batch at a time, two halves give the gradient of the whole."""
    weights = []
    for parts in (1, 2):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        trainer = Trainer(network, digits, replace(PLAIN, mixup=0.4, label_smoothing=0.1))
        trainer._parts = parts
        trainer.run_epoch()
        weights.append(network[1].weight.detach())
    assert torch.allclose(*weights, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "batch"), list(itertools.product([2, 3, 5, 63, 65, 129, 1222, 50_000], [2, 64, 128]))
)
def test_steps_are_equal_and_use_nearly_every_image(images: int, batch: int) -> None:
    steps, size = steps_per_epoch(images, batch)
    assert 2 <= size <= max(batch, 3)
    assert steps >= 1
    assert 0 <= images - steps * size < max(batch, steps) if images >= 8 * batch else images - steps * size < steps + 1


def test_a_handful_of_images_trains(digits: Dataset) -> None:
    few = replace(digits, train=digits.train.take(torch.arange(3)))
    assert Trainer(small_network(), few, PLAIN).run_epoch().loss > 0
    one = replace(digits, train=digits.train.take(torch.arange(1)))
    with pytest.raises(UserError, match=r"^1 training image: at least 2 are needed$"):
        Trainer(small_network(), one, PLAIN)


@pytest.mark.parametrize("part", ["test", "train"])  # few images, and enough to fold the network for them
def test_evaluate_counts_as_by_hand(digits: Dataset, network: nn.Module, part: PartName) -> None:
    Trainer(network, digits, PLAIN).run_epoch()
    network.train()
    scores = evaluate(network, digits, part, batch=50)
    images, labels = digits.part(part).images, digits.part(part).labels
    assert network.training
    network.eval()
    with torch.no_grad():
        logits = network((images.float() / 255 - digits.mean[0]) / digits.std[0])
    right = logits.argmax(1) == labels
    assert scores.accuracy == int(right.sum()) / len(labels)
    assert torch.equal(scores.hits, right)
    assert len(right) == {"test": 359, "train": 1222}[part]


def test_bf16_trains_as_well(digits: Dataset) -> None:
    results = [
        list(Trainer(small_network(), digits, replace(PLAIN, precision=precision)).epochs())[-1].validation_accuracy
        for precision in ("fp32", "bf16")
    ]
    assert results[1] == pytest.approx(results[0], abs=0.03)


def test_precision_is_chosen_by_device_and_size() -> None:
    cpu = torch.device("cpu")
    assert autocast_dtype("fp32", cpu, 32) is None
    assert autocast_dtype("bf16", cpu, 8) is torch.bfloat16
    assert autocast_dtype("auto", cpu, 8) is None


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("nag", torch.optim.SGD), ("adamw", torch.optim.AdamW)]
)
def test_optimizers(network: nn.Module, name: Any, kind: type[torch.optim.Optimizer]) -> None:
    optimizer = build_optimizer(network, replace(PLAIN, optimizer=name, weight_decay=0.1))
    assert isinstance(optimizer, kind)
    assert optimizer.param_groups[0].get("nesterov", False) is (name == "nag")
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert all(parameter.ndim == 1 for parameter in optimizer.param_groups[1]["params"])
    everything = build_optimizer(network, replace(PLAIN, decay_norm_and_bias=True))
    assert len(everything.param_groups) == 1


def test_average_follows_its_formula(digits: Dataset, network: nn.Module) -> None:
    trainer = Trainer(network, digits, replace(PLAIN, ema=0.5, batch_size=1222))
    start = network[0].weight.detach().clone()
    trainer.run_epoch()
    averaged = trainer.evaluated_network
    assert averaged is not network
    # one step: decay min(0.5, 1 / 10)
    expected = 0.1 * start + 0.9 * network[0].weight.detach()
    assert torch.allclose(averaged[0].weight, expected, atol=1e-6)  # type: ignore[index]
    assert averaged[1].num_batches_tracked == network[1].num_batches_tracked  # type: ignore[index]


def test_xavier_is_torchs(network: nn.Module) -> None:
    xavier_(network, torch.Generator().manual_seed(1))
    expected = nn.init.xavier_uniform_(torch.empty(16, 1, 3, 3), generator=torch.Generator().manual_seed(1))
    assert torch.equal(network[0].weight, expected)
    assert not network[6].bias.any()


def test_channels_last_takes_expert_weights() -> None:
    """A conditional convolution keeps its experts in five dimensions, where `Module.to(memory_format=...)` gives up."""
    module = nn.Module()
    module.experts = nn.Parameter(torch.rand(2, 4, 4, 3, 3))
    module.weight = nn.Parameter(torch.rand(4, 4, 3, 3))
    channels_last_(module)
    assert module.weight.is_contiguous(memory_format=torch.channels_last)

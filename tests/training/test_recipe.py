from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, OneCycleLR

from nas.errors import UserError
from nas.training.recipe import RECIPES, Recipe, load_recipe, steps_per_epoch

STEPS = 7  # per epoch


def reference_rates(scheduler: LRScheduler, count: int, every: int = 1) -> list[float]:
    """The learning rate of each step, the scheduler being asked on every `every`-th."""
    rates = []
    for step in range(count):
        rates.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        if (step + 1) % every == 0:
            scheduler.step()
    return rates


def sgd(lr: float) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(recipe: Recipe) -> list[float]:
    return [recipe.learning_rate(step / STEPS) for step in range(recipe.epochs * STEPS)]


def test_step_schedule_equals_multi_step_lr() -> None:
    recipe = Recipe(schedule="step", lr=0.1, milestones=(3, 5), epochs=8)
    expected = reference_rates(MultiStepLR(sgd(0.1), [3, 5]), 8 * STEPS, every=STEPS)
    assert rates(recipe) == pytest.approx(expected)


def test_cosine_schedule_equals_cosine_annealing_lr() -> None:
    recipe = Recipe(schedule="cosine", lr=0.02, final_lr=0.1, epochs=6)
    expected = reference_rates(CosineAnnealingLR(sgd(0.02), 6 * STEPS, eta_min=0.002), 6 * STEPS)
    assert rates(recipe) == pytest.approx(expected)


def test_one_cycle_schedule_equals_one_cycle_lr() -> None:
    # torch's cycle counts steps from 0 to total - 1, ours to total: give it one step more than is trained
    recipe = Recipe(schedule="one_cycle", lr=0.5, warmup_epochs=2, epochs=8)
    total = 8 * STEPS + 1
    scheduler = OneCycleLR(
        sgd(0.5),
        max_lr=0.5,
        total_steps=total,
        pct_start=(2 * STEPS + 1) / total,
        anneal_strategy="linear",
        cycle_momentum=False,
        final_div_factor=1e9,
    )
    assert rates(recipe) == pytest.approx(reference_rates(scheduler, 8 * STEPS), abs=1e-6)


def test_constant_after_warm_up() -> None:
    recipe = Recipe(schedule="constant", lr=0.5, warmup_epochs=1, epochs=3)
    assert recipe.learning_rate(0) == pytest.approx(0.02)
    assert recipe.learning_rate(0.5) == pytest.approx(0.26)
    assert recipe.learning_rate(1) == recipe.learning_rate(2.9) == 0.5


@pytest.mark.parametrize("name", RECIPES)
def test_presets_survive_yaml(name: str) -> None:
    recipe = load_recipe(name)
    assert Recipe.from_dict(yaml.safe_load(yaml.safe_dump(recipe.to_dict()))) == recipe


def test_han_is_three_steps_of_a_hundred_epochs() -> None:
    han = RECIPES["han"]
    assert [han.learning_rate(epoch) for epoch in (0, 99.9, 100, 199.9, 200, 299.9)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )
    assert (han.epochs, han.batch_size, han.restart_from_best) == (300, 128, True)


def test_hoang_and_kuo_follow_their_papers() -> None:
    hoang, kuo = RECIPES["hoang"], RECIPES["kuo"]
    assert [hoang.learning_rate(epoch) for epoch in (0, 150, 225)] == pytest.approx([0.1, 0.01, 0.001])
    assert (hoang.optimizer, hoang.momentum, hoang.weight_decay) == ("nag", 0.9, 1e-4)
    assert (hoang.epochs, hoang.batch_size, hoang.init) == (320, 128, "xavier")
    assert (kuo.epochs, kuo.warmup_epochs) == (55, 5)
    assert [kuo.learning_rate(epoch) for epoch in (5, 55)] == pytest.approx([0.02, 0.002])


@pytest.mark.parametrize("epochs", [1, 2, 3, 10, 150, 300, 600])
@pytest.mark.parametrize("name", RECIPES)
def test_any_number_of_epochs_makes_a_valid_recipe(name: str, epochs: int) -> None:
    recipe = RECIPES[name].with_epochs(epochs)
    assert recipe.epochs == epochs
    assert all(0 < milestone < epochs for milestone in recipe.milestones)
    assert recipe.warmup_epochs < epochs


def test_with_epochs_scales_in_proportion() -> None:
    assert RECIPES["han"].with_epochs(30).milestones == (10, 20)
    assert RECIPES["hoang"].with_epochs(32).milestones == (15, 22)
    assert RECIPES["kuo"].with_epochs(11).warmup_epochs == pytest.approx(1)
    assert RECIPES["han"].with_epochs(300) == RECIPES["han"]


IMAGES = [2, 20, 100, 255, 425, 500, 850, 1000, 1222, 2000, 4250, 5000, 42_500, 1_281_167]


@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("name", ["search", "train"])
def test_the_batch_is_the_largest_that_leaves_thirty_steps(name: str, images: int) -> None:
    allowed = [size for size in (16, 32, 64, 128) if size <= RECIPES[name].batch_size]
    enough = [size for size in allowed if images // size >= 30]
    batch = RECIPES[name].for_images(images).batch_size
    assert batch == (max(enough) if enough else 16)
    assert RECIPES[name].for_images(images, epochs=7).batch_size == batch


@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("name", ["search", "train"])
def test_epochs_are_as_many_as_the_steps_take(name: str, images: int) -> None:
    recipe = RECIPES[name]
    fitted = recipe.for_images(images)
    per_epoch, _ = steps_per_epoch(images, fitted.batch_size)
    epochs, steps = recipe.epochs, recipe.epochs * per_epoch
    assert recipe.steps is not None
    while steps < recipe.steps:
        epochs, steps = epochs + 1, steps + per_epoch
    assert (fitted.epochs, fitted.all_steps(images)) == (epochs, steps)
    assert fitted.warmup_epochs / fitted.epochs == pytest.approx(recipe.warmup_epochs / recipe.epochs)


def test_epochs_that_are_given_count() -> None:
    assert RECIPES["search"].for_images(100, epochs=3).epochs == 3
    assert RECIPES["train"].for_images(50_000, epochs=9).epochs == 9


@pytest.mark.parametrize("name", ["search", "train"])
@pytest.mark.parametrize(("images", "batch", "lr"), [(500, 16, 0.025), (1000, 32, 0.05), (2000, 64, 0.1)])
def test_a_small_batch_has_a_smaller_learning_rate(name: str, images: int, batch: int, lr: float) -> None:
    fitted = RECIPES[name].for_images(images)
    assert (fitted.batch_size, fitted.lr) == (batch, pytest.approx(lr))
    assert RECIPES[name].for_images(50_000).lr == 0.1


@pytest.mark.parametrize("name", ["han", "hoang", "kuo"])
def test_a_recipe_that_counts_epochs_is_kept(name: str) -> None:
    assert RECIPES[name].for_images(50) == RECIPES[name]
    old = {name: value for name, value in RECIPES["search"].to_dict().items() if name != "steps"}
    assert Recipe.from_dict(old).for_images(50) == RECIPES["search"].with_epochs(9)


def test_a_budget_in_steps_alone() -> None:
    recipe = Recipe.from_dict({"steps": 1000, "batch_size": 64, "warmup_epochs": 0.25})
    fitted = recipe.for_images(6400)
    assert (fitted.epochs, fitted.warmup_epochs, fitted.all_steps(6400)) == (10, 2.5, 1000)
    assert recipe.for_images(640_000).epochs == 1
    assert fitted.for_images(100) == fitted  # worked out once


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"learning_rate": 0.1}, "unknown field 'learning_rate': allowed are optimizer, lr"),
        ({"optimizer": "adam"}, "optimizer 'adam': should be 'sgd', 'nag' or 'adamw'"),
        ({"flip": "vertical"}, "flip 'vertical': should be 'none', 'random' or 'alternating'$"),
        ({"schedule": ["step"]}, "schedule"),
        ({"lr": "1e-3"}, "lr '1e-3'"),
        ({"lr": float("nan")}, "lr nan"),
        ({"lr": True}, "lr True"),
        ({"epochs": 0}, "epochs 0"),
        ({"epochs": 2.5}, "epochs 2.5: should be a valid integer"),
        ({"steps": 0}, "steps 0: should be greater than or equal to 1"),
        ({"steps": 100, "warmup_epochs": 5}, "state it as a part of the training"),
        ({"batch_size": 1}, "batch_size 1: should be greater than or equal to 2"),
        ({"label_smoothing": 1}, "label_smoothing 1"),
        ({"pad": -1}, "pad -1"),
        ({"milestones": [5, 3]}, "must rise"),
        ({"milestones": [500]}, "before epoch"),
        ({"milestones": "3"}, "milestones '3': should be a valid tuple"),
        ({"warmup_epochs": 12}, "less than the 12 epochs"),
        ({"restart_from_best": "yes"}, "restart_from_best 'yes': should be a valid boolean"),
        ([1], "fields and values"),
    ],
)
def test_mistakes_end_in_one_line(document: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Recipe.from_dict(document)
    assert "\n" not in str(caught.value)


def test_unknown_recipe() -> None:
    with pytest.raises(UserError, match="unknown recipe 'hahn': allowed are search, train, han, hoang, kuo"):
        load_recipe("hahn")


def test_augmentation_depends_on_the_data() -> None:
    search = RECIPES["search"]
    assert search.augmentation(resolution=32, flip_safe=True).flip == "alternating"
    assert search.augmentation(resolution=32, flip_safe=False).flip == "none"
    assert search.augmentation(resolution=32, flip_safe=True).pad == 4
    assert search.augmentation(resolution=8, flip_safe=False).pad == 0
    assert replace(search, flip="random").augmentation(resolution=8, flip_safe=False).flip == "random"
    assert replace(search, pad=40).augmentation(resolution=8, flip_safe=False).pad == 7
    assert replace(search, cutout=0.25).augmentation(resolution=32, flip_safe=True).cutout == 8


def test_flip_is_asked_for_in_two_words() -> None:
    """Whatever the data set says of mirrored images; a paper's way of mirroring stays the paper's."""
    for flip_safe in (True, False):
        chosen = {
            flip: RECIPES["search"].with_options(flip=flip).augmentation(resolution=32, flip_safe=flip_safe).flip
            for flip in ("none", "horizontal")
        }
        assert chosen == {"none": "none", "horizontal": "alternating"}
    assert RECIPES["han"].with_options(flip="horizontal").flip == "random"
    assert RECIPES["search"].with_options(flip=None) == RECIPES["search"]
    with pytest.raises(UserError, match="flip 'vertical': allowed are none, horizontal"):
        RECIPES["search"].with_options(flip="vertical")


def test_numbers_of_a_file_are_those_that_people_mean(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("lr: 1e-2\nweight_decay: 5E-4\nepochs: 016\nbatch_size: 08\nmilestones: [0o10, 1_0]\n")
    recipe = load_recipe(str(file))
    assert (recipe.lr, recipe.weight_decay, recipe.epochs, recipe.batch_size) == (0.01, 0.0005, 16, 8)
    assert recipe.milestones == (8, 10)
    file.write_text("warmup_epochs: 1:30\n")
    with pytest.raises(UserError, match="warmup_epochs '1:30'"):
        load_recipe(str(file))

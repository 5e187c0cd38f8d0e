"""A space's supernet: members on slices of its weights, their training, and what is refused."""

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

import nas
from nas.architecture.space import Space
from nas.errors import UserError
from nas.network.build import build
from nas.network.supernet import unexpanding_of
from nas.targets import TARGETS
from nas.training.data import load_dataset
from nas.training.evaluator import TrainingEvaluator
from nas.training.members import draw_members, largest, smallest
from nas.training.recipe import RECIPES, Recipe
from nas.training.supernet import SupernetTrainer, TrainedSupernet, new_supernet

STAGES = {
    "inverted_residual": "expansion: {choice: [1, 3]}, kernels: {choice: [[3], [3, 5]]}, se_ratio: {choice: [0, 0.25]}",
    "bottleneck": "expansion: {choice: [0.25, 0.5]}, kernels: {choice: [[3], [5]]}, experts: {choice: [1, 2]}",
    "depthwise_separable": "kernels: {choice: [[3], [3, 5]]}, combine: {choice: [add, concat]}",
    "conv": "kernel: {choice: [1, 3]}",
    "fire": "",
}


def space_of(block: str, options: str) -> Space:
    more = f", {options}" if options else ""
    return Space(
        yaml.safe_load(f"""
name: tiny
input: {{channels: 1, resolution: 8}}
width: {{choice: [0.5, 1.0]}}
stem: {{channels: 16}}
stages:
  - {{block: {block}, channels: 16, repeats: {{choice: [1, 3]}}, stride: {{choice: [1, 2]}}{more}}}
  - {{block: {block}, channels: {{choice: [16, 32]}}, stride: {{choice: [1, 2]}}{more}}}
head: {{channels: {{choice: [0, 24]}}}}
""")
    )


TINY = space_of("inverted_residual", STAGES["inverted_residual"])


@pytest.mark.parametrize("block", STAGES)
def test_a_member_computes_what_the_built_network_with_its_weights_does(block):
    space = space_of(block, STAGES[block])
    torch.manual_seed(0)
    supernet = new_supernet(space, 3).eval()
    images, rng = torch.randn(4, 1, 8, 8), np.random.default_rng(0)
    for _ in range(6):
        member = space.sample(rng)
        built = build(member, 3)
        built.load_state_dict(supernet.weights_of(member))
        assert torch.allclose(supernet(images, member), built.eval()(images), atol=1e-5)
    whole = supernet.network(images)
    assert torch.allclose(supernet(images, largest(space)), whole, atol=1e-5)


def test_a_member_trains_the_channels_that_it_has_and_no_others():
    torch.manual_seed(0)
    supernet = new_supernet(TINY, 3).train()
    member = smallest(TINY)
    supernet(torch.randn(8, 1, 8, 8), member).square().sum().backward()
    gradient = supernet.network.stem[0].weight.grad
    trained = gradient.flatten(1).abs().sum(1) > 0
    assert int(trained.sum()) == member.stem_channels == 8
    assert supernet.network.head[0].weight.grad is None  # the smallest has no head


def test_a_step_takes_at_most_twice_the_memory_of_the_largest_member_s():
    space = space_of("inverted_residual", STAGES["inverted_residual"] + ", experts: {choice: [1, 4]}")
    supernet, images = new_supernet(space, 10), torch.randn(32, 1, 8, 8)
    alone = build(largest(space), 10)
    most = peak_bytes(lambda: alone(images).square().sum().backward())
    for member in (largest(space), smallest(space), space.sample(0)):
        assert peak_bytes(lambda member=member: supernet(images, member).square().sum().backward()) < 2 * most


def peak_bytes(step: Callable[[], None]) -> int:
    """Of what torch allocates in a step, gradients included."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def test_members_without_expansion_have_layers_of_their_own():
    """Their depthwise convolutions read the stream: as slices of the others, either kind spoils the other."""
    torch.manual_seed(0)
    supernet = new_supernet(TINY, 3).train()
    images, parameters = torch.randn(8, 1, 8, 8), TINY.parameters(largest(TINY))
    names = [name for name in parameters if name.endswith("expansion")]
    trained = []
    for expansion in (1, 3):
        supernet.network.zero_grad()
        member = TINY.architecture({**parameters, **dict.fromkeys(names, expansion)})
        supernet(images, member).square().sum().backward()
        trained.append({name for name, weight in supernet.network.named_parameters() if weight.grad is not None})
    direct, expanding = ({name for name in each if "body" in name} for each in trained)
    assert direct and expanding and direct.isdisjoint(expanding)
    older = {name: weight for name, weight in supernet.network.state_dict().items() if not name.startswith("direct")}
    assert unexpanding_of(older) == [] and unexpanding_of(supernet.network.state_dict()) == [0, 1, 2, 3]


def test_the_largest_and_the_smallest_are_extreme_in_every_choice():
    costs = [nas.cost(TINY.sample(seed), 3) for seed in range(50)]
    for name in ("params", "macs"):
        figures = [getattr(each, name) for each in costs]
        assert getattr(nas.cost(largest(TINY), 3), name) >= max(figures) > min(figures)
        assert getattr(nas.cost(smallest(TINY), 3), name) <= min(figures)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("width", {0.5: 20, 1.0: 80}),
        ("stages[0].repeats", {1: 20, 3: 80}),
        ("stages[1].channels", {16: 20, 32: 80}),
        ("stages[0].expansion", {1: 50, 3: 50}),  # without expansion a block has weights of its own
        ("head.channels", {0: 50, 24: 50}),  # and without a head the classifier
        ("stages[0].stride", {1: 50, 2: 50}),  # the same weights
    ],
)
def test_larger_options_train_more_often(choice, expected):
    members = draw_members(TINY, 100, np.random.default_rng(0))
    met = Counter(TINY.parameters(member)[choice] for member in members)
    assert met == pytest.approx(expected, abs=1)
    assert len({member.id for member in members}) > 60


def test_no_weight_is_left_to_rare_members():
    """In a fifth of the steps each one learns; of uniformly drawn members few have the last channels of all choices."""
    supernet = new_supernet(TINY, 3)
    rng = np.random.default_rng(0)

    def rarest(members: list[nas.Architecture]) -> float:
        learnt = [torch.zeros_like(weight) for weight in supernet.network.parameters()]
        for member in members:
            supernet.network.zero_grad()
            sum(tensor.sum() for tensor in supernet.weights_of(member).values() if tensor.requires_grad).backward()
            for count, weight in zip(learnt, supernet.network.parameters(), strict=True):
                count += 0 if weight.grad is None else weight.grad != 0
        return min(float(count.min()) for count in learnt) / len(members)

    assert rarest(draw_members(TINY, 200, rng)) > 0.2
    assert rarest([TINY.sample(rng) for _ in range(200)]) < 0.1


@pytest.mark.slow
def test_training_teaches_large_and_small_members_and_goes_on_bit_for_bit():
    data = load_dataset("digits", train_size=400)
    recipe = replace(RECIPES["search"].for_images(len(data.train), epochs=3), lr=0.1)
    images = data.for_network(1, 8, "cpu")
    trainer = SupernetTrainer(TINY, images, recipe, seed=1)
    trainer.run_epoch()
    state = trainer.state_dict()
    *_, last = trainer.epochs()
    again = SupernetTrainer(TINY, images, recipe, seed=1)
    again.load_state_dict(state)
    *_, repeated = again.epochs()
    assert repeated.validation_accuracy == last.validation_accuracy > 0.3
    pairs = zip(again.network.parameters(), trainer.network.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    trained = TrainedSupernet(trainer.supernet, data)
    assert trained.judge(smallest(TINY)).accuracy > 0.2  # ten classes


def test_bfloat16_trains_as_float32_does():
    data = load_dataset("digits", train_size=200).for_network(1, 8, "cpu")
    trainers = [SupernetTrainer(TINY, data, Recipe(epochs=1, batch_size=32, precision=p)) for p in ("fp32", "bf16")]
    exact, rounded = [trainer.run_epoch().loss for trainer in trainers]
    assert rounded == pytest.approx(exact, rel=0.02) and rounded != exact
    assert all(weight.isfinite().all() for weight in trainers[1].network.parameters())


def test_images_are_resized_once_for_all_members():
    data = load_dataset("digits", train_size=50)
    space = TINY.with_input(channels=3, resolution=12)
    trained = TrainedSupernet(new_supernet(space, 10), data)
    first, second = [trained.recalibrated(space.sample(seed))[1] for seed in (0, 1)]
    assert first.train.images.shape == (50, 3, 12, 12) and first is second


@pytest.mark.slow
def test_on_an_int8_target_a_member_is_judged_as_its_file_would_be():
    pytest.importorskip("onnxruntime")
    from nas.export.shipping import ship

    data = load_dataset("digits", train_size=600)
    recipe = RECIPES["search"].for_images(len(data.train), epochs=2)
    trainer = SupernetTrainer(TINY, data.for_network(1, 8, "cpu"), recipe, seed=1)
    for _ in trainer.epochs():
        pass
    target = TARGETS["onnxruntime-int8:per-tensor"]  # which rounds most
    trained = TrainedSupernet(trainer.supernet, data, target)
    evaluator = TrainingEvaluator(data, recipe)
    simulated, fp32 = [], []
    for seed in range(2):
        member = TINY.sample(seed)
        network, images = trained.recalibrated(member)
        saved = replace(evaluator.checkpoint(member, trainer), weights=network.state_dict())
        file = ship(target, saved, images).judge(images, "validation").probabilities
        simulated.append((trained.judge(member).probabilities - file).abs().mean())
        fp32.append((replace(trained, target=TARGETS["torch"]).judge(member).probabilities - file).abs().mean())
    assert sum(simulated) < 0.7 * sum(fp32)  # of the likeliest class


def test_what_is_no_member_is_refused_in_one_line():
    supernet = new_supernet(TINY, 3)
    wide = nas.Architecture.from_dict({**largest(TINY).to_dict(), "width": 2.0})
    with pytest.raises(UserError, match=r"stem\.channels: 32 channels, the parent has 16"):
        supernet.weights_of(wide)
    other = space_of("conv", STAGES["conv"]).sample(0)
    with pytest.raises(UserError, match=r"stages\[0\]\.block"):
        supernet.weights_of(other)

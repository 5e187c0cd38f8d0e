import itertools

import numpy as np
import pytest

from nas.driver.stopping import FEWEST_STEPS, DominanceStopping, first_rung, rungs, survives
from nas.training.recipe import RECIPES, steps_per_epoch


@pytest.mark.parametrize(
    ("epochs", "first", "expected"),
    [
        (16, 1, (1, 2, 4, 8)),
        (9, 1, (1, 2, 4)),
        (2, 1, (1,)),
        (1, 1, ()),
        (18, 2, (2, 4, 8)),
        (15, 2, (2, 4)),
        (9, 3, (3,)),
        (9, 4, (4,)),
        (9, 5, ()),
        (3, 3, ()),
    ],
)
def test_rungs_double_while_half_of_the_budget_is_left(epochs, first, expected):
    assert rungs(epochs, first) == expected


def test_few_steps_say_nothing():
    assert [first_rung(steps) for steps in (1, 15, 16, 31, 32, 390)] == [32, 3, 2, 2, 1, 1]


@pytest.mark.parametrize("images", [20, 100, 255, 425, 500, 1222, 5000, 50_000])
def test_a_search_has_rungs_however_few_images(images):
    recipe = RECIPES["search"].for_images(images)
    steps, _ = steps_per_epoch(images, recipe.batch_size)
    levels = rungs(recipe.epochs, first_rung(steps))
    assert len(levels) >= 2
    assert levels[0] * steps >= FEWEST_STEPS


def fronts_by_definition(points):
    """Non-dominated sorting as its definition reads, point by point."""
    left = set(range(len(points)))
    ranks = {}
    for rank in itertools.count():
        front = {
            i
            for i in left
            if not any(np.all(points[j] <= points[i]) and np.any(points[j] < points[i]) for j in left if j != i)
        }
        ranks |= dict.fromkeys(front, rank)
        left -= front
        if not left:
            break
    return ranks


@pytest.mark.parametrize("seed", range(30))
def test_a_better_front_is_never_stopped_for_a_worse_one(seed):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 6, (12, 3)).astype(float)
    ranks = fronts_by_definition(points)
    kept = [i for i in range(12) if survives(points[i], np.delete(points, i, axis=0), 3)]
    stopped = [i for i in range(12) if i not in kept]
    assert kept
    assert all(ranks[k] <= ranks[s] for k in kept for s in stopped)


def test_one_in_three_goes_on():
    points = [(float(i), float(i)) for i in range(9)]  # a chain: each dominates the next
    kept = [i for i, own in enumerate(points) if survives(own, points[:i] + points[i + 1 :], 3)]
    assert kept == [0, 1, 2]


def test_the_first_at_a_rung_goes_on():
    assert survives((0.9, 5.0), [], 3)


def test_what_nothing_dominates_goes_on_however_many_they_are():
    front = [(float(i), -float(i)) for i in range(9)]
    assert all(survives(own, [other for other in front if other != own], 3) for own in front)


def test_a_small_network_of_low_accuracy_survives():
    large = [(-0.90 - i / 1000, 2e6 + i) for i in range(8)]
    small = (-0.60, 1e5)
    assert survives(small, large, 3)


def test_comparison_by_accuracy_alone_would_have_stopped_it():
    large = [(-0.90 - i / 1000,) for i in range(8)]
    assert not survives((-0.60,), large, 3)


def test_trials_are_compared_at_equal_epochs_only():
    rule = DominanceStopping(levels=(2,), reduction=2)
    assert not rule.stops(0, 1, (-0.1, 1.0))  # no rung
    assert not rule.stops(0, 2, (-0.5, 1.0))  # the first one there
    assert not rule.stops(1, 1, (-0.9, 2.0))
    assert rule.stops(1, 2, (-0.4, 2.0))  # worse than trial 0 was at epoch 2, in both


def test_a_rebuilt_rule_decides_the_same():
    rng = np.random.default_rng(0)
    reports = [(trial, epoch, tuple(rng.random(2))) for trial in range(20) for epoch in (1, 2)]
    live = DominanceStopping(levels=(1, 2), reduction=3)
    decisions = [live.stops(*report) for report in reports]
    rebuilt = DominanceStopping(levels=(1, 2), reduction=3)
    for report in reports[:20]:
        rebuilt.record(*report)
    assert [rebuilt.stops(*report) for report in reports[20:]] == decisions[20:]
